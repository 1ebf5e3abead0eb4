"""How a task is put: which clips a probe learns on, chooses by and is tested on, and for how long it learns.

heldout     learn on the train split, choose the epoch on the validation split in the same modality, report the test
            split once
published   as the released code does: choose the best epoch on what is tested
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.settings import Settings, setting
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, Annotations, divide
from hdcid_cli.tasks.cmg.inputs import Inputs
from hdcid_cli.tasks.cmg.openset import SCORES
from hdcid_cli.tasks.cmg.scores import CLASSIFICATION, LOCALIZATION, Answers
from hdcid_cli.tasks.metrics import Score

PROTOCOLS = ("heldout", "published")
# On few clips the published 50 or 100 epochs are too few steps to learn anything.
LEAST_STEPS = 500
# The published rate learns AVE in 2,000 steps and LLP in more. In LEAST_STEPS it hardly begins: an F1 of 47 where four
# times the steps, or this rate, get 91.
LR = 2e-3
PUBLISHED_LR = 4e-4
# Raw features are wide and clips few: a ceiling that learned its clips by heart would be none.
SUPERVISED_DROPOUTS = (0.0, 0.5)


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: as on the command line and in records.
        kind: `scores.CLASSIFICATION` (one class a clip) or `scores.LOCALIZATION` (events of each segment).
        summary: what it asks, in a few words.
        metric: the papers' metric, reported first; also what the published protocol chooses by.
        choice: the metric by which the held-out protocol chooses the epoch.
        read: (data folder, modality learned on, modality tested on) -> their annotations.
        published: the splits that the published protocol learns and tests on, None for all clips.
        epochs: as published.
        open_published, open_epochs: the same two of an open set.
        more: further scores of its own, which may look at both modalities.
    """

    name: str
    kind: str
    summary: str
    metric: str
    choice: str
    read: Callable[[Path, str, str], tuple[Annotations, Annotations]]
    published: tuple[str | None, str | None] = ("train", "test")
    epochs: int = 50
    open_published: tuple[str | None, str | None] = ("train", "test")
    open_epochs: int = 25
    more: "Callable[[Probed], Further] | None" = None


@dataclass(frozen=True)
class Probed:
    """A trained probe, as a task's own further scores see it.

    Attributes:
        answer: (clips, their inputs) -> the probe's answers, in order; all of the clips have inputs.
        blind: {metric: the blind answer to it}.
        tested: {modality: the clips that it is tested on}.
        inputs: {modality: what a probe reads}.
        classes: their names.
    """

    answer: Callable[[Sequence[AnnotatedClip], Inputs], Answers]
    blind: Mapping[str, np.ndarray]
    tested: Mapping[str, Sequence[AnnotatedClip]]
    inputs: Mapping[str, Inputs]
    classes: Sequence[str]


@dataclass(frozen=True)
class Further:
    """A task's own further scores, with the chance of each and the names of the clips that they are of."""

    scores: Sequence[Score] = ()
    chances: Mapping[str, float] = field(default_factory=dict)
    clips: Sequence[str] = ()


