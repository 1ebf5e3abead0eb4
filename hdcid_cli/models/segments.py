"""Segments of different modalities side by side: one length for all, and which segments are valid.

`valid` is {modality: [B, T] bool} throughout, or None where every segment counts.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

Valid = dict[str, Tensor] | None


def at_length(x: Tensor, steps: int) -> Tensor:
    """Resample [B, T, ...] to [B, steps, ...] by taking the segment at the same relative time.

    No copy where T is `steps` already.
    """
    time = x.shape[1]
    if time == steps:
        return x
    # The middle of output segment i lies at (i + 1/2) / steps of the clip.
    places = ((torch.arange(steps, device=x.device) * 2 + 1) * time) // (2 * steps)
    return x.index_select(1, places)


def common_length(features: dict[str, Tensor]) -> int:
    """The longest T among the modalities: resampling to it loses nothing."""
    return max(x.shape[1] for x in features.values())


def valid_in(valid: Valid, steps: int, *modalities: str) -> Tensor | None:
    """Which of `steps` segments [B, steps] are valid in all the modalities."""
    if valid is None:
        return None
    return torch.stack([at_length(valid[name], steps) for name in modalities]).all(dim=0)


def alike(features: dict[str, Tensor]) -> Iterator[tuple[list[str], Tensor]]:
    """Features of one shape together, so that a GPU gets one large task instead of a few small ones: names, and their
    features one behind the other [M, B, T, ...].
    """
    names: dict[torch.Size, list[str]] = {}
    for name, x in features.items():
        names.setdefault(x.shape, []).append(name)
    for same in names.values():
        yield same, torch.stack([features[name] for name in same])


def masked_mean(x: Tensor, valid: Tensor | None = None, keep: int = 0) -> Tensor:
    """Mean of x [..., B, T, ...] over the valid segments [..., B, T] and all further axes; `keep` axes stay."""
    axes = tuple(range(keep, x.ndim))
    if valid is None:
        return x.mean(dim=axes)
    valid = valid.reshape(*valid.shape, *[1] * (x.ndim - valid.ndim)).expand_as(x)
    return torch.where(valid, x, 0).sum(dim=axes) / valid.sum(dim=axes).clamp_min(1)


def time_mean(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of x [B, T, ...] over each clip's valid segments -> [B, ...]."""
    if valid is None:
        return x.mean(dim=1)
    valid = valid.reshape(*valid.shape, *(1 for _ in x.shape[2:]))
    return torch.where(valid, x, 0).sum(dim=1) / valid.sum(dim=1).clamp_min(1)


def valid_rows(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """The valid segments of x [B, T, D], one after the other: [N, D]."""
    return x.flatten(0, 1) if valid is None else x[valid]
