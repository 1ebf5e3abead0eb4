"""What every annotation reader returns, and the label tensors made of it."""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Event:
    """One event of a clip: its class and its interval [onset, offset) in seconds."""

    label: int
    onset: float
    offset: float


@dataclass
class Clip:
    """One annotated clip.

    Attributes:
        id: the clip's name, as the feature files should know it.
        split: train, val, test, or None where the files do not say.
        label: class of the whole clip, or None where it has several events or none.
        events: what happens in it, an empty list if it is background all along, None if nobody said when.
        group: clips of one group come from one recording and stay on one side of a division.
        line: where the file names it.
    """

    id: str
    split: str | None = None
    label: int | None = None
    events: list[Event] | None = field(default_factory=list)
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
    """

    source: Path
    classes: tuple[str, ...]
    clips: list[Clip]
    problems: list[str] = field(default_factory=list)

    @property
    def timed(self) -> "Annotations":
        """Only the clips of which it is known what happens when."""
        return replace(self, clips=[clip for clip in self.clips if clip.events is not None])

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
                Event(number[event.label], event.onset, event.offset) for event in clip.events if event.label in number
            ]
            label = number.get(clip.label)
            if events or label is not None:
                clips.append(Clip(clip.id, clip.split, label, events, clip.group, clip.line))
        return Annotations(self.source, tuple(classes), clips, self.problems)


def segment_labels(clips: Sequence[Clip], classes: int, segments: int, seconds: float = 1.0) -> np.ndarray:
    """Which class sounds or shows in which segment.

    A segment belongs to an event if its middle lies in [onset, offset), which for whole
    seconds is what the data sets do. The last column is the background: 1 where no event is.

    Returns:
        float32 [len(clips), segments, classes + 1]
    """
    middle = (np.arange(segments) + 0.5) * seconds
    labels = np.zeros((len(clips), segments, classes + 1), np.float32)
    for row, clip in enumerate(clips):
        for event in clip.events:
            labels[row, (middle >= event.onset) & (middle < event.offset), event.label] = 1
    labels[..., -1] = labels[..., :-1].max(-1, initial=0) == 0
    return labels


def divide(clips: Sequence[Clip], share: float = 0.2) -> tuple[list[Clip], list[Clip]]:
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

    def __init__(self):
        self.events: list[Event] = []

    def add(self, label: int, onset: float, offset: float, name: str) -> str | None:
        """Add one event; return what is odd about it, if anything."""
        if offset < onset:
            return f"the interval of {name} is reversed ({onset:g} to {offset:g} s); it is left out"
        if offset == onset:
            return f"the interval of {name} is empty (at {onset:g} s); it is left out"
        overlapping = any(
            other.label == label and other.onset < offset and onset < other.offset for other in self.events
        )
        self.events.append(Event(label, onset, offset))
        if onset < 0:
            return f"{name} begins before the clip ({onset:g} s)"
        if overlapping:
            return f"the interval of {name}, {onset:g} to {offset:g} s, overlaps another of the same class"
        return None


def repeated(keys: Iterable[Hashable]) -> dict[Hashable, int]:
    """{key: position of its first occurrence} for the keys that occur more than once."""
    first: dict[Hashable, int] = {}
    twice = {}
    for position, key in enumerate(keys):
        if key in first:
            twice[key] = first[key]
        else:
            first[key] = position
    return twice
