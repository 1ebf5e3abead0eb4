"""Features that others published, to feature files: AVE's HDF5 files and folders of zipped pickles."""

import math
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from hdcid_cli.backbones import papers_backbone
from hdcid_cli.backbones.extraction import pad
from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import MAX_CLIP_BYTES, FeatureWriter
from hdcid_cli.core.files import open_regular, reason
from hdcid_cli.core.hdf5 import Unsound, judging, open_hdf5, own_dataset
from hdcid_cli.core.pickled import NoArray, unpickle_array
from hdcid_cli.core.progress import counted, makes_no_difference, progress, warn

# Of a zip file and of what is in it; a clip's features have 2 MB.
MAX_PICKLE_BYTES = 64 << 20
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for gigabytes of memory to unpack
KIND = "file of published features"


def read_zipped_array(path: Path) -> np.ndarray:
    """The one pickled array of numbers in a zip file; an InputError if it is not one."""
    with open_regular(path) as file:
        if file.seek(0, os.SEEK_END) > MAX_PICKLE_BYTES:
            raise InputError(f"{path} is larger than {MAX_PICKLE_BYTES:,} bytes, the limit for a clip's features.")
        try:
            with zipfile.ZipFile(file) as archive:
                content = _only_file(archive, path)
        except InputError:
            raise
        except Exception as error:  # zipfile raises many kinds for broken input
            raise InputError(f"{path} is not a sound zip file ({reason(error)}).") from error
    try:
        return unpickle_array(content)
    except NoArray as error:
        raise InputError(f"{path} is not one pickled array of numbers: {error}.") from error


def _only_file(archive: zipfile.ZipFile, path: Path) -> bytes:
    inside = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(inside) != 1:
        raise InputError(f"{path} holds {counted(len(inside), 'file')}, not one pickled array.")
    if inside[0].file_size > MAX_PICKLE_BYTES:
        raise InputError(f"{path} unpacks to {inside[0].file_size} bytes, over the limit of {MAX_PICKLE_BYTES}.")
    if inside[0].compress_type not in METHODS:
        raise InputError(f"{path} is packed in a way that is not read here: pack it as zip programs do by default.")
    return archive.read(inside[0])


class ZippedPickles:
    """A folder of `ID.zip`, each with one pickled array [t, ...] in it, as VGGSound's, LLP's and UCF's features come.

    Attributes:
        ids: clip names.
        skipped: {file name: why it cannot be one of them}.
    """

    def __init__(self, folder: Path):
        self._paths: dict[str, Path] = {}
        self.skipped: dict[str, str] = {}
        for path in sorted(folder.glob("*.zip")):
            try:
                path.stem.encode()
                self._paths[path.stem] = path
            except UnicodeEncodeError:
                self.skipped[path.name] = f"the name of {path} is not UTF-8: rename the file."
        if not self._paths:
            raise InputError(f"{folder} holds no ID.zip.")
        self.ids = list(self._paths)

    def read(self, name: str) -> np.ndarray:
        """The array of one clip; an InputError if it is not one."""
        path = self._paths[name]
        return _checked(read_zipped_array(path), path)


class AveFile:
    """AVE's released HDF5: a dataset [N, T, ...] whose row i is line i of the annotation file.

    Attributes:
        ids: clip names in order; a video that the annotation lists twice (with two categories) counts once.
        skipped: nothing.

    Args:
        path: `visual_feature.h5`, `audio_feature.h5` and their like.
        names: `Annotations.txt` with or without its header, or a file with a clip's name a line.
    """

    def __init__(self, path: Path, names: Path):
        self.path, self._file = path, open_hdf5(path)
        self.skipped: dict[str, str] = {}
        with judging(path, KIND):
            self._clips = self._find()
        lines = _read_names(names)
        if len(lines) != len(self._clips):
            raise InputError(f"{path} holds {counted(len(self._clips), 'clip')}, but {names} names {len(lines)}.")
        self._rows: dict[str, list[int]] = {}
        for row, name in enumerate(lines):
            self._rows.setdefault(name, []).append(row)
        self.ids = list(self._rows)

    def _find(self) -> h5py.Dataset:
        found = [
            name
            for name in self._file
            if isinstance(self._file.get(name, getlink=True), h5py.HardLink)
            and isinstance(item := self._file[name], h5py.Dataset)
            and item.ndim >= 3
            and item.dtype.kind == "f"
        ]
        if len(found) != 1:
            raise InputError(f"{self.path} holds {len(found)} datasets of clips [N, T, ...], not one.")
        clips = own_dataset(self._file, found[0])
        if math.prod(clips.shape[1:]) * clips.dtype.itemsize > MAX_CLIP_BYTES:
            raise Unsound(f"it claims {clips.shape[1:]} numbers a clip, over the limit of {MAX_CLIP_BYTES >> 20} MiB")
        return clips

    def read(self, name: str) -> np.ndarray:
        """The array of one clip; an InputError if its rows differ."""
        with judging(self.path, KIND):
            first, *others = (self._clips[row] for row in self._rows[name])
        if any(not np.array_equal(first, other) for other in others):
            raise InputError(
                f"{self.path} has different features for {name} in rows {', '.join(map(str, self._rows[name]))}."
            )
        return _checked(first, self.path)


