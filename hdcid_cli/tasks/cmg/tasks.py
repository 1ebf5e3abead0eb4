"""Cross-modal generalisation: a probe learns on one modality and is tested on another (method.md, "Tasks").

A task says what is annotated, which decoder learns, and which metric the papers give. A
protocol says which clips the probe learns on, how its best epoch is chosen, and which clips
it is tested on:

heldout    learn on the training split, choose the epoch on the validation split in the
           modality learned on, test once on the test split.
published  as the released code does: no validation, the epoch is the best one on the very
           clips that are reported; for AVE these are the clips learned on, in the other modality.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.annotations import ave, ave2avvp, llp, own, ucf2vgg, vggsound
from hdcid_cli.tasks.annotations.clips import Annotations, Clip, divide, segment_labels
from hdcid_cli.tasks.cmg.inputs import Inputs

CLASSIFICATION, LOCALISATION = "classification", "localisation"
PROTOCOLS = ("heldout", "published")
# On few clips the published 50 or 100 epochs are too few steps to learn anything.
LEAST_STEPS = 500
# The published rate, for codes. A supervised probe reads standardised features, which take a larger
# one, and its hidden layer has a width of its own; on codes it is as wide as they are, as published.
LR = 4e-4
SUPERVISED_LR, SUPERVISED_HIDDEN = 2e-3, 256


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: as on the command line and in records.
        kind: classification (one class a clip) or localisation (events of each segment).
        metric: the papers' metric, reported first; also what the published protocol chooses by.
        choice: the metric by which the held-out protocol chooses the epoch.
        read: (data folder, modality learned on, modality tested on) -> their annotations.
        published: the splits that the published protocol learns and tests on, None for all clips.
        epochs: as published.
    """

    name: str
    kind: str
    metric: str
    choice: str
    read: Callable[[Path, str, str], tuple[Annotations, Annotations]]
    published: tuple[str | None, str | None]
    epochs: int


def _twice(read: Callable[[Path], Annotations]):
    def both(data: Path, train: str, test: str) -> tuple[Annotations, Annotations]:
        annotations = read(data)
        return annotations, annotations

    return both


def _ucf2vgg(data: Path, train: str, test: str) -> tuple[Annotations, Annotations]:
    by_modality = {"video": ucf2vgg.read_ucf, "audio": ucf2vgg.read_vggsound}
    for modality in (train, test):
        if modality not in by_modality:
            raise InputError("ucf2vgg has video (of UCF-101) and audio (of VGGSound), no text.")
    return by_modality[train](data), by_modality[test](data)


def _classification(name: str, read, published=("train", "test")) -> Task:
    return Task(name, CLASSIFICATION, "precision", "precision", read, published, 50)


def _localisation(name: str, metric: str, choice: str, read, published=("train", "test")) -> Task:
    return Task(name, LOCALISATION, metric, choice, read, published, 100)


# Precision alone likes answers that are few: the held-out protocol chooses by F1 where several events may be right.
TASKS: dict[str, tuple[Task, ...]] = {
    "ave": (_classification("ave", _twice(ave.read), ("train", "train")),),
    "avvp": (
        _localisation(
            "avvp",
            "accuracy",
            "f1",
            lambda data, train, test: (llp.read(data, train), llp.read(data, test)),
            (None, None),
        ),
    ),
    "ave2avvp": (
        _localisation("ave2avvp", "f1", "f1", lambda data, train, test: ave2avvp.read(data, test), (None, None)),
    ),
    "ucf2vgg": (_classification("ucf2vgg", _ucf2vgg, (None, None)),),
    "vggsound": (
        _classification("vggsound", _twice(vggsound.read)),
        _localisation("vggsound", "segment_accuracy", "segment_accuracy", _twice(vggsound.read)),
    ),
    "classify": (_classification("classify", _twice(lambda data: own.read(data, "classify"))),),
    "localise": (_localisation("localise", "f1", "f1", _twice(lambda data: own.read(data, "localise"))),),
}


@dataclass
class Splits:
    """Clips to learn on, to choose the epoch on, and to test on (no choice set: choose on the test clips)."""

    fit: list[Clip]
    choose: list[Clip] | None
    test: list[Clip]


