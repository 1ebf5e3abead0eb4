"""No quantization: general features stand where codes would, as on FCID's fine level."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from hdcid_cli.models.quantizers.quantizer import Quantized, Readings
from hdcid_cli.models.segments import Valid


class Unquantized(nn.Module):
    """A quantizer without codes; there are no indices."""

    learns_by_ema = False
    others_share = None
    readings: ClassVar[Readings] = {}
    codes = stages = parts = 0

    def __init__(self, dim: int):
        super().__init__()
        self.width = dim

    @property
    def table(self) -> Tensor:
        """No rows."""
        return torch.zeros(0, self.width)

    def quantize(self, general: dict[str, Tensor], valid: Valid = None) -> Quantized:
        """The features themselves."""
        return Quantized(dict(general), dict(general), {})

    def start(self, general: dict[str, Tensor], generator: torch.Generator, valid: Valid = None) -> None:
        """Nothing to start."""

    def update(
        self,
        general: dict[str, Tensor],
        indices: dict[str, Tensor],
        valid: Valid = None,
        cross: bool = True,
        decay: float = 0.99,
    ) -> None:
        """Nothing to update."""

    def revive(
        self,
        indices: dict[str, Tensor],
        generator: torch.Generator,
        idle: int,
        persist: bool = True,
        valid: Valid = None,
    ) -> None:
        """Nothing to revive."""
