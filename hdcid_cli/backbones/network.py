"""Running a network on parts of many clips, on any device and in any precision."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from hdcid_cli.backbones.backbone import Options
from hdcid_cli.core.device import resolve_device
from hdcid_cli.core.errors import InputError

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "float16": torch.float16, "bf16": torch.bfloat16}


def place(module: nn.Module, options: Options) -> torch.device:
    """Freeze a module and move it to the options' device; its parameters take the options' precision, its buffers keep
    theirs.
    """
    device = resolve_device(options.device)
    precision = options.precision
    if precision == "auto":
        precision = "float16" if device.type == "cuda" else "float32"
    if precision == "float16" and device.type == "cpu":
        raise InputError("Precision float16 needs a GPU: use float32 or bf16 on a CPU.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.deterministic = True
    module.eval().requires_grad_(False).to(device)
    for layer in module.modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):  # its statistics are buffers; it takes them together
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.to(DTYPES[precision])
    return device


def probe(run: Callable[[], torch.Tensor], name: str) -> tuple[int, ...]:
    """The shape of what a model from outside makes of one part, [1, ...]; InputError if it cannot take it."""
    try:
        with torch.inference_mode():
            return tuple(run().shape[1:])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"The model {name} does not take what its own files prepare ({reason}).") from error


class Network:
    """A frozen module that takes arrays in batches of one size.

    The last batch is filled up, so that the features of a clip do not depend on which other clips it was
    computed with: an interrupted extraction ends with the very bytes of an undisturbed one.

    Args:
        module: [n, ...] of parts -> [n, ...] of features.
        options: device, precision and batch size.
        batch_on_cpu, batch_on_gpu: parts a batch if the options do not say.
        prepare: a part on the device [1, ...] -> what the module takes, [1, ...] of one shape for parts of any.
    """

    def __init__(
        self,
        module: nn.Module,
        options: Options,
        batch_on_cpu: int,
        batch_on_gpu: int,
        prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        self.device = place(module, options)
        flat = all(parameter.ndim <= 4 for parameter in module.parameters())  # else it convolves over time too
        self.module = module.to(memory_format=torch.channels_last) if flat else module
        self.prepare = prepare
        self.batch_size = options.batch_size or (batch_on_gpu if self.device.type == "cuda" else batch_on_cpu)

    @torch.inference_mode()
    def __call__(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """At most `batch_size` parts [1, ...] -> the features of each, [1, ...] float32."""
        features = self.module(self._batch(parts))
        return np.split(features[: len(parts)].float().cpu().numpy(), len(parts))

    def _batch(self, parts: Sequence[np.ndarray]) -> torch.Tensor:
        """All parts and filling, [batch_size, ...] on the device."""
        if self.prepare is not None:
            prepared = [self.prepare(torch.from_numpy(part).to(self.device)) for part in parts]
            return torch.cat([*prepared, *[torch.zeros_like(prepared[0])] * (self.batch_size - len(parts))])
        kind = torch.from_numpy(parts[0]).dtype
        batch = torch.zeros((self.batch_size, *parts[0].shape[1:]), dtype=kind, pin_memory=self.device.type == "cuda")
        np.concatenate(parts, out=batch[: len(parts)].numpy())
        return batch.to(self.device, non_blocking=True)
