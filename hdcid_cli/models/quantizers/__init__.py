"""Quantizers by name (Table 2). What one has to do is in `quantizer.py`.

The place of an entry is a function of what follows the name's colon and of `ModelSettings`, which returns the
quantizer of one layer, or raises a ValueError that says what is wrong with the argument.
"""

from typing import TYPE_CHECKING

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.registry import Entry, listed
from hdcid_cli.models.quantizers.levels import default_levels

if TYPE_CHECKING:
    from hdcid_cli.models.quantizers.quantizer import Quantizer
    from hdcid_cli.models.settings import ModelSettings


def _two(codebook: int) -> str:
    return "2"


def _levels(codebook: int) -> str:
    return ",".join(map(str, default_levels(codebook)))


QUANTIZERS = {
    "vq": Entry("the nearest code", "hdcid_cli.models.quantizers.vq:vq"),
    "rvq": Entry("N codebooks, each on what is left over", "hdcid_cli.models.quantizers.vq:rvq", "rvq:N", _two),
    "pq": Entry("N blocks of channels, each with a codebook", "hdcid_cli.models.quantizers.pq:pq", "pq:N"),
    "aligned": Entry("a vector for each modality in every code", "hdcid_cli.models.quantizers.aligned:aligned"),
    "fsq": Entry("a few channels, each rounded", "hdcid_cli.models.quantizers.fsq:fsq", "fsq[:levels]", _levels),
}


def completed(name: str, codebook: int) -> str:
    """A quantizer's name with the number or levels that it stands for: `rvq` is `rvq:2`, `fsq` is `fsq:5,5,4,4`."""
    argument = QUANTIZERS[name].argument if name in QUANTIZERS else None
    return f"{name}:{argument(codebook)}" if argument else name


# What tasks can read in the place of a feature.
READINGS = {
    "row": "all that a code stands for",
    "own": "of an aligned quantizer's code, the vector of the own modality alone",
    "emptied": "code 0 of vq or rvq is the zero vector, before a feature looks for its code",
}


def make_quantizer(settings: "ModelSettings") -> "Quantizer":
    """The quantizer of one layer: `vq`, `rvq:4`, `fsq:8,5,5,2`; anything else is an InputError."""
    kind, _, argument = settings.quantizer.partition(":")
    if kind not in QUANTIZERS:
        raise InputError(f"There is no quantizer {settings.quantizer!r}: use {listed(QUANTIZERS)}.")
    try:
        return QUANTIZERS[kind].load()(argument, settings)
    except ValueError as error:
        usage = QUANTIZERS[kind].usage or kind
        raise InputError(
            f"The quantizer {settings.quantizer!r} cannot be understood: {error}; it is written {usage}."
        ) from error
