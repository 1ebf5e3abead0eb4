"""Memory that two processes share, for arrays too large to be sent through a pipe.

It is an anonymous file, mapped by both: nothing of it is left wherever a process ends, and the size of /dev/shm, which
containers keep small, is no bound. One side writes arrays into slots, the other reads them where they lie.
"""

import mmap
import os
import tempfile
from collections.abc import Callable
from multiprocessing.reduction import DupFd
from typing import NamedTuple

import numpy as np

SLOTS = 4  # arrays that wait to be taken: enough for a reader that is busy now and then
SMALLEST = 1 << 16  # bytes; smaller arrays are sent as they are
PAGE = mmap.PAGESIZE


class ArenaPlace(NamedTuple):
    """Where an array lies."""

    slot: int
    slot_bytes: int
    shape: tuple[int, ...]
    kind: str


class Arena:
    """One process's view of the memory; pickled to a process that is being started, it becomes the other's."""

    def __init__(self):
        self._open(os.memfd_create("hdcid") if hasattr(os, "memfd_create") else _nameless_file())

    def _open(self, handle: int) -> None:
        self._handle = handle
        self._memory: mmap.mmap | None = None
        self._slot_bytes = 0
        self._free = list(range(SLOTS))

    def __getstate__(self):
        return DupFd(self._handle)

    def __setstate__(self, state):
        self._open(state.detach())

    def put(self, array: np.ndarray, wait: Callable[[], int]) -> ArenaPlace:
        """Write an array into a free slot; where there is none, `wait()` gives the number of one that was taken."""
        if array.nbytes > self._slot_bytes:
            while len(self._free) < SLOTS:  # what lies there is of the old size
                self._free.append(wait())
            self._slot_bytes = -(-array.nbytes // PAGE) * PAGE
            os.ftruncate(self._handle, SLOTS * self._slot_bytes)
        if not self._free:
            self._free.append(wait())
        place = ArenaPlace(self._free.pop(), self._slot_bytes, array.shape, array.dtype.str)
        np.copyto(self.get(place), array)
        return place

    def taken(self, slot: int) -> None:
        """The reader needs the slot no more."""
        self._free.append(slot)

    def get(self, place: ArenaPlace) -> np.ndarray:
        """The array where it lies: it stays what it is until its slot is taken."""
        if self._memory is None or len(self._memory) < SLOTS * place.slot_bytes:
            self._memory = mmap.mmap(self._handle, SLOTS * place.slot_bytes)
        return np.ndarray(place.shape, place.kind, self._memory, place.slot * place.slot_bytes)

    def close(self) -> None:
        """Let go of the memory; arrays that are still looked at keep theirs."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle, self._memory = -1, None


def _nameless_file() -> int:
    with tempfile.TemporaryFile(prefix="hdcid-") as file:
        return os.dup(file.fileno())
