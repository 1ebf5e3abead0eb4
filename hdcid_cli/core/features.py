"""Feature files: one HDF5 file a modality, one row a clip.

Layout (format "hdcid-features", version 1):

    attributes  format, version, modality, backbone, weights, segment_seconds
    ids         [N] UTF-8 clip names
    features    [N, T, ...] float16 or float32, one clip a chunk
    length      [N] number of valid segments; 0 marks a clip that could not be read
    crc32       [N] checksum of each row's bytes, so that damage is found

A clip shorter than T segments repeats its last one (as published) and says so in
`length`. All rows are allocated before the first is written, and a row's length is
written after its features: from then on no HDF5 metadata changes, so `kill -9` can
lose only the row being written, and a file is extended in place by its next run.
Until every row has been tried the file is called `NAME.h5.part`.

Several shards (`video.shard-1-of-4.h5`, ...) are read as one.
"""

import fcntl
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hdcid_cli.core.errors import InputError

FORMAT = "hdcid-features"
VERSION = 1
ATTRIBUTES = ("modality", "backbone", "weights", "segment_seconds")
# A file may not claim more than this for one clip (VGG19 maps of 10 s take 1 MB).
MAX_CLIP_BYTES = 1 << 30


class FeatureFile:
    """Read access to a feature file or to all its shards, by row or by clip name.

    Attributes:
        ids: clip names, in file order, without those that could not be read.
        length: [len(ids)] valid segments of each clip.
        shape: shape of one clip, (T, ...).
        modality, backbone, weights, segment_seconds: as the file says.
    """

    def __init__(self, paths: Sequence[Path | str]):
        import h5py

        self.paths = [Path(path) for path in paths]
        self._files = []
        self.failed: list[str] = []  # names of clips that could not be read
        ids, length, self._rows = [], [], []
        for path in self.paths:
            file = _open(h5py, path)
            self._files.append(file)
            attributes = {name: file.attrs.get(name) for name in ATTRIBUTES}
            if len(self._files) == 1:
                self._attributes = attributes
                self.shape = tuple(file["features"].shape[1:])
                self.dtype = file["features"].dtype
            elif attributes != self._attributes or tuple(file["features"].shape[1:]) != self.shape:
                raise InputError(
                    f"{path} and {self.paths[0]} are not shards of one extraction (other backbone or shape)."
                )
            features = file["features"]
            for row, (clip, valid) in enumerate(zip(file["ids"].asstr()[:], file["length"][:].tolist(), strict=True)):
                if valid > 0:
                    ids.append(clip)
                    length.append(valid)
                    self._rows.append((features, row))
                else:
                    self.failed.append(clip)
        self.modality = str(self._attributes["modality"])
        self.backbone = str(self._attributes["backbone"])
        self.weights = str(self._attributes["weights"])
        self.segment_seconds = float(self._attributes["segment_seconds"])
        self.ids: list[str] = ids
        self.length = np.asarray(length, dtype=np.int64)
        self.index = {name: row for row, name in enumerate(ids)}
        if len(self.index) != len(ids):
            twice = next(name for row, name in enumerate(ids) if self.index[name] != row)
            raise InputError(f"{self.name} holds clip {twice!r} twice.")

    @property
    def name(self) -> str:
        return str(self.paths[0]) if len(self.paths) == 1 else f"{self.paths[0]} (+{len(self.paths) - 1} shards)"

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Iterable[str]) -> list[int]:
        """Row numbers of the named clips; an unknown name is an InputError."""
        try:
            return [self.index[name] for name in ids]
        except KeyError as error:
            raise InputError(f"{self.name} has no clip {error.args[0]!r}.") from None

    def read(self, rows: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """Features of the given rows, [n, T, ...] in the file's dtype; not finite -> InputError."""
        rows = list(rows)
        if out is None:
            out = np.empty((len(rows), *self.shape), self.dtype)
        for position, row in enumerate(rows):
            dataset, place = self._rows[row]
            try:
                dataset.read_direct(out, np.s_[place], np.s_[position])
            except OSError as error:
                raise InputError(f"{self.name}: clip {self.ids[row]!r} cannot be read; extract it again.") from error
            if not np.isfinite(out[position]).all():
                raise InputError(
                    f"{self.name}: the features of clip {self.ids[row]!r} hold NaN or infinity; extract it again or "
                    "leave it out."
                )
        return out

    def intact(self, row: int) -> bool:
        """Whether a clip's bytes fit their checksum (True if the file has none)."""
        dataset, place = self._rows[row]
        checksums = dataset.parent.get("crc32")
        return checksums is None or zlib.crc32(dataset[place].tobytes()) == checksums[place]

    def damaged(self) -> list[str]:
        """Names of the clips that are not intact (reads everything)."""
        return [name for row, name in enumerate(self.ids) if not self.intact(row)]

    @property
    def digest(self) -> str:
        """Identifies the content: SHA-256 over attributes, names, lengths and row checksums."""
        sha = hashlib.sha256(repr(sorted((k, str(v)) for k, v in self._attributes.items())).encode())
        for file in self._files:
            for name in ("ids", "length", "crc32"):
                if name in file:
                    sha.update(repr(list(file[name][:])).encode() if name == "ids" else file[name][:].tobytes())
            if "crc32" not in file:  # written by another program: its bytes are all there is to go by
                for row in range(len(file["features"])):
                    sha.update(file["features"][row].tobytes())
        return "sha256:" + sha.hexdigest()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _open(h5py, path: Path):
    """Open and validate one HDF5 file; anything that is not a feature file is an InputError."""
    if not path.exists():
        raise InputError(f"There is no feature file {path}: make it with `hdcid extract`.")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(f"{path} is not a feature file, or is damaged ({_first_line(error)}).") from error
    problem = _problem(file)
    if problem:
        file.close()
        raise InputError(f"{path} is not a sound feature file: {problem}.")
    return file


def _problem(file) -> str | None:
    import h5py

    if file.attrs.get("format") != FORMAT:
        return f"its attribute `format` is {file.attrs.get('format')!r}, not {FORMAT!r}"
    if file.attrs.get("version") != VERSION:
        return f"its version is {file.attrs.get('version')}; this program reads {VERSION}"
    for name in ATTRIBUTES:
        if name not in file.attrs:
            return f"it has no attribute `{name}`"
    for name in ("ids", "features", "length"):
        if not isinstance(file.get(name), h5py.Dataset):
            return f"it has no dataset `{name}`"
    features = file["features"]
    if features.ndim < 3 or features.dtype not in (np.float16, np.float32, np.float64):
        return f"`features` is {features.dtype} of shape {features.shape}, not floats [N, T, ...]"
    if int(np.prod(features.shape[1:], dtype=np.int64)) * features.dtype.itemsize > MAX_CLIP_BYTES:
        return f"it claims {features.shape[1:]} numbers a clip, over the limit of {MAX_CLIP_BYTES >> 20} MiB"
    if file["ids"].shape != features.shape[:1] or file["length"].shape != features.shape[:1]:
        return "`ids`, `features` and `length` have different numbers of rows"
    if h5py.check_string_dtype(file["ids"].dtype) is None:
        return "`ids` are not text"
    length = file["length"]
    if length.dtype.kind not in "iu" or (len(length) and (length[:].min() < 0 or length[:].max() > features.shape[1])):
        return f"`length` is not whole numbers between 0 and {features.shape[1]}"
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


_SHARD = re.compile(r"\.shard-(\d+)-of-(\d+)\.h5$")


def shard_path(path: Path, shard: int, shards: int) -> Path:
    """`features/video.h5`, 2, 4 -> `features/video.shard-2-of-4.h5` (counted from 1)."""
    return path.with_name(f"{path.stem}.shard-{shard}-of-{shards}{path.suffix}")


def feature_paths(where: Path | str, modality: str) -> list[Path]:
    """The file, or the complete list of shards, of a modality in a folder (or the file itself)."""
    where = Path(where)
    if where.is_file():
        return [where]
    whole = where / f"{modality}.h5"
    shards = sorted(
        (int(match[2]), int(match[1]), path)
        for path in where.glob(f"{modality}.shard-*.h5")
        if (match := _SHARD.search(path.name))
    )
    if whole.exists() or not shards:
        if not whole.exists() and whole.with_name(whole.name + ".part").exists():
            raise InputError(f"{whole} is not finished: run the same `hdcid extract` again to complete it.")
        return [whole]
    total = shards[-1][0]
    found = {number: path for of, number, path in shards if of == total}
    missing = [number for number in range(1, total + 1) if number not in found]
    if missing:
        raise InputError(
            f"{where}: shard {missing[0]} of {total} of {modality} is missing; extract it with --shard "
            f"{missing[0]}/{total}."
        )
    return [found[number] for number in sorted(found)]


def open_features(where: Path | str, modality: str) -> FeatureFile:
    """Open `where/MODALITY.h5` (or its shards, or the file `where`) and check the modality."""
    features = FeatureFile(feature_paths(where, modality))
    if features.modality != modality:
        features.close()
        raise InputError(f"{features.name} holds {features.modality} features, not {modality}.")
    if not len(features):
        features.close()
        raise InputError(f"{features.name} holds no clip that could be read.")
    return features


class FeatureWriter:
    """Writes a feature file row by row, and takes up again where an earlier run stopped.

    Args:
        path: the finished file, `features/video.h5`; `path.part` while rows are missing.
        ids: names of all clips, in the order of the rows.
        shape: shape of one clip, (T, ...).
        attributes: modality, backbone, weights, segment_seconds.
        dtype: float16 or float32.
        overwrite: start anew, whatever is there.

    If a file by that name holds other clips too, all of it is carried over into the new one.
    `pending` lists the clips still to do; `write` those that can be read; `finish` gives the file its name.

    Raises:
        InputError: the file was made in another way, or another process is writing it.
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
        import h5py

        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        attributes = {name: attributes[name] for name in ATTRIBUTES}
        there = None if overwrite else next((file for file in (self.part, self.path) if file.exists()), None)
        if there is None:
            self.target = self.part
            self._build(list(ids), shape, attributes, np.dtype(dtype), None)
        else:
            with _open(h5py, there) as previous:
                _check_same(there, previous, attributes, tuple(shape))
                known = dict.fromkeys(previous["ids"].asstr()[:])
                new = [name for name in ids if name not in known]
                self.target = self.part if new else there  # rows that are there already are written in place
                if new:
                    self._build([*known, *new], shape, attributes, previous["features"].dtype, previous)
        self._lock = _lock(self.target)
        self._file = h5py.File(self.target, "r+", libver="earliest", locking=False)
        self._features, self._length, self._crc32 = self._file["features"], self._file["length"], self._file["crc32"]
        self.shape = self._features.shape[1:]
        self._row = {name: row for row, name in enumerate(self._file["ids"].asstr()[:])}
        self.pending = [name for name, valid in zip(self._row, self._length[:], strict=True) if valid == 0]
        self.written = len(self._row) - len(self.pending)

    def _build(self, ids: list[str], shape: Sequence[int], attributes: dict, dtype: np.dtype, previous) -> None:
        """Make the file with all its rows, and those of `previous` filled in, under its temporary name."""
        import h5py

        if self.part.exists():
            _lock(self.part).close()  # refuses if someone is at it
        building = self.part.with_name(self.part.name + ".new")
        _allocate(h5py, building, ids, tuple(shape), attributes, dtype)
        if previous is not None:
            with h5py.File(building, "r+", libver="earliest", locking=False) as file:
                for row, valid in enumerate(previous["length"][:]):
                    if valid:
                        file["features"][row] = previous["features"][row]
                for name in ("crc32", "length"):
                    file[name][: len(previous[name])] = previous[name][:]
        os.replace(building, self.part)

    def write(self, name: str, features: np.ndarray, length: int) -> None:
        """Write one clip: features [T, ...] with `length` valid segments (1..T)."""
        if features.shape != self.shape or not 1 <= length <= len(features):
            raise ValueError(
                f"clip {name!r} has {length} segments in an array {features.shape}; the file takes {self.shape}"
            )
        with np.errstate(over="ignore"):
            features = np.ascontiguousarray(features, dtype=self._features.dtype)
        if not np.isfinite(features).all():
            raise InputError(f"Clip {name!r} gave features that are not finite numbers in {features.dtype}.")
        row = self._row[name]
        self._features.id.write_direct_chunk((row,) + (0,) * features.ndim, features.tobytes())
        self._crc32[row] = zlib.crc32(features.tobytes())
        self._file.flush()
        self._length[row] = length  # last: from now on the row counts
        self._file.flush()
        self.written += 1

    def finish(self) -> None:
        """Sync the file to disk and give it its final name."""
        self.close()
        with open(self.target, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.target, self.path)

    def discard(self) -> None:
        """Close and remove an unfinished file."""
        self.close()
        self.part.unlink(missing_ok=True)

    def close(self) -> None:
        """Close without finishing; the next run goes on from here."""
        self._file.close()
        self._lock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._file:
            self.close()


def _lock(path: Path):
    """An open file that keeps other writers away until it is closed (or its process is gone)."""
    file = open(path, "rb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise InputError(f"Another process is writing {path}: wait for it, or choose another --output.") from error
    return file


def _check_same(path: Path, file, attributes: dict, shape: tuple) -> None:
    for name in ATTRIBUTES:
        if str(file.attrs[name]) != str(attributes[name]):
            raise InputError(
                f"{path} was made with {name} {file.attrs[name]!r}, not {attributes[name]!r}: choose another --output "
                "or use --overwrite."
            )
    if tuple(file["features"].shape[1:]) != shape:
        raise InputError(
            f"{path} holds {tuple(file['features'].shape[1:])} a clip, not {shape}: use --overwrite or "
            "another --output."
        )
    if "crc32" not in file:
        raise InputError(f"{path} was written by another program and cannot be extended: use another --output.")


def _allocate(h5py, path: Path, ids: list[str], shape: tuple, attributes: dict, dtype: np.dtype) -> None:
    """Make the file with every row allocated and all its metadata on disk."""
    with h5py.File(path, "w", libver="earliest", locking=False) as file:
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        for name in ATTRIBUTES:
            file.attrs[name] = attributes[name]
        # Fixed-length UTF-8 lies in the dataset itself, so that names need no heap.
        encoded = [name.encode("utf-8") for name in ids]
        width = max(map(len, encoded), default=1) or 1
        file.create_dataset("ids", data=np.array(encoded, dtype=h5py.string_dtype("utf-8", width)))
        for name, kind in (("length", "int32"), ("crc32", "uint32")):
            file.create_dataset(name, data=np.zeros(len(ids), kind))
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((1, *shape))
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # the file stays sparse until rows come
        plan.set_obj_track_times(False)
        space = h5py.h5s.create_simple((len(ids), *shape))
        h5py.h5d.create(file.id, b"features", h5py.h5t.py_create(dtype, logical=True), space, dcpl=plan)
