"""Clips that exchange seconds: many more clips than there are, each with its own pictures and sounds."""

import torch
from torch import Tensor

from hdcid_cli.core.draws import sent
from hdcid_cli.models.segments import at_length


def draw_exchange(clips: int, steps: int, most: float, generator: torch.Generator) -> Tensor:
    """Which segments a clip has from its neighbour, [B, T] bool.

    Neighbours are clips 0 and 1, 2 and 3, ...; both exchange the same segments, so that each is there once. How many:
    of every pair a share drawn between 0 and `most`. A last clip without a neighbour keeps its own.
    """
    share = torch.rand(clips // 2, 1, generator=generator) * most
    pairs = torch.rand(clips // 2, steps, generator=generator) < share
    exchanged = torch.zeros(clips, steps, dtype=torch.bool)
    exchanged[: 2 * (clips // 2)] = pairs.repeat_interleave(2, dim=0)
    return exchanged


def exchange(
    features: dict[str, Tensor], exchanged: Tensor, lengths: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Let neighbouring clips exchange segments of sound and picture, the same in both; text stays with its clip.

    Args:
        features: {modality: [B, T, ...]}.
        exchanged: which segments, [B, T] on the CPU; modalities of another length take those at the same relative time.
        lengths: {modality: [B]}, on the CPU. A segment that does not count in one of the two stays.
    """
    partners = _partners(len(exchanged))
    for name, length in (lengths or {}).items():
        if name != "text":
            counts = torch.arange(features[name].shape[1]) < torch.minimum(length, length[partners]).unsqueeze(1)
            exchanged = exchanged & at_length(counts, exchanged.shape[1])
    mixed = {}
    for name, x in features.items():
        if name != "text":
            places = sent(at_length(exchanged, x.shape[1]), x.device)
            other = x[sent(partners, x.device)]
            x = torch.where(places.reshape(*places.shape, *(1 for _ in x.shape[2:])), other, x)
        mixed[name] = x
    return mixed


def _partners(clips: int) -> Tensor:
    """1, 0, 3, 2, ...; a last one alone is its own."""
    positions = torch.arange(clips)
    return torch.where(positions - positions % 2 + 1 < clips, positions ^ 1, positions)