def split_clips(task: Task, protocol: str, source: Annotations, target: Annotations) -> Splits:
    """The clips of each part under a protocol.

    Held out, nothing of a recording that is tested on is learned on, whatever the files say
    (8 videos of AVE are in two splits). Where the files have no validation split, or
    none but that one to learn on (LLP), a fifth of the recordings is set aside for choosing.
    """
    if protocol == "published":
        fit, test = (
            [clip for clip in annotations.clips if split is None or clip.split in (split, None)]
            for annotations, split in zip((source, target), task.published)
        )
        return Splits(_some(fit, source, "learn from"), None, _some(test, target, "test on"))
    unsplit = all(clip.split is None for clip in target.clips)
    test = _some([clip for clip in target.clips if unsplit or clip.split == "test"], target, "test on")
    tested = {clip.group for clip in test}
    rest = [clip for clip in source.clips if clip.group not in tested]
    unsplit = all(clip.split is None for clip in source.clips)
    fit = [clip for clip in rest if unsplit or clip.split == "train"]
    choose = [clip for clip in rest if clip.split == "val"]
    if not fit or not choose:
        fit, choose = divide(_some(fit or choose, source, "learn from"))
    return Splits(fit, choose or fit, test)


def _some(clips: list[Clip], annotations: Annotations, purpose: str) -> list[Clip]:
    if not clips:
        raise InputError(
            f"{annotations.source} leaves no clips to {purpose}: say which clips are train, val and test, there or in "
            "split.csv beside it."
        )
    return clips


@dataclass(frozen=True)
class Settings:
    """How to probe.

    Args:
        protocol: heldout or published.
        epochs: None for the task's own number, held out at least as many as LEAST_STEPS take.
        lr: None for LR or SUPERVISED_LR.
        supervised: the inputs are raw features: standardise them, and use a narrow hidden layer.
    """

    protocol: str = "heldout"
    epochs: int | None = None
    batch_size: int = 80
    lr: float | None = None
    supervised: bool = False


