"""Product quantization: blocks of channels, each with a codebook of its own (Jegou et al. 2011).

https://doi.org/10.1109/TPAMI.2010.57. N blocks of D / N channels and L codes each make L^N combinations, for the price
of one codebook. Each block learns by MM-EMA as VQ does; one block is VQ.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from hdcid_cli.models.quantizers.levels import whole
from hdcid_cli.models.quantizers.quantizer import Quantized, Readings
from hdcid_cli.models.quantizers.vq import VectorQuantizer, quantize_alike
from hdcid_cli.models.segments import Valid
from hdcid_cli.models.settings import ModelSettings


def pq(argument: str, settings: ModelSettings) -> "ProductQuantizer":
    """`pq:N`: N blocks."""
    return ProductQuantizer(settings.codebook, settings.dim, whole(argument))


class ProductQuantizer(nn.Module):
    """The nearest code of each block of channels, side by side.

    Args:
        codes: L, size of each block's codebook.
        dim: D, channels of all blocks.
        blocks: N.
    """

    learns_by_ema = True
    others_share = None
    readings: ClassVar[Readings] = {}
    same_for_all = True

    def __init__(self, codes: int, dim: int, blocks: int):
        super().__init__()
        if blocks < 1 or dim % blocks:
            raise ValueError(f"the {dim} channels should divide into its blocks")
        self.blocks = nn.ModuleList(VectorQuantizer(codes, dim // blocks) for _ in range(blocks))

    @property
    def codes(self) -> int:
        return self.blocks[0].codes

    @property
    def stages(self) -> int:
        """Codes a segment, one a block."""
        return len(self.blocks)

    @property
    def parts(self) -> int:
        """Each of them stands for channels of its own."""
        return len(self.blocks)

    @property
    def width(self) -> int:
        return sum(block.width for block in self.blocks)

    @property
    def table(self) -> Tensor:
        """Row i is code i of every block, [L, D]: what a channel's codes are like depends on its own block alone."""
        return torch.cat([block.table for block in self.blocks], dim=-1)

    def quantize(self, general: dict[str, Tensor], valid: Valid = None) -> Quantized:
        return quantize_alike(self, general)

    def forward(self, z: Tensor, modality: str = "") -> tuple[Tensor, Tensor]:
        """z [B, T, D] -> codes [B, T, D] and indices [B, T, N]."""
        codes, indices = zip(*(block(part) for block, part in zip(self.blocks, self._parts(z))))
        return torch.cat(codes, dim=-1), torch.cat(indices, dim=-1)

    def decode(self, indices: Tensor, modality: str = "") -> Tensor:
        """Indices [..., N] -> codes [..., D]."""
        return torch.cat([block.decode(index) for block, index in zip(self.blocks, indices.split(1, dim=-1))], dim=-1)

    def distances(self, z: Tensor, modality: str = "") -> Tensor:
        """Euclidean distance to every code of each block: [..., D] -> [..., N, L]."""
        return torch.stack([block.distances(part) for block, part in zip(self.blocks, self._parts(z))], dim=-2)

    def start(self, general: dict[str, Tensor], generator: torch.Generator, valid: Valid = None) -> None:
        """Every block on its own channels."""
        for block, parts in zip(self.blocks, self._parts_of_all(general)):
            block.start(parts, generator, valid)

    def update(
        self,
        general: dict[str, Tensor],
        indices: dict[str, Tensor],
        valid: Valid = None,
        cross: bool = True,
        decay: float = 0.99,
    ) -> None:
        """One MM-EMA update of every block, on its own channels and indices."""
        for number, (block, parts) in enumerate(zip(self.blocks, self._parts_of_all(general))):
            block.update(parts, _of_block(indices, number), valid, cross, decay)

    def revive(
        self,
        indices: dict[str, Tensor],
        generator: torch.Generator,
        idle: int,
        persist: bool = True,
        valid: Valid = None,
    ) -> None:
        """Block by block."""
        for number, block in enumerate(self.blocks):
            block.revive(_of_block(indices, number), generator, idle, persist, valid)

    def _parts(self, z: Tensor) -> tuple[Tensor, ...]:
        return z.split(self.width // self.stages, dim=-1)

    def _parts_of_all(self, general: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The features of all modalities, block by block."""
        parts = {name: self._parts(z) for name, z in general.items()}
        return [{name: each[number] for name, each in parts.items()} for number in range(self.stages)]


def _of_block(indices: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    return {name: index[..., number : number + 1] for name, index in indices.items()}
