"""Cross-modal code matching (Liu et al. 2021, https://arxiv.org/abs/2106.05438; last term of eq. 14)."""

from collections.abc import Sequence
from itertools import combinations
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.quantizers.quantizer import Quantizer
from hdcid_cli.models.segments import alike, time_mean
from hdcid_cli.training.losses.alignment import Alignment, Measured

_TINY = 1e-10  # under the logarithm


class CMCM(Alignment):
    """Two modalities of a clip should use the same codes."""

    pairwise = True
    reads_codes = True

    def observe(self, out: LayerOutput, layer: Layer) -> dict[str, Tensor]:
        """Each clip's distribution of codes, [B, L]; with blocks of channels, of each block's, [B, N, L]."""
        distances = all_distances(layer.quantizer, out.general)
        return {name: code_distribution(far, out.valid and out.valid[name]) for name, far in distances.items()}

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> Measured:
        return cmcm(out.observed[self]), {}

    @classmethod
    def of_layers(cls, alignments: Sequence[Self], outs: Sequence[LayerOutput]) -> list[Measured] | None:
        losses = cmcm_layers([out.observed[each] for each, out in zip(alignments, outs, strict=True)])
        return [(loss, {}) for loss in losses.unbind()]


def code_distribution(distances: Tensor, valid: Tensor | None = None) -> Tensor:
    """p = mean over t of softmax(-distance to each code): [B, T, ..., L] (not squared) -> [B, ..., L]."""
    return time_mean(torch.softmax(-distances, dim=-1), valid)


def all_distances(quantizer: Quantizer, general: dict[str, Tensor]) -> dict[str, Tensor]:
    """`distances` of every modality, together where the codes are the same for all of them."""
    if not getattr(quantizer, "same_for_all", False):
        return {name: quantizer.distances(z, name) for name, z in general.items()}
    found: dict[str, Tensor] = {}
    for names, z in alike(general):
        found |= zip(names, quantizer.distances(z, names[0]).unbind())
    return {name: found[name] for name in general}


def code_similarity(p: Tensor, q: Tensor) -> Tensor:
    """S_ij = p_i . log q_j + q_i . log p_j for two modalities of the same clips: [..., B, L] twice -> [..., B, B]."""
    return p @ q.clamp_min(_TINY).log().mT + q @ p.clamp_min(_TINY).log().mT


def cmcm(distributions: dict[str, Tensor]) -> Tensor:
    """0.5 sum over unordered pairs of -mean_i log softmax_j(S)_ii.

    Args:
        distributions: p_m [B, L] of each modality, from `code_distribution`; with blocks of channels [B, N, L], of
            which the mean is taken.
    """
    return cmcm_layers([distributions])[0]


def cmcm_layers(layers: Sequence[dict[str, Tensor]]) -> Tensor:
    """The same of K layers with distributions of the same shapes: [K]."""
    pairs = [pair for distributions in layers for pair in combinations(distributions.values(), 2)]
    if not pairs:
        return torch.stack([p.new_zeros(()) for distributions in layers for p in distributions.values()])
    first, second = (torch.stack(side) for side in zip(*pairs))  # [K pairs, B, L] or [K pairs, B, N, L]
    if first.ndim == 4:
        first, second = first.transpose(1, 2), second.transpose(1, 2)
    similarity = code_similarity(first, second).unflatten(0, (len(layers), -1)).flatten(1, -3)  # [K, n, B, B]
    target = torch.arange(similarity.shape[-1], device=similarity.device).expand(similarity.shape[:-1])
    losses = cross_entropy(similarity.flatten(0, 2), target.flatten(), reduction="none")
    return 0.5 * len(pairs) / len(layers) * losses.view(len(layers), -1).mean(dim=1)
