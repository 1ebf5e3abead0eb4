"""What every alignment has in common: what it is asked in a training step."""

from collections.abc import Sequence
from typing import Self, TypeAlias

import torch
from torch import Tensor, nn

from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import time_mean
from hdcid_cli.training.settings import ObjectiveSettings

# A loss, and metrics by name.
Measured: TypeAlias = tuple[Tensor, dict[str, Tensor]]


class Alignment(nn.Module):
    """A loss that pulls the modalities of one layer together, with the networks that it needs.

    Its constructor takes plain numbers. Parameters learn with the model; what follows an average instead
    does not require a gradient. `smit.py` is one without parameters, `codis.py` one with a teacher that follows.

    Attributes:
        pairwise: it is a sum over unordered pairs of modalities and nothing else, so `NAME:t`, all pairs with text,
            means something.
        reads_codes: it looks at codes anyway, not at general features alone, so `--align-on both` adds nothing.
    """

    pairwise = False
    reads_codes = False

    @classmethod
    def of(cls, settings: ObjectiveSettings, layer: Layer) -> Self:
        """The alignment of one layer, as the settings say."""
        return cls()

    def observe(self, out: LayerOutput, layer: Layer) -> dict[str, Tensor]:
        """What `forward` needs of every clip besides the layer's output: {modality: [B, ...]}.

        It sees this process's clips; `forward` finds that of all processes in `out.observed[self]`. What the layer
        itself learns (a quantizer's projections, an encoder) may be used here, not in `forward`; what the alignment
        learns in `forward`, not here: so several processes add up its gradient as one would.
        """
        return {}

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> Measured:
        """Loss of the global batch, and metrics by name.

        Args:
            out: the layer's output for all clips of all processes.
            generator: of everything random, on the CPU; the same on every process. `core/draws.py` draws from it anew
                where a GPU plays a recorded step; a step that draws otherwise is not recorded.
        """
        raise NotImplementedError

    @classmethod
    def of_layers(cls, alignments: Sequence[Self], outs: Sequence[LayerOutput]) -> list[Measured] | None:
        """What `forward` gives of each layer, computed of all layers at once: for a GPU that is half as many operators.

        None, where it cannot be or nobody has written it: then each layer is asked by itself. What draws cannot, as
        the layers would draw in another order.
        """
        return None

    def follow(self, layer: Layer) -> None:
        """Called after every step of the optimizer, with the layer as it is now."""


def clip_embeddings(features: dict[str, Tensor], out: LayerOutput) -> dict[str, Tensor]:
    """One vector a clip: the mean over its valid segments, [B, T, D] -> [B, D] for each modality."""
    return {name: time_mean(z, out.valid and out.valid[name]) for name, z in features.items()}


def measured(name: str, accuracy: Tensor, out: LayerOutput) -> dict[str, Tensor]:
    """A metric that compares modalities, where there are several."""
    return {name: accuracy} if len(out.general) > 1 else {}
