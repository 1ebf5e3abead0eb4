"""What a feature file has to be, checked before anything of it is believed, and how an empty one is made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.hdf5 import Unsound, attribute, judging, open_hdf5, own_dataset, texts
from hdcid_cli.core.modalities import ORDER

FORMAT = "hdcid-features"
VERSION = 1
ATTRIBUTES = ("modality", "backbone", "weights", "segment_seconds")
REVISION = "revision"  # of a backbone from the hub: for people; its weights are known by their digest
KIND = "feature file"

# What a file may claim: bytes of one clip (VGG19 maps of 10 s take 1 MB), clips, and bytes of their names.
MAX_CLIP_BYTES = 256 << 20
MAX_CLIPS = 1 << 24
MAX_NAME_BYTES = 256 << 20


@dataclass
class Layout:
    """An open feature file that is sound, as far as can be said without reading its features.

    Attributes:
        path, file: where it is, and open.
        attributes: as the file says them.
        names: all clips, row by row.
        length: [N] whole numbers, valid segments of each; 0 for a clip that could not be read.
        crc32: [N] whole numbers, or None if another program wrote the file.
        features: [N, T, ...].
        revision: of the backbone, if it came from the hub.
    """

    path: Path
    file: h5py.File
    attributes: dict
    names: list[str]
    length: np.ndarray
    crc32: np.ndarray | None
    features: h5py.Dataset
    revision: str = ""

    def shown_names(self) -> str:
        """The names in the form in which digests take them: as numpy 2 shows what HDF5 gives; digests must stay."""
        before, after = ("np.bytes_(b'", "')") if self.file["ids"].dtype.kind == "S" else ("b'", "'")
        plain = "".join(self.names)
        if not (plain.isascii() and plain.isprintable() and "'" not in plain and "\\" not in plain):
            return f"[{', '.join(before[:-2] + repr(name.encode()) + after[1:] for name in self.names)}]"
        return f"[{before}{f'{after}, {before}'.join(self.names)}{after}]" if self.names else "[]"


def open_layout(path: Path | str) -> Layout:
    """Open and check a file; anything that is not a sound feature file is an InputError."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no feature file {path}: make it with `hdcid extract`.")
    file = open_hdf5(path, KIND)
    try:
        with judging(path, KIND):
            attributes = _attributes(file)
            features = _features(file)
            length = _numbers(file, "length", "iu", len(features))
            if len(length) and not 0 <= int(length.min()) <= int(length.max()) <= features.shape[1]:
                raise Unsound(f"`length` is not whole numbers between 0 and {features.shape[1]}")
            crc32 = _numbers(file, "crc32", "u", len(features)) if "crc32" in file else None
            revision = str(attribute(file, REVISION)) if REVISION in file.attrs else ""
            return Layout(path, file, attributes, _names(file, features), length, crc32, features, revision)
    except BaseException:
        file.close()
        raise


def _attributes(file: h5py.File) -> dict:
    if (kind := attribute(file, "format") if "format" in file.attrs else None) != FORMAT:
        raise Unsound(f"its attribute `format` is {kind!r}, not {FORMAT!r}")
    if (version := attribute(file, "version")) != VERSION:
        raise Unsound(f"its version is {version}; this program reads {VERSION}")
    found: dict[str, Any] = {name: attribute(file, name) for name in ATTRIBUTES}
    for name in ("modality", "backbone", "weights"):
        if not isinstance(found[name], str):
            raise Unsound(f"its attribute `{name}` is not text")
    if found["modality"] not in ORDER:
        raise Unsound(f"its modality is {found['modality']!r}, not {', '.join(ORDER)}")
    seconds = found["segment_seconds"]
    if isinstance(seconds, str) or not 0 < seconds < np.inf:
        raise Unsound(f"its attribute `segment_seconds` is {seconds!r}, not a number of seconds")
    return found


def _features(file: h5py.File) -> h5py.Dataset:
    features = own_dataset(file, "features")
    if features.ndim < 3 or features.dtype not in (np.float16, np.float32, np.float64):
        raise Unsound(f"`features` is {features.dtype} of shape {features.shape}, not floats [N, T, ...]")
    if 0 in features.shape[1:]:
        raise Unsound(f"`features` is empty: {features.shape[1:]} numbers a clip")
    size = int(np.prod(features.shape[1:], dtype=object)) * features.dtype.itemsize
    if size > MAX_CLIP_BYTES:
        raise Unsound(f"it claims {features.shape[1:]} numbers a clip, over the limit of {MAX_CLIP_BYTES >> 20} MiB")
    if len(features) > MAX_CLIPS:
        raise Unsound(f"it claims {len(features):,} clips, over the limit of {MAX_CLIPS:,}; use shards")
    return features


def _numbers(file: h5py.File, name: str, kinds: str, rows: int) -> np.ndarray:
    dataset = own_dataset(file, name)
    if dataset.dtype.kind not in kinds:
        raise Unsound(f"`{name}` is {dataset.dtype}, not whole numbers")
    _check_rows(dataset, name, rows)
    return dataset[:]


def _names(file: h5py.File, features: h5py.Dataset) -> list[str]:
    dataset = own_dataset(file, "ids")
    if h5py.check_string_dtype(dataset.dtype) is None:
        raise Unsound("`ids` are not text")
    _check_rows(dataset, "ids", len(features))
    stored = texts(dataset, MAX_NAME_BYTES)
    names: list[str] = []
    known: set[str] = set()
    for start in range(0, len(stored), 65536):  # so that a file of one name a million times soon ends here
        try:
            part = [name.decode() for name in stored[start : start + 65536].tolist()]
        except UnicodeDecodeError:
            raise Unsound("its `ids` are not UTF-8 text") from None
        names += part
        known.update(part)
        if len(known) < len(names):
            raise Unsound(f"it holds clip {_twice(names)!r} twice")
    return names


def _twice(names: Iterable[str]) -> str | None:
    """The first name that has been there before."""
    known: set[str] = set()
    for name in names:
        if name in known:
            return name
        known.add(name)
    return None


def _check_rows(dataset: h5py.Dataset, name: str, rows: int) -> None:
    if dataset.ndim != 1:
        raise Unsound(f"`{name}` has {dataset.ndim} axes, not one")
    if len(dataset) != rows:
        raise Unsound(f"`features` and `{name}` have different numbers of rows, {rows:,} and {len(dataset):,}")


def write_layout(
    file: h5py.File, names: Sequence[str], length: np.ndarray, crc32: np.ndarray, attributes: dict
) -> None:
    """Write all but the features: names, lengths [N], checksums [N] and attributes (those of `ATTRIBUTES` and more)."""
    file.attrs["format"] = FORMAT
    file.attrs["version"] = VERSION
    for name, value in attributes.items():
        file.attrs[name] = value
    # Fixed-length UTF-8 lies in the dataset itself, so that names need no heap.
    encoded = [name.encode() for name in names]
    width = max(map(len, encoded), default=1) or 1
    file.create_dataset("ids", data=np.array(encoded, dtype=h5py.string_dtype("utf-8", width)))
    file.create_dataset("length", data=np.asarray(length, np.int32))
    file.create_dataset("crc32", data=np.asarray(crc32, np.uint32))
