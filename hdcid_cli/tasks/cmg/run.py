"""From annotations and what a probe reads to records."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import write_text
from hdcid_cli.core.modalities import letter
from hdcid_cli.core.names import recording
from hdcid_cli.core.progress import say, warn
from hdcid_cli.core.records import result
from hdcid_cli.core.splits import left_out
from hdcid_cli.tasks.annotations import identity
from hdcid_cli.tasks.annotations.clips import Annotations
from hdcid_cli.tasks.cmg.protocol import ProbeSettings, Task
from hdcid_cli.tasks.cmg.reading import Reading
from hdcid_cli.tasks.cmg.scores import LOCALIZATION
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.cmg.timelines import refuse_others
from hdcid_cli.tasks.cmg.timelines import timelines as draw
from hdcid_cli.tasks.cmg.trial import Outcome, Trial
from hdcid_cli.tasks.metrics import Score

# So many oddities of the annotations are told; the rest is counted.
TOLD = 5
DEFAULTS = ProbeSettings()


@dataclass(frozen=True)
class AnnotatedTask:
    """A task with the annotations of what is learned on and of what is tested on; `left_out` are the groups to test,
    where groups are left out.
    """

    task: Task
    source: Annotations
    target: Annotations
    left_out: str | None = None

    @property
    def problems(self) -> list[str]:
        """What is odd in the files."""
        return list(dict.fromkeys(self.source.problems + self.target.problems))


def read_task(name: str, data: Path, train: str, test: str, leave_out: str | None = None) -> list[AnnotatedTask]:
    """The tasks of that name that can be put in one direction, with their annotations.

    Args:
        data: the folder of annotations, or a table of one's own.
        train, test: full names of modalities.
        leave_out: groups to test, all of whose clips are kept from the probe (`core.splits.left_out`).

    Raises:
        InputError: none can: words have no seconds, or files are missing or broken.
    """
    groups = left_out(data, leave_out) if leave_out else None
    found = []
    for task in TASKS[name]:
        if task.kind == LOCALIZATION and "text" in (train, test):
            if len(TASKS[name]) > 1:
                continue
            raise InputError(f"{name} asks what happens in each second, and words have no seconds: use v and a.")
        source, target = task.read(data, train, test)
        if task.kind == LOCALIZATION:
            source, target = source.timed, target.timed
            if not source.clips or not target.clips:
                say(
                    f"{name}: there are no times of events (labels/ID.zip or columns onset, offset), so clips are "
                    "classified and events not localised."
                )
                continue
        if groups:
            source, target = source.leaving_out(groups), target.leaving_out(groups)
        found.append(AnnotatedTask(task, source, target, leave_out))
    return found


def run_task(
    tasks: Sequence[AnnotatedTask],
    reading: Reading,
    settings: ProbeSettings = DEFAULTS,
    seeds: Sequence[int] = (0,),
    per_class: bool = False,
    strict: bool = False,
    timelines: Path | None = None,
    device: str = "auto",
) -> Iterator[dict]:
    """Probe once a seed and yield the records, the papers' metric first.

    Args:
        tasks: as `read_task` gives them.
        reading: as `read_codes` or `read_features` gives it.
        per_class: add the scores of every class.
        strict: raise InputError where the annotations are odd or clips have no features, instead of a warning.
        timelines: write true and predicted events of the tested clips there.
    """
    complain = _refuse if strict else warn
    drawn: list[dict] = []
    if timelines and not any(part.task.kind == LOCALIZATION for part in tasks):
        raise InputError(
            f"Clips are classified here, and no events localised: there is nothing to write to {timelines}."
        )
    if timelines:
        refuse_others(timelines, _question(tasks[0], reading, seeds[0]))
    if settings.published and any(part.left_out for part in tasks):
        raise InputError("The published protocol leaves no groups out: --leave-out goes with --protocol heldout.")
    for part in tasks:
        _tell_problems(part.problems, complain)
        trial = Trial(part.task, part.source, part.target, reading, settings, device, complain)
        tested = _tested(part, trial, trial.tested.ids)
        if tested["n_pretrained"] and not settings.published:
            say(
                f"{tested['n_pretrained']} of the {tested['n']} tested clips were among those that the model was "
                "pretrained on, without labels; `hdcid pretrain` leaves out those that a table in --data is to test."
            )
        if trial.noisy:
            say(
                f"The encoder's dropout is on while the probe learns: {len(trial.fit)} clips are encoded in each of "
                f"{trial.schedule.epochs} epochs (--no-encoder-dropout encodes them once)."
            )
        for seed in seeds:
            outcome = trial.probe(seed)
            fields = _fields(part, trial, outcome) | tested
            for score in outcome.scores:
                yield _record(fields, score, trial.chances) | _per_class(score, part.source if per_class else None)
            further = outcome.further
            for score in further.scores:
                yield _record(fields | _tested(part, trial, further.clips), score, further.chances)
            if timelines and part.task.kind == LOCALIZATION and seed == seeds[0]:
                classes, seconds = part.source.classes, reading.test.seconds
                drawn += draw(trial.tested.ids, outcome.answers, classes, seconds, fields)
    if timelines:
        write_text(timelines, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in drawn))


def _question(part: AnnotatedTask, reading: Reading, seed: int) -> dict:
    """What one file of timelines is of."""
    model = {name: reading.model.get(name) for name in ("method", "checkpoint", "toc", "layers_used")}
    train, test = letter(reading.train.modality), letter(reading.test.modality)
    return {"task": part.task.name, "train": train, "test": test, "seed": seed, **model}


def _fields(part: AnnotatedTask, trial: Trial, outcome: Outcome) -> dict:
    """What all records of one probe have in common."""
    reading = trial.reading
    return {
        "task": part.task.name,
        "train": letter(reading.train.modality),
        "test": letter(reading.test.modality),
        "data": identity.data_set(part.source, part.target),
        "data_digest": identity.digest(part.source, part.target),
        "features_digest": reading.test.digest,
        "seed": outcome.seed,
        "epoch": outcome.epoch,
        "probe_epochs": trial.schedule.epochs,
        "encoder_dropout": reading.dropout if trial.noisy else 0.0,
        "n_fit": len(trial.fit),
        "n_choose": len(trial.choose or ()),
        **({"left_out": part.left_out} if part.left_out else {}),
        **reading.model,
    }


def _tested(part: AnnotatedTask, trial: Trial, clips: Sequence[str]) -> dict:
    """How many clips were tested, how many of them are of recordings that the model was pretrained on, and what that
    makes of the protocol.
    """
    seen = {recording(name) for name in trial.reading.pretrained}
    pretrained = sum(recording(name) in seen for name in clips)
    protocol = [trial.settings.protocol]
    if part.left_out:
        protocol.append(f"{part.left_out} left out")
    if pretrained and not trial.settings.published:
        protocol.append("seen in pretraining")
    return {"protocol": ", ".join(protocol), "n": len(clips), "n_pretrained": pretrained}


def _record(fields: dict, score: Score, chances: Mapping[str, float]) -> dict:
    return result(
        **fields, metric=score.name, value=score.value, interval=score.interval, chance=chances.get(score.name)
    )


def _per_class(score: Score, annotations: Annotations | None) -> dict:
    """{"per_class": {class: value}}, or nothing where that is not wanted or known."""
    if annotations is None or score.per_class is None:
        return {}
    named = zip((*annotations.classes, "background"), score.per_class)
    return {"per_class": {label: float(value) if value == value else None for label, value in named}}


def _tell_problems(problems: Sequence[str], complain: Callable[[str], None]) -> None:
    """Say what is odd in the annotations; with --strict the first oddity ends the run."""
    for problem in problems[:TOLD]:
        complain(f"{problem}.")
    if len(problems) > TOLD:
        complain(f"the annotations have {len(problems) - TOLD} more such lines.")


def _refuse(message: str) -> None:
    raise InputError(message[0].upper() + message[1:])
