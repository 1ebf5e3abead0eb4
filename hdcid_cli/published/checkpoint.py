"""A published checkpoint (DCID, MICU and CoDAAR for AV, AT or AVT; H-DCID and FCID for AVT) as one of ours, ready for
every task.

Published files are `torch.save` of a dictionary with the state dicts `Encoder_parameters`,
`Decoder_parameters`, `Text_ar_lstm_parameters` and others that training alone needs. All
sizes are read off the tensors. MICU's have DCID's encoders, by the same names, and nothing
that training alone needs.
"""

from pathlib import Path

import torch
from torch import Tensor

from hdcid_cli import __version__
from hdcid_cli.backbones import papers_backbone
from hdcid_cli.codes.checkpoint import write_checkpoint
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import file_digest, reason
from hdcid_cli.core.progress import say, warn
from hdcid_cli.core.saved import read_saved
from hdcid_cli.models.assembled import Model, build_model
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.published.codaar import CONVOLUTIONS, codaar_decoder_state, codaar_encoder_state, is_codaar
from hdcid_cli.published.fcid import CODEBOOK as FCID_CODEBOOK
from hdcid_cli.published.fcid import MAP_CELLS, fcid_config, fcid_state
from hdcid_cli.published.names import LETTER, decoder_state, encoder_state, text_state
from hdcid_cli.training.settings import ObjectiveSettings

PARTS = {"Encoder_parameters", "Decoder_parameters", "Text_ar_lstm_parameters"}
# What DCID's files hold of training, and MICU's do not.
OF_TRAINING = {"Decoder_parameters", "CPC_parameters"}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def convert_checkpoint(file: Path, output: Path) -> Model:
    """Write the checkpoint directory `output` and return the model that is in it.

    Anything but a published checkpoint is an InputError.
    """
    parts = read_published(file)
    encoder, text = parts["Encoder_parameters"], parts.get("Text_ar_lstm_parameters")
    if FCID_CODEBOOK in encoder:
        return _convert_fcid(file, parts, output)
    config = model_settings(encoder, text, file)
    aligned = is_codaar(encoder)
    state = load(file, "Encoder_parameters", codaar_encoder_state if aligned else encoder_state, encoder)
    if config.text_hidden:
        state |= text_state(text or {})
    if "Decoder_parameters" in parts:
        decoders = codaar_decoder_state if aligned else decoder_state
        state |= load(file, "Decoder_parameters", decoders, parts["Decoder_parameters"])
    else:
        warn(f"{file} has no Decoder_parameters: tasks work, but nothing can be rebuilt from the codes.")
    if _is_micu(config, parts):
        say(f"{file} has neither decoders nor CPC, as MICU's files: it is taken for one of them.")
    model = make(config, state, file).to(encoder["Cross_quantizer.embedding"].dtype)
    fill(model, state, file)
    write_checkpoint(output, _description(config, model, parts, file), model)
    return model


def read_published(file: Path) -> dict:
    """The file's dictionary, read without unpickling anything but tensors and plain values; `module.` prefixes taken
    off. The parts that a model is made of are {name: tensor of floating-point numbers}.
    """
    parts = read_saved(file, "a published checkpoint")
    if not isinstance(parts.get("Encoder_parameters"), dict):
        raise InputError(f"{file} is not a published checkpoint: it has no Encoder_parameters.")
    for name in PARTS & parts.keys():
        parts[name] = _tensors(parts[name], name, file)
    if not {"Cross_quantizer.embedding", FCID_CODEBOOK} & parts["Encoder_parameters"].keys():
        raise InputError(f"{file} is not a published checkpoint: its encoder has no Cross_quantizer.")
    return parts


def _tensors(part, name: str, file: Path) -> dict[str, Tensor]:
    """A state dict, without the `module.` that DataParallel puts before its names."""
    if not isinstance(part, dict):
        raise InputError(f"{file}: {name} is a {type(part).__name__}, not tensors by name.")
    for key, value in part.items():
        dtypes = (torch.int64,) if str(key).endswith(".num_batches_tracked") else FLOATS  # a batch norm counts
        if not (isinstance(key, str) and isinstance(value, Tensor) and value.dtype in dtypes):
            raise InputError(f"{file}: {name} holds {str(key)[:80]!r}, which is no tensor of floating-point numbers.")
        if not torch.isfinite(value).all():
            raise InputError(f"{file}: {name} holds NaN or infinity in {key}.")
    return {key.removeprefix("module."): value for key, value in part.items()}


def _convert_fcid(file: Path, parts: dict, output: Path) -> Model:
    """The same of a file that holds FCID."""
    encoder, decoder = parts["Encoder_parameters"], parts.get("Decoder_parameters", {})
    config = fcid_config(_Sizes(encoder, "Encoder_parameters", file), encoder)
    state = load(file, "Encoder_parameters", lambda part: fcid_state(part, {}), encoder)
    state |= load(file, "Decoder_parameters", lambda part: fcid_state({}, part), decoder)
    if not decoder:
        warn(f"{file} has no Decoder_parameters: tasks work, but nothing can be rebuilt from the codes.")
    model = make(config, state, file).to(encoder[FCID_CODEBOOK].dtype)
    fill(model, state, file)
    write_checkpoint(output, _description(config, model, parts, file), model)
    return model


