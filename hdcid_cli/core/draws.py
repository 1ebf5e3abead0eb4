"""Random numbers that a training step draws: on the CPU, so that they are the same on every device, for use on it.

A step that is recorded (`training/captured.py`) draws anew every time it is played, into the memory that it reads.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes


class StepDraws:
    """What one step drew, in its order, and how to draw it again.

    Attributes:
        chosen: why the program itself had to know a number, if it had to: then the step is not the same every time.
    """

    def __init__(self) -> None:
        self.chosen: str | None = None
        self._kept: list[tuple[Callable[[], Tensor], Tensor]] = []
        self._serving: Iterator[Tensor] | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Around a step that is computed: what it draws is remembered."""
        self._kept = []
        with self._active():
            yield

    @contextmanager
    def served(self) -> Iterator[None]:
        """Around the step that is recorded: it gets the memory of what was noted, and nothing is drawn."""
        self._serving = iter([kept for _, kept in self._kept])
        with self._active():
            yield
        self._serving = None

    def again(self) -> None:
        """Draw all of it, in the order of the step."""
        for draw, kept in self._kept:
            kept.copy_(_pinned(draw(), kept.device), non_blocking=True)

    def take(self, draw: Callable[[], Tensor], device: torch.device) -> Tensor:
        """The next that is drawn, on the device."""
        if self._serving is not None:
            return next(self._serving)
        with _disable_current_modes():  # drawing is no part of what is recorded
            self._kept.append((draw, sent(draw(), device)))
        return self._kept[-1][1]

    @contextmanager
    def _active(self) -> Iterator[None]:
        token = _NOW.set(self)
        try:
            yield
        finally:
            _NOW.reset(token)


_NOW: ContextVar[StepDraws | None] = ContextVar("drawn", default=None)


def _pinned(drawn: Tensor, device: torch.device) -> Tensor:
    """In memory that a GPU fetches from by itself, so that nobody waits."""
    return drawn.pin_memory() if device.type == "cuda" else drawn


def sent(x: Tensor, device: torch.device) -> Tensor:
    """On the device, where it may come later: nobody waits until the device has done what it was asked for before."""
    return _pinned(x, device).to(device, non_blocking=True)


def _drawn(draw: Callable[[], Tensor], device: torch.device) -> Tensor:
    now = _NOW.get()
    return sent(draw(), device) if now is None else now.take(draw, device)


def uniform(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Of [0, 1)."""
    return _drawn(lambda: torch.rand(*shape, generator=generator), device)


def normal(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Of mean 0 and deviation 1."""
    return _drawn(lambda: torch.randn(*shape, generator=generator), device)


def integers(below: int, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """So many of 0, 1, ... below `below`."""
    return _drawn(lambda: torch.randint(below, (count,), generator=generator), device)


def permutations(sizes: Sequence[int], generator: torch.Generator, device: torch.device) -> tuple[Tensor, ...]:
    """A permutation of each size; they go to the device in one message."""
    sizes = list(sizes)

    def draw() -> Tensor:
        return torch.cat([torch.randperm(size, generator=generator) for size in sizes])

    return _drawn(draw, device).split(sizes)


def choice(below: int, generator: torch.Generator, why: str) -> int:
    """A number that the program itself must know, as `why` says."""
    if now := _NOW.get():
        now.chosen = why
    with _disable_current_modes():
        return int(torch.randint(below, (), generator=generator))
