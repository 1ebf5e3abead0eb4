"""Steps of modalities that have different numbers of segments, brought to one length."""

import torch
from torch import Tensor


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