def schedule_for(task: Task, settings: Settings, clips: int):
    """The probe's schedule; held out, the rate is halved after 20, 40 and 60 % of the epochs (10, 20, 30 of 50)."""
    from hdcid_cli.tasks.cmg.probe import Schedule

    lr = settings.lr or (SUPERVISED_LR if settings.supervised else LR)
    if settings.protocol == "published":
        return Schedule(settings.epochs or task.epochs, settings.batch_size, lr)
    steps = -(-clips // settings.batch_size)
    epochs = settings.epochs or max(task.epochs, -(-LEAST_STEPS // steps))
    return Schedule(epochs, settings.batch_size, lr, tuple(round(epochs * part) for part in (0.2, 0.4, 0.6)))


def make_samples(
    task: Task, clips: Sequence[Clip], inputs: Inputs, classes: Sequence[str], masked: bool, missing: list[str]
):
    """Gather inputs and labels of the clips that have features.

    Args:
        masked: leave out the segments past a clip's own length (the published code does not).
        missing: names of clips without features are added here.
    """
    import torch

    from hdcid_cli.tasks.cmg.probe import Samples

    found, rows, absent = inputs.match(clips, classes)
    missing += [name for name in absent if name not in missing]
    if not found:
        names = ", ".join(clip.id for clip in clips[:3])
        raise InputError(
            f"{inputs.source} has none of the {len(clips)} clips that {task.name} needs (such as {names}): extract "
            "their features."
        )
    steps = inputs.shape[0]
    length = inputs.length[rows] if masked else np.full(len(rows), steps)
    valid = np.arange(steps) < length[:, None]
    if task.kind == CLASSIFICATION:
        labels = torch.tensor([clip.label for clip in found])
    else:
        labels = torch.from_numpy(segment_labels(found, len(classes), steps, inputs.seconds))
    return Samples([clip.id for clip in found], torch.from_numpy(inputs.read(rows)), labels, torch.from_numpy(valid))


def probe_once(task: Task, settings: Settings, classes: Sequence[str], fit, choose, test, seed: int):
    """Learn on `fit`, choose the epoch on `choose` (None: on `test`), answer `test`.

    Args:
        fit, choose, test: `probe.Samples` on the device.

    Returns:
        the trained probe and the number of its epoch.
    """
    from hdcid_cli.tasks.cmg import probe as probes
    from hdcid_cli.tasks.metrics import headline

    schedule = schedule_for(task, settings, len(fit))
    width = fit.inputs.shape[-1]
    probe, loss = probes.new_probe(
        task.kind, width, SUPERVISED_HIDDEN if settings.supervised else width, len(classes), seed
    )
    if settings.supervised:
        probes.standardise(probe, fit)
    judged, metric, batch = (
        (choose, task.choice, None) if choose is not None else (test, task.metric, settings.batch_size)
    )
    truth, valid = judged.labels.cpu().numpy(), judged.valid.cpu().numpy()

    def judge(candidate) -> float:
        return headline(metric, probes.predict(candidate, judged), truth, valid, batch)

    probe, epoch, _ = probes.fit(probe, loss, fit, schedule, seed, judge)
    return probe, epoch


def score(task: Task, settings: Settings, logits: np.ndarray, samples) -> list:
    """All scores of the task, the papers' metric first."""
    from hdcid_cli.tasks.metrics import classification_scores, localisation_scores

    labels, valid = samples.labels.cpu().numpy(), samples.valid.cpu().numpy()
    if task.kind == CLASSIFICATION:
        found = classification_scores(logits, labels)
    else:
        batch = settings.batch_size if settings.protocol == "published" else None
        found = localisation_scores(logits, labels, valid, batch=batch)
    return sorted(found, key=lambda each: each.name != task.metric)


def blind_logits(task: Task, fit, test) -> np.ndarray:
    """The best answer that does not look at its input: the same for every clip, chosen on the labels of `fit`.

    For classification the most frequent class. For localisation the most frequent entries,
    as many of them as make the task's metric largest on `fit`.
    """
    from hdcid_cli.tasks.metrics import headline

    labels = fit.labels.cpu().numpy()
    if task.kind == CLASSIFICATION:
        counts = np.bincount(labels, minlength=int(max(labels.max(), test.labels.max())) + 1)
        return np.tile(counts / counts.sum(), (len(test), 1))
    valid = fit.valid.cpu().numpy()
    rates = labels[valid].mean(0)
    thresholds = np.unique(rates)[::-1]
    margins = [
        rates - (np.append(thresholds, thresholds[-1] - 1)[[at, at + 1]]).mean() for at in range(len(thresholds))
    ]
    best = max(margins, key=lambda margin: headline(task.metric, np.broadcast_to(margin, labels.shape), labels, valid))
    return np.tile(best, (*test.labels.shape[:2], 1))


@dataclass
class Outcome:
    """What one probe answered.

    Attributes:
        seed, epoch: of the probe, and the epoch that was chosen.
        probe: the trained decoder.
        logits: [n, classes] or [n, T, classes + 1], its answers on `tested`.
        fit, choose, tested: the clips learned on, chosen on (None: the tested ones), answered.
        scores: the papers' metric first.
        chances: {metric: score of the best answer that does not look at its input}.
    """

    seed: int
    epoch: int
    probe: object
    logits: np.ndarray
    fit: object
    choose: object
    tested: object
    scores: list
    chances: dict[str, float]


def evaluate(
    task: Task,
    settings: Settings,
    source: Annotations,
    target: Annotations,
    train: Inputs,
    test: Inputs,
    seeds: Sequence[int],
    device: str,
    warn: Callable[[str], None],
) -> Iterator[Outcome]:
    """Probe once a seed.

    Args:
        source, target: annotations of what is learned on and of what is tested on.
        train, test: what the probe reads of the modality learned on and of the one tested on.
        warn: told which clips are left out because they have no features.
    """
    from hdcid_cli.core.device import resolve_device
    from hdcid_cli.tasks.cmg.probe import predict

    parts = split_clips(task, settings.protocol, source, target)
    masked = settings.protocol != "published"
    where = resolve_device(device)
    missing: dict[str, list[str]] = {train.source: [], test.source: []}

    def samples(clips: Sequence[Clip], inputs: Inputs):
        return make_samples(task, clips, inputs, source.classes, masked, missing[inputs.source]).to(where)

    fit, tested = samples(parts.fit, train), samples(parts.test, test)
    choose = None if parts.choose is None else samples(parts.choose, train)
    if fit.inputs.shape[-1] != tested.inputs.shape[-1]:
        raise InputError(
            f"{train.source} and {test.source} have {fit.inputs.shape[-1]} and {tested.inputs.shape[-1]} numbers "
            "a segment: "
            "features of one backbone are needed to learn and to test on."
        )
    for name, absent in missing.items():
        if absent:
            warn(
                f"{name} has no features of {len(absent)} annotated clips, which are left out: "
                f"{', '.join(absent[:5])}{', ...' * (len(absent) > 5)}."
            )
    chances = {each.name: each.value for each in score(task, settings, blind_logits(task, fit, tested), tested)}
    for seed in seeds:
        probe, epoch = probe_once(task, settings, source.classes, fit, choose, tested, seed)
        logits = predict(probe, tested)
        yield Outcome(seed, epoch, probe, logits, fit, choose, tested, score(task, settings, logits, tested), chances)