@dataclass(frozen=True)
class Converted:
    """What a conversion came to: the feature file, how many clips are in it, the shape of one, (T, ...), and, by name,
    why some could not be read.
    """

    path: Path
    clips: int
    shape: tuple[int, ...]
    skipped: dict[str, str]


def convert_features(
    path: Path,
    modality: str,
    output: Path,
    names: Path | None = None,
    backbone: str | None = None,
    segments: int = 10,
    overwrite: bool = False,
) -> Converted:
    """Published features to a feature file; run again, it does only what is missing. Clips that cannot be read are
    named on stderr.

    Args:
        path, names: what `open_published` takes.
        modality: video, audio or text.
        backbone: what the features were extracted with; by default the papers' one of that modality.
        segments: T; a longer clip is cut, a shorter one repeats its last segment (text: zeros).
        overwrite: start anew, whatever the file holds.

    Raises:
        InputError: nothing there that could be read, or a file that was made in another way.
    """
    source = open_published(path, names)
    shape = (segments, *segment_shape(source))
    attributes = {
        "modality": modality,
        "backbone": backbone or papers_backbone(modality),
        "weights": "published",
        "segment_seconds": 1.0,
    }
    dtype = "float16" if modality == "video" else "float32"
    skipped = dict(source.skipped)
    for name, why in skipped.items():
        warn(f"skipped {name!r}: {why}")
    with FeatureWriter(output, source.ids, shape, attributes, dtype, overwrite) as writer:
        converted = convert(source, writer, segments, zeros=modality == "text")
        for name, error in progress(converted, total=len(writer.pending), description=output.stem, unit="clip"):
            if error:
                skipped[name] = error
                warn(f"skipped {name!r}: {error}")
        writer.finish()
        return Converted(output, writer.written, shape, skipped)


def open_published(path: Path, names: Path | None) -> ZippedPickles | AveFile:
    """Whichever of the two `path` is."""
    if path.is_dir():
        if names is not None:
            makes_no_difference("--annotations", f"the files in {path} are called as their clips are")
        return ZippedPickles(path)
    if not path.exists():
        raise InputError(f"There is no file or folder {path}.")
    if names is None:
        raise InputError(
            f"{path} does not name its clips: give the annotation file whose lines its rows are with --annotations."
        )
    return AveFile(path, names)


def segment_shape(source: ZippedPickles | AveFile) -> tuple[int, ...]:
    """Shape of one segment, from the first clip that can be read."""
    problem = None
    for name in source.ids:
        try:
            return source.read(name).shape[1:]
        except InputError as error:
            problem = problem or error
    raise InputError(f"Of {counted(len(source.ids), 'clip')} none can be read: {problem}")


def convert(
    source: ZippedPickles | AveFile, writer: FeatureWriter, segments: int, zeros: bool
) -> Iterator[tuple[str, str | None]]:
    """Write the clips that `writer` still lacks, at most `segments` of each; `zeros` as `extraction.pad` has it.

    Yields:
        (name, None) once it is written, (name, reason) if it could not be read.
    """
    for name in writer.pending:
        try:
            features, length = pad(source.read(name)[:segments], segments, zeros)
            if features.shape != writer.shape:
                raise InputError(f"It has {features.shape[1:]} numbers a segment, the first clip {writer.shape[1:]}.")
            writer.write(name, features, length)
            yield name, None
        except InputError as error:
            yield name, str(error)


def _checked(array, where: Path) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim < 2 or not len(array):
        kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{where} holds {kind}, not an array of numbers [t, ...].")
    return array


def _read_names(path: Path) -> list[str]:
    """Clips by the lines of AVE's annotation file, or of a list of names."""
    found: list[str] = []
    for number, line in tables.lines(path):
        line = line.strip()
        if line and not (not found and line.lower().startswith("category&")):
            name = line.split("&")[1].strip() if "&" in line else line
            if not name:
                raise InputError(f"{path}, line {number}: there is no clip's name.")
            found.append(name)
    return found
