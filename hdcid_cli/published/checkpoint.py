"""A published checkpoint (DCID for AV, AT or AVT; H-DCID for AVT) as one of ours, ready for every task.

Published files are `torch.save` of a dictionary with the state dicts `Encoder_parameters`,
`Decoder_parameters`, `Text_ar_lstm_parameters` and others that training alone needs. All
sizes are read off the tensors.
"""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from hdcid_cli import __version__
from hdcid_cli.backbones import papers_backbone
from hdcid_cli.codes.checkpoint import write_checkpoint
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import file_digest
from hdcid_cli.core.progress import warn
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.published.names import LETTER, decoder_state, encoder_state, text_state
from hdcid_cli.training.settings import ObjectiveSettings

MAP_CELLS = (7, 7)  # VGG19's last pooling layer; no tensor tells


def convert_checkpoint(file: Path, output: Path) -> HDCID:
    """Write the checkpoint directory `output` and return the model that is in it.

    Anything but a published checkpoint is an InputError.
    """
    parts = read_published(file)
    encoder = parts["Encoder_parameters"]
    config = model_config(encoder, parts.get("Text_ar_lstm_parameters"), file)
    state = load(file, "Encoder_parameters", encoder_state, encoder)
    if config.text_hidden:
        state |= text_state(parts["Text_ar_lstm_parameters"])
    if "Decoder_parameters" in parts:
        state |= load(file, "Decoder_parameters", decoder_state, parts["Decoder_parameters"])
    else:
        warn(f"{file} has no Decoder_parameters: tasks work, but nothing can be rebuilt from the codes.")
    model = HDCID(config).to(encoder["Cross_quantizer.embedding"].dtype)
    fill(model, state, file)
    write_checkpoint(output, _description(config, model, parts, file), model)
    return model


def read_published(file: Path) -> dict:
    """The file's dictionary, read without unpickling anything but tensors and plain values; `module.` prefixes taken
    off.
    """
    try:
        parts = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{file} is not a published checkpoint, or holds more than tensors ({str(error).splitlines()[0]})."
        ) from error
    if not isinstance(parts, dict) or not isinstance(parts.get("Encoder_parameters"), dict):
        raise InputError(f"{file} is not a published checkpoint: it has no Encoder_parameters.")
    if "Cross_quantizer.embedding" not in _without_prefix(parts["Encoder_parameters"]):
        raise InputError(f"{file} is not a published checkpoint: its encoder has no Cross_quantizer.")
    return {name: _without_prefix(part) if isinstance(part, dict) else part for name, part in parts.items()}


def _without_prefix(state: dict) -> dict:
    """Names without the `module.` that DataParallel puts before them."""
    return {name.removeprefix("module.") if isinstance(name, str) else name: value for name, value in state.items()}


def load(file: Path, part: str, rename, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names for one part of the file; a tensor that no published model has is an InputError."""
    try:
        return rename(state)
    except KeyError as error:
        raise InputError(f"{file}: {part} holds {error.args[0]!r}, which no published model has.") from None


def model_config(encoder: dict[str, Tensor], text: dict[str, Tensor] | None, file: Path) -> ModelSettings:
    """The architecture, from the shapes of the encoder's tensors and of the text's LSTM."""
    inputs, specific = {}, {}
    for name in LETTER.values():
        if f"{name}_self_att.affine_matrix.weight" not in encoder:
            continue
        channels = encoder[f"{name}_self_att.affine_matrix.weight"].shape[1]
        inputs[name] = (*MAP_CELLS, channels) if name == "video" else (channels,)
        linear = encoder.get(f"{name.capitalize()}_encoder.{name}_linear.weight")
        specific[name] = channels if linear is None else linear.shape[0]
    text_hidden = 0
    if "text" in inputs:
        if not text:
            raise InputError(f"{file} encodes text but has no Text_ar_lstm_parameters: take the complete file.")
        first = next(value for name, value in text.items() if name.endswith("weight_ih_l0"))
        text_hidden, inputs["text"] = first.shape[0] // 4, (first.shape[1],)
    maps = {}
    if "video" in inputs:
        maps = {
            key: encoder[f"Video_encoder.conv_stack.{at}.weight"].shape[0]
            for key, at in (("map_hidden", 0), ("map_specific", 2))
        }
    layer = f"{next(iter(inputs))}_self_att.encoder.layers."
    codebook = encoder["Cross_quantizer.embedding"]
    return ModelSettings(
        inputs=inputs,
        layers=2 if codebook.ndim == 3 else 1,
        dim=codebook.shape[-1],
        codebook=codebook.shape[-2],
        transformer_layers=len({name.split(".")[3] for name in encoder if name.startswith(layer)}),
        feedforward=encoder[f"{layer}0.linear1.weight"].shape[0],
        specific=specific,
        text_hidden=text_hidden,
        dropout=0.1,
        standardize=False,
        spatial_attention="sum",
        **maps,
    )


def fill(model: HDCID, state: dict[str, Tensor], file: Path) -> None:
    """Load what the published file holds; the scores of the spatial attention, which a sum does not need,
    are dropped.
    """
    needless = ("pooling.video.mean.", "pooling.video.cell.", "pooling.video.score.")
    state = {name: value for name, value in state.items() if not any(part in name for part in needless)}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"{file} does not fit together ({str(error).splitlines()[1].strip()}).") from error
    missing = [name for name in missing if ".decoder." not in name]
    if missing or unexpected:
        raise InputError(f"{file} is not a complete published checkpoint: {', '.join([*missing, *unexpected][:3])}.")


def _description(config: ModelSettings, model: HDCID, parts: dict, file: Path) -> dict:
    """What `config.yaml` says of a converted model. The released two-layer code leaves CMCM out."""
    objective = ObjectiveSettings(
        align=("cpc", "cmcm") if config.layers == 1 else ("cpc",), club_gradient="both", cpc_steps="random"
    )
    double = next(model.parameters()).dtype == torch.float64
    return {
        "model": config.to_dict(),
        "objective": objective.to_dict(),
        "train": {"precision": "float64" if double else "float32"},
        "features": {name: {"backbone": papers_backbone(name)} for name in config.inputs},
        "converted": {
            "from": file.name,
            "digest": file_digest(file),
            **{key: parts[key] for key in ("epoch", "total_step") if isinstance(parts.get(key), int)},
        },
        "version_of_hdcid": __version__,
    }
