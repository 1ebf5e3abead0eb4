"""Cross-modal code matching (Liu et al. 2021, https://arxiv.org/abs/2106.05438; last term of eq. 14)."""

from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import time_mean
from hdcid_cli.training.losses.alignment import Alignment

_TINY = 1e-10  # under the logarithm


class CMCM(Alignment):
    """Two modalities of a clip should use the same codes."""

    pairwise = True

    def observe(self, out: LayerOutput, layer: Layer) -> dict[str, Tensor]:
        """Each clip's distribution of codes, [B, L]; with blocks of channels, of each block's, [B, N, L]."""
        return {
            name: code_distribution(layer.quantizer.distances(z, name), out.valid and out.valid[name])
            for name, z in out.general.items()
        }

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        blocks = {name: p.unsqueeze(1) if p.ndim == 2 else p for name, p in out.observed[self].items()}
        count = next(iter(blocks.values())).shape[1]
        return sum(cmcm({name: p[:, block] for name, p in blocks.items()}) for block in range(count)) / count, {}


def code_distribution(distances: Tensor, valid: Tensor | None = None) -> Tensor:
    """p = mean over t of softmax(-distance to each code): [B, T, ..., L] (not squared) -> [B, ..., L]."""
    return time_mean(torch.softmax(-distances, dim=-1), valid)


def code_similarity(p: Tensor, q: Tensor) -> Tensor:
    """S_ij = p_i . log q_j + q_i . log p_j for two modalities of the same clips: [B, L], [B, L] -> [B, B]."""
    return p @ q.clamp_min(_TINY).log().T + q @ p.clamp_min(_TINY).log().T


def cmcm(distributions: dict[str, Tensor]) -> Tensor:
    """0.5 sum over unordered pairs of -mean_i log softmax_j(S)_ii.

    Args:
        distributions: p_m [B, L] of each modality, from `code_distribution`.
    """
    loss = torch.zeros((), device=next(iter(distributions.values())).device)
    for first, second in combinations(distributions, 2):
        similarity = code_similarity(distributions[first], distributions[second])
        target = torch.arange(len(similarity), device=similarity.device)
        loss = loss + 0.5 * cross_entropy(similarity, target)
    return loss
