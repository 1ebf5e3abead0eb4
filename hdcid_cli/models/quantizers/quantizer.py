"""What a layer, the training loop and the tasks ask of a quantizer.

A quantizer is a module that replaces the general features of a layer by codes. Features are {modality: [B, T, D]},
T may differ between modalities; indices are [B, T, S], S codes a segment. What is to be kept of it stands in its
parameters and buffers. `vq.py` follows moving averages; `FixedCodes` is the start of one that does not.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from hdcid_cli.models.segments import Valid


class Quantized(NamedTuple):
    """What became of a layer's general features; every field maps a modality to a tensor.

    codes: what the features were replaced by, which commitment pulls them to [B, T, D].
    quantized: what decoders, CLUB and tasks read, with the gradient that reaches the encoders [B, T, width].
    indices: [B, T, S].
    """

    codes: dict[str, Tensor]
    quantized: dict[str, Tensor]
    indices: dict[str, Tensor]


class Readable(Protocol):
    """What tasks ask of a quantizer.

    Attributes:
        codes: L, how many values an index has.
        stages: S, codes a segment.
        parts: into how many equal parts of channels a feature falls, each with a code of its own; with one part the
            first of the S codes says most.
        width: channels of what is read in the place of a feature.
        table: what is read for each code, [L, width]; of the first stage where there are several.
    """

    @property
    def codes(self) -> int: ...

    @property
    def stages(self) -> int: ...

    @property
    def parts(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def table(self) -> Tensor: ...

    def __call__(self, z: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        """One modality's features [B, T, D] -> what is read in their place [B, T, width], and indices [B, T, S]."""

    def decode(self, indices: Tensor, modality: str) -> Tensor:
        """Indices [..., S] -> what is read in the place of the features, [..., width]."""


Readings: TypeAlias = Mapping[str, Callable[[Any], Readable]]


class Quantizer(Readable, Protocol):
    """A quantizer of one layer, for all modalities.

    Attributes:
        learns_by_ema: codes follow the features by moving averages, and commitment keeps the features near them;
            otherwise what there is to learn are parameters, and `start`, `update` and `revive` do nothing.
        others_share: what the distance to each other modality's code weighs in commitment, as a share of beta; None is
            1 / (M - 1), the others' mean.
        same_for_all: may be there, and true: all modalities have the same codes, and `distances` takes those of several
            at once, [..., D].
        readings: what tasks can read of a code besides all of it (`--read`): {name: what makes a Readable of the
            quantizer}.
    """

    learns_by_ema: bool
    others_share: float | None
    readings: ClassVar[Readings]

    def quantize(self, general: dict[str, Tensor], valid: Valid = None) -> Quantized:
        """The features of all modalities of a batch, for training.

        Args:
            valid: which segments count; others are quantized too, but give no gradient to what counts.
        """

    def distances(self, z: Tensor, modality: str) -> Tensor:
        """Distance of features [B, T, D] to every code of the first stage, with gradient to z: [B, T, L].

        With blocks of channels, to every code of each block: [B, T, N, L].
        """

    def start(self, general: dict[str, Tensor], generator: torch.Generator, valid: Valid = None) -> None:
        """Put the codes where the features of a first batch are."""

    def update(
        self,
        general: dict[str, Tensor],
        indices: dict[str, Tensor],
        valid: Valid = None,
        cross: bool = True,
        decay: float = 0.99,
    ) -> None:
        """One step of the moving averages.

        Args:
            indices: the codes that the features chose, all of them before this update.
            cross: move codes towards the other modalities' features too.
            decay: share of the old averages that a step keeps.
        """

    def revive(
        self,
        indices: dict[str, Tensor],
        generator: torch.Generator,
        idle: int,
        persist: bool = True,
        valid: Valid = None,
    ) -> None:
        """Replace codes that no modality used for more than `idle` updates.

        Args:
            generator: on the CPU, the same on every process.
            persist: give the moving averages to the new code, too; else the next update undoes the replacement.
        """


class FixedCodes(nn.Module):
    """A quantizer of one code a segment that no moving average moves: it stays, or its parameters learn by gradient.

    What is left to say is `codes`, `width`, `table`, `forward` (with the gradient that reaches the encoders), `decode`
    and `distances`.
    """

    learns_by_ema = False
    others_share: float | None = None
    readings: ClassVar[Readings] = {}
    stages = parts = 1

    def quantize(self, general: dict[str, Tensor], valid: Valid = None) -> Quantized:
        """Every modality by itself."""
        found = {name: self(z, name) for name, z in general.items()}
        read = {name: code for name, (code, _) in found.items()}
        return Quantized(read, read, {name: indices for name, (_, indices) in found.items()})

    def start(self, general: dict[str, Tensor], generator: torch.Generator, valid: Valid = None) -> None:
        """The codes stay."""

    def update(
        self,
        general: dict[str, Tensor],
        indices: dict[str, Tensor],
        valid: Valid = None,
        cross: bool = True,
        decay: float = 0.99,
    ) -> None:
        """The codes stay."""

    def revive(
        self,
        indices: dict[str, Tensor],
        generator: torch.Generator,
        idle: int,
        persist: bool = True,
        valid: Valid = None,
    ) -> None:
        """The codes stay."""
