"""MST: contrast of encoders that share one transformer (MS-CLIP, You et al. 2022, https://arxiv.org/abs/2207.12661).

The sharing is in the model (`shared_transformer`); this is the loss, CLIP's symmetric
InfoNCE with a learned temperature (Radford et al. 2021, https://arxiv.org/abs/2103.00020).
"""

import math
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize


class SymmetricInfoNCE(nn.Module):
    """Tell which clip of one modality belongs to which of the other, in both directions.

    The scale 1 / temperature starts at 1 / 0.07 and is held below 100, as in CLIP.
    """

    def __init__(self, temperature: float = 0.07):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def forward(self, embeddings: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Clip embeddings [B, D] of each modality -> sum over unordered pairs, and the share of clips that were told
        right.
        """
        embeddings = {name: normalize(x, dim=-1) for name, x in embeddings.items()}
        scale = self.log_scale.exp().clamp_max(100)
        loss, right, pairs = scale.new_zeros(()), scale.new_zeros(()), 0
        for first, second in combinations(embeddings.values(), 2):
            scores = scale * first @ second.T
            target = torch.arange(len(scores), device=scores.device)
            loss = loss + 0.5 * (cross_entropy(scores, target) + cross_entropy(scores.T, target))
            right = right + (scores.detach().argmax(dim=1) == target).to(right.dtype).mean()
            pairs += 1
        return loss, right / max(1, pairs)
