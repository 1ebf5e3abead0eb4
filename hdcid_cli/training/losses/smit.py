"""S-MiT: contrast with an adaptive mean margin (Monfort et al. 2021, https://arxiv.org/abs/2105.04489)."""

from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.training.losses.alignment import Alignment, clip_embeddings

TEMPERATURE = 0.07


class SMiT(Alignment):
    """Contrast of clip embeddings with a margin that grows with how well they are told apart."""

    pairwise = True

    def __init__(self, temperature: float = TEMPERATURE):
        super().__init__()
        self.temperature = temperature

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return smit(clip_embeddings(out.general, out), self.temperature), {}


def masked_margin_softmax(similarity: Tensor, share: float = 0.5) -> Tensor:
    """-mean_i log e^(S_ii - M_i) / (e^(S_ii - M_i) + sum_{j != i} e^(S_ij)) for S [B, B].

    M_i = share (S_ii - mean_{j != i} S_ij) grows with how well a clip is told apart. It is
    a constant of the step: no gradient pulls the negatives up to lower it.
    """
    batch = len(similarity)
    right = similarity.diagonal()
    wrong = (similarity.sum(dim=1) - right) / max(1, batch - 1)
    margin = share * (right - wrong).detach()
    return cross_entropy(similarity - margin.diag(), torch.arange(batch, device=similarity.device))


def smit(embeddings: dict[str, Tensor], temperature: float = TEMPERATURE) -> Tensor:
    """Both directions of every pair of modalities; S are cosines / temperature of clip embeddings [B, D]."""
    embeddings = {name: normalize(x, dim=-1) for name, x in embeddings.items()}
    loss = torch.zeros((), device=next(iter(embeddings.values())).device)
    for first, second in combinations(embeddings.values(), 2):
        similarity = first @ second.T / temperature
        loss = loss + masked_margin_softmax(similarity) + masked_margin_softmax(similarity.T)
    return loss
