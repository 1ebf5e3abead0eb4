"""CODIS: alignment by optimal transport to shared prototypes (Duan et al. 2022, https://arxiv.org/abs/2203.00048).

A momentum teacher says to which prototypes a clip of one modality belongs; the student
must say the same from the other modality.
"""

import copy
import math
from itertools import permutations
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from hdcid_cli.core.errors import InputError
from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import Valid
from hdcid_cli.training.losses.alignment import Alignment, clip_embeddings, measured
from hdcid_cli.training.losses.mst import symmetric_infonce
from hdcid_cli.training.settings import ObjectiveSettings


class CODIS(Alignment):
    """Cross-entropy of the student's prototypes against the teacher's of the other modality, plus InfoNCE.

    Args:
        prototypes: their number L.
        dim: width D of the embeddings.
        teacher: of the clips' embeddings.
        temperature: of the student's softmax.
        contrast: temperature at which that of InfoNCE, which is learned, starts.
    """

    def __init__(self, prototypes: int, dim: int, teacher: "Teacher", temperature: float = 0.1, contrast: float = 0.07):
        super().__init__()
        self.prototypes = nn.Parameter(normalize(torch.randn(prototypes, dim), dim=-1))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / contrast)))
        self.teacher = teacher
        self.temperature = temperature

    @classmethod
    def of(cls, settings: ObjectiveSettings, layer: Layer) -> Self:
        if layer.config.kind != "hdcid":
            raise InputError("--align codis goes with --model hdcid alone.")
        return cls(layer.config.codebook, layer.config.dim, Teacher(layer))

    def observe(self, out: LayerOutput, layer: Layer) -> dict[str, Tensor]:
        return self.teacher({name: x.detach() for name, x in out.inputs.items()}, out.valid)

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        student, teacher = clip_embeddings(out.general, out), clip_embeddings(out.observed[self], out)
        contrast, accuracy = symmetric_infonce(student, self.log_scale)
        loss = contrast + prototype_loss(student, teacher, self.prototypes, self.temperature)
        return loss, measured("codis_accuracy", accuracy, out)

    def follow(self, layer: Layer) -> None:
        self.teacher.follow(layer)


def prototype_loss(
    student: dict[str, Tensor], teacher: dict[str, Tensor], prototypes: Tensor, temperature: float
) -> Tensor:
    """Sum over ordered pairs of the cross-entropy of one modality's student and the other's teacher.

    Args:
        student, teacher: clip embeddings [B, D] of each modality.
        prototypes: [L, D], of any length.
        temperature: of the student's softmax.
    """
    prototypes = normalize(prototypes, dim=-1)
    assigned = {name: sinkhorn(normalize(x, dim=-1) @ prototypes.T) for name, x in teacher.items()}
    loss = prototypes.new_zeros(())
    for name, other in permutations(student, 2):
        logits = normalize(student[name], dim=-1) @ prototypes.T / temperature
        loss = loss + cross_entropy(logits, assigned[other])
    return loss


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


class Teacher(nn.Module):
    """A slow copy of a layer's general encoders (momentum distillation, He et al. 2020): their average over the steps.

    It learns nothing by gradient and has no dropout.

    Args:
        layer: whose pooling, general encoders and prototypes are copied.
        momentum: share of the old average that each step keeps.
    """

    def __init__(self, layer: Layer, momentum: float = 0.995):
        super().__init__()
        self.momentum = momentum
        self.pooling, self.general = copy.deepcopy(layer.pooling), copy.deepcopy(layer.general)
        self.prototypes = copy.deepcopy(layer.prototypes)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, inputs: dict[str, Tensor], valid: Valid = None) -> dict[str, Tensor]:
        """Layer inputs [B, T, ...] -> general features [B, T, D]."""
        features = {}
        for name, x in inputs.items():
            x = self.pooling[name](x) if name in self.pooling else x
            features[name] = self.prototypes(self.general[name](x, None if valid is None else ~valid[name]))
        return features

    @torch.no_grad()
    def follow(self, layer: Layer) -> None:
        """One step of the average towards the layer's weights."""
        mine, theirs = (
            [p for part in (of.pooling, of.general, of.prototypes) for p in part.parameters()] for of in (self, layer)
        )
        torch._foreach_lerp_(mine, theirs, 1 - self.momentum)
