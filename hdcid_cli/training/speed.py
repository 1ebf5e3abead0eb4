"""What a training step computes, and how fast this machine could at best."""

import time
from contextlib import contextmanager
from dataclasses import dataclass, fields
from math import prod

import torch
from torch.utils.flop_counter import FlopCounterMode

from hdcid_cli.core.loading import Waits

# What the papers pretrain on (VGGSound-AVEL 40K and 90K), and for how long.
PAPER_CLIPS, PAPER_EPOCHS = (40_000, 90_000), 5
FEWEST = 5  # steps: the first ones are slower than the others


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
    """How fast a trainer goes: clips a second, FLOP/s, their share of this device's matrix rate, and what it waits for.

    Args:
        clips: in the global batch.

    Attributes:
        waits: of the loop over batches, which adds to them.
    """

    def __init__(self, trainer, clips: int):
        self.trainer, self.clips = trainer, clips
        self.peak = matrix_rate(trainer.device, trainer.config.precision) * trainer.world.size
        self.flops: dict[int, int] = {}  # of one step, by the number of layers that take part
        self.waits = Waits()
        self._since = time.monotonic()
        self._now, self._whole = _Stretch(), _Stretch()

    @contextmanager
    def step(self, epoch: int):
        """Around each step. FLOPs are counted once for every number of layers, as the counter costs some time."""
        start = time.monotonic()
        active = self.trainer.active_layers(epoch)
        starts = self.trainer.started < active  # such a step is not like the others
        if starts or active in self.flops:
            yield
        else:
            with FlopCounter() as counter:
                yield
            self.flops[active] = counter.get_total_flops() * self.trainer.world.size
        self._now.steps += 1
        self._now.work += self.flops.get(active, 0)
        if self.trainer.device.type == "cpu":  # no other device is waited for: this is its work
            self.waits.device += time.monotonic() - start

    @contextmanager
    def apart(self):
        """Around what is no training, whose time does not count."""
        start = time.monotonic()
        yield
        self._since += time.monotonic() - start

    def take(self) -> dict[str, float]:
        """Rates since the last call, and shares of the time: `time/data` waiting for features, `time/device` for what
        computes, and `time/host`, in which Python prepared work, logged and saved.
        """
        start = time.monotonic()
        _wait(self.trainer.device)
        now = time.monotonic()
        self.waits.device += now - start
        stretch, self._now = self._now, _Stretch()
        stretch.seconds, self._since = now - self._since, now
        stretch.data, stretch.device = self.waits.data, self.waits.device
        self.waits.data = self.waits.device = 0.0
        self._whole.add(stretch)
        return self._rates(stretch) | stretch.shares()

    def _rates(self, stretch: "_Stretch") -> dict[str, float]:
        rates = {"samples_per_second": stretch.steps * self.clips / stretch.seconds}
        if stretch.work:
            speed = stretch.work / stretch.seconds
            rates |= {"flops_per_second": speed, "share_of_peak": speed / self.peak}
        return rates

    def told(self) -> str | None:
        """The whole run in one line, and how long the papers' runs would take; None of too few steps to say so."""
        if self._whole.steps < FEWEST:
            return None
        rates, shares = self._rates(self._whole), self._whole.shares()
        line = f"{rates['samples_per_second']:.4g} clips/s"
        if "share_of_peak" in rates:
            precision = self.trainer.config.precision
            line += f", {100 * rates['share_of_peak']:.0f} % of this machine's {precision} peak"
        line += "; time went to " + ", ".join(
            f"{what} {100 * shares[f'time/{what}']:.0f} %" for what in ("device", "host", "data")
        )
        papers = " and ".join(
            f"{clips:,} clips {duration(PAPER_EPOCHS * clips / rates['samples_per_second'])}" for clips in PAPER_CLIPS
        )
        return f"{line}. {PAPER_EPOCHS} epochs of such features take: {papers}."


@dataclass
class _Stretch:
    """A part of a run: steps, FLOPs, seconds, and those in which it waited."""

    steps: int = 0
    work: int = 0
    seconds: float = 0.0
    data: float = 0.0
    device: float = 0.0

    def add(self, other: "_Stretch") -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def shares(self) -> dict[str, float]:
        data, device = self.data / self.seconds, self.device / self.seconds
        return {"time/data": data, "time/device": device, "time/host": max(0.0, 1 - data - device)}


def duration(seconds: float) -> str:
    """In a unit that makes it short: `43 s`, `12 min`, `4.5 h`, `31 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"


def matrix_rate(device, precision: str, repeats: int = 3) -> float:
    """FLOP/s of a large matrix product, the best of a few: what nothing on this device computes faster than.

    Args:
        precision: as of `pretrain`: float64, float32, tf32 or bf16.
    """
    device = torch.device(device)
    dtypes = [torch.float64 if precision == "float64" else torch.float32]
    if precision == "bf16":  # some CPUs know bfloat16 only by way of float32
        dtypes = [torch.bfloat16, torch.float32] if device.type == "cpu" else [torch.bfloat16]
    return max(_product_rate(device, dtype, repeats) for dtype in dtypes)


def _product_rate(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    size = 8192 if device.type == "cuda" else 1024
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
