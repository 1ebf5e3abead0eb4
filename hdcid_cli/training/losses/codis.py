"""CODIS: alignment by optimal transport to shared prototypes (Duan et al. 2022, https://arxiv.org/abs/2203.00048).

A momentum teacher says to which prototypes a clip of one modality belongs; the student
must say the same from the other modality.
"""

from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from hdcid_cli.training.losses.mst import SymmetricInfoNCE


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Share B clips among L prototypes so that every prototype gets as much: [B, L] -> [B, L], rows sum to one.

    Sinkhorn's algorithm on exp(scores / epsilon): columns, then rows, brought to their sums
    (Cuturi 2013). A common factor changes nothing, so the largest score is taken out first.
    """
    plan = ((scores - scores.max()) / epsilon).exp()
    for _ in range(iterations):
        plan = plan / plan.sum(dim=0, keepdim=True).clamp_min(1e-12)
        plan = plan / plan.sum(dim=1, keepdim=True)
    return plan


class PrototypeAlignment(nn.Module):
    """Cross-entropy of the student's prototypes against the teacher's of the other modality, plus InfoNCE.

    Args:
        prototypes: their number L.
        dim: width D of the embeddings.
        temperature: of the student's softmax.
    """

    def __init__(self, prototypes: int, dim: int, temperature: float = 0.1):
        super().__init__()
        self.prototypes = nn.Parameter(normalize(torch.randn(prototypes, dim), dim=-1))
        self.temperature = temperature
        self.contrast = SymmetricInfoNCE()

    def forward(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Clip embeddings [B, D] of student and teacher -> loss, and InfoNCE's accuracy."""
        prototypes = normalize(self.prototypes, dim=-1)
        assigned = {name: sinkhorn(normalize(x, dim=-1) @ prototypes.T) for name, x in teacher.items()}
        loss, accuracy = self.contrast(student)
        for name, other in permutations(student, 2):
            logits = normalize(student[name], dim=-1) @ prototypes.T / self.temperature
            loss = loss + cross_entropy(logits, assigned[other])
        return loss, accuracy
