"""Reading feature files."""

import functools
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features.digests import remembered
from hdcid_cli.core.features.layout import Layout, open_layout
from hdcid_cli.core.features.paths import feature_paths
from hdcid_cli.core.features.rows import RowReader, Unreadable
from hdcid_cli.core.progress import counted

# Rows that are looked at together where a file is read from end to end.
SLAB_BYTES = 32 << 20


class FeatureFile:
    """Read access to a feature file or to all its shards, by row or by clip name.

    Attributes:
        ids: clip names, in file order, without those that could not be read.
        failed: names of the clips that could not be read.
        length: [len(ids)] valid segments of each clip.
        shape: shape of one clip, (T, ...).
        modality, backbone, weights, segment_seconds, revision: as the file says.

    Raises:
        InputError: a file is missing or not sound, shards do not belong together, or a clip is there twice.
    """

    def __init__(self, paths: Sequence[Path | str]):
        self.paths = [Path(path) for path in paths]
        self._layouts: list[Layout] = []
        self._readers: list[RowReader] = []
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        for path in self.paths:
            self._layouts.append(open_layout(path))
            self._readers.append(RowReader(self._layouts[-1].features))
        first = self._layouts[0]
        for other in self._layouts[1:]:
            if other.attributes != first.attributes or other.features.shape[1:] != first.features.shape[1:]:
                raise InputError(
                    f"{other.path} and {first.path} are not shards of one extraction (other backbone or shape)."
                )
            if other.features.dtype != first.features.dtype:
                raise InputError(f"{other.path} and {first.path} are not shards of one extraction (other precision).")
        self.shape = tuple(first.features.shape[1:])
        self.dtype = first.features.dtype
        self.modality: str = first.attributes["modality"]
        self.backbone: str = first.attributes["backbone"]
        self.weights: str = first.attributes["weights"]
        self.revision = first.revision
        self.segment_seconds = float(first.attributes["segment_seconds"])

        valid = [layout.length > 0 for layout in self._layouts]
        self.ids: list[str] = []
        self.failed: list[str] = []
        for layout, there in zip(self._layouts, valid, strict=True):
            if there.all():
                self.ids += layout.names
            else:
                self.ids += [layout.names[row] for row in np.flatnonzero(there).tolist()]
                self.failed += [layout.names[row] for row in np.flatnonzero(~there).tolist()]
        self.length = np.concatenate(
            [layout.length[there].astype(np.int64) for layout, there in zip(self._layouts, valid, strict=True)]
        )
        self._row = np.concatenate([np.flatnonzero(there) for there in valid])
        self._shard = np.repeat(np.arange(len(valid)), [np.count_nonzero(there) for there in valid])
        self.index = dict(zip(self.ids, range(len(self.ids)), strict=True))
        if len(self.index) != len(self.ids):
            twice = next(name for row, name in enumerate(self.ids) if self.index[name] != row)
            raise InputError(f"{self.name} holds clip {twice!r} twice.")

    @property
    def name(self) -> str:
        first, *others = self.paths
        return f"{first} (+{counted(len(others), 'shard')})" if others else str(first)

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
        rows = rows if isinstance(rows, np.ndarray) else np.fromiter(rows, np.int64)
        if out is None:
            out = np.empty((len(rows), *self.shape), self.dtype)
        bad = self._fetch(rows, out)
        if bad:
            raise InputError(
                f"{self.name}: the features of clip {self.ids[rows[min(bad)]]!r} hold NaN or infinity; extract it "
                "again or leave it out."
            )
        return out

    def _fetch(self, rows: np.ndarray, out: np.ndarray) -> list[int]:
        """Fill `out`; which of its rows hold numbers that are not finite."""
        if out.dtype != self.dtype or not out.flags.c_contiguous:
            copy = np.empty((len(rows), *self.shape), self.dtype)
            bad = self._fetch(rows, copy)
            out[: len(rows)] = copy
            return bad
        bad = []
        shards = self._shard[rows]
        for shard in np.unique(shards).tolist():
            places = np.flatnonzero(shards == shard)
            try:
                bad += self._readers[shard].read(self._row[rows[places]], out, places)
            except Unreadable as problem:
                raise _unreadable(self.paths[shard], self.ids[rows[problem.place]], problem) from problem
        return bad

    def inspect(self) -> Iterator["Inspected"]:
        """All rows, a slab at a time, with what is wrong with them."""
        for rows in self._slabs(len(self)):
            yield from self._inspect(rows)

    def _slabs(self, rows: int) -> Iterator[np.ndarray]:
        """0..rows in pieces of `SLAB_BYTES`."""
        step = max(1, SLAB_BYTES // (self.dtype.itemsize * int(np.prod(self.shape))))
        return (np.arange(start, min(start + step, rows)) for start in range(0, rows, step))

    def _inspect(self, rows: np.ndarray) -> Iterator["Inspected"]:
        out = np.empty((len(rows), *self.shape), self.dtype)
        try:
            bad = self._fetch(rows, out)
        except InputError:
            if len(rows) > 1:  # one of them is to blame
                for place in range(len(rows)):
                    yield from self._inspect(rows[place : place + 1])
            else:
                yield Inspected(rows, np.zeros_like(out), intact=np.zeros(1, bool), finite=np.zeros(1, bool))
            return
        finite = np.ones(len(rows), bool)
        finite[bad] = False
        yield Inspected(rows, out, self._intact(rows, out), finite)

    def _intact(self, rows: np.ndarray, features: np.ndarray) -> np.ndarray:
        intact = np.ones(len(rows), bool)
        shards = self._shard[rows]
        for shard in np.unique(shards).tolist():
            stored, places = self._layouts[shard].crc32, np.flatnonzero(shards == shard)
            if stored is not None:
                found = np.fromiter((zlib.crc32(features[place].data) for place in places.tolist()), np.uint32)
                intact[places] = found == stored[self._row[rows[places]]]
        return intact

    def damaged(self) -> list[str]:
        """Names of the clips whose bytes do not fit their checksum (reads everything)."""
        return [self.ids[row] for part in self.inspect() for row in part.rows[~part.intact].tolist()]

    @functools.cached_property
    def digest(self) -> str:
        """Identifies the content: SHA-256 over attributes, names, lengths and row checksums.

        A file that another program wrote has no checksums: it is read to its end, once.
        """
        if all(layout.crc32 is not None for layout in self._layouts):
            return self._digest()
        return remembered(self.paths, self._digest)

    def _digest(self) -> str:
        attributes = self._layouts[0].attributes
        sha = hashlib.sha256(repr(sorted((name, str(value)) for name, value in attributes.items())).encode())
        for layout, reader in zip(self._layouts, self._readers, strict=True):
            sha.update(layout.shown_names().encode())
            sha.update(layout.length.tobytes())
            if layout.crc32 is not None:
                sha.update(layout.crc32.tobytes())
            else:
                for rows in self._slabs(len(layout.features)):
                    out = np.empty((len(rows), *self.shape), self.dtype)
                    try:
                        reader.read(rows, out, np.arange(len(rows)))
                    except Unreadable as problem:
                        raise _unreadable(layout.path, layout.names[rows[problem.place]], problem) from problem
                    sha.update(out.data)
        return "sha256:" + sha.hexdigest()

    def close(self) -> None:
        for part in [*self._readers, *(layout.file for layout in self._layouts)]:
            part.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Inspected(NamedTuple):
    """Some rows of a file that was read from end to end.

    Attributes:
        rows: [n].
        features: [n, T, ...], zeros where they cannot be read.
        intact: [n] whether the bytes fit their checksum (True if the file has none; False for what cannot be read).
        finite: [n] whether no number is NaN or infinite.
    """

    rows: np.ndarray
    features: np.ndarray
    intact: np.ndarray
    finite: np.ndarray


def _unreadable(path: Path, clip: str, problem: Unreadable) -> InputError:
    return InputError(f"{path}: clip {clip!r} cannot be read ({problem}); extract it again.")


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
