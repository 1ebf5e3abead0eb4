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
        half: the features go to a file of float16, so a GPU gives them as that.
    """

    def __init__(
        self,
        module: nn.Module,
        options: Options,
        batch_on_cpu: int,
        batch_on_gpu: int,
        prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
        half: bool = False,
    ):
        self.device = place(module, options)
        flat = all(parameter.ndim <= 4 for parameter in module.parameters())  # else it convolves over time too
        self.module = module.to(memory_format=torch.channels_last) if flat else module
        self.prepare = prepare
        on_gpu = self.device.type == "cuda"
        self.output = torch.float16 if half and on_gpu else torch.float32
        self.batch_size = options.batch_size or (batch_on_gpu if on_gpu else batch_on_cpu)
        self._copying = torch.cuda.Stream(self.device) if on_gpu else None

    def __call__(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """At most `batch_size` parts [1, ...] -> the features of each, [1, ...]."""
        return self.begin(parts)()

    @torch.inference_mode()
    def begin(self, parts: Sequence[np.ndarray]) -> "Pending":
        """As a call, but a GPU is only told what to do; parts must stay as they are until features are there."""
        features = self.module(self._batch(parts))[: len(parts)].to(self.output)
        return Pending(features.to("cpu", non_blocking=True), self.device)

    def empty(self, size: int) -> np.ndarray:
        """Bytes that the device can read by itself."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=self.device.type == "cuda").numpy()

    def _batch(self, parts: Sequence[np.ndarray]) -> torch.Tensor:
        """All parts and filling, [batch_size, ...] on the device."""
        arrived = [self._to_device(torch.from_numpy(part)) for part in parts]
        if self.prepare is not None:
            arrived = [self.prepare(part) for part in arrived]
        if self.batch_size == 1:
            return arrived[0]
        filling = arrived[0].new_zeros((self.batch_size - len(arrived), *arrived[0].shape[1:]))
        return torch.cat([*arrived, filling])

    def _to_device(self, part: torch.Tensor) -> torch.Tensor:
        """On a stream of its own, so that the batch before goes on computing."""
        if self._copying is None:
            return part.to(self.device)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copying):
            arrived = part.to(self.device, non_blocking=True)
        computing.wait_stream(self._copying)
        arrived.record_stream(computing)
        return arrived


class Pending:
    """Features [n, ...] on their way from a device: called, it waits for them and gives [1, ...] of each part."""

    def __init__(self, features: torch.Tensor, device: torch.device):
        self._features, self._arrived = features, None
        if device.type == "cuda":
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(device))

    def ready(self) -> bool:
        return self._arrived is None or self._arrived.query()

    def __call__(self) -> list[np.ndarray]:
        if self._arrived is not None:
            self._arrived.synchronize()
        return list(self._features.numpy()[:, None])
