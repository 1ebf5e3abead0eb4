"""Scaling pictures exactly as Pillow does, in tensors on any device.

Pillow's filters, widened where a picture gets smaller, and its arithmetic: weights in 22 bits, whole numbers, rounding
after each of the two axes, along the rows first. What a processor of transformers prepares on Pillow is so met to the
last digit. (Since version 13 Pillow begins with the columns where pictures lose much height; a number may then differ
by one of 255.)
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

BITS = 22
# Pillow's numbers of filters: their reach, and their weight at a distance.
FILTERS = {
    2: (1.0, lambda x: np.maximum(0.0, 1.0 - np.abs(x))),
    3: (2.0, lambda x: _cubic(np.abs(x))),
}
NEAREST = 0


def _cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def resize(pictures: Tensor, size: tuple[int, int], resample: int) -> Tensor:
    """[n, height, width, channels] uint8 -> [n, *size, channels] uint8.

    Args:
        size: height and width.
        resample: `NEAREST` or one of `FILTERS`.
    """
    for axis, length in ((2, size[1]), (1, size[0])):
        if pictures.shape[axis] != length:
            pictures = _along(pictures.movedim(axis, 0), length, resample).movedim(0, axis)
    return pictures


def _along(x: Tensor, length: int, resample: int) -> Tensor:
    """Scale the first axis of [m, ...] to `length`."""
    if resample == NEAREST:
        places = np.floor((np.arange(length) + 0.5) * (len(x) / length)).astype(np.int64)
        return x[torch.from_numpy(places).to(x.device)]
    places, weights = (torch.from_numpy(values).to(x.device) for values in taps(len(x), length, resample))
    x = x.contiguous()
    total = torch.full((length, *x.shape[1:]), 1 << (BITS - 1), dtype=torch.int32, device=x.device)
    for place, weight in zip(places, weights, strict=True):  # a few neighbors each
        total += x.index_select(0, place) * weight.reshape(-1, *[1] * (x.ndim - 1))
    return (total >> BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
def taps(size: int, length: int, resample: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `size` pixels make up each of `length`: places [taps, length] int64 and weights [taps, length] int32."""
    reach, weigh = FILTERS[resample]
    scale = size / length
    widened = max(scale, 1.0)
    centers = (np.arange(length) + 0.5) * scale
    first = np.maximum(0, np.trunc(centers - reach * widened + 0.5)).astype(np.int64)
    last = np.minimum(size, np.trunc(centers + reach * widened + 0.5)).astype(np.int64)
    places = first + np.arange((last - first).max())[:, None]
    weights = np.where(places < last, weigh((places - centers + 0.5) / widened), 0.0)
    weights /= weights.sum(axis=0)
    whole = np.trunc(weights * (1 << BITS) + np.copysign(0.5, weights)).astype(np.int32)
    return np.minimum(places, size - 1), whole