@dataclass(frozen=True)
class ProbeSettings(Settings):
    """How to probe.

    `epochs` None is the task's own number, held out at least as many as LEAST_STEPS take; `lr` None is LR or
    PUBLISHED_LR; `encoder_dropout` None is as the protocol does; `dropout` None chooses among SUPERVISED_DROPOUTS.
    """

    protocol: str = setting(
        "heldout",
        "heldout: choose the epoch on validation clips, report test clips never learned on. published: as the released "
        "code does.",
        choices=PROTOCOLS,
    )
    epochs: int | None = setting(
        None,
        "Epochs of the decoder; by default 50 to classify and 100 to localise, held out at least 500 steps.",
        least=1,
        most=10**6,
    )
    batch_size: int = setting(80, "Clips a step.", least=1, most=10**6)
    lr: float | None = setting(
        None, "Adam's rate; by default 2e-3, and 4e-4 with --protocol published.", above=0, most=100
    )
    encoder_dropout: bool | None = setting(
        None,
        "Encode anew every epoch with the encoder's dropout, so that a clip has other codes each time, as the released "
        "code does. By default with --protocol published alone.",
    )
    classifier: str = setting(
        "max",
        "What names the class of a clip: two linear layers with the maximum over its segments between them, as "
        "published, or with their mean.",
        choices=("max", "mean"),
    )
    localizer: str = setting(
        "linear",
        "What finds the events of a segment: two linear layers on it alone, as published, or a temporal convolutional "
        "network that reads its neighbours too.",
        choices=("linear", "tcn"),
    )
    threshold: str = setting(
        "half",
        "An event is found where its probability is above one half, as published, or above what gets the largest F1 "
        "on validation clips.",
        choices=("half", "chosen"),
    )
    dropout: float | None = setting(
        None,
        "Of the decoder's hidden layer; by default 0, and with --supervised 0 or 0.5, whichever does better "
        "on validation clips.",
        least=0,
        most=0.95,
    )
    open_set: str | None = setting(
        None,
        "Only the first K classes (or those named, with commas between) are known: clips of all others should be "
        "rejected.",
        metavar="K|NAMES",
    )
    keep: float = setting(0.95, "Share of known validation clips that an open set's threshold keeps.", above=0, most=1)
    score: str = setting(
        "softmax",
        "How sure the probe is: largest softmax, largest logit, or energy (logsumexp of the logits).",
        choices=tuple(SCORES),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.published and self.threshold == "chosen":
            raise InputError("The published protocol has no validation clips: --threshold chosen goes with heldout.")

    def task(self, task: Task) -> Task:
        """The task as it is put to a probe: published, of an open set, on other clips and for other epochs."""
        if self.open_set is None or not self.published:
            return task
        return replace(task, published=task.open_published, epochs=task.open_epochs)

    def probe(self, kind: str) -> tuple[str, str]:
        """Which setting says what decodes a kind of task, and its value."""
        name = {CLASSIFICATION: "classifier", LOCALIZATION: "localizer"}[kind]
        return name, getattr(self, name)

    @property
    def published(self) -> bool:
        """Whether all is done as the released code does it."""
        return self.protocol == "published"

    @property
    def noisy(self) -> bool:
        """Whether the encoder's dropout is on while the probe learns."""
        return self.published if self.encoder_dropout is None else self.encoder_dropout


@dataclass(frozen=True)
class Schedule:
    """How a probe learns; the defaults are the published ones.

    Attributes:
        epochs: how often it sees every clip.
        milestones: epochs after which the rate is halved, as published for 50 and 100 epochs alike.
        clip: largest norm of the decoder's gradient.
    """

    epochs: int = 50
    batch_size: int = 80
    lr: float = PUBLISHED_LR
    milestones: tuple[int, ...] = (10, 20, 30)
    clip: float = 0.5


def schedule_for(task: Task, settings: ProbeSettings, clips: int, supervised: bool = False, start: int = 0) -> Schedule:
    """The probe's schedule; held out, the rate is halved after 20, 40 and 60 % of the epochs (10, 20, 30 of 50).

    Args:
        clips: how many it learns on.
        start: the epoch after that of an imported checkpoint: the released scripts count the probe's from there.
    """
    lr = settings.lr or (PUBLISHED_LR if settings.published and not supervised else LR)
    if settings.published:
        return Schedule(settings.epochs or max(1, task.epochs - start), settings.batch_size, lr)
    steps = -(-clips // settings.batch_size)
    epochs = settings.epochs or max(task.epochs, -(-LEAST_STEPS // steps))
    return Schedule(epochs, settings.batch_size, lr, tuple(round(epochs * part) for part in (0.2, 0.4, 0.6)))


@dataclass
class Splits:
    """Clips to learn on, to choose the epoch on, and to test on (no choice set: choose on the test clips)."""

    fit: list[AnnotatedClip]
    choose: list[AnnotatedClip] | None
    test: list[AnnotatedClip]


def split_clips(task: Task, protocol: str, source: Annotations, target: Annotations) -> Splits:
    """The clips of each part under a protocol.

    Held out, nothing of a recording that is tested on is learned on, whatever the files say
    (8 videos of AVE are in two splits). Where the files have no validation split, or
    none but that one to learn on (LLP), a fifth of the recordings is set aside for choosing.
    """
    test = tested_clips(task, protocol, target)
    if protocol == "published":
        return Splits(_some(_published(source, task.published[0]), source, "learn from"), None, test)
    tested = {clip.group for clip in test}
    rest = [clip for clip in source.clips if clip.group not in tested]
    unsplit = all(clip.split is None for clip in source.clips)
    fit = [clip for clip in rest if unsplit or clip.split == "train"]
    choose = [clip for clip in rest if clip.split == "val"]
    if not fit or not choose:
        fit, choose = divide(_some(fit or choose, source, "learn from"))
    return Splits(fit, choose or fit, test)


def tested_clips(task: Task, protocol: str, target: Annotations) -> list[AnnotatedClip]:
    """The clips that are tested on; all of them where the files name no splits."""
    if protocol == "published":
        return _some(_published(target, task.published[1]), target, "test on")
    unsplit = all(clip.split is None for clip in target.clips)
    return _some([clip for clip in target.clips if unsplit or clip.split == "test"], target, "test on")


def _published(annotations: Annotations, split: str | None) -> list[AnnotatedClip]:
    return [clip for clip in annotations.clips if split is None or clip.split in (split, None)]


def _some(clips: list[AnnotatedClip], annotations: Annotations, purpose: str) -> list[AnnotatedClip]:
    if not clips:
        raise InputError(
            f"{annotations.source} leaves no clips to {purpose}: say which clips are train, val and test, there or in "
            "split.csv beside it."
        )
    return clips
