"""A trainer of tiny networks, for tests of its step."""

import sys
from contextlib import contextmanager

import torch

from hdcid_cli.models.assembled import build_model
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.alignments import asked_of_model
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

INPUTS = {"audio": (12,), "video": (5, 5, 8), "text": (10,)}
SIZES = {
    "dim": 16,
    "codebook": 12,
    "text_hidden": 4,
    "feedforward": 16,
    "map_hidden": 8,
    "map_specific": 8,
    "transformer_layers": 1,
}


def build(precision="float32", quantizer="vq", align=("cpc", "cmcm"), device="cpu", model=None, train=None, **losses):
    torch.manual_seed(0)
    asked = {**SIZES, **asked_of_model(align), **(model or {})}
    network = build_model(ModelSettings(inputs=INPUTS, quantizer=quantizer, **asked))
    objective = Objective(ObjectiveSettings(align=tuple(align), **losses), network)
    settings = TrainSettings(**{"warmup": 0, "batch_size": 4, "epochs": 4, "precision": precision, **(train or {})})
    return Trainer(network, objective, settings, 100, device)


def batch(device="cpu", seed=1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(4, 3, *shape, generator=generator).to(device) for name, shape in INPUTS.items()}


@contextmanager
def as_on_a_gpu(trainer):
    """Where tensors have shapes and no numbers (`meta`), with operators for all parameters at once, as on a GPU; both
    layers take part.
    """
    trainer.started = len(trainer.model.layers)
    for optimizer in filter(None, (trainer.optimizer, trainer.club_optimizer)):
        optimizer.param_groups[0]["fused"] = True
    optimizers, clipping = sys.modules["torch.optim.optimizer"], sys.modules["torch.nn.utils.clip_grad"]
    before = optimizers._get_fused_kernels_supported_devices, clipping._device_has_foreach_support
    optimizers._get_fused_kernels_supported_devices = lambda: ["meta"]
    clipping._device_has_foreach_support = lambda _: True
    try:
        yield
    finally:
        optimizers._get_fused_kernels_supported_devices, clipping._device_has_foreach_support = before
