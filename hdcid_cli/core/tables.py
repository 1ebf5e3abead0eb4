"""Tables and lists in text files: the one place that reads them, line by line, with limits.

What cannot be read is an InputError that names the file and the line.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import TEXT_LIMIT, open_regular, reason

LINE_LIMIT = 1 << 20  # bytes; all events of one clip take a few hundred
DELIMITERS = (",", "\t", ";")
MOST_SECONDS = 1e7  # no clip lasts four months


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table: the number of its line in the file (from 1) and its cells by column."""

    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def get(self, column: str) -> str:
        """The cell, or an empty text if the table has no such column."""
        return self.cells.get(column, "")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of every line of a text file, without byte order mark and line ends."""
    number, size = 0, 0
    try:
        with open_regular(path) as file:
            while raw := file.readline(LINE_LIMIT + 1):
                size += len(raw)
                if len(raw) > LINE_LIMIT or size > TEXT_LIMIT:
                    what, limit = ("a line", LINE_LIMIT) if len(raw) > LINE_LIMIT else ("such a file", TEXT_LIMIT)
                    raise InputError(f"{path}, line {number + 1}: more than {limit:,} bytes, the limit for {what}.")
                if b"\0" in raw:
                    raise InputError(f"{path}, line {number + 1}: a null character, so this is not text in UTF-8.")
                if number == 0:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                # Old programs end lines by carriage returns alone.
                for part in raw.removesuffix(b"\n").removesuffix(b"\r").split(b"\r"):
                    number += 1
                    yield number, part.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}, line {number}: not text in UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}.") from error


def table(path: Path, *columns: str) -> Iterator[TableRow]:
    """Rows of a table with a header, separated by commas, tabs or semicolons; blank lines are passed over.

    The names of columns go by their letters, small or capital, without the spaces around them. A missing column, a
    line with too few cells or an empty table is an InputError.
    """
    reader, header = _open(path, columns)
    for column in columns:
        if column not in header:
            raise InputError(
                f"{path} has no column {column!r}; its first line should be {reader.dialect.delimiter.join(columns)!r}."
            )
    for name in columns:
        if header.count(name) > 1:
            raise InputError(f"{path}, line 1: the column {name!r} is there twice.")
    rows = iter(reader)
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: not a row of a table ({error}).") from None
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(header):
            raise InputError(f"{path}, line {reader.line_num}: {len(cells)} cells where the header has {len(header)}.")
        yield TableRow(reader.line_num, {name: cell.strip() for name, cell in zip(header, cells)})


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns."""
    return _open(path, ())[1]


def _open(path: Path, columns: tuple[str, ...]):
    """A reader of the rows after the header, and the header, split where most of the columns are found."""
    text = (f"{line}\n" for _, line in lines(path))
    first = next(text, None)
    if first is None:
        raise InputError(f"{path} is empty.")
    headers = {mark: _names(path, first, mark) for mark in DELIMITERS}
    mark = max(DELIMITERS, key=lambda mark: (len(set(columns) & set(headers[mark])), len(headers[mark])))
    reader = csv.reader(_after_header(text), delimiter=mark)
    next(reader)
    return reader, headers[mark]


def _after_header(text: Iterator[str]) -> Iterator[str]:
    """The remaining lines behind an empty one, so that the reader counts lines as the file does."""
    yield "\n"
    yield from text


def _names(path: Path, line: str, delimiter: str) -> list[str]:
    try:
        return [name.strip().lower() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error as error:
        raise InputError(f"{path}, line 1: not the header of a table ({error}).") from None


def names(path: Path) -> tuple[str, ...]:
    """A list of one name a line; what follows a tab is another data set's name for it."""
    return tuple(name for _, line in lines(path) if (name := line.split("\t")[0].strip()))


def seconds(text: str, path: Path, line: int) -> float:
    """A time in seconds; anything else is an InputError with its place."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= MOST_SECONDS:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise InputError(f"{path}, line {line}: {shown!r} is not a time in seconds.")
    return value
