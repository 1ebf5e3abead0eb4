"""Features of clips by position: kept where there is room for them, and on the device before they are needed."""

import functools
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.core.progress import progress

# What `--cache auto` takes of what is free: of a GPU's memory, whose model wants room too, and of the machine's.
DEVICE_SHARE = 0.5
MEMORY_SHARE = 0.4
# More than this of a GPU is refused when it is asked for.
DEVICE_LIMIT = 0.8
# Clips that are read together where all of them are read once.
SLAB_BYTES = 64 << 20
# Batches that are ready, and pieces of memory on their way to the device.
AHEAD = 3
SLOTS = 2

Item = TypeVar("Item")
Arrays = dict[str, np.ndarray]
Tensors = dict[str, Tensor]


def choose_cache(asked: str, size: int, device: torch.device) -> str:
    """Where `size` bytes of features are kept: "device", "ram" (this machine's memory) or "none" (their files alone).

    Args:
        asked: one of the three, or "auto": the GPU if they fit, else memory, else the files.

    Raises:
        InputError: "device" is asked for, and too small.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    if asked == "device" and device.type == "cuda" and size > DEVICE_LIMIT * free:
        raise InputError(
            f"The features take {size / 2**30:.1f} GiB, and {device} has {free / 2**30:.1f} GiB free: use --cache ram."
        )
    if asked != "auto":
        return asked
    if size <= DEVICE_SHARE * free:
        return "device"
    return "ram" if size <= MEMORY_SHARE * free_memory() else "none"


def free_memory() -> int:
    """Bytes of this machine's memory that this process may count on: under `torchrun` its share of what is free."""
    return psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


