"""Writing feature files, so that what is in them stays whatever happens."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.features.layout import (
    ATTRIBUTES,
    MAX_CLIP_BYTES,
    MAX_CLIPS,
    REVISION,
    Layout,
    open_layout,
    write_layout,
)
from hdcid_cli.core.features.rows import finite, runs
from hdcid_cli.core.files import Lock, make_folder, pwrite, refuse_stream, remove_empty, unwritable
from hdcid_cli.core.hdf5 import create_hdf5, row_offsets
from hdcid_cli.core.progress import counted

COPY_BYTES = 8 << 20


class _Places(NamedTuple):
    """Where the bytes of a file's rows lie in it: features [N], one place each, and the arrays of the other two."""

    features: np.ndarray
    length: int
    crc32: int


class FeatureWriter:
    """Writes a feature file row by row, and takes up again where an earlier run stopped.

    Args:
        path: the finished file, `features/video.h5`; `path.part` while rows are missing.
        ids: names of all clips, in the order of the rows.
        shape: shape of one clip, (T, ...).
        attributes: modality, backbone, weights, segment_seconds; revision of the backbone, if it has one.
        dtype: float16 or float32.
        overwrite: start anew, whatever is there.

    If a file by that name holds other clips too, all of it is carried over into the new one.
    `pending` lists the clips still to do; `write` those that can be read; `finish` gives the file its name.

    Raises:
        InputError: the file was made in another way, is not sound, or another process is writing it.
        HdcidError: it cannot be written; so do the methods.
    """

    def __init__(
        self,
        path: Path | str,
        ids: Sequence[str],
        shape: Sequence[int],
        attributes: dict,
        dtype="float16",
        overwrite=False,
    ):
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self.target = self.part
        self._file = -1
        for path in (self.path, self.part):
            refuse_stream(path)
        try:
            self._made = make_folder(self.path.parent)
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            self._lock = Lock(
                self.path.with_name(f".{self.path.name}.lock"),
                f"Another process is writing {self.path}: wait for it, or choose another --output.",
            )
        except HdcidError:
            remove_empty(self._made)
            raise
        try:
            optional = {name: attributes[name] for name in (REVISION,) if attributes.get(name)}
            attributes = {**{name: attributes[name] for name in ATTRIBUTES}, **optional}
            self._prepare(list(ids), tuple(shape), attributes, np.dtype(dtype), overwrite)
            self._open()
        except BaseException:
            self.close()
            raise

    def _prepare(self, ids: list[str], shape: tuple, attributes: dict, dtype: np.dtype, overwrite: bool) -> None:
        """Make the file with all its rows, or choose the one that has them."""
        there = None if overwrite else next((file for file in (self.part, self.path) if file.exists()), None)
        if there is None:
            self._build(ids, shape, attributes, dtype)
            return
        previous = open_layout(there)
        try:
            _check_same(previous, attributes, shape)
            places = _places(previous.file)
            if places is None:
                raise InputError(
                    f"{there} was written by another program and cannot be extended: use another --output."
                )
            known = set(previous.names)
            new = [name for name in ids if name not in known]
            if new:
                self._build([*previous.names, *new], shape, attributes, previous.features.dtype, (previous, places))
            else:
                self.target = there  # rows that are there already are written in place
        finally:
            previous.file.close()

    def _build(
        self,
        ids: list[str],
        shape: tuple,
        attributes: dict,
        dtype: np.dtype,
        previous: tuple[Layout, _Places] | None = None,
    ) -> None:
        """Make the file with all its rows, and those of `previous`, a (layout, places), filled in."""
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if size > MAX_CLIP_BYTES:
            raise InputError(f"A clip of {' x '.join(map(str, shape))} numbers is over {MAX_CLIP_BYTES >> 20} MiB.")
        if len(ids) > MAX_CLIPS:
            raise InputError(f"A feature file holds up to {MAX_CLIPS:,} clips, not {len(ids):,}: use --shard.")
        building = self.part.with_name(self.part.name + ".new")
        try:
            building.unlink(missing_ok=True)  # a link there would be followed
            _allocate(building, ids, shape, attributes, dtype)
            if previous is not None:
                _copy_rows(*previous, building)
            os.replace(building, self.part)
        except OSError as error:
            raise unwritable(self.part, error) from error
        finally:
            building.unlink(missing_ok=True)

    def _open(self) -> None:
        layout = open_layout(self.target)
        try:
            self.shape = tuple(layout.features.shape[1:])
            self._dtype = layout.features.dtype
            self._places = _own_places(layout.file)
            self._row = {name: row for row, name in enumerate(layout.names)}
            self.pending = [layout.names[row] for row in np.flatnonzero(layout.length == 0).tolist()]
            self.written = len(layout.names) - len(self.pending)
        finally:
            layout.file.close()
        try:
            self._file = os.open(self.target, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise unwritable(self.target, error) from error

    def write(self, name: str, features: np.ndarray, length: int) -> None:
        """Write one clip: features [T, ...] with `length` valid segments (1..T)."""
        if features.shape != self.shape or not 1 <= length <= len(features):
            raise ValueError(
                f"clip {name!r} has {length} segments in an array {features.shape}; the file takes {self.shape}"
            )
        with np.errstate(over="ignore"):
            features = np.ascontiguousarray(features, dtype=self._dtype)
        if not finite(features):
            raise InputError(f"Clip {name!r} gave features that are not finite numbers in {features.dtype}.")
        row = self._row[name]
        try:
            pwrite(self._file, features, self._places.features[row])
            pwrite(self._file, np.uint32(zlib.crc32(features.data)), self._places.crc32 + 4 * row)
            pwrite(self._file, np.int32(length), self._places.length + 4 * row)  # last: from now on the row counts
        except OSError as error:
            raise unwritable(self.target, error, f"what is in it stays, {counted(self.written, 'clip')}") from error
        self.written += 1

    def finish(self) -> None:
        """Sync the file to disk and give it its final name."""
        try:
            os.fsync(self._file)
            os.replace(self.target, self.path)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.close()

    def close(self) -> None:
        """Close without finishing; the next run goes on from here, or anew if no clip was written."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if not self.written:
                self.part.unlink(missing_ok=True)
        self._lock.release()
        remove_empty(self._made)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _places(file: h5py.File) -> _Places | None:
    """None if the file is not as `_allocate` makes it."""
    offsets = row_offsets(file["features"])
    if offsets is None or "crc32" not in file:
        return None
    if file["length"].dtype != np.int32 or file["crc32"].dtype != np.uint32:
        return None
    length, crc32 = file["length"].id.get_offset(), file["crc32"].id.get_offset()
    return None if length is None or crc32 is None else _Places(offsets, length, crc32)


def _own_places(file: h5py.File) -> _Places:
    """Of a file that `_allocate` has made."""
    places = _places(file)
    assert places is not None
    return places


def _check_same(previous: Layout, attributes: dict, shape: tuple) -> None:
    for name in ATTRIBUTES:
        if str(previous.attributes[name]) != str(attributes[name]):
            raise InputError(
                f"{previous.path} was made with {name} {previous.attributes[name]!r}, not {attributes[name]!r}: choose "
                "another --output or use --overwrite."
            )
    if previous.features.shape[1:] != shape:
        raise InputError(
            f"{previous.path} holds {previous.features.shape[1:]} a clip, not {shape}: use --overwrite or another "
            "--output."
        )


def _allocate(path: Path, ids: list[str], shape: tuple, attributes: dict, dtype: np.dtype) -> None:
    """Make the file with every row allocated and all its metadata on disk."""
    nothing = np.zeros(len(ids))
    with create_hdf5(path) as file:
        write_layout(file, ids, nothing, nothing, attributes)
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((1, *shape))
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # the file stays sparse until rows come
        plan.set_obj_track_times(False)
        space = h5py.h5s.create_simple((len(ids), *shape))
        h5py.h5d.create(file.id, b"features", h5py.h5t.py_create(dtype, logical=True), space, dcpl=plan)


def _copy_rows(previous: Layout, source: _Places, path: Path) -> None:
    """Fill the first rows of a new file with those that `previous` has, neighbors together."""
    with h5py.File(path, "r", locking=False) as file:
        target = _own_places(file)
    size = previous.features.dtype.itemsize * int(np.prod(previous.features.shape[1:]))
    rows = np.flatnonzero(previous.length > 0)
    with open(previous.path, "rb") as old, open(path, "r+b", buffering=0) as new:
        for first, count in runs((source.features[rows], target.features[rows]), size, COPY_BYTES):
            row = rows[first]
            content = os.pread(old.fileno(), count * size, source.features[row])
            pwrite(new.fileno(), content, target.features[row])
        pwrite(new.fileno(), previous.crc32, target.crc32)
        pwrite(new.fileno(), previous.length, target.length)
        os.fsync(new.fileno())
