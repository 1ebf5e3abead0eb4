"""From annotations and what a probe reads to records."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import write_text
from hdcid_cli.core.modalities import letter
from hdcid_cli.core.names import count_of_recordings
from hdcid_cli.core.progress import counted, say, warn
from hdcid_cli.core.records import CURVES_SCHEMA, TIMELINE_SCHEMA, open_set_curves, result, with_seen
from hdcid_cli.core.settings import tell_idle
from hdcid_cli.core.splits import left_out
from hdcid_cli.tasks.annotations import identity
from hdcid_cli.tasks.annotations.clips import Annotations
from hdcid_cli.tasks.cmg.openset import curves as open_curves
from hdcid_cli.tasks.cmg.openset import known_classes
from hdcid_cli.tasks.cmg.probe import published_probe
from hdcid_cli.tasks.cmg.protocol import ProbeSettings, Task
from hdcid_cli.tasks.cmg.reading import Reading
from hdcid_cli.tasks.cmg.scores import CLASSIFICATION, LOCALIZATION
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.cmg.timelines import PROBED, refuse_others
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
        InputError: none can: there is no such task, words have no seconds, or files are missing or broken.
    """
    if name not in TASKS:
        raise InputError(f"There is no task {name!r}; there are {', '.join(TASKS)}.")
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


@dataclass(frozen=True)
class Drawings:
    """Files that a run writes beside its records, for the pictures of `report`.

    Attributes:
        timelines: true and predicted events of the tested clips, where they are localised.
        curves: of an open set, histograms of scores and the OSCR curve.
    """

    timelines: Path | None = None
    curves: Path | None = None


NOTHING_DRAWN = Drawings()


def run_task(
    tasks: Sequence[AnnotatedTask],
    reading: Reading,
    settings: ProbeSettings = DEFAULTS,
    seeds: Sequence[int] = (0,),
    per_class: bool = False,
    strict: bool = False,
    drawings: Drawings = NOTHING_DRAWN,
    device: str = "auto",
) -> Iterator[dict]:
    """Probe once a seed and yield the records, the papers' metric first.

    Args:
        tasks: as `read_task` gives them.
        reading: as `read_codes` or `read_features` gives it.
        per_class: add the scores of every class.
        strict: raise InputError where the annotations are odd or clips have no features, instead of a warning.
        drawings: of the first seed.
    """
    complain = _refuse if strict else warn
    tasks = _classifying(tasks) if settings.open_set is not None else tasks
    _check_drawings(drawings, tasks, settings)
    for path, schema in ((drawings.timelines, TIMELINE_SCHEMA), (drawings.curves, CURVES_SCHEMA)):
        if path:
            refuse_others(path, schema, _question(_drawn(schema, tasks), reading, settings, seeds[0]))
    if settings.published and any(part.left_out for part in tasks):
        raise InputError("The published protocol leaves no groups out: --leave-out goes with --protocol heldout.")
    _tell_idle(settings, {part.task.kind for part in tasks}, reading.supervised)
    timelines: list[dict] = []
    curves: list[dict] = []
    for part in tasks:
        _tell_problems(part.problems, complain)
        trial = Trial(part.task, part.source, part.target, reading, settings, device, complain)
        tested = _tested(part, trial, trial.tested.ids)
        _tell_trial(trial, tested, part.left_out)
        for seed in seeds:
            outcome = trial.probe(seed)
            fields = _fields(part, trial, outcome) | tested
            for score in outcome.scores:
                yield _record(fields, score, outcome.chances) | _per_class(score, part.source if per_class else None)
            further = outcome.further
            for score in further.scores:
                yield _record(fields | _tested(part, trial, further.clips), score, further.chances)
            if seed != seeds[0]:
                continue
            if part.task.kind == LOCALIZATION and drawings.timelines:
                classes, seconds = part.source.classes, reading.test.seconds
                timelines += draw(trial.tested.ids, outcome.answers, classes, seconds, fields)
            if outcome.opened is not None and drawings.curves:
                curves.append(open_set_curves(**open_curves(outcome.opened), **fields))
    for path, lines in ((drawings.timelines, timelines), (drawings.curves, curves)):
        if path:
            write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in lines), named=True)


def _classifying(tasks: Sequence[AnnotatedTask]) -> list[AnnotatedTask]:
    """The tasks that can be put with an open set."""
    found = [part for part in tasks if part.task.kind == CLASSIFICATION]
    if not found:
        names = ", ".join(name for name, (task, *_) in TASKS.items() if task.kind == CLASSIFICATION)
        raise InputError(f"An open set is of clips that have one class each: {names}.")
    return found


def _check_drawings(drawings: Drawings, tasks: Sequence[AnnotatedTask], settings: ProbeSettings) -> None:
    """Raise InputError where there would be nothing to draw."""
    if drawings.timelines and not any(part.task.kind == LOCALIZATION for part in tasks):
        raise InputError(
            f"Clips are classified here, and no events localised: there is nothing to write to {drawings.timelines}."
        )
    if drawings.curves and settings.open_set is None:
        raise InputError(
            f"All classes are known here: there is nothing to write to {drawings.curves} without --open-set."
        )


