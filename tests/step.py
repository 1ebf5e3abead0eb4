"""A trainer of tiny networks, for tests of its step."""

import sys
from contextlib import contextmanager

import torch
from torch import Tensor

from hdcid_cli.models import encoders, hdcid, together
from hdcid_cli.models.assembled import build_model
from hdcid_cli.models.convolution import Conv3x3, ConvTranspose3x3
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.alignments import asked_of_model
from hdcid_cli.training.losses import cpc
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


def batch(device="cpu", seed=1, steps=3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(4, steps, *shape, generator=generator).to(device) for name, shape in INPUTS.items()}


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


_operators = torch.library.Library("hdcid_tests", "DEF")
_operators.define("one(Tensor[] read, Tensor[] like) -> Tensor[]")
_operators.impl("one", lambda read, like: [torch.zeros_like(x) for x in like], "CPU")


class One(torch.autograd.Function):
    """What is one operator on a GPU, and one on the way back, and several here: zeros like what `like` makes."""

    @staticmethod
    def forward(context, like, *inputs):
        context.save_for_backward(*inputs)
        return tuple(torch.ops.hdcid_tests.one(inputs, like(*inputs)))

    @staticmethod
    def backward(context, *gradients):
        return None, *torch.ops.hdcid_tests.one([x for x in gradients if x is not None], context.saved_tensors)


def _cell(inputs: Tensor, recurrent: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    return One.apply(lambda gates, more, cell: (cell, cell), inputs, recurrent, cell)


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rate: float) -> Tensor:
    return One.apply(lambda query, key, value: (value,), query, key, value)[0]


def _read(front: encoders.TextFront, words: Tensor, lengths: None) -> Tensor:
    width = 2 * front.lstm.hidden_size
    return One.apply(lambda words, *_: (words.new_empty(*words.shape[:2], width),), words, *front.lstm.parameters())[0]


def ask_as_of_cuda(monkeypatch) -> None:
    """From here on, a step on the CPU asks for the operators that one on a CUDA GPU asks for (not for their results):
    networks together, the library's convolutions, cells, attention, LSTM and dropout in one, norms in float32.
    """
    norm = together.layer_norm
    monkeypatch.setattr(together, "layer_norm", lambda x, *given, **more: norm(x.float(), *given, **more))
    monkeypatch.setattr(together, "dropout", lambda x, rate, training: torch.native_dropout(x, rate, training)[0])
    monkeypatch.setattr(together, "scaled_dot_product_attention", _attention)
    monkeypatch.setattr(together, "_cell", _cell)
    monkeypatch.setattr(cpc, "lstms", together.lstms_together)
    monkeypatch.setattr(hdcid, "transformers", together.transformers_together)
    monkeypatch.setattr(encoders.TextFront, "forward", _read)
    for convolution in (Conv3x3, ConvTranspose3x3):
        monkeypatch.setattr(convolution, "forward", convolution.convolve)
