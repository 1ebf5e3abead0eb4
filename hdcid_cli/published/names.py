"""Published state dicts, by their published names, into our model.

The authors of DCID and H-DCID save flat modules (`audio_self_att`, `Video_encoder_2`, ...);
here the same tensors live in layers. This file is the whole of the mapping.
"""

import re

from torch import Tensor

from hdcid_cli.models.convolution import channels_last

LETTER = {"a": "audio", "v": "video", "t": "text"}

# Pattern on a published encoder name (without the layer's suffix `_2`) -> our name within a layer.
_ENCODER = [
    (r"(\w+?)_self_att\.affine_matrix\.(.*)", r"general.{m}.input.\2"),
    (r"(\w+?)_self_att\.encoder\.layers\.(.*)", r"general.{m}.transformer.layers.\2"),
    (r"(Audio|Text)_encoder\.(?:\w+_linear|input_linear)\.(.*)", r"specific.{m}.linear.\2"),
    (r"(Video)_encoder\.input_linear\.(.*)", r"specific.{m}.linear.\2"),
    (r"(Video)_encoder\.conv_stack\.0\.(.*)", r"specific.{m}.conv1.\2"),
    (r"(Video)_encoder\.conv_stack\.2\.(.*)", r"specific.{m}.conv2.\2"),
    (r"(Video)_encoder\.conv_stack\.4\.(.*)", r"specific.{m}.conv3.\2"),
    (r"(Video)_encoder\.conv_stack\.5\.stack\.0\.res_block\.1\.(.*)", r"specific.{m}.residual.conv3.\2"),
    (r"(Video)_encoder\.conv_stack\.5\.stack\.0\.res_block\.3\.(.*)", r"specific.{m}.residual.conv1.\2"),
    (r"(Video)_encoder\.feed_forward\.(.*)", r"specific.{m}.summary.\2"),
    (r"(video)_semantic_encoder\.se_layer\.(.*)", r"pooling.{m}.gate.\2"),
    (r"(video)_semantic_encoder\.affine_video_ave\.(.*)", r"pooling.{m}.mean.\2"),
    (r"(video)_semantic_encoder\.affine_video_self\.(.*)", r"pooling.{m}.cell.\2"),
    (r"(video)_semantic_encoder\.ave_v_att\.(.*)", r"pooling.{m}.score.\2"),
]

_DECODER = [
    (r"(Audio|Text|Video)_decoder\.(?:\w+_rec|simple_rec)\.(.*)", r"decoder.{m}.output.\2"),
    (r"(Audio|Text|Video)_decoder\.(?:\w+_linear)\.(.*)", r"decoder.{m}.code.\2"),
    (r"(Video)_decoder\.inverse_conv_block\.0\.(.*)", r"decoder.{m}.conv1.\2"),
    (r"(Video)_decoder\.inverse_conv_block\.1\.stack\.0\.res_block\.1\.(.*)", r"decoder.{m}.residual.conv3.\2"),
    (r"(Video)_decoder\.inverse_conv_block\.1\.stack\.0\.res_block\.3\.(.*)", r"decoder.{m}.residual.conv1.\2"),
    (r"(Video)_decoder\.inverse_conv_block\.2\.(.*)", r"decoder.{m}.conv2.\2"),
    (r"(Video)_decoder\.inverse_conv_block\.4\.(.*)", r"decoder.{m}.conv3.\2"),
]

_QUANTIZER = {"embedding": "codebook", "ema_count": "count", "ema_weight": "weight", "unactivated_count": "unused"}

# Tensors of the published files that take no part in anything: the prototype that
# the transformer layers were copied from, and classifiers on 141 labels that are never trained.
_IGNORED = re.compile(r"_self_att(_2)?\.encoder_layer\.|_semantic_decoder\.")


def encoder_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and tensors of `HDCID`'s encoders and quantizers from a published `Encoder_parameters`."""
    return _rename(published, _ENCODER)


def decoder_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and tensors of `HDCID`'s decoders from a published `Decoder_parameters`."""
    return _rename(published, _DECODER)


def text_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of `TextFront`'s LSTM from a published `Text_ar_lstm_parameters` (with or without a module prefix)."""
    return {"text_front.lstm." + name.rpartition(".")[2]: value for name, value in published.items()}


def club_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of `Club` from published `p_mu.*` and `p_logvar.*`."""
    return {name.replace("p_mu.", "mu.").replace("p_logvar.", "logvar."): value for name, value in published.items()}


def cpc_state(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of `CrossModalCPC` from published `video_ar_lstm.*`, `video_predictors.*`."""
    state = {}
    for name, value in published.items():
        name = re.sub(r"^(\w+?)_ar_lstm\.", r"context.\1.", name)
        state[re.sub(r"^(\w+?)_predictors\.", r"predictors.\1.", name)] = value
    return state


def _rename(published: dict[str, Tensor], rules) -> dict[str, Tensor]:
    state = {}
    for name, value in published.items():
        if _IGNORED.search(name):
            continue
        if name.startswith("Cross_quantizer."):
            state.update(_quantizer(name.partition(".")[2], value))
            continue
        module, _, rest = name.partition(".")
        layer = 0
        if module.endswith("_2"):
            module, layer = module[:-2], 1
        for pattern, target in rules:
            match = re.fullmatch(pattern, f"{module}.{rest}")
            if match:
                kernel = tuple(value.shape[2:]) == (3, 3)
                state[f"layers.{layer}." + match.expand(target).replace("{m}", match[1].lower())] = (
                    channels_last(value) if kernel else value
                )
                break
        else:
            raise KeyError(name)
    return state


def _quantizer(name: str, value: Tensor) -> dict[str, Tensor]:
    """One layer holds [L, D] or [L]; two layers [2, L, D] or [2, L]. Ours has a leading axis of stages."""
    ours = _QUANTIZER[name]
    layered = value.ndim == (3 if ours in ("codebook", "weight") else 2)
    layers = value.unbind(0) if layered else [value]
    return {f"layers.{k}.quantizer.{ours}": x.unsqueeze(0) for k, x in enumerate(layers)}
