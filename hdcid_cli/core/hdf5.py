"""HDF5 from anywhere, read with care; HDF5 of ours, written so that a full disk is an error and nothing worse.

An HDF5 file may name other files that the library then opens by itself: through links, external storage and virtual
data sets, and filters may load code. None of that is followed here: what we read lies in the file that was named.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import open_regular, pwrite

# Filters that come with HDF5 and h5py; any other would be loaded from a folder of plug-ins.
FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_LZF: "lzf",
}
# A chunk that passes filters is unpacked as a whole to read any of it.
MAX_CHUNK_BYTES = 64 << 20
MAX_ATTRIBUTE_BYTES = 4096


class Unsound(Exception):
    """Something in a file is not as it has to be; the message completes `FILE is not ...: MESSAGE.`"""


def open_hdf5(path: Path | str, kind: str = "sound HDF5 file") -> h5py.File:
    """Open a file to read it; an InputError says that it is no `kind` if it cannot be."""
    open_regular(path).close()
    try:
        return h5py.File(path, "r", locking=False)
    except Exception as error:  # HDF5's own errors come as many kinds, here and below
        raise InputError(f"{path} is not a {kind}, or is damaged ({_first_line(error)}).") from error


@contextlib.contextmanager
def judging(path: Path | str, kind: str = "HDF5 file") -> Iterator[None]:
    """Whatever the block finds wrong with a file becomes one InputError that names it."""
    try:
        yield
    except Unsound as problem:
        raise InputError(f"{path} is not a sound {kind}: {problem}.") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path} is not a sound {kind}: {_first_line(error)}.") from error


def own_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """The data set of that name, if all of it lies in this very file and can be read with bounded memory a chunk."""
    link = file.get(name, getlink=True)
    if link is not None and not isinstance(link, h5py.HardLink):
        raise Unsound(f"`{name}` is a link to somewhere else")
    item = file.get(name)
    if not isinstance(item, h5py.Dataset):
        raise Unsound(f"it has no dataset `{name}`")
    if item.is_virtual or item.external:
        raise Unsound(f"`{name}` keeps its content in other files")
    if item.shape is None:
        raise Unsound(f"`{name}` is empty")
    plan = item.id.get_create_plist()
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    for number in filters:
        if number not in FILTERS:
            raise Unsound(f"`{name}` is packed by filter {number}; {', '.join(FILTERS.values())} can be read")
    if filters and (size := int(np.prod(item.chunks, dtype=object)) * item.dtype.itemsize) > MAX_CHUNK_BYTES:
        raise Unsound(f"`{name}` unpacks {size:,} bytes at a time, over the limit of {MAX_CHUNK_BYTES:,}")
    return item


def attribute(file: h5py.File, name: str) -> str | np.number:
    """A scalar attribute: text or a number."""
    if name not in file.attrs:
        raise Unsound(f"it has no attribute `{name}`")
    stored = file.attrs.get_id(name)
    if stored.shape != () or stored.get_storage_size() > MAX_ATTRIBUTE_BYTES:
        raise Unsound(f"its attribute `{name}` is not one text or number")
    value = file.attrs[name]
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            value.encode()  # h5py smuggles bytes that are not UTF-8 through as surrogates
            return value
    except UnicodeError:
        raise Unsound(f"its attribute `{name}` is not UTF-8 text") from None
    if isinstance(value, (np.integer, np.floating)):
        return value
    raise Unsound(f"its attribute `{name}` is not one text or number")


def texts(dataset: h5py.Dataset, limit: int) -> np.ndarray:
    """The bytes of a data set of text [N], of dtype `S` or `O`; more than `limit` bytes in all are not read."""
    kind = h5py.check_string_dtype(dataset.dtype)
    if kind is None:
        raise Unsound(f"`{_name(dataset)}` are not text")
    step = len(dataset) or 1
    if kind.length is None:  # many rows may share one long text, and none is longer than the file
        with open(dataset.file.filename, "rb") as file:
            place = dataset.id.get_offset()
            if place is None:
                step = max(1, limit // os.fstat(file.fileno()).st_size)
            elif _lengths(file, place, len(dataset)).sum(dtype=np.int64) > limit:
                raise Unsound(f"`{_name(dataset)}` take more than {limit:,} bytes")
    elif len(dataset) * kind.length > limit:
        raise Unsound(f"`{_name(dataset)}` take more than {limit:,} bytes")
    parts, size = [], 0
    for start in range(0, len(dataset), step):
        parts.append(dataset[start : start + step])
        size += parts[-1].nbytes if kind.length else sum(map(len, parts[-1]))
        if size > limit:
            raise Unsound(f"`{_name(dataset)}` take more than {limit:,} bytes")
    return np.concatenate(parts) if parts else np.zeros(0, "S1")


def _lengths(file: BinaryIO, place: int, rows: int) -> np.ndarray:
    """Lengths of texts of variable length, without reading them.

    In the file each is a reference: its length (4 bytes), where its heap lies (8) and its number there (4).
    """
    file.seek(place)
    return np.frombuffer(file.read(16 * rows), "<u4")[::4]


def _name(dataset: h5py.Dataset) -> str:
    return dataset.name.lstrip("/")


def row_offsets(dataset: h5py.Dataset) -> np.ndarray | None:
    """Where in the file each row's bytes lie, [N] int64.

    None if HDF5 alone can read them: rows are packed, split, missing or byte-swapped, or their index is damaged.
    """
    if dataset.file.userblock_size or dataset.dtype.newbyteorder("=") != dataset.dtype:
        return None
    rows, size = len(dataset), int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        return None if start is None else start + size * np.arange(rows, dtype=np.int64)
    if dataset.chunks != (1, *dataset.shape[1:]) or dataset.id.get_create_plist().get_nfilters():
        return None
    offsets = np.full(rows, -1, np.int64)

    def take(chunk) -> None:
        if chunk.size == size and chunk.filter_mask == 0:
            offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    try:
        dataset.id.chunk_iter(take)
    except Exception:  # the index is damaged: HDF5 may still find some rows, and tells which it cannot read
        return None
    end = os.stat(dataset.file.filename).st_size - size
    return offsets if rows == 0 or (offsets.min() >= 0 and offsets.max() <= end) else None


@contextlib.contextmanager
def create_hdf5(path: Path | str) -> Iterator[h5py.File]:
    """Make an HDF5 file, in the format that all versions read, of what is written in the block.

    Raises:
        OSError: not all of it could be written. (HDF5 by itself would end the process by a segmentation fault, as it
            tries to write again when it closes.)
    """
    with _Disk(path) as disk:
        try:
            with h5py.File(disk, "w", libver="earliest") as file:
                yield file
        finally:
            if disk.error is not None:
                raise disk.error


class _Disk(io.RawIOBase):
    """A file that seems to take everything, and remembers the first error."""

    def __init__(self, path: Path | str):
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._place = 0
        self.error: OSError | None = None

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: os.fstat(self._file).st_size}[whence]
        self._place = base + place
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, out) -> int:
        count = os.preadv(self._file, [out], self._place)
        self._place += count
        return count

    def write(self, content) -> int:
        self._try(pwrite, self._file, content, self._place)
        self._place += len(content)
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        size = self._place if size is None else size
        self._try(os.ftruncate, self._file, size)
        return size

    def _try(self, call, *arguments) -> None:
        if self.error is None:
            try:
                call(*arguments)
            except OSError as error:
                self.error = error

    def close(self) -> None:
        if not self.closed:
            os.close(self._file)
        super().close()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
