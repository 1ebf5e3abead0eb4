"""Histograms of oriented gradients over a 7x7 grid: a video backbone without weights.

After Dalal and Triggs, "Histograms of oriented gradients for human detection" (CVPR 2005). Every cell
counts 16 signed directions of the brightness gradient and its mean brightness; square roots tame strong
edges. The 17 numbers are shared out over four groups of channels by how near the cell is to each corner
of the picture, so that even a plain sum over the grid (what the published encoder takes) keeps a coarse
layout. One second is the mean over its frames: [7, 7, 68], non-negative, empty picture 0, strokes 1 to 3.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from hdcid_cli.backbones.backbone import Backbone, Options
from hdcid_cli.media.clips import MediaClip
from hdcid_cli.media.video import video_seconds

GRID = 7
CELL = 8  # pixels
DIRECTIONS = 16
SCALE = 4.0  # brings the features of ordinary pictures to about 1, where VGG's activations are
SHAPE = (GRID, GRID, 4 * (DIRECTIONS + 1))


def load(options: Options) -> Backbone:
    """The backbone; `options.seconds` and `options.fps` apply."""
    prepare = partial(_prepare, seconds=options.seconds, fps=options.fps)
    return Backbone(name=options.sampled("hog"), modality="video", shape=SHAPE, prepare=prepare, dtype="float16")


def _prepare(clip: MediaClip, seconds: int, fps: int) -> Iterator[np.ndarray]:
    for frames in video_seconds(clip.source, seconds, fps, GRID * CELL, clip.start):
        yield hog(frames)[None]


def hog(frames: np.ndarray) -> np.ndarray:
    """Frames [n, 56, 56, 3], uint8 RGB -> [7, 7, 68], float32, the mean over the frames."""
    brightness = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    cells = np.concatenate([_histograms(brightness), _cell_means(brightness)[..., None]], axis=-1)
    corners = _corner_weights()[..., None] * np.sqrt(cells.mean(axis=0))[:, :, None, :]
    return SCALE * corners.reshape(SHAPE)


def _histograms(brightness: np.ndarray) -> np.ndarray:
    """[n, 56, 56] -> [n, 7, 7, 16]: gradient length by direction, shared between the two nearest."""
    dx, dy = np.zeros_like(brightness), np.zeros_like(brightness)
    dx[:, :, 1:-1] = brightness[:, :, 2:] - brightness[:, :, :-2]
    dy[:, 1:-1] = brightness[:, 2:] - brightness[:, :-2]
    length = np.hypot(dx, dy)
    direction = np.arctan2(dy, dx) * (DIRECTIONS / (2 * np.pi))
    lower = np.floor(direction)
    share = direction - lower
    lower = lower.astype(np.int64) % DIRECTIONS

    # One histogram a (frame, cell): count into a flat array by number.
    n, side = brightness.shape[:2]
    cell = np.arange(side) // CELL
    place = (np.arange(n)[:, None, None] * GRID + cell[:, None]) * GRID + cell
    size = n * GRID * GRID * DIRECTIONS
    counts = np.zeros(size)
    for bin_, weight in ((lower, 1 - share), ((lower + 1) % DIRECTIONS, share)):
        counts += np.bincount((place * DIRECTIONS + bin_).ravel(), (length * weight).ravel(), size)
    return (counts / CELL**2).astype(np.float32).reshape(n, GRID, GRID, DIRECTIONS)


def _cell_means(values: np.ndarray) -> np.ndarray:
    """[n, 56, 56] -> [n, 7, 7]."""
    return values.reshape(len(values), GRID, CELL, GRID, CELL).mean(axis=(2, 4))


def _corner_weights() -> np.ndarray:
    """[7, 7, 4] bilinear weights of each cell towards the four corners; they add up to 1."""
    low = np.linspace(1, 0, GRID, dtype=np.float32)
    ends = np.stack([low, 1 - low], axis=-1)  # [7, 2]
    return (ends[:, None, :, None] * ends[None, :, None, :]).reshape(GRID, GRID, 4)
