"""Rows of a data set to memory, past the HDF5 library where their bytes lie in one piece."""

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np

from hdcid_cli.core.device import cores
from hdcid_cli.core.files import reason
from hdcid_cli.core.hdf5 import row_offsets

# Neighbours in the file are read together, up to so many bytes: they are tested while the processor's cache has them.
RUN_BYTES = 1 << 20
# Less than this is read sooner than threads are woken.
SHARED_BYTES = 4 << 20
THREADS = 4

# A float is NaN or infinite if all bits of its exponent are set. Read as integers, floats stand in order of size:
# signed integers have the positive ones last, unsigned ones the negative ones, and infinity and NaN are at each end.
_INFINITY = {2: (0x7C00, 0xFC00), 4: (0x7F800000, 0xFF800000), 8: (0x7FF << 52, 0xFFF << 52)}


def finite(values: np.ndarray) -> bool:
    """Whether no number of a float array is NaN or infinite (np.isfinite takes ten times as long on float16)."""
    positive, negative = _INFINITY[values.itemsize]
    signed, unsigned = values.view(f"i{values.itemsize}"), values.view(f"u{values.itemsize}")
    return values.size == 0 or bool(signed.max() < positive and unsigned.max() < negative)


def runs(addresses: Sequence[np.ndarray], size: int, limit: int) -> Iterator[tuple[int, int]]:
    """Rows that are neighbors everywhere, together.

    Args:
        addresses: several [n]: where each row of `size` bytes lies here and there.
        limit: bytes of one run, if that is a row at least.

    Yields:
        (first, count) of 0..n.
    """
    number = np.arange(len(addresses[0]))
    begins = np.ones(len(number), bool)
    begins[1:] = np.any([np.diff(address) != size for address in addresses], axis=0)
    within = number - np.maximum.accumulate(np.where(begins, number, 0))
    first = np.flatnonzero(within % max(1, limit // size) == 0)
    return zip(first.tolist(), np.diff(first, append=len(number)).tolist(), strict=True)


class Unreadable(Exception):
    """A row that the file does not give; the message says why.

    Attributes:
        place: where it should have gone.
    """

    def __init__(self, place: int, why: str):
        super().__init__(why)
        self.place = place


class RowReader:
    """Reads rows of a float data set [N, ...]; from several threads if you like."""

    def __init__(self, dataset: h5py.Dataset):
        self._dataset = dataset
        self._size = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
        self._file = os.open(dataset.file.filename, os.O_RDONLY | os.O_CLOEXEC)

    @functools.cached_property
    def offsets(self) -> np.ndarray | None:
        """Where in the file each row's bytes lie, [N] int64; None if only HDF5 can read them."""
        return row_offsets(self._dataset)

    def read(self, rows: np.ndarray, out: np.ndarray, places: np.ndarray) -> list[int]:
        """Put row `rows[i]` at `out[places[i]]`.

        Args:
            rows, places: [n] int64.
            out: contiguous [m, ...], of the data set's dtype.

        Returns:
            Those places where not all numbers are finite.

        Raises:
            Unreadable: the file is damaged, or shorter than it was.
        """
        if self.offsets is None:
            for row, place in zip(rows.tolist(), places.tolist(), strict=True):
                try:
                    self._dataset.read_direct(out, np.s_[row], np.s_[place])
                except Exception as error:  # HDF5 has many kinds
                    raise Unreadable(place, reason(error)) from error
            return [place for place in places.tolist() if not finite(out[place])]
        offsets = self.offsets[rows]
        pieces = [
            (int(offsets[first]), int(places[first]), count)
            for first, count in runs((offsets, places * self._size), self._size, RUN_BYTES)
        ]
        if len(rows) * self._size < SHARED_BYTES:
            return self._read_pieces(out, pieces)
        threads = min(THREADS, cores())
        shares = _pool().map(
            functools.partial(self._read_pieces, out), (pieces[part::threads] for part in range(threads))
        )
        return [place for share in shares for place in share]

    def _read_pieces(self, out: np.ndarray, pieces: list[tuple[int, int, int]]) -> list[int]:
        content = out.data.cast("B")
        bad: list[int] = []
        for offset, place, count in pieces:
            begin, end = place * self._size, (place + count) * self._size
            while begin < end:
                try:
                    got = os.preadv(self._file, [content[begin:end]], offset)
                except OSError as error:
                    raise Unreadable(begin // self._size, reason(error)) from error
                if got == 0:
                    raise Unreadable(begin // self._size, "the file ends before")
                begin, offset = begin + got, offset + got
            if not finite(out[place : place + count]):
                bad += [number for number in range(place, place + count) if not finite(out[number])]
        return bad

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="rows")
