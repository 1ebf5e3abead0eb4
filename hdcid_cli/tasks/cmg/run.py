"""From files to records: opens annotations, features and checkpoint for a task, and runs it."""

import json
from collections.abc import Iterator
from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import open_features
from hdcid_cli.core.files import write_text
from hdcid_cli.core.modalities import letter
from hdcid_cli.core.progress import say, warn
from hdcid_cli.core.records import result
from hdcid_cli.tasks.annotations.clips import Annotations
from hdcid_cli.tasks.annotations.llp import video_id
from hdcid_cli.tasks.cmg.inputs import code_inputs, feature_inputs
from hdcid_cli.tasks.cmg.parsing import parsing
from hdcid_cli.tasks.cmg.tasks import LOCALISATION, TASKS, Outcome, Settings, Task, evaluate
from hdcid_cli.tasks.cmg.timelines import timelines as draw

# So many oddities of the annotations are told; the rest is counted.
TOLD = 5


def run_task(
    name: str,
    train: str,
    test: str,
    data: Path,
    features: Path,
    test_features: Path | None = None,
    checkpoint: Path | None = None,
    checkpoints: Path = Path("checkpoints"),
    protocol: str = "heldout",
    supervised: bool = False,
    toc: str = "stored",
    layers_used: int | None = None,
    epochs: int | None = None,
    batch_size: int = 80,
    lr: float | None = None,
    seed: int = 0,
    seeds: int = 1,
    per_class: bool = False,
    strict: bool = False,
    timelines: Path | None = None,
    device: str = "auto",
) -> Iterator[dict]:
    """Run one task in one direction and yield its records, the papers' metric first.

    Args are those of `hdcid cmg`; `train` and `test` are full names of modalities.
    """
    settings = Settings(protocol, epochs, batch_size, lr, supervised)
    if supervised and train != test:
        raise InputError(
            f"A supervised probe reads raw features, so it is tested on what it learns on: --train {letter(test)} "
            f"--test {letter(test)}."
        )
    complain = _error if strict else warn
    drawn = []
    for task in TASKS[name]:
        if task.kind == LOCALISATION and "text" in (train, test):
            if len(TASKS[name]) > 1:
                continue
            raise InputError(f"{name} asks what happens in each second, and words have no seconds: use v and a.")
        source, target = task.read(data, train, test)
        if task.kind == LOCALISATION:
            source, target = source.timed, target.timed
            if not source.clips or not target.clips:
                say(
                    f"{name}: there are no times of events (labels/ID.zip or columns onset, offset), so clips are "
                    "classified and events not localised."
                )
                continue
        _tell_problems(source, target, complain)
        inputs, model, pretrained = _open_inputs(
            task,
            train,
            test,
            features,
            test_features or features,
            checkpoint,
            checkpoints,
            device,
            toc,
            layers_used,
            supervised,
        )
        for outcome in evaluate(task, settings, source, target, *inputs, range(seed, seed + seeds), device, complain):
            fields = (
                _fields(task, settings, train, test, outcome) | model | {"n_pretrained": _seen(outcome, pretrained)}
            )
            if protocol == "heldout" and fields["n_pretrained"] and outcome.seed == seed:
                say(
                    f"{fields['n_pretrained']} of the {fields['n']} tested clips were among those that the model was "
                    "pretrained on, without labels."
                )
            for each in outcome.scores:
                record = result(
                    **fields,
                    metric=each.name,
                    value=each.value,
                    interval=each.interval,
                    chance=outcome.chances[each.name],
                )
                if per_class and each.per_class is not None:
                    record["per_class"] = {
                        label: _finite(value) for label, value in zip((*source.classes, "background"), each.per_class)
                    }
                yield record
            if name == "avvp" and {train, test} == {"audio", "video"}:
                scores, clips = parsing(
                    task, settings, outcome, {train: source, test: target}, dict(zip((train, test), inputs))
                )
                for each in scores:
                    yield result(**fields | {"n": clips}, metric=each.name, value=each.value, interval=each.interval)
            if timelines and task.kind == LOCALISATION and outcome.seed == seed:
                drawn += draw(outcome, source.classes, inputs[1].seconds, fields)
    if timelines:
        if not drawn:
            raise InputError(f"{name} localises no events, so there is nothing to write to {timelines}.")
        write_text(timelines, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in drawn))


def _fields(task: Task, settings: Settings, train: str, test: str, outcome: Outcome) -> dict:
    """What all records of one probe have in common."""
    return {
        "task": task.name,
        "train": letter(train),
        "test": letter(test),
        "n": len(outcome.tested),
        "protocol": settings.protocol,
        "seed": outcome.seed,
        "epoch": outcome.epoch,
        "n_fit": len(outcome.fit),
        "n_choose": len(outcome.choose or ()),
    }


def _open_inputs(
    task: Task,
    train: str,
    test: str,
    features,
    test_features,
    checkpoint,
    checkpoints,
    device,
    toc,
    layers_used,
    supervised,
):
    """(what is learned on and what is tested on), the fields of a record that say of which model it is, the clips that
    it was pretrained on.
    """
    files = {train: open_features(features, train)}
    same = train == test and test_features == features
    second = files[train] if same else open_features(test_features, test)
    backbone = {"backbone": second.backbone}
    if supervised:
        first = feature_inputs(files[train])
        model = {
            "method": "supervised",
            "layers": None,
            "quantizer": None,
            "codebook": None,
            "toc": None,
            "checkpoint": None,
        }
        return (first, first if same else feature_inputs(second)), model | backbone, set()
    from hdcid_cli.codes.checkpoint import open_checkpoint
    from hdcid_cli.codes.toc import resolve_toc

    opened = open_checkpoint(checkpoint, checkpoints, device)
    levels = len(opened.codebooks)
    if layers_used is not None and layers_used > levels:
        raise InputError(f"{opened.path} has {levels} layers of codes: --layers-used {layers_used} cannot be read.")
    selection = resolve_toc(toc, opened, task.name, train)
    first = code_inputs(opened, files[train], selection, layers_used)
    inputs = (first, first if same else code_inputs(opened, second, selection, layers_used))
    model = opened.describe() | {
        "layers_used": layers_used or levels,
        "toc": selection.label if selection else "none",
    }
    if selection and toc == "stored":
        model["toc_criterion"] = opened.toc["criterion"]
    return inputs, model | backbone, opened.clips


def _seen(outcome: Outcome, pretrained: set[str]) -> int:
    """How many of the tested clips the model was pretrained on."""
    return sum(name in pretrained or video_id(name) in pretrained for name in outcome.tested.ids)


def _tell_problems(source: Annotations, target: Annotations, complain) -> None:
    """Say what is odd in the annotations; with --strict the first oddity ends the run."""
    problems = list(dict.fromkeys(source.problems + target.problems))
    for problem in problems[:TOLD]:
        complain(f"{problem}.")
    if len(problems) > TOLD:
        complain(f"the annotations have {len(problems) - TOLD} more such lines.")


def _error(message: str) -> None:
    raise InputError(message[0].upper() + message[1:])


def _finite(value: float) -> float | None:
    return float(value) if value == value else None
