"""What a probe reads of each clip: a model's codes, or raw features for the supervised ceiling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hdcid_cli.core.features import FeatureFile
from hdcid_cli.tasks.annotations.clips import Clip
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
    """

    source: str
    modality: str
    ids: Sequence[str]
    length: np.ndarray
    seconds: float
    shape: tuple[int, int]
    read: Callable[[Sequence[int]], np.ndarray]

    def match(self, clips: Sequence[Clip], classes: Sequence[str]) -> tuple[list[Clip], list[int], list[str]]:
        """Find the clips' rows: (clips found, their rows, names of those not found).

        A clip goes by its own name; else by its video's, if only one clip is of that video
        (LLP writes `VIDEO_start_end`, features may be named either way); else, for text, by
        its class: one prompt for all clips of a category.
        """
        rows = {name: row for row, name in enumerate(self.ids)}
        videos: dict[str, int | None] = {}
        for name, row in rows.items():
            videos[video_id(name)] = None if video_id(name) in videos else row
        found, places, missing = [], [], []
        for clip in clips:
            row = rows.get(clip.id)
            if row is None:
                row = videos.get(video_id(clip.id))
            if row is None and self.modality == "text" and clip.label is not None:
                row = rows.get(classes[clip.label])
            if row is None:
                missing.append(clip.id)
            else:
                found.append(clip)
                places.append(row)
        return found, places, missing


def feature_inputs(features: FeatureFile) -> Inputs:
    """Raw features, one flat vector a segment."""
    steps, width = features.shape[0], int(np.prod(features.shape[1:]))

    def read(rows: Sequence[int]) -> np.ndarray:
        return features.read(rows).reshape(len(rows), steps, width)

    return Inputs(
        features.name, features.modality, features.ids, features.length, features.segment_seconds, (steps, width), read
    )


def code_inputs(checkpoint, features: FeatureFile, selection, layers: int | None = None) -> Inputs:
    """Quantized features of all layers side by side, on the channels that TOC selected.

    Args:
        checkpoint: `codes.checkpoint.Checkpoint`.
        selection: `models.toc.Selection` or None for all channels.
        layers: read only so many layers, the first ones.
    """
    from hdcid_cli.codes.encode import encode
    from hdcid_cli.codes.toc import apply_toc

    codes = encode(checkpoint, features)
    if selection is not None:
        selection = replace(selection, channels=selection.channels[:layers])
    values = apply_toc(codes.quantized[:, :, :layers], selection)
    return Inputs(
        features.name,
        features.modality,
        codes.ids,
        codes.length,
        features.segment_seconds,
        values.shape[1:],
        values.__getitem__,
    )
