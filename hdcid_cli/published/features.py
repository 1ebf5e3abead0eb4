"""Features that others published, to feature files: AVE's HDF5 files and folders of zipped pickles.

A pickle can run any program, so these pass through an unpickler that admits numpy arrays and nothing else.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdcid_cli.backbones import papers_backbone
from hdcid_cli.backbones.extraction import pad
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import MAX_CLIP_BYTES, FeatureWriter
from hdcid_cli.core.progress import progress, warn

# All that a pickled numpy array of numbers needs, by numpy 1 and 2, from Python 2 and 3.
_ADMITTED = {
    "numpy.multiarray._reconstruct": np.zeros(1).__reduce__()[0],
    "numpy.numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "_codecs.encode": lambda text, _: text.encode("latin1"),  # how protocol 2 writes bytes
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        wanted = re.sub(r"^numpy\._?core\.", "numpy.", f"{module}.{name}")
        if wanted not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays of numbers are admitted")
        return _ADMITTED[wanted]


def read_zipped_array(path: Path) -> np.ndarray:
    """The one pickled numpy array in a zip file; an InputError if it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(inside) != 1:
                raise InputError(f"{path} holds {len(inside)} files, not one pickled array.")
            if inside[0].file_size > MAX_CLIP_BYTES:
                raise InputError(f"{path} unpacks to {inside[0].file_size} bytes, over the limit of {MAX_CLIP_BYTES}.")
            with archive.open(inside[0]) as file:
                array = _ArrayUnpickler(file, encoding="latin1").load()
    except InputError:
        raise
    except Exception as error:  # zipfile and pickle raise many kinds for broken input
        raise InputError(f"{path} is not one pickled numpy array: {str(error) or type(error).__name__}.") from error
    return array


class ZippedPickles:
    """A folder of `ID.zip`, each with one pickled array [t, ...] in it, as VGGSound's, LLP's and UCF's features come.

    Attributes:
        ids: clip names.
    """

    def __init__(self, folder: Path):
        self._paths = {path.stem: path for path in sorted(folder.glob("*.zip"))}
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

    Args:
        path: `visual_feature.h5`, `audio_feature.h5` and their like.
        names: `Annotations.txt` with or without its header, or a file with a clip's name a line.
    """

    def __init__(self, path: Path, names: Path):
        import h5py

        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise InputError(f"{path} is not an HDF5 file, or is damaged.") from error
        found = [
            item
            for item in self._file.values()
            if isinstance(item, h5py.Dataset) and item.ndim >= 3 and item.dtype.kind == "f"
        ]
        if len(found) != 1:
            raise InputError(f"{path} holds {len(found)} datasets of clips [N, T, ...], not one.")
        self.path, self._clips = path, found[0]
        lines = _read_names(names)
        if len(lines) != len(self._clips):
            raise InputError(f"{path} holds {len(self._clips)} clips, but {names} names {len(lines)}.")
        self._rows: dict[str, list[int]] = {}
        for row, name in enumerate(lines):
            self._rows.setdefault(name, []).append(row)
        self.ids = list(self._rows)

    def read(self, name: str) -> np.ndarray:
        """The array of one clip; an InputError if its rows differ."""
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
    skipped: dict[str, str] = {}
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
    raise InputError(f"None of the {len(source.ids)} clips can be read: {problem}")


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
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The names of clips in {path} cannot be read ({error}).") from error
    if lines and lines[0].lower().startswith("category&"):
        del lines[0]
    return [line.split("&")[1] if "&" in line else line for line in lines]
