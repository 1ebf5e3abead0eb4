"""What every annotation reader returns, and the label tensors made of it."""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.splits import HeldOut

# Labels of segments take clips x segments x classes numbers; the largest data set here has 141 classes.
MOST_CLASSES = 10_000

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class AnnotatedEvent:
    """One event of a clip: its class and its interval [onset, offset) in seconds."""

    label: int
    onset: float
    offset: float


@dataclass(slots=True)
class AnnotatedClip:
    """One annotated clip.

    Attributes:
        id: the clip's name, as the feature files should know it.
        split: train, val, test, or None where the files do not say.
        label: class of the whole clip, or None where it has several events or none.
        events: what happens in it, an empty list if it is background all along, None if nobody said when.
        group: clips of one group come from one recording: they stay on one side of a division, and are drawn
            together by the bootstrap.
        line: where the file names it.
    """

    id: str
    split: str | None = None
    label: int | None = None
    events: list[AnnotatedEvent] | None = field(default_factory=list)
    group: str = ""
    line: int = 0

    def __post_init__(self):
        self.group = self.group or self.id


@dataclass
class Annotations:
    """The clips of one data set.

    Attributes:
        source: the file that names the clips.
        classes: class names; the labels of clips and events are positions in it.
        clips: in the order of the file.
        problems: what is odd in the files, each a sentence with file and line.
        whole: all that was read, where these are a part of it.
    """

    source: Path
    classes: tuple[str, ...]
    clips: list[AnnotatedClip]
    problems: list[str] = field(default_factory=list)
    whole: "Annotations | None" = None

    def __post_init__(self):
        if len(self.classes) > MOST_CLASSES:
            raise InputError(
                f"{self.source} has {len(self.classes):,} classes, and {MOST_CLASSES:,} is the limit: does the column "
                "of labels hold something else?"
            )

    @property
    def timed(self) -> "Annotations":
        """Only the clips of which it is known what happens when."""
        return self.part([clip for clip in self.clips if clip.events is not None])

    def part(self, clips: list[AnnotatedClip]) -> "Annotations":
        """Some of the clips, or the same with other labels."""
        return replace(self, clips=clips, whole=self.whole or self)

    def leaving_out(self, groups: HeldOut) -> "Annotations":
        """The same with the clips of some groups to test, all of them, and no others."""
        held = groups.of(clip.id for clip in self.clips)
        return self.part(
            [
                replace(clip, split="test" if clip.id in held else clip.split or "train")
                for clip in self.clips
                if clip.id in held or clip.split != "test"
            ]
        )

    @cached_property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 of the annotations as they were read."""
        if self.whole is not None:
            return self.whole.digest
        sha = hashlib.sha256(repr(self.classes).encode("utf-8", "surrogatepass"))
        for clip in self.clips:
            times = [(event.label, event.onset, event.offset) for event in clip.events or ()]
            said = (clip.id, clip.split, clip.label, clip.events is None, times)
            sha.update(repr(said).encode("utf-8", "surrogatepass"))
        return sha.hexdigest()[:16]

    def restricted(self, classes: Sequence[str], names: dict[str, str]) -> "Annotations":
        """Only the clips and events of some classes, numbered as in `classes`.

        Args:
            classes: the new class names.
            names: {own class name: new class name}; own classes that are not named fall away.
        """
        number = {own: classes.index(names[name]) for own, name in enumerate(self.classes) if name in names}
        clips = []
        for clip in self.clips:
            events = [
                AnnotatedEvent(number[event.label], event.onset, event.offset)
                for event in clip.events or ()
                if event.label in number
            ]
            label = None if clip.label is None else number.get(clip.label)
            if events or label is not None:
                clips.append(AnnotatedClip(clip.id, clip.split, label, events, clip.group, clip.line))
        return Annotations(self.source, tuple(classes), clips, self.problems)


def segment_labels(clips: Sequence[AnnotatedClip], classes: int, segments: int, seconds: float = 1.0) -> np.ndarray:
    """Which class sounds or shows in which segment.

    A segment belongs to an event if its middle lies in [onset, offset), which for whole
    seconds is what the data sets do. The last column is the background: 1 where no event is.

    Returns:
        float32 [len(clips), segments, classes + 1]
    """
    middle = (np.arange(segments) + 0.5) * seconds
    labels = np.zeros((len(clips), segments, classes + 1), np.float32)
    for row, clip in enumerate(clips):
        for event in clip.events or ():
            labels[row, (middle >= event.onset) & (middle < event.offset), event.label] = 1
    labels[..., -1] = labels[..., :-1].max(-1, initial=0) == 0
    return labels


def divide(clips: Sequence[AnnotatedClip], share: float = 0.2) -> tuple[list[AnnotatedClip], list[AnnotatedClip]]:
    """Set `share` of the groups aside: (the rest, those set aside).

    Groups are taken in the order of their names' SHA-256, so the division is the same
    on every machine and does not change when clips are added elsewhere.
    """
    groups = sorted({clip.group for clip in clips}, key=lambda name: hashlib.sha256(name.encode()).digest())
    aside = set(groups[: round(len(groups) * share) or 1]) if len(groups) > 1 else set()
    return [clip for clip in clips if clip.group not in aside], [clip for clip in clips if clip.group in aside]


class EventList:
    """Collects the events of one clip and says what is wrong with them.

    Empty and reversed intervals are left out, as the published slicing does; events
    of one class that overlap are kept, since their union is what the labels hold.
    """

    __slots__ = ("_covered", "events")

    def __init__(self):
        self.events: list[AnnotatedEvent] = []
        self._covered: dict[int, tuple[list[float], list[float]]] | None = None  # most clips have one event

    def add(self, label: int, onset: float, offset: float, name: str) -> str | None:
        """Add one event; return what is odd about it, if anything."""
        if offset < onset:
            return f"the interval of {name} is reversed ({onset:g} to {offset:g} s); it is left out"
        if offset == onset:
            return f"the interval of {name} is empty (at {onset:g} s); it is left out"
        overlapping = bool(self.events) and self._cover(label, onset, offset)
        self.events.append(AnnotatedEvent(label, onset, offset))
        if onset < 0:
            return f"{name} begins before the clip ({onset:g} s)"
        if overlapping:
            return f"the interval of {name}, {onset:g} to {offset:g} s, overlaps another of the same class"
        return None

    def _cover(self, label: int, onset: float, offset: float) -> bool:
        """Join an interval with what the label's intervals cover, kept apart and in order; whether it meets any."""
        if self._covered is None:
            first = self.events[0]
            self._covered = {first.label: ([first.onset], [first.offset])}
        starts, ends = self._covered.setdefault(label, ([], []))
        met = slice(bisect_right(ends, onset), bisect_left(starts, offset))
        overlapping = met.start < met.stop
        if overlapping:
            onset, offset = min(onset, starts[met.start]), max(offset, ends[met.stop - 1])
        starts[met], ends[met] = [onset], [offset]
        return overlapping


def repeated(keys: Iterable[Key]) -> dict[Key, int]:
    """{key: position of its first occurrence} for the keys that occur more than once."""
    first: dict[Key, int] = {}
    twice: dict[Key, int] = {}
    for position, key in enumerate(keys):
        if key in first:
            twice[key] = first[key]
        else:
            first[key] = position
    return twice
