"""InfoNCE between clips: the simplest contrast (Oord et al. 2018, https://arxiv.org/abs/1807.03748)."""

from itertools import combinations
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from hdcid_cli.core.precision import matmul_precision
from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.training.losses.alignment import Alignment, clip_embeddings, measured
from hdcid_cli.training.settings import ObjectiveSettings

SAME = 1 - 1e-6  # a cosine from which on two clips are alike


class InfoNCE(Alignment):
    """Tell by the mean over its segments which clip of one modality belongs to which of the other, both ways.

    It has no parameters and takes modalities of any length.
    """

    pairwise = True

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.temperature = temperature

    @classmethod
    def of(cls, settings: ObjectiveSettings, layer: Layer) -> Self:
        return cls(settings.temperature)

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        embeddings = clip_embeddings(out.general, out)
        loss, right, pairs = next(iter(embeddings.values())).new_zeros(()), 0.0, 0
        for one, other in combinations(embeddings.values(), 2):
            value, told = both_ways(cosines(one, other) / self.temperature)
            loss, right, pairs = loss + value, right + told, pairs + 1
        metrics = measured("infonce_accuracy", right / max(1, pairs), out)
        # Clips that are alike, such as those of one caption, are each other's false negatives.
        return loss, metrics | {"infonce_alike": torch.stack([alike(x) for x in embeddings.values()]).max()}


def info_nce(x: Tensor, y: Tensor, temperature: float = 0.1) -> Tensor:
    """Mean over i of -log softmax_j(cos(x_i, y_j) / temperature) at j = i: [..., N, D], [..., N, D] -> [].

    The cosine of a zero vector is 0: such a row costs log N and has no gradient.
    """
    scores = cosines(x, y) / temperature
    target = torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape[:-1])
    return cross_entropy(scores.flatten(0, -2), target.flatten())


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of every row of one with every row of the other: [..., N, D], [..., M, D] -> [..., N, M]."""
    return normalize(x, dim=-1) @ normalize(y, dim=-1).transpose(-1, -2)


def both_ways(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Half of -log softmax at j = i over rows and over columns, and the share of rows told right: [N, N] -> [], []."""
    target = torch.arange(len(scores), device=scores.device)
    loss = 0.5 * (cross_entropy(scores, target) + cross_entropy(scores.T, target))
    return loss, (scores.detach().argmax(dim=1) == target).to(scores.dtype).mean()


@torch.no_grad()
@matmul_precision("float32")  # what TF32 rounds off is more than what is told apart here
def alike(x: Tensor) -> Tensor:
    """Share of rows that another row is equal to, but for its length."""
    same = cosines(x, x) > SAME
    return (same.sum(dim=-1) > 1).to(x.dtype).mean()
