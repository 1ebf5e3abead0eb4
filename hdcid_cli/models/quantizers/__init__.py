"""Quantizers by name: `vq`, `rvq:N`, `fsq[:levels]` (Table 2)."""

from hdcid_cli.core.errors import InputError


def make_quantizer(name: str, codebook: int, dim: int):
    """`vq`, `rvq:4`, `fsq` or `fsq:8,5,5,2` -> the module; anything else is an InputError."""
    from hdcid_cli.models.quantizers.fsq import FiniteScalarQuantizer, default_levels
    from hdcid_cli.models.quantizers.vq import VectorQuantizer

    kind, _, argument = name.partition(":")
    try:
        if kind == "vq" and not argument:
            return VectorQuantizer(codebook, dim)
        if kind == "rvq":
            return VectorQuantizer(codebook, dim, stages=int(argument or 2))
        if kind == "fsq":
            levels = [int(level) for level in argument.split(",")] if argument else default_levels(codebook)
            return FiniteScalarQuantizer(levels, dim)
    except ValueError as error:
        raise InputError(f"The quantizer {name!r} cannot be understood: {error}.") from error
    raise InputError(f"There is no quantizer {name!r}: use vq, rvq:N or fsq[:levels].")
