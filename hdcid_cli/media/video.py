"""Frames of a video, sampled evenly within each second."""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from hdcid_cli.media.clips import MediaClip
from hdcid_cli.media.stream import decode


class Edge(NamedTuple):
    """Pictures keep their shape; their shorter edge is this many pixels at most."""

    limit: int


def video_seconds(
    path: Path | str, seconds: int, fps: int = 16, size: int | Edge = 224, start: float = 0.0
) -> Iterator[np.ndarray]:
    """Yield up to `seconds` arrays [fps, height, width, 3], uint8 RGB: one a second.

    Sample k shows what is on the screen at time (k + 1/2) / fps, whatever the file's own (or variable)
    frame rate; pictures are turned upright and scaled to a square of `size`, or as `Edge` says. A last second counts
    if half of it is there; a clip has at least one.

    Raises InputError as `stream.decode` does.
    """
    images: list[np.ndarray] = []
    for image in _samples(path, seconds, fps, size, start):
        images.append(image)
        if len(images) == fps:
            yield np.stack(images)
            images.clear()


def video_parts(clip: MediaClip, seconds: int, fps: int, size: int) -> Iterator[np.ndarray]:
    """The seconds of a clip for a network, [1, fps, size, size, 3] each."""
    for frames in video_seconds(clip.source, seconds, fps, size, clip.start):
        yield frames[None]


def frame_parts(clip: MediaClip, seconds: int, fps: int, edge: int) -> Iterator[np.ndarray]:
    """The seconds of a clip in their own shape, [1, fps, height, width, 3] each; the shorter edge is `edge` at most."""
    for frames in video_seconds(clip.source, seconds, fps, Edge(edge), clip.start):
        yield frames[None]


def _samples(path: Path | str, seconds: int, fps: int, size: int | Edge, start: float) -> Iterator[np.ndarray]:
    reformatter, shape = VideoReformatter(), None
    sampled, end, shown = 0, 0.0, None
    for time, duration, frame in decode(path, "video", start):
        # Of the first frame; a stream may change its size on the way.
        shape = shape or ((size, size) if isinstance(size, int) else _within(frame.width, frame.height, size.limit))
        while shown is not None and sampled < seconds * fps and (sampled + 0.5) / fps < time:
            yield shown()
            sampled += 1
        if sampled == seconds * fps:
            return
        shown = cache(
            partial(_upright, reformatter, *shape, frame)
        )  # at 25 frames a second a third is never sampled, so never converted
        end = time + duration
    last = min(seconds, max(1, int(end + 0.5))) * fps
    assert shown is not None  # `decode` gives one frame at least
    for _ in range(sampled, last):
        yield shown()


def _upright(reformatter, width: int, height: int, frame) -> np.ndarray:
    """[height, width, 3] uint8. The reformatter keeps its tables from frame to frame; `rotation` counts as
    np.rot90 does.
    """
    # FULL_CHR_H_INT: swscale's shortcut without it makes every picture darker by 2 of 255.
    scaling = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT
    image = reformatter.reformat(frame, width, height, format="rgb24", interpolation=scaling, threads=1).to_ndarray()
    return np.rot90(image, round(frame.rotation / 90))


def _within(width: int, height: int, limit: int) -> tuple[int, int]:
    """Width and height, made smaller if the shorter of them is over the limit."""
    factor = min(1.0, limit / min(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))