class ClipReader:
    """Features of clips by position, from where they are kept.

    Args:
        features: open feature files by modality.
        ids: the clips, position by position.
        cache: see `choose_cache`. What is kept is read here, once.
        device: where the model computes.

    Attributes:
        lengths: {modality: [N]} valid segments of each clip.
        bytes: of all features.
        kept: "device", "ram" or "none".
    """

    def __init__(self, features: Mapping[str, FeatureFile], ids: list[str], cache: str = "auto", device: Any = "cpu"):
        self.features, self.ids = dict(features), ids
        self._rows = {name: np.array(file.rows(ids), np.int64) for name, file in features.items()}
        self.lengths = {name: file.length[self._rows[name]] for name, file in features.items()}
        self._clip_bytes = {name: int(np.prod(file.shape)) * file.dtype.itemsize for name, file in features.items()}
        self.bytes = len(ids) * sum(self._clip_bytes.values())
        device = torch.device(device)
        self.kept = choose_cache(cache, self.bytes, device)
        self._arrays: Arrays = {}
        self._tensors: Tensors = {}
        if self.kept == "ram":
            self._arrays = {name: self._read_all(name) for name in self.features}
        elif self.kept == "device":
            self._tensors = {name: self._upload(name, device) for name in self.features}

    @functools.cached_property
    def padded(self) -> bool:
        """Whether any clip has fewer valid segments than its features have."""
        return any((length < self.features[name].shape[0]).any() for name, length in self.lengths.items())

    def read(self, positions: Sequence[int] | np.ndarray, out: Arrays | None = None) -> Arrays:
        """Features of the given positions, {modality: [n, T, ...]} in the files' precision.

        Args:
            out: arrays of n clips at least to fill, {modality: [m, T, ...]}; their beginnings are returned.
        """
        positions = np.asarray(positions, np.int64)
        if self._tensors:
            return {name: x.cpu().numpy() for name, x in self.select(positions).items()}
        parts = None if out is None else {name: array[: len(positions)] for name, array in out.items()}
        return {name: self._read(name, positions, parts[name] if parts else None) for name in self.features}

    def select(self, positions: np.ndarray) -> Tensors:
        """The same of features that are kept on the device, there."""
        return {
            name: x.index_select(0, torch.from_numpy(positions).to(x.device, non_blocking=True))
            for name, x in self._tensors.items()
        }

    def _read(self, name: str, positions: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        if name in self._arrays:
            kept = self._arrays[name]
            # Without a mode that trusts the positions numpy fills a copy of `out` first.
            return kept[positions] if out is None else np.take(kept, positions, axis=0, out=out, mode="clip")
        return self.features[name].read(self._rows[name][positions], out)

    def empty(self, clips: int, name: str, pinned: bool = False) -> Tensor:
        """Memory for so many clips of a modality, in the file's precision."""
        file = self.features[name]
        return torch.empty((clips, *file.shape), dtype=_dtype(file), pin_memory=pinned)

    def _slabs(self, name: str) -> Iterator[np.ndarray]:
        """All positions, a slab at a time."""
        step = max(1, SLAB_BYTES // self._clip_bytes[name])
        starts = range(0, len(self.ids), step)
        bar = progress(starts, description=f"reading {name}", unit="slab")
        return (np.arange(start, min(start + step, len(self.ids))) for start in bar)

    def _read_all(self, name: str) -> np.ndarray:
        file = self.features[name]
        kept = np.empty((len(self.ids), *file.shape), file.dtype)
        for positions in self._slabs(name):
            self._read(name, positions, kept[positions[0] : positions[-1] + 1])
        return kept

    def _upload(self, name: str, device: torch.device) -> Tensor:
        file = self.features[name]
        kept = torch.empty((len(self.ids), *file.shape), dtype=_dtype(file), device=device)
        from_files = ClipReader({name: file}, self.ids, "none")
        for positions, slab in batches_on(device, from_files, self._slabs(name)):
            kept[positions[0] : positions[-1] + 1] = slab[name]
        return kept


def _dtype(file: FeatureFile) -> torch.dtype:
    return torch.from_numpy(np.empty(0, file.dtype)).dtype


@dataclass
class Waits:
    """Seconds that a loop over batches waited for the next one to be read, and for the device."""

    data: float = 0.0
    device: float = 0.0


def batches_on(
    device: Any,
    reader: ClipReader,
    batches: Iterable[np.ndarray],
    dtype: torch.dtype | None = None,
    waits: Waits | None = None,
) -> Iterator[tuple[np.ndarray, Tensors]]:
    """Yield (positions, {modality: [n, T, ...]} on the device), read and copied while earlier batches are in use.

    A thread reads into memory that is used again and again, and that a GPU can fetch from by itself; copies run beside
    the computation on a stream of their own, and numbers are converted on the device. The loop is never more than
    `AHEAD` batches ahead of the device, so that its memory holds few of them.

    Args:
        batches: positions of each batch.
        dtype: of the tensors; the files' own if None.
        waits: is added to.
    """
    device, waits = torch.device(device), waits or Waits()
    transfer = CudaTransfer(device) if device.type == "cuda" else Transfer(device)
    return _take(prefetch(carry(reader, batches, transfer, dtype)), transfer, waits)


def _take(
    items: Generator[tuple[np.ndarray, Tensors, "Mark"], None, None], transfer: "Transfer", waits: Waits
) -> Iterator[tuple[np.ndarray, Tensors]]:
    in_use: deque[tuple[Mark, Tensors]] = deque()
    with closing(items):
        while True:
            begin = time.perf_counter()
            item = next(items, None)
            waits.data += time.perf_counter() - begin
            if item is None:
                return
            positions, tensors, copied = item
            copied.order()
            yield positions, tensors
            in_use.append((transfer.used(), tensors))
            if len(in_use) == AHEAD:
                begin = time.perf_counter()
                in_use[0][0].wait()
                waits.device += time.perf_counter() - begin
                in_use.popleft()


class Mark:
    """A place in a device's work; here the work is done as soon as it is asked for."""

    def wait(self) -> None:
        """Until the device has come so far."""

    def order(self) -> None:
        """What is asked of the device from now on waits for it."""


class Transfer:
    """Copies from memory to a device; here at once."""

    pinned = False

    def __init__(self, device: torch.device):
        self.device = device

    def beside(self) -> Any:
        """What runs in it runs beside the computation."""
        return nullcontext()

    def copy(self, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        """`x` on the device, and never `x` itself."""
        return x.to(self.device, dtype or x.dtype, copy=True)

    def copied(self) -> Mark:
        """The end of all copies so far."""
        return Mark()

    def used(self) -> Mark:
        """The end of all computation so far."""
        return Mark()


class CudaMark(Mark):
    def __init__(self, stream: torch.cuda.Stream, device: torch.device):
        self._event, self._device = stream.record_event(), device

    def wait(self) -> None:
        self._event.synchronize()

    def order(self) -> None:
        self._event.wait(torch.cuda.current_stream(self._device))


class CudaTransfer(Transfer):
    """Copies on a stream of their own."""

    pinned = True

    def __init__(self, device: torch.device):
        super().__init__(device)
        self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))  # what is kept there may be on its way

    def beside(self) -> Any:
        return torch.cuda.stream(self._stream)

    def copy(self, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        moved = x.to(self.device, non_blocking=True)  # first as it is: `to` would convert before it copies
        return moved.to(dtype or x.dtype)

    def copied(self) -> Mark:
        return CudaMark(self._stream, self.device)

    def used(self) -> Mark:
        return CudaMark(torch.cuda.current_stream(self.device), self.device)


def carry(
    reader: ClipReader, batches: Iterable[np.ndarray], transfer: Transfer, dtype: torch.dtype | None
) -> Iterator[tuple[np.ndarray, Tensors, Mark]]:
    """Yield (positions, tensors, the end of their copies) of each batch.

    A batch is read into one of `SLOTS` pieces of memory, once the copies from it are done.
    """
    slots: list[Tensors] = [{} for _ in range(SLOTS)]
    marks = [Mark()] * SLOTS
    for number, positions in enumerate(batches):
        slot, place = slots[number % SLOTS], number % SLOTS
        marks[place].wait()
        with transfer.beside():
            if reader.kept == "device":
                tensors = {name: x.to(dtype or x.dtype) for name, x in reader.select(positions).items()}
            else:
                _make_room(reader, slot, len(positions), transfer.pinned)
                reader.read(positions, {name: x.numpy() for name, x in slot.items()})
                tensors = {name: transfer.copy(x[: len(positions)], dtype) for name, x in slot.items()}
            marks[place] = transfer.copied()
        yield positions, tensors, marks[place]


def _make_room(reader: ClipReader, slot: Tensors, clips: int, pinned: bool) -> None:
    for name in reader.features:
        if name not in slot or len(slot[name]) < clips:
            slot[name] = reader.empty(clips, name, pinned)


def prefetch(items: Iterable[Item], ahead: int = AHEAD) -> Generator[Item, None, None]:
    """The same items, of which a thread makes some before they are asked for."""
    ready: queue.Queue[list[Item] | BaseException] = queue.Queue(maxsize=ahead)  # no item: there are no more
    stop = threading.Event()

    def put(found: list[Item] | BaseException) -> None:
        while not stop.is_set():  # nobody may be taking any more
            try:
                return ready.put(found, timeout=0.1)
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for item in items:
                put([item])
                if stop.is_set():
                    return
            put([])
        except BaseException as error:  # raised again where the items are used
            put(error)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while found := ready.get():
            if isinstance(found, BaseException):
                raise found
            yield from found
    finally:
        stop.set()
        thread.join()
