"""An encoder of transformers, of whichever kind: its files, its weights, and which half of it serves a modality."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from hdcid_cli.backbones.backbone import Options
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.hub import Snapshot, find_model, load_pretrained

WHAT = {"video": "picture encoder", "audio": "sound encoder", "text": "text encoder"}
INPUTS = {
    "video": ("pixel_values", "pixel_values_videos"),
    "audio": ("input_values", "input_features"),
    "text": ("input_ids",),
}
HALVES = {"video": "vision_model", "audio": "audio_model", "text": "text_model"}
JOINT = {"video": "get_image_features", "audio": "get_audio_features", "text": "get_text_features"}
# Weights that a model may lack: no feature is made of them.
UNUSED = ("pooler.", "masked_spec_embed", "position_ids")


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder.

    Attributes:
        snapshot: its files.
        module: what is moved to the device: the half that serves the modality, or all of a paired model that is not
            of the other half.
        half: module or a part of it; takes the inputs, gives hidden states.
        joint: of a paired model (CLIP, SigLIP, CLAP), inputs -> vectors [n, width] in the space that both halves
            share; None if it is not paired.
        digest: of the weights.
    """

    snapshot: Snapshot
    module: nn.Module
    half: nn.Module
    joint: Callable[..., Tensor] | None
    digest: str

    @property
    def config(self) -> Any:
        return self.half.config

    def hidden(self, layer: int | None, **inputs: Tensor) -> Tensor:
        """The last hidden state, or that of a layer (0: the embeddings), as the model gives it."""
        if layer is None:
            return self.half(**inputs).last_hidden_state
        states = self.half(**inputs, output_hidden_states=True).hidden_states
        if not 0 <= layer < len(states):
            raise InputError(f"{self.snapshot.name} has the layers 0 to {len(states) - 1}, not {layer}.")
        return states[layer]


def open_encoder(modality: str, options: Options, remedy: str) -> Encoder:
    """The encoder `options.model` for a modality.

    Raises:
        InputError: it cannot be had, is damaged, or is no encoder of that modality.
    """
    what = WHAT[modality]
    snapshot = find_model(options.model, what, remedy, options.allow_pickle)

    def load(folder: str, **where):
        config = AutoConfig.from_pretrained(folder, **where)
        if config.model_type == "vit_mae":
            raise ValueError("it leaves out most of a picture at random")
        safe = None if options.allow_pickle else True
        return AutoModel.from_pretrained(folder, config=config, use_safetensors=safe, output_loading_info=True, **where)

    model, info = load_pretrained(snapshot, load, what, remedy)
    paired = hasattr(model, JOINT[modality]) and options.pool == "cls"
    unused = UNUSED[-1:] if paired else UNUSED
    missing = {name for name in info["missing_keys"] if not any(part in name for part in unused)}
    if missing:
        raise InputError(
            f"The {what} {snapshot.name} cannot be loaded (it has no weights {min(missing)!r}, and {len(missing) - 1} "
            f"more are missing): {remedy}."
        )
    random = {id(parameter) for name, parameter in model.named_parameters() if name in info["missing_keys"]}
    half = _half(model, modality)
    if half is None:
        raise InputError(f"{snapshot.name} ({model.config.model_type}) is no {what}: {remedy}.")
    joint = None
    if hasattr(model, JOINT[modality]):
        for other in HALVES.values():
            if getattr(model, other, None) is not half and hasattr(model, other):
                setattr(model, other, None)
        joint = _joint(getattr(model, JOINT[modality]))
    module = model if paired else half
    return Encoder(snapshot, module.float(), half, joint, _digest(module, random))


def _half(model: Any, modality: str) -> nn.Module | None:
    half = getattr(model, HALVES[modality], None)
    if isinstance(half, nn.Module):
        return half
    if model.config.is_encoder_decoder and model.main_input_name in INPUTS[modality]:
        return model.get_encoder()
    return model if model.main_input_name in INPUTS[modality] and not hasattr(model, JOINT[modality]) else None


def _joint(method: Callable) -> Callable[..., Tensor]:
    def vectors(**inputs: Tensor) -> Tensor:
        output = method(**inputs)
        return output if isinstance(output, Tensor) else output.pooler_output  # before and since transformers 5

    return vectors


def _digest(module: nn.Module, random: set[int]) -> str:
    """Of all weights but those that were not in the files."""
    sha = hashlib.sha256()
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, tensor in sorted(module.state_dict().items()):
        if id(parameters.get(name)) in random:
            continue
        sha.update(name.encode())
        sha.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return f"sha256:{sha.hexdigest()}"
