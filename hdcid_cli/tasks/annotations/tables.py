"""Finding and reading the text files in which annotations come."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hdcid_cli.core.errors import InputError


@dataclass(frozen=True)
class Row:
    """One line of a table: its number in the file (from 1) and its cells by column."""

    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def get(self, column: str) -> str:
        return self.cells.get(column, "")


def folders(data: Path, *names: str) -> list[Path]:
    """Where to look: the folders of those names in `data`, then `data` itself."""
    return [folder for folder in [*(data / name for name in names), data] if folder.is_dir()]


def find(places: Sequence[Path], *names: str) -> Path | None:
    """The first of the named files that exists, earlier names and earlier folders first."""
    return next((place / name for name in names for place in places if (place / name).is_file()), None)


def require(data: Path, places: Sequence[Path], *names: str, what: str) -> Path:
    """As `find`, but an InputError says where which file is missing."""
    found = find(places, *names)
    if found is None:
        if not data.exists():
            raise InputError(f"There is no folder {data}: say with --data where {what} lies ({' or '.join(names)}).")
        raise InputError(f"{places[0]} has no {' or '.join(names)}: put {what} there or say with --data where it lies.")
    return found


def lines(path: Path) -> list[str]:
    """The lines of a text file, without byte order mark and line ends."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8.") from error


def table(path: Path, *columns: str) -> Iterator[Row]:
    """Rows of a table with a header, separated by tabs or commas; blank lines are passed over.

    A missing column, a line with too few cells or an empty table is an InputError.
    """
    text = lines(path)
    if not text:
        raise InputError(f"{path} is empty.")
    delimiter = "\t" if "\t" in text[0] else ","
    reader = csv.reader(text, delimiter=delimiter)
    header = [name.strip() for name in next(reader)]
    for column in columns:
        if column not in header:
            raise InputError(f"{path} has no column {column!r}; its first line should be {delimiter.join(columns)!r}.")
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(header):
            raise InputError(f"{path}, line {reader.line_num}: {len(cells)} cells where the header has {len(header)}.")
        yield Row(reader.line_num, {name: cell.strip() for name, cell in zip(header, cells)})


def names(path: Path) -> tuple[str, ...]:
    """One name a line; what follows a tab is another data set's name for it."""
    return tuple(line.split("\t")[0].strip() for line in lines(path) if line.strip())


def number(text: str, path: Path, line: int) -> float:
    """A time in seconds; anything else is an InputError with its place."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise InputError(f"{path}, line {line}: {text!r} is not a time in seconds.")
    return value


def split_name(text: str, path: Path, line: int) -> str:
    """train, val or test (validation, valid, eval are other names of val)."""
    name = {"training": "train", "validation": "val", "valid": "val", "eval": "val", "testing": "test"}.get(
        text.lower(), text.lower()
    )
    if name not in ("train", "val", "test"):
        raise InputError(f"{path}, line {line}: there is no split {text!r}; write train, val or test.")
    return name
