"""What a training step computes, and how fast this machine could at best."""

import time
from contextlib import contextmanager
from math import prod

import torch
from torch.utils.flop_counter import FlopCounterMode


class FlopCounter(FlopCounterMode):
    """Counts the floating-point operations of matrix products, convolutions, attention and LSTMs while it is entered.

    `torch` knows all but a library's fused LSTM; elementwise work does not count, as usual for a model's FLOPs.
    """

    def __init__(self):
        aten = torch.ops.aten
        super().__init__(
            display=False,
            custom_mapping={
                aten.mkldnn_rnn_layer: lambda x, w_in, w_state, *_, **__: _lstm(x, [w_in, w_state]),
                aten.mkldnn_rnn_layer_backward: lambda x, w_in, w_state, *_, **__: 2 * _lstm(x, [w_in, w_state]),
                aten._cudnn_rnn: lambda x, weights, *_, **__: _lstm(x, weights),
                aten._cudnn_rnn_backward: lambda x, weights, *_, **__: 2 * _lstm(x, weights),
            },
        )


def _lstm(x: tuple[int, ...], weights: list[tuple[int, ...]]) -> int:
    """Shapes of input [..., C] and weights -> FLOPs: every matrix once a step and clip."""
    return 2 * prod(x[:-1]) * sum(prod(weight) for weight in weights if len(weight) == 2)


class Speed:
    """How fast a trainer goes: clips a second, FLOP/s, and their share of this device's matrix rate.

    Args:
        clips: in the global batch.
        count: FLOPs too. The counter keeps what first runs under it from being compiled, so not with torch.compile.
    """

    def __init__(self, trainer, clips: int, count: bool = True):
        self.trainer, self.clips, self.count = trainer, clips, count
        self.peak = matrix_rate(trainer.device, trainer.config.precision) * trainer.world.size
        self.flops: dict[int, int] = {}  # of one step, by the number of layers that take part
        self.since, self.steps, self.work = time.monotonic(), 0, 0

    @contextmanager
    def step(self, epoch: int):
        """Around each step. FLOPs are counted once for every number of layers, as the counter costs some time."""
        active = self.trainer.active_layers(epoch)
        if (
            not self.count or active in self.flops or self.trainer.started < active
        ):  # the step in which a layer starts is not like the others
            yield
        else:
            with FlopCounter() as counter:
                yield
            self.flops[active] = counter.get_total_flops() * self.trainer.world.size
        self.steps += 1
        self.work += self.flops.get(active, 0)

    @contextmanager
    def apart(self):
        """Around what is no training, whose time does not count."""
        start = time.monotonic()
        yield
        self.since += time.monotonic() - start

    def take(self) -> dict[str, float]:
        """Rates since the last call."""
        now = time.monotonic()
        seconds, self.since = now - self.since, now
        rates = {"samples_per_second": self.steps * self.clips / seconds}
        if self.work:
            rates |= {"flops_per_second": self.work / seconds, "share_of_peak": self.work / seconds / self.peak}
        self.steps = self.work = 0
        return rates


def matrix_rate(device, precision: str, repeats: int = 3) -> float:
    """FLOP/s of a large matrix product, the best of a few: what nothing on this device computes faster than.

    Args:
        precision: as of `pretrain`: float64, float32, tf32 or bf16.
    """
    device = torch.device(device)
    size = 8192 if device.type == "cuda" else 1024
    dtype = {"float64": torch.float64, "bf16": torch.bfloat16}.get(precision, torch.float32)
    generator = torch.Generator(device)  # of its own: training draws from the global one
    a, b = (torch.rand(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):  # the first warms up
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
