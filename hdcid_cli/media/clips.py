"""Which clips to read: folders, globs, list files and tables become a list of `MediaClip`."""

import csv
import glob
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import read_text
from hdcid_cli.core.progress import counted, say

VIDEO = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".gif",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    ]
)
AUDIO = frozenset([".aac", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"])
SUFFIXES = {"video": VIDEO, "audio": VIDEO | AUDIO, "text": frozenset([".txt"])}

ID_COLUMNS = ("id", "video_id", "label", "category")
TEXT_COLUMNS = ("caption", "prompt", "text")
CLASS_COLUMNS = ("label", "category")  # their names are texts too, where there is no column of those


@dataclass(frozen=True)
class MediaClip:
    """One row of a feature file.

    Attributes:
        id: its name there.
        source: path of the media file, or the text itself, or a sound in memory.
        start: where it begins in the file, in seconds.
    """

    id: str
    source: Any  # str, or media.wave.Wave
    start: float = 0.0


def find_clips(paths: Sequence[str], modality: str) -> list[MediaClip]:
    """Clips of the given files, folders (with all that is in them), globs and lists, in order of name.

    Media: a `.txt` file lists paths, a `.csv` file has the columns `path` and, if you like, `id` and `start`.
    Text: a `.txt` file is one text, a `.csv` file has a column of names (`video_id`, ...) and one of texts
    (`caption`, ...) or else of classes (`label`, `category`). Otherwise a clip's name is its file's, without the
    suffix.

    Raises:
        InputError: nothing there, a table without the columns, or two clips of one name.
    """
    clips: dict[str, MediaClip] = {}
    for clip in _clips(paths, modality):
        other = clips.setdefault(clip.id, clip)
        if other != clip:
            remedy = (
                "give each a name of its own"
                if modality == "text"
                else "name them in a CSV file with the columns id,path (`hdcid convert annotations FOLDER` writes one)"
            )
            lists = ", ".join(path for path in paths if Path(path).suffix.lower() in (".csv", ".txt"))
            raise InputError(
                f"{lists}{lists and ': '}{_where(other, modality)} and {_where(clip, modality)} would both be clip "
                f"{clip.id!r}: {remedy}."
            )
    if not clips:
        raise InputError(f"{', '.join(paths)} names no clip.")
    return list(clips.values())


def _where(clip: MediaClip, modality: str) -> str:
    where = repr(clip.source) if modality == "text" else clip.source
    return f"{where} at {clip.start:g} s" if clip.start else where


def _clips(paths: Iterable[str], modality: str) -> Iterator[MediaClip]:
    for path in _expand(paths):
        if path.is_dir():
            found = files_in(path)
            files = [file for file in found if file.suffix.lower() in SUFFIXES[modality]]
            if not files:
                raise InputError(f"{path} holds no {modality} files ({' '.join(sorted(SUFFIXES[modality]))}).")
            if others := sorted(set(found) - set(files)):
                say(
                    f"{path}: {counted(len(others), 'file')} left out, by the name no {modality} "
                    f"({others[0].name}{', ...' * (len(others) > 1)})"
                )
        else:
            files = [path]
        for file in files:
            suffix = file.suffix.lower()
            if suffix == ".csv":
                yield from _captions(file) if modality == "text" else _windows(file)
            elif modality == "text":
                yield MediaClip(file.stem, read_text(file))
            elif suffix == ".txt":
                for line in filter(None, map(str.strip, read_text(file).splitlines())):
                    yield MediaClip(Path(line).stem, _locate(line, file))
            else:
                yield MediaClip(file.stem, str(file))


def _expand(paths: Iterable[str]) -> Iterator[Path]:
    for name in paths:
        if os.path.exists(name):
            yield Path(name)
        elif found := sorted(glob.glob(name, recursive=True)):
            yield from map(Path, found)
        else:
            raise InputError(f"There is no file or folder {name}.")


def files_in(folder: Path) -> list[Path]:
    def refuse(error: OSError):
        raise InputError(f"The folder {error.filename} cannot be read: {error.strerror}.")

    found = []
    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _locate(name: str, listed_in: Path) -> str:
    """A path in a list counts from the working directory or, if it is not there, from the list's folder."""
    return name if os.path.exists(name) else str(listed_in.parent / name)


def _table(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with a header, by column name in lower case, each with its line."""
    reader = csv.DictReader(io.StringIO(read_text(file)))
    try:
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
        for row in reader:
            yield reader.line_num, {name: (cell or "").strip() for name, cell in row.items() if name is not None}
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num} is not CSV: {error}.") from error


def _windows(file: Path) -> Iterator[MediaClip]:
    for line, row in _table(file):
        if not row.get("path"):
            raise InputError(
                f"{file}, line {line} has no path: a list of media needs the columns id,path,start (or path alone)."
            )
        try:
            start = float(row.get("start") or 0)
        except ValueError:
            start = -1.0
        if not 0 <= start < float("inf"):
            raise InputError(f"{file}, line {line}: the start {row['start']!r} is not a number of seconds.")
        yield MediaClip(row.get("id") or Path(row["path"]).stem, _locate(row["path"], file), start)


def _captions(file: Path) -> Iterator[MediaClip]:
    for line, row in _table(file):
        name = next((row[column] for column in ID_COLUMNS if row.get(column)), None)
        text = next((row[column] for column in TEXT_COLUMNS if row.get(column)), None)
        if not any(column in row for column in TEXT_COLUMNS):
            text = next((row[column].replace("_", " ") for column in CLASS_COLUMNS if row.get(column)), None)
        if name is None or text is None:
            raise InputError(
                f"{file}, line {line} has no {'name' if name is None else 'text'}: a table of texts needs one "
                "column of "
                f"{', '.join(ID_COLUMNS)} and one of {', '.join(TEXT_COLUMNS)}."
            )
        yield MediaClip(name, text)