def load(file: Path, part: str, rename, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names for one part of the file; a tensor that no published model has is an InputError."""
    try:
        return rename(state)
    except KeyError as error:
        raise InputError(f"{file}: {part} holds {error.args[0]!r}, which no published model has.") from None
    except RuntimeError as error:
        raise InputError(f"{file}: {part} does not fit together ({reason(error)}).") from error


class _Sizes:
    """Sizes of the tensors of a part; one that is missing, or has other axes, is an InputError."""

    def __init__(self, state: dict[str, Tensor], part: str, file: Path):
        self.state, self.part, self.file = state, part, file

    def __getitem__(self, name: str) -> tuple[int, ...]:
        if name not in self.state:
            raise InputError(f"{self.file} is not a complete published checkpoint: {self.part} has no {name}.")
        shape = tuple(self.state[name].shape)
        if not 2 <= len(shape) <= 4 or 0 in shape:
            raise InputError(f"{self.file}: {name} of {self.part} has the shape {list(shape)}, as no published one.")
        return shape


def model_settings(encoder: dict[str, Tensor], text: dict[str, Tensor] | None, file: Path) -> ModelSettings:
    """The architecture, from the shapes of the encoder's tensors and of the text's LSTM."""
    sizes = _Sizes(encoder, "Encoder_parameters", file)
    inputs: dict[str, tuple[int, ...]] = {}
    specific = {}
    for name in LETTER.values():
        if f"{name}_self_att.affine_matrix.weight" not in encoder:
            continue
        channels = sizes[f"{name}_self_att.affine_matrix.weight"][1]
        inputs[name] = (*MAP_CELLS, channels) if name == "video" else (channels,)
        linear = f"{name.capitalize()}_encoder.{name}_linear.weight"
        specific[name] = sizes[linear][0] if linear in encoder else channels
    if not inputs:
        raise InputError(f"{file} is not a published checkpoint: its encoder has no modality.")
    text_hidden = 0
    if "text" in inputs:
        if not text:
            raise InputError(f"{file} encodes text but has no Text_ar_lstm_parameters: take the complete file.")
        first = next((name for name in text if name.endswith("weight_ih_l0")), "weight_ih_l0")
        gates, width = _Sizes(text, "Text_ar_lstm_parameters", file)[first][:2]
        text_hidden, inputs["text"] = gates // 4, (width,)
    aligned = is_codaar(encoder)
    stack, second = (CONVOLUTIONS, 3) if aligned else ("Video_encoder.conv_stack.", 2)
    conv1, conv2 = (f"{stack}{at}.weight" for at in (0, second))
    layer = f"{next(iter(inputs))}_self_att.encoder.layers."
    codebook = sizes["Cross_quantizer.embedding"]
    try:
        return ModelSettings(
            inputs=inputs,
            layers=2 if len(codebook) == 3 else 1,
            dim=codebook[-1] // (len(inputs) if aligned else 1),
            quantizer="aligned" if aligned else "vq",
            map_encoder="bn" if aligned else "residual",
            codebook=codebook[-2],
            transformer_layers=len(
                {name.removeprefix(layer).split(".")[0] for name in encoder if name.startswith(layer)}
            ),
            feedforward=sizes[f"{layer}0.linear1.weight"][0],
            specific=specific,
            text_hidden=text_hidden,
            dropout=0.1,
            standardize=False,
            spatial_attention="sum",
            map_hidden=sizes[conv1][0] if "video" in inputs else None,
            map_specific=sizes[conv2][0] if "video" in inputs else None,
        )
    except InputError as error:
        raise InputError(f"{file} describes no model of ours: {error}") from error


def make(config: ModelSettings, state: dict[str, Tensor], file: Path) -> Model:
    """The model, if the file has tensors for all that it would hold."""
    try:
        with torch.device("meta"):
            plan = build_model(config)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError(f"{file} describes no model that can be made ({reason(error)}).") from error
    fill(plan, {name: value.to("meta") for name, value in state.items()}, file)
    return build_model(config)


def fill(model: Model, state: dict[str, Tensor], file: Path) -> None:
    """Load what the published file holds; the scores of the spatial attention, which a sum does not need,
    are dropped.
    """
    needless = ("pooling.video.mean.", "pooling.video.cell.", "pooling.video.score.")
    state = {name: value for name, value in state.items() if not any(part in name for part in needless)}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"{file} does not fit together ({str(error).splitlines()[1].strip()}).") from error
    needless = (".decoder.", ".narrow.", *((".specific.video.summary.",) if model.config.map_encoder == "bn" else ()))
    missing = [name for name in missing if not any(part in name for part in needless)]
    if missing or unexpected:
        raise InputError(f"{file} is not a complete published checkpoint: {', '.join([*missing, *unexpected][:3])}.")


def _is_micu(config: ModelSettings, parts: dict) -> bool:
    return (config.kind, config.layers, config.quantizer) == ("hdcid", 1, "vq") and not OF_TRAINING & parts.keys()


def _description(config: ModelSettings, model: Model, parts: dict, file: Path) -> dict:
    """What `config.yaml` says of a converted model. The released two-layer code leaves CMCM out; MICU's computes CPC,
    CMCM and CLUB for nothing, and its tasks read code 0 as zero.
    """
    micu = _is_micu(config, parts)
    align: tuple[str, ...] = ("cpc", "cmcm") if config.layers == 1 else ("cpc",)
    align = ("fcmi", "cujp") if micu else ("cpc:av", "cmcm", "infonce:t") if config.kind == "fcid" else align
    objective = ObjectiveSettings(
        align=align,
        align_on="features",
        club="none" if micu or config.quantizer == "aligned" else "sampled",
        club_gradient="both",
        cpc_steps="random",
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
            **{key: parts[key] for key in ("epoch", "total_step") if type(parts.get(key)) is int and parts[key] >= 0},
            **({"read": "emptied"} if micu else {}),
        },
        "version_of_hdcid": __version__,
    }
