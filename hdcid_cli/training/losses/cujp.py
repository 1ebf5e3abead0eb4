"""CUJP: cross-modal unified jigsaw puzzle (MICU, Huang et al. 2025, https://arxiv.org/abs/2507.14935).

A code vector is cut into blocks of channels, each block is taken from a modality drawn by lot, and the blocks are put
in one of a few orders; which order it was can be told only where the modalities' codes mean the same.
"""

import itertools
import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hdcid_cli.core.draws import integers
from hdcid_cli.core.errors import InputError
from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import at_length, common_length, valid_in
from hdcid_cli.training.losses.alignment import Alignment
from hdcid_cli.training.settings import ObjectiveSettings

HIDDEN = 512
MOST_PARTS = 8  # 40,320 orders


class CUJP(Alignment):
    """Tell the order of the blocks.

    Args:
        dim: width D of code vectors.
        parts: P, blocks of channels.
        orders: J, how many of the P! orders there are to tell apart; drawn now, they stay.

    Buffer `permutations` [J, P]: place i of order j holds block permutations[j, i].
    """

    reads_codes = True
    permutations: Tensor

    def __init__(self, dim: int = 256, parts: int = 2, orders: int = 2, hidden: int = HIDDEN):
        super().__init__()
        if dim % parts or not 2 <= parts <= MOST_PARTS:
            raise InputError(
                f"--jigsaw-parts should be from 2 to {MOST_PARTS} and divide the {dim} channels of a code."
            )
        if not 2 <= orders <= math.factorial(parts):
            raise InputError(f"--jigsaw-permutations should be from 2 to {math.factorial(parts)}: there are no more.")
        self.parts = parts
        self.head = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, orders))
        drawn = torch.randperm(math.factorial(parts))[:orders]
        self.register_buffer("permutations", torch.tensor(list(itertools.permutations(range(parts))))[drawn])

    @classmethod
    def of(cls, settings: ObjectiveSettings, layer: Layer) -> Self:
        return cls(layer.quantizer.width, settings.jigsaw_parts, settings.jigsaw_permutations)

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        time, names = common_length(out.quantized), list(out.quantized)
        codes = [at_length(out.quantized[name], time).flatten(0, 1) for name in names]
        drawn = integers(len(codes), self.parts, generator, codes[0].device)
        if out.valid is not None:
            counted = torch.stack([valid_in(out.valid, time, name) for name in names]).all(dim=0).flatten()
            codes = [code[counted] for code in codes]
        logits, labels = self.solve(codes, drawn)
        right = (logits.detach().argmax(dim=-1) == labels).to(logits.dtype).mean()
        return cross_entropy(logits, labels), {"jigsaw_accuracy": right}

    def solve(self, codes: list[Tensor], drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [J N, J] and true orders [J N], orders outermost.

        Args:
            codes: one tensor [N, D] a modality.
            drawn: which of them each block is taken from [P].
        """
        parts = torch.stack(codes).unflatten(-1, (self.parts, -1))  # [M, N, P, D / P]
        blocks = parts[drawn, :, torch.arange(self.parts, device=drawn.device)].transpose(0, 1)  # [N, P, D / P]
        puzzles = torch.cat([blocks[:, order].flatten(1) for order in self.permutations])
        labels = torch.arange(len(self.permutations), device=puzzles.device).repeat_interleave(len(blocks))
        return self.head(puzzles), labels
