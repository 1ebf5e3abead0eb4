"""What pulls the modalities together, by the names of `--align` (Table 3).

Each entry says how a layer's module of that loss is made, and what it is asked in a
training step. The losses themselves are in `losses/`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import common_length, time_mean
from hdcid_cli.training.losses.cmcm import cmcm, code_distribution
from hdcid_cli.training.losses.codis import PrototypeAlignment
from hdcid_cli.training.losses.cpc import CrossModalCPC
from hdcid_cli.training.losses.mst import SymmetricInfoNCE
from hdcid_cli.training.losses.smit import smit
from hdcid_cli.training.losses.teacher import Teacher
from hdcid_cli.training.losses.turn import SelfCrossReconstruction

Result = tuple[Tensor, dict[str, Tensor]]  # loss and metrics


@dataclass(frozen=True)
class Method:
    """One way of pulling the modalities together.

    Args:
        make: (ObjectiveSettings, Layer) -> the module that learns along, or an empty one.
        loss: (module, LayerOutput of the global batch, Layer, CPU generator, ObjectiveSettings) -> loss and metrics.
        observe: (module, LayerOutput of this process) -> what else the loss needs of every clip, {modality: [B, T,
            ...]}.
    """

    make: Callable
    loss: Callable
    observe: Callable | None = None


def _nothing(config, layer: Layer) -> nn.Module:
    return nn.Module()


def _make_cpc(config, layer: Layer) -> nn.Module:
    dim = layer.config.dim
    return CrossModalCPC(layer.config.modalities, dim, dim, config.cpc_layers, config.cpc_horizon)


def _cpc(module: CrossModalCPC, out: LayerOutput, layer: Layer, generator: torch.Generator, config) -> Result:
    steps = list(module.steps(common_length(out.general)))
    if config.cpc_steps == "random":
        steps = [steps[int(torch.randint(len(steps), (), generator=generator))]]
    loss, accuracy = module(out.general, steps, out.valid)
    return loss, {"cpc_accuracy": accuracy} if len(out.general) > 1 else {}


def _cmcm(module, out: LayerOutput, layer: Layer, generator, config) -> Result:
    distributions = {
        name: code_distribution(layer.quantizer.distances(z), out.valid and out.valid[name])
        for name, z in out.general.items()
    }
    return cmcm(distributions), {}


def _smit(module, out: LayerOutput, layer: Layer, generator, config) -> Result:
    return smit(_embeddings(out.general, out)), {}


def _mst(module: SymmetricInfoNCE, out: LayerOutput, layer: Layer, generator, config) -> Result:
    loss, accuracy = module(_embeddings(out.general, out))
    return loss, {"mst_accuracy": accuracy} if len(out.general) > 1 else {}


def _make_codis(config, layer: Layer) -> nn.Module:
    return nn.ModuleDict(
        {"loss": PrototypeAlignment(layer.config.codebook, layer.config.dim), "teacher": Teacher(layer)}
    )


def _ask_teacher(module: nn.ModuleDict, out: LayerOutput) -> dict[str, Tensor]:
    return module["teacher"]({name: x.detach() for name, x in out.inputs.items()}, out.valid)


def _codis(module: nn.ModuleDict, out: LayerOutput, layer: Layer, generator, config) -> Result:
    loss, accuracy = module["loss"](_embeddings(out.general, out), _embeddings(out.observed["codis"], out))
    return loss, {"codis_accuracy": accuracy} if len(out.general) > 1 else {}


def _make_turn(config, layer: Layer) -> nn.Module:
    widths = {name: general.input.in_features for name, general in layer.general.items()}
    return SelfCrossReconstruction(widths, layer.config.codebook, layer.config.dim)


def _segment_vectors(module, out: LayerOutput) -> dict[str, Tensor]:
    """The layer's inputs as vectors [B, T, C], a map's being the mean over its cells."""
    return {name: x.detach() if x.ndim == 3 else x.detach().mean(dim=(2, 3)) for name, x in out.inputs.items()}


def _turn(module: SelfCrossReconstruction, out: LayerOutput, layer: Layer, generator, config) -> Result:
    return module(out.general, out.observed["turn"], out.valid), {}


def _embeddings(features: dict[str, Tensor], out: LayerOutput) -> dict[str, Tensor]:
    """One vector a clip: the mean over its segments, [B, D] for each modality."""
    return {name: time_mean(z, out.valid and out.valid[name]) for name, z in features.items()}


METHODS = {
    "cpc": Method(_make_cpc, _cpc),
    "cmcm": Method(_nothing, _cmcm),
    "smit": Method(_nothing, _smit),
    "mst": Method(lambda config, layer: SymmetricInfoNCE(), _mst),
    "codis": Method(_make_codis, _codis, observe=_ask_teacher),
    "turn": Method(_make_turn, _turn, observe=_segment_vectors),
}
