"""A slow copy of a layer's general encoders, which CODIS learns from (momentum distillation, He et al. 2020)."""

import copy

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """The general encoders, averaged over the steps; it learns nothing by gradient and has no dropout.

    Args:
        layer: a `Layer`, whose pooling and general encoders are copied.
        momentum: share of the old average that each step keeps.
    """

    def __init__(self, layer: nn.Module, momentum: float = 0.995):
        super().__init__()
        self.momentum = momentum
        self.pooling, self.general = copy.deepcopy(layer.pooling), copy.deepcopy(layer.general)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, inputs: dict[str, Tensor], valid: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Layer inputs [B, T, ...] -> general features [B, T, D]."""
        features = {}
        for name, x in inputs.items():
            x = self.pooling[name](x) if name in self.pooling else x
            features[name] = self.general[name](x, None if valid is None else ~valid[name])
        return features

    @torch.no_grad()
    def follow(self, layer: nn.Module) -> None:
        """One step of the average towards the layer's weights."""
        mine = [*self.pooling.parameters(), *self.general.parameters()]
        theirs = [*layer.pooling.parameters(), *layer.general.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - self.momentum)
