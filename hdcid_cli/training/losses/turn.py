"""TURN: self- and cross-reconstruction through shared prototypes (Zhao et al. 2022, https://openreview.net/forum?id=rQAJmrLmGC6).

A segment is expressed as attention over prototypes that all modalities share, and from that its own input and every
other modality's input of the same moment are rebuilt. The expression is the model's general feature (`Prototypes`), so
that what is aligned is what is quantized; this is the loss.

Each target is brought to mean 0 and variance 1 first. A map's mean over its cells varies far less than a vector's
channels do, and would else hardly be learned from: what a modality is rebuilt from then carries nothing of the other
one. And what a deeper layer reads shrinks and moves as CLUB presses on it: decoders that had to follow would be so
wrong at first that one prototype for everything is the quickest way out, from which attention does not come back.
"""

from typing import Self

import torch
from torch import Tensor, nn

from hdcid_cli.core.errors import InputError
from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import Valid, at_length, masked_mean, time_mean, valid_in
from hdcid_cli.training.losses.alignment import Alignment
from hdcid_cli.training.settings import ObjectiveSettings


class TURN(Alignment):
    """Sum over ordered pairs (m -> n), m = n included, of MSE(decoder_n(z_m), standardized target_n).

    Args:
        targets: width of what is rebuilt for each modality.
        dim: width D of the general features.
    """

    def __init__(self, targets: dict[str, int], dim: int):
        super().__init__()
        self.decoder = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, width))
                for name, width in targets.items()
            }
        )

    @classmethod
    def of(cls, settings: ObjectiveSettings, layer: Layer) -> Self:
        if not layer.config.prototypes:
            raise InputError("The alignment turn needs a model with `prototypes`: set it in the model's settings.")
        widths = {name: general.input.in_features for name, general in layer.general.items()}
        return cls(widths, layer.config.dim)

    def observe(self, out: LayerOutput, layer: Layer) -> dict[str, Tensor]:
        """The layer's inputs as vectors [B, T, C], a map's being the mean over its cells."""
        return {name: x.detach() if x.ndim == 3 else x.detach().mean(dim=(2, 3)) for name, x in out.inputs.items()}

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return self.rebuild(out.general, out.observed[self], out.valid), {}

    def rebuild(self, expressed: dict[str, Tensor], targets: dict[str, Tensor], valid: Valid = None) -> Tensor:
        """Expressed features [B, T_m, D] and targets [B, T_m, C_m], which are constants -> loss."""
        loss = next(iter(targets.values())).new_zeros(())
        for name, target in targets.items():
            steps, target = target.shape[1], standardized(target.detach(), valid and valid[name])
            for source, x in expressed.items():
                error = (self.decoder[name](at_length(x, steps)) - target) ** 2
                loss = loss + masked_mean(error, valid_in(valid, steps, name, source))
        return loss


def standardized(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """x [B, T, C] less each channel's mean over the valid segments, over the deviation of all channels together."""
    mean = time_mean(x.flatten(0, 1).unsqueeze(0), None if valid is None else valid.reshape(1, -1))
    return (x - mean) / masked_mean((x - mean) ** 2, valid).clamp_min(1e-6).sqrt()
