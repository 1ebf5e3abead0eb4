"""What a probe reads of each clip of one modality, and which row of it is which annotated clip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hdcid_cli.tasks.annotations.clips import AnnotatedClip
from hdcid_cli.tasks.annotations.llp import video_id


@dataclass
class Inputs:
    """One modality's clips as arrays [T, C].

    Attributes:
        source: where they come from, for messages.
        modality: video, audio or text.
        ids: clip names.
        length: [N] valid segments.
        seconds: length of a segment.
        shape: (T, C).
        read: rows -> [n, T, C], float32 or float16.
        read_noisy: (rows, seed) -> the same with the encoder's dropout, drawn from the seed; None where there is no
            encoder.
        digest: of the feature file.
    """

    source: str
    modality: str
    ids: Sequence[str]
    length: np.ndarray
    seconds: float
    shape: tuple[int, int]
    read: Callable[[Sequence[int]], np.ndarray]
    read_noisy: Callable[[Sequence[int], int], np.ndarray] | None = None
    digest: str | None = None

    def match(
        self, clips: Sequence[AnnotatedClip], classes: Sequence[str]
    ) -> tuple[list[AnnotatedClip], list[int], list[str]]:
        """See `match`."""
        return match(self.ids, self.modality, clips, classes)


def match(
    ids: Sequence[str], modality: str, clips: Sequence[AnnotatedClip], classes: Sequence[str]
) -> tuple[list[AnnotatedClip], list[int], list[str]]:
    """Find the rows of clips among the names of features: (clips found, their rows, names of those not found).

    A clip goes by its own name; else by its video's, if only one clip is of that video
    (LLP writes `VIDEO_start_end`, features may be named either way); else, for text, by
    its class: one prompt for all clips of a category.
    """
    rows = {name: row for row, name in enumerate(ids)}
    videos: dict[str, int | None] = {}
    for name, place in rows.items():
        videos[video_id(name)] = None if video_id(name) in videos else place
    found: list[AnnotatedClip] = []
    places: list[int] = []
    missing: list[str] = []
    for clip in clips:
        row: int | None = rows.get(clip.id, videos.get(video_id(clip.id)))
        if row is None and modality == "text" and clip.label is not None:
            row = rows.get(classes[clip.label])
        if row is None:
            missing.append(clip.id)
        else:
            found.append(clip)
            places.append(row)
    return found, places, missing