def _tell_idle(settings: ProbeSettings, kinds: Collection[str], supervised: bool) -> None:
    """Say which settings were chosen that make no difference."""
    if CLASSIFICATION not in kinds:
        tell_idle(settings, ["classifier"], "no clips are classified here")
    if LOCALIZATION not in kinds:
        tell_idle(settings, ["localizer", "threshold"], "no events are localised here")
    if settings.open_set is None:
        tell_idle(settings, ["score", "keep"], "all classes are known here, without --open-set")
    elif settings.published:
        tell_idle(settings, ["keep"], "the published protocol chooses the threshold on what is tested")
    if supervised:
        tell_idle(settings, ["encoder_dropout"], "a supervised probe reads features, which no encoder makes")


def _tell_trial(trial: Trial, tested: Mapping, left_out: str | None) -> None:
    """Say what makes the results look better than they are, and what takes long."""
    if tested["n_pretrained"] and not trial.settings.published:
        option = f" --leave-out '{left_out}'" if left_out else ""
        say(
            f"The model was pretrained on {tested['n_pretrained']} of {counted(tested['n'], 'tested clip')}, without "
            f"labels; `hdcid pretrain{option}` leaves out what tables in --data are to test."
        )
    if trial.noisy:
        say(
            f"The encoder's dropout is on while the probe learns: in every epoch of {trial.schedule.epochs} it encodes "
            f"{counted(len(trial.fit), 'clip')} anew (--no-encoder-dropout encodes once)."
        )


def _drawn(schema: str, tasks: Sequence[AnnotatedTask]) -> AnnotatedTask:
    """The task that a file of drawings is of."""
    kind = LOCALIZATION if schema == TIMELINE_SCHEMA else CLASSIFICATION
    return next(part for part in tasks if part.task.kind == kind)


def _question(part: AnnotatedTask, reading: Reading, settings: ProbeSettings, seed: int) -> dict:
    """What one file of drawings is of."""
    model = {name: reading.model.get(name) for name in ("method", "checkpoint", "toc", "layers_used")}
    train, test = letter(reading.train.modality), letter(reading.test.modality)
    found = {"task": part.task.name, "train": train, "test": test, "seed": seed, **model}
    found["protocol"] = _protocol(settings, part)
    found |= dict.fromkeys(PROBED) | _decoding(settings, part.task.kind)
    if settings.open_set is not None:
        known = [part.source.classes[number] for number in known_classes(settings.open_set, part.source.classes)]
        found |= _opening(settings) | {"open_set": len(known), "known": known}
    return found


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
        "epoch": outcome.learned.epoch,
        "probe_epochs": trial.schedule.epochs,
        "probe_lr": trial.schedule.lr,
        "encoder_dropout": reading.dropout if trial.noisy else 0.0,
        "n_fit": len(trial.fit),
        "n_choose": len(trial.choose or ()),
        **({"left_out": part.left_out} if part.left_out else {}),
        **_probe_fields(trial, outcome),
        **_open_fields(trial, outcome),
        **reading.model,
    }


def _tested(part: AnnotatedTask, trial: Trial, clips: Sequence[str]) -> dict:
    """How many clips were tested, how many of them are of recordings that the model was pretrained on, and what that
    makes of the protocol.
    """
    pretrained = count_of_recordings(clips, trial.reading.pretrained)
    protocol = with_seen(_protocol(trial.settings, part), pretrained)
    return {"protocol": protocol, "n": len(clips), "n_pretrained": pretrained}


def _protocol(settings: ProbeSettings, part: AnnotatedTask) -> str:
    return settings.protocol + (f", {part.left_out} left out" if part.left_out else "")


def _probe_fields(trial: Trial, outcome: Outcome) -> dict:
    """What a record says of a probe that is not the published one."""
    found: dict = {}
    settings, supervised = trial.settings, trial.reading.supervised
    if outcome.learned.dropout or supervised:
        found["probe_dropout"] = outcome.learned.dropout
    if settings.dropout or (supervised and settings.dropout is not None):
        found["dropout"] = settings.dropout
    if settings.batch_size != DEFAULTS.batch_size:
        found["probe_batch_size"] = settings.batch_size
    found |= _decoding(settings, trial.task.kind)
    if "decision" in found:
        found["threshold"] = outcome.threshold
    return found


def _decoding(settings: ProbeSettings, kind: str) -> dict:
    """What decodes a kind of task, and how it decides, where that is not as published."""
    name, probe = settings.probe(kind)
    found = {} if probe == published_probe(kind) else {name: probe}
    return found | ({"decision": "chosen"} if kind == LOCALIZATION and settings.threshold == "chosen" else {})


def _opening(settings: ProbeSettings) -> dict:
    """By what clips of an open set are rejected."""
    return {"score": settings.score, "keep": None if settings.published else settings.keep}


def _open_fields(trial: Trial, outcome: Outcome) -> dict:
    """What a record says of an open set; nothing where all classes are known."""
    if outcome.opened is None:
        return {}
    return {
        "open_set": len(trial.known),
        "known": list(trial.known),
        "n_unknown": int((~outcome.opened.known).sum()),
        **_opening(trial.settings),
        "threshold": outcome.threshold,
    }


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
