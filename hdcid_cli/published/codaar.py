"""CoDAAR's published files: what differs from DCID's, whose names its other modules have."""

import re

import torch
from torch import Tensor

from hdcid_cli.models.convolution import channels_last
from hdcid_cli.models.quantizers.aligned import BLOCKS
from hdcid_cli.published.names import decoder_state, encoder_state

QUANTIZER = "Cross_quantizer."
CONVOLUTIONS = "video_semantic_encoder.spatial_conv_stack."
_STACK = {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2"}


def is_codaar(encoder: dict) -> bool:
    """Whether a published `Encoder_parameters` has a count for each modality."""
    return any(name.startswith(f"{QUANTIZER}ema_count_") for name in encoder)


def codaar_encoder_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and tensors of a one-layer `HDCID` with the `aligned` quantizer and the map encoder `bn`.

    Raises:
        KeyError: a name that no published model has.
    """
    state, rest = {}, {}
    quantizer = {name.removeprefix(QUANTIZER): x for name, x in published.items() if name.startswith(QUANTIZER)}
    for name, value in published.items():
        if name.startswith(CONVOLUTIONS):
            number, _, end = name.removeprefix(CONVOLUTIONS).partition(".")
            if number not in _STACK:
                raise KeyError(name)
            state[f"layers.0.specific.video.{_STACK[number]}.{end}"] = (
                channels_last(value) if value.ndim == 4 else value
            )
        elif not name.startswith(QUANTIZER):
            rest[name] = value
    blocks = [name for name in BLOCKS if f"ema_count_{name[0]}" in quantizer]
    for ours, theirs in (("codebook", "embedding"), ("weight", "ema_weight")):
        if theirs in quantizer:
            state[f"layers.0.quantizer.{ours}"] = torch.stack(quantizer.pop(theirs).chunk(len(blocks), dim=-1))
    state["layers.0.quantizer.count"] = torch.stack([quantizer.pop(f"ema_count_{name[0]}") for name in blocks])
    if "unactivated_count" in quantizer:
        state["layers.0.quantizer.unused"] = quantizer.pop("unactivated_count")
    quantizer.pop("ema_count", None)  # the sum of the counts, which serves nothing
    if quantizer:
        raise KeyError(QUANTIZER + next(iter(quantizer)))
    return state | encoder_state(rest)


def codaar_decoder_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Its decoders, which first bring a row to the width of a code."""
    narrow = re.compile(r"(Audio|Text|Video)_decoder\.\w+_linear_1\.(.*)")
    state, rest = {}, {}
    for name, value in published.items():
        match = narrow.fullmatch(name)
        if match:
            state[f"layers.0.narrow.{match[1].lower()}.{match[2]}"] = value
        else:
            rest[name] = value
    return state | decoder_state(rest)
