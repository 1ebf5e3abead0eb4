"""Parts of many clips through a network: while batches compute, the next one is read, and nobody waits for nothing.

Decoding processes leave parts in shared memory; here they are copied once, into arrays that are used again and again
(and that a GPU reads directly), and given to the network in full batches. Two batches are on their way at any time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from hdcid_cli.backbones.backbone import Backbone
from hdcid_cli.media.workers import Event

IN_FLIGHT = 2  # batches that were begun and are not waited for
STAGES = ("decoding", "the network", "writing")


@dataclass
class Clock:
    """What the one thread that all parts pass through has waited for.

    Attributes:
        spent: seconds by stage.
        segments: seconds of media (words of text) that were written.
        seconds: that all of it took; 0 while it goes on.
    """

    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    segments: int = 0
    seconds: float = 0.0
    began: float = field(default_factory=perf_counter)

    def add(self, stage: str, since: float) -> None:
        self.spent[stage] += perf_counter() - since

    def waits(self, stage: str, events: Iterable[Event]) -> Iterator[Event]:
        """The same events; the time until each comes is the stage's."""
        source = iter(events)
        while True:
            began = perf_counter()
            event = next(source, None)
            self.add(stage, began)
            if event is None:
                return
            yield event

    def stop(self) -> None:
        self.seconds = perf_counter() - self.began

    def describe(self, unit: str) -> str:
        """`123 s of media a second, limited by decoding`: the stage that was waited for longest."""
        rate = self.segments / max(self.seconds or perf_counter() - self.began, 1e-9)
        return f"{rate:.3g} {unit} a second, limited by {max(STAGES, key=self.spent.__getitem__)}"


class Buffers:
    """Arrays that are used again, so that memory is asked for (and, for a GPU, pinned) once.

    Args:
        empty: number of bytes -> an array of them, whatever is in it.
    """

    def __init__(self, empty: Callable[[int], np.ndarray]):
        self._empty, self._free = empty, list[np.ndarray]()

    def copy(self, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(a copy of the part, the buffer that it lies in)."""
        fitting = [number for number, buffer in enumerate(self._free) if buffer.nbytes >= part.nbytes]
        if not fitting:
            self._free = self._free[1:]  # too small for what comes now
        buffer = self._free.pop(fitting[0]) if fitting else self._empty(part.nbytes)
        copy = buffer[: part.nbytes].view(part.dtype).reshape(part.shape)
        np.copyto(copy, part)
        return copy, buffer

    def give_back(self, buffers: Iterable[np.ndarray]) -> None:
        self._free += buffers


@dataclass
class _Batch:
    events: list[Event] = field(default_factory=list)
    buffers: list[np.ndarray] = field(default_factory=list)

    @property
    def parts(self) -> list[Any]:
        return [part for _, part, _ in self.events if part is not None]

    def finished(self, outputs: Iterable[Any]) -> Iterator[Event]:
        """The events, with what the network made of their parts."""
        each = iter(outputs)
        for clip, part, error in self.events:
            yield clip, None if part is None else next(each), error


def through_network(events: Iterable[Event], backbone: Backbone, clock: Clock) -> Iterator[Event]:
    """The same events in the same order, with the network's output for each part."""
    network = backbone.network
    assert network is not None
    begin = getattr(network, "begin", None) or partial(_compute, network)
    buffers = Buffers(getattr(network, "empty", None) or partial(np.empty, dtype=np.uint8))
    running: deque[tuple[_Batch, Future]] = deque()
    batch, parts = _Batch(), 0

    def results() -> Iterator[Event]:
        """Of the batch that was begun first; waits for it."""
        first, future = running.popleft()
        began = perf_counter()
        outputs = future.result()()
        clock.add("the network", began)
        buffers.give_back(first.buffers)
        yield from first.finished(outputs)

    with ThreadPoolExecutor(max_workers=1) as thread:
        for clip, part, error in clock.waits("decoding", events):
            if isinstance(part, np.ndarray):
                part, buffer = buffers.copy(part)
                batch.buffers.append(buffer)
            batch.events.append((clip, part, error))
            parts += part is not None
            if parts == backbone.batch_size:
                running.append((batch, thread.submit(begin, batch.parts)))
                batch, parts = _Batch(), 0
            while running and (len(running) > IN_FLIGHT or _ready(running[0][1])):
                yield from results()
        if parts:
            running.append((batch, thread.submit(begin, batch.parts)))
        while running:
            yield from results()
        if not parts:
            yield from batch.finished(())


def _compute(network: Callable, parts: list) -> Callable[[], Sequence[np.ndarray]]:
    """Begin and end at once, for a network that knows no beginning: the features, behind a function that gives them."""
    outputs = network(parts)
    return lambda: outputs


def _ready(future: Future) -> bool:
    """Whether the features are there; a GPU goes on computing when the thread has told it to."""
    return future.done() and getattr(future.result(), "ready", lambda: True)()
