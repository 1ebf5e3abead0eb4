"""Cross-modal code matching (Liu et al. 2021, https://arxiv.org/abs/2106.05438; last term of eq. 14)."""

from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.quantizers.quantizer import Quantizer
from hdcid_cli.models.segments import alike, time_mean
from hdcid_cli.training.losses.alignment import Alignment

_TINY = 1e-10  # under the logarithm


class CMCM(Alignment):
    """Two modalities of a clip should use the same codes."""

    pairwise = True

    def observe(self, out: LayerOutput, layer: Layer) -> dict[str, Tensor]:
        """Each clip's distribution of codes, [B, L]; with blocks of channels, of each block's, [B, N, L]."""
        distances = all_distances(layer.quantizer, out.general)
        return {name: code_distribution(far, out.valid and out.valid[name]) for name, far in distances.items()}

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return cmcm(out.observed[self]), {}


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
    blocks = [p.unsqueeze(0) if p.ndim == 2 else p.transpose(0, 1) for p in distributions.values()]  # [N, B, L]
    pairs = list(combinations(blocks, 2))
    if not pairs:
        return blocks[0].new_zeros(())
    first, second = (torch.stack(side) for side in zip(*pairs))
    similarity = code_similarity(first, second).flatten(0, 1)  # [pairs and blocks, B, B]
    target = torch.arange(similarity.shape[-1], device=similarity.device).expand(similarity.shape[:-1])
    mean = cross_entropy(similarity.flatten(0, 1), target.flatten())
    return 0.5 * len(pairs) * mean
