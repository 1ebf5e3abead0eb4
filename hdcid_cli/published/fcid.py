"""A published FCID checkpoint's state dicts, by their published names, into our model."""

import re
from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from hdcid_cli.models.convolution import channels_last
from hdcid_cli.models.settings import ModelSettings


class Sizes(Protocol):
    """Shapes of tensors by their names; one that is missing is an InputError."""

    def __getitem__(self, name: str) -> tuple[int, ...]: ...


MAP_CELLS = (7, 7)  # VGG19's last pooling layer; no tensor tells
CODEBOOK = "Cross_quantizer_coarse.embedding"

_FULL = {"v": "video", "a": "audio", "t": "text"}
_QUANTIZER = {"embedding": "codebook", "ema_count": "count", "ema_weight": "weight", "unactivated_count": "unused"}

_ENCODER = [
    (r"([vat])_self_att\.affine_matrix\.(.*)", r"layers.0.general.{m}.input.\2"),
    (r"([vat])_self_att\.encoder\.layers\.(.*)", r"layers.0.general.{m}.transformer.layers.\2"),
    (r"(v)_gen_encoder\.se_layer\.(.*)", r"layers.0.pooling.{m}.gate.\2"),
    (r"(a)_spe_encoder\.audio_linear\.(.*)", r"layers.0.specific.{m}.linear.\2"),
    (r"(v)_spe_encoder\.conv_stack\.0\.(.*)", r"layers.0.specific.{m}.conv1.\2"),
    (r"(v)_spe_encoder\.conv_stack\.2\.(.*)", r"layers.0.specific.{m}.conv2.\2"),
    (r"(v)_spe_encoder\.conv_stack\.4\.(.*)", r"layers.0.specific.{m}.conv3.\2"),
    (r"(v)_spe_encoder\.conv_stack\.5\.stack\.0\.res_block\.1\.(.*)", r"layers.0.specific.{m}.residual.conv3.\2"),
    (r"(v)_spe_encoder\.conv_stack\.5\.stack\.0\.res_block\.3\.(.*)", r"layers.0.specific.{m}.residual.conv1.\2"),
    (r"(v)_spe_encoder\.feed_forward\.(.*)", r"layers.0.specific.{m}.summary.\2"),
    (r"(va|t)2vat\.linear\.(.*)", r"layers.1.compression.{m}.\2"),
    (r"(va|t)_gen_encoder\.input_linear\.(.*)", r"layers.1.general.{m}.0.\2"),
    (r"(va|t)_spe_encoder\.input_linear\.(.*)", r"layers.1.specific.{m}.linear.\2"),
]
_DECODER = [
    (r"(a)_fine_decoder\.audio_rec\.(.*)", r"layers.0.decoder.{m}.output.\2"),
    (r"(a)_fine_decoder\.audio_linear\.(.*)", r"layers.0.decoder.{m}.code.\2"),
    (r"(v)_fine_decoder\.video_linear\.(.*)", r"layers.0.decoder.{m}.code.\2"),
    (r"(v)_fine_decoder\.inverse_conv_block\.0\.(.*)", r"layers.0.decoder.{m}.conv1.\2"),
    (r"(v)_fine_decoder\.inverse_conv_block\.1\.stack\.0\.res_block\.1\.(.*)",
     r"layers.0.decoder.{m}.residual.conv3.\2"),
    (r"(v)_fine_decoder\.inverse_conv_block\.1\.stack\.0\.res_block\.3\.(.*)",
     r"layers.0.decoder.{m}.residual.conv1.\2"),
    (r"(v)_fine_decoder\.inverse_conv_block\.2\.(.*)", r"layers.0.decoder.{m}.conv2.\2"),
    (r"(v)_fine_decoder\.inverse_conv_block\.4\.(.*)", r"layers.0.decoder.{m}.conv3.\2"),
    (r"([vat])_coarse_decoder\.simple_rec\.(.*)", r"layers.1.decoder.{m}.output.\2"),
    (r"([vat])_coarse_decoder\.simple_linear\.(.*)", r"layers.1.decoder.{m}.code.\2"),
]  # fmt: skip

# The prototype that transformer layers were copied from, and the scores of an attention that sums all the same.
_IGNORED = re.compile(r"_self_att\.encoder_layer\.|v_gen_encoder\.(affine_video_\w+|ave_v_att)\.")


def fcid_state(encoder: dict[str, Tensor], decoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and tensors of `FCID` from a published `Encoder_parameters` and decoders (which may be empty).

    Raises:
        KeyError: a tensor that no published model has.
    """
    state = {}
    for rules, published in ((_ENCODER, encoder), (_DECODER, decoder)):
        for name, value in published.items():
            if name.startswith("Cross_quantizer_coarse."):
                state[f"layers.1.quantizer.{_QUANTIZER[name.partition('.')[2]]}"] = value.unsqueeze(0)
            elif not _IGNORED.match(name) and not _IGNORED.search(name):
                state |= _renamed(name, value, rules)
    return state


def _renamed(name: str, value: Tensor, rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Ours of one tensor: one name, or two where video and audio share it."""
    for pattern, target in rules:
        match = re.fullmatch(pattern, name)
        if match:
            tensor = channels_last(value) if tuple(value.shape[2:]) == (3, 3) else value
            return {match.expand(target).replace("{m}", _FULL[letter]): tensor for letter in match[1]}
    raise KeyError(name)


def fcid_config(sizes: Sizes, names: Iterable[str]) -> ModelSettings:
    """The architecture.

    Args:
        sizes: shape of a tensor of `Encoder_parameters` by its name.
        names: of all of them.
    """
    channels = {name: sizes[f"{letter}_self_att.affine_matrix.weight"][1] for letter, name in _FULL.items()}
    layer = "v_self_att.encoder.layers."
    return ModelSettings(
        kind="fcid",
        inputs={name: (*MAP_CELLS, width) if name == "video" else (width,) for name, width in channels.items()},
        dim=sizes[CODEBOOK][1],
        codebook=sizes[CODEBOOK][0],
        transformer_layers=len({name.removeprefix(layer).split(".")[0] for name in names if name.startswith(layer)}),
        feedforward=sizes[f"{layer}0.linear1.weight"][0],
        map_hidden=sizes["v_spe_encoder.conv_stack.0.weight"][0],
        map_specific=sizes["v_spe_encoder.conv_stack.2.weight"][0],
        specific={"audio": sizes["a_spe_encoder.audio_linear.weight"][0], "video": channels["video"]},
        text_hidden=0,
        dropout=0.1,
        standardize=False,
    )
