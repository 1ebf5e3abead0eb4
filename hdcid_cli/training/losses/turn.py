"""TURN: self- and cross-reconstruction through shared prototypes (Zhao et al. 2022, https://openreview.net/forum?id=rQAJmrLmGC6).

A segment is expressed as attention over prototypes that all modalities share, and from that
its own input and every other modality's input of the same moment are rebuilt.
"""

import math
from typing import Self

import torch
from torch import Tensor, nn

from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import Valid, at_length, masked_mean, valid_in
from hdcid_cli.training.losses.alignment import Alignment
from hdcid_cli.training.settings import ObjectiveSettings


class TURN(Alignment):
    """Sum over ordered pairs (m -> n), m = n included, of MSE(decoder_n(attention of z_m over prototypes), target_n).

    Args:
        targets: width of what is rebuilt for each modality.
        prototypes, dim: number L and width D of the prototypes.
    """

    def __init__(self, targets: dict[str, int], prototypes: int, dim: int):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(prototypes, dim) / math.sqrt(dim))
        self.query = nn.Linear(dim, dim)
        self.decoder = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, width))
                for name, width in targets.items()
            }
        )

    @classmethod
    def of(cls, settings: ObjectiveSettings, layer: Layer) -> Self:
        widths = {name: general.input.in_features for name, general in layer.general.items()}
        return cls(widths, layer.config.codebook, layer.config.dim)

    def observe(self, out: LayerOutput, layer: Layer) -> dict[str, Tensor]:
        """The layer's inputs as vectors [B, T, C], a map's being the mean over its cells."""
        return {name: x.detach() if x.ndim == 3 else x.detach().mean(dim=(2, 3)) for name, x in out.inputs.items()}

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return self.rebuild(out.general, out.observed[self], out.valid), {}

    def express(self, z: Tensor) -> Tensor:
        """softmax(Q z . P / sqrt(D)) P: [B, T, D] -> [B, T, D]."""
        scores = self.query(z) @ self.prototypes.T / math.sqrt(z.shape[-1])
        return torch.softmax(scores, dim=-1) @ self.prototypes

    def rebuild(self, general: dict[str, Tensor], targets: dict[str, Tensor], valid: Valid = None) -> Tensor:
        """General features [B, T_m, D] and targets [B, T_m, C_m], which are constants -> loss."""
        expressed = {name: self.express(z) for name, z in general.items()}
        loss = 0.0
        for name, target in targets.items():
            steps = target.shape[1]
            for source, x in expressed.items():
                error = (self.decoder[name](at_length(x, steps)) - target.detach()) ** 2
                loss = loss + masked_mean(error, valid_in(valid, steps, name, source))
        return loss
