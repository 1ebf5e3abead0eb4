"""MST: contrast of encoders that share one transformer (MS-CLIP, You et al. 2022, https://arxiv.org/abs/2207.12661).

The sharing is in the model (`shared_transformer`); this is the loss, CLIP's symmetric
InfoNCE with a learned temperature (Radford et al. 2021, https://arxiv.org/abs/2103.00020).
"""

import math
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.training.losses.alignment import Alignment, clip_embeddings, measured
from hdcid_cli.training.losses.infonce import both_ways


class MST(Alignment):
    """Tell which clip of one modality belongs to which of the other, in both directions.

    Args:
        temperature: where the learned one starts.
    """

    pairwise = True

    def __init__(self, temperature: float = 0.07):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        loss, accuracy = symmetric_infonce(clip_embeddings(out.general, out), self.log_scale)
        return loss, measured("mst_accuracy", accuracy, out)


def symmetric_infonce(embeddings: dict[str, Tensor], log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Clip embeddings [B, D] of each modality -> sum over unordered pairs, and the share of clips told right.

    Args:
        log_scale: logarithm of 1 / temperature, which is held below 100, as in CLIP.
    """
    embeddings = {name: normalize(x, dim=-1) for name, x in embeddings.items()}
    scale = log_scale.exp().clamp_max(100)
    loss, right, pairs = scale.new_zeros(()), scale.new_zeros(()), 0
    for first, second in combinations(embeddings.values(), 2):
        value, told = both_ways(scale * first @ second.T)
        loss, right, pairs = loss + value, right + told, pairs + 1
    return loss, right / max(1, pairs)
