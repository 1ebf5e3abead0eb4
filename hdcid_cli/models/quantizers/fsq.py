"""Finite scalar quantization (Mentzer et al. 2023, https://arxiv.org/abs/2309.15505).

A few bounded channels, each rounded to a handful of levels. The codebook is the grid
of all combinations: fixed, so it is neither learned nor can it collapse.
"""

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

from hdcid_cli.models.quantizers.levels import MOST_CODES, default_levels, whole
from hdcid_cli.models.quantizers.quantizer import FixedCodes
from hdcid_cli.models.settings import ModelSettings


def fsq(argument: str, settings: ModelSettings) -> "FiniteScalarQuantizer":
    """`fsq:8,5,5,2`, or levels that make about as many codes as the settings ask for."""
    levels = [whole(level) for level in argument.split(",")] if argument else default_levels(settings.codebook)
    return FiniteScalarQuantizer(levels, settings.dim)


class FiniteScalarQuantizer(FixedCodes):
    """Linear to len(levels) channels, bound and round each, Linear back.

    Args:
        levels: number of levels of each channel; the product is the size of the implied codebook.
        dim: width D of what goes in and comes out.
    """

    same_for_all = True

    def __init__(self, levels: Sequence[int], dim: int):
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError("fsq needs two levels or more in every channel")
        if math.prod(levels) > MOST_CODES:
            raise ValueError(f"its levels make more than {MOST_CODES:,} codes")
        self.levels = list(levels)
        self.project_in = nn.Linear(dim, len(levels))
        self.project_out = nn.Linear(len(levels), dim)
        sizes = torch.tensor(self.levels)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer(
            "basis", torch.cumprod(torch.cat([torch.ones(1, dtype=torch.long), sizes[:-1]]), 0), persistent=False
        )
        # Digits of every code, the first channel running fastest.
        digits = torch.tensor(list(product(*(range(n) for n in reversed(self.levels))))).flip(-1)
        self.register_buffer(
            "grid", (digits - sizes // 2).to(torch.get_default_dtype()) / (sizes // 2), persistent=False
        )

    @property
    def codes(self) -> int:
        return math.prod(self.levels)

    def bound(self, x: Tensor, slack: float = 1e-3) -> Tensor:
        """Squash each channel so that rounding gives exactly its number of levels (section 3.1)."""
        half = (self.sizes - 1) * (1 + slack) / 2
        offset = torch.where(self.sizes % 2 == 0, 0.5, 0.0)
        shift = (offset / half).atanh()
        return (x + shift.to(x)).tanh() * half.to(x) - offset.to(x)

    @property
    def width(self) -> int:
        return self.project_out.out_features

    @property
    def table(self) -> Tensor:
        return self.codebook[0]

    def forward(self, z: Tensor, modality: str = "") -> tuple[Tensor, Tensor]:
        """z [B, T, D] -> quantized [B, T, D] (with gradient, straight through the rounding) and indices [B, T, 1]."""
        bounded = self.bound(self.project_in(z))
        rounded = bounded + (bounded.round() - bounded).detach()
        normal = rounded / (self.sizes // 2).to(rounded)
        digits = rounded.detach().round().long() + self.sizes // 2
        return self.project_out(normal), (digits * self.basis).sum(dim=-1, keepdim=True)

    def decode(self, indices: Tensor, modality: str = "") -> Tensor:
        """Indices [..., 1] -> quantized [..., D]."""
        return self.project_out(self.grid[indices[..., 0]])

    @property
    def codebook(self) -> Tensor:
        """The implied codebook in the model's space, [1, L, D] like a learned one."""
        return self.project_out(self.grid).unsqueeze(0)

    def distances(self, z: Tensor, modality: str = "") -> Tensor:
        """Distance of the bounded channels to every point of the grid: [..., D] -> [..., L]."""
        normal = self.bound(self.project_in(z)) / (self.sizes // 2).to(z)
        return (normal.unsqueeze(-2) - self.grid).pow(2).sum(dim=-1).clamp_min(1e-12).sqrt()
