"""No quantization: general features stand where codes would, as on FCID's fine level."""

import torch
from torch import Tensor

from hdcid_cli.models.quantizers.quantizer import FixedCodes, Quantized
from hdcid_cli.models.segments import Valid


class Unquantized(FixedCodes):
    """A quantizer without codes; there are no indices."""

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
