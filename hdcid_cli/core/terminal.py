"""Plain tables for terminals: aligned, and no wider than the screen where there is one.

What all rows share is said once above them; text wraps at words; columns of numbers that
find no room stand in a further block below, with the names of the rows again.
"""

import json
import re
import shutil
import statistics
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hdcid_cli.core.progress import printable

GAP = "  "
NARROWEST = 8  # text is not wrapped to less

# One level of headings over the columns of numbers: (name, how many columns it spans).
Level = Sequence[tuple[str, int]]


def screen() -> int | None:
    """Columns of the terminal that stdout is, or what COLUMNS says; None for a file or a pipe, which take any line."""
    return shutil.get_terminal_size((0, 0)).columns or None


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def wrap(text: str, width: int | None) -> list[str]:
    """Lines of at most `width` columns, broken after spaces and marks; addresses and other words stay whole."""
    lines = [""]
    for word in re.findall(r"https?://\S+\s*|[^\s,/_]+[,/_]*\s*|[,/_]+\s*|\s+", text):
        if width and lines[-1].strip() and width_of(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def paragraph(words: Sequence[str], width: int | None) -> str:
    """Phrases two spaces apart, as many on a line as fit; a phrase is broken only if it is longer than a line."""
    lines: list[str] = []
    for phrase in words:
        if lines and (not width or width_of(lines[-1] + GAP + phrase) <= width):
            lines[-1] += GAP + phrase
        else:
            lines += wrap(phrase, width)
    return "\n".join(lines)


def grid(
    labels: Sequence[str],
    levels: Sequence[Level],
    rows: Sequence[Sequence[str]],
    width: int | None = None,
    rules: Sequence[int] = (),
) -> str:
    """A table: text columns on the left, columns of numbers on the right. Where there are several blocks, each has the
    rows that have a number in it.

    Args:
        labels: names of the text columns.
        levels: headings of the columns of numbers, outermost level first, of the columns themselves last.
        rows: the cells' texts.
        width: of the screen; None for no limit.
        rules: numbers of the rows that a rule stands above.
    """
    count = len(labels)
    widths = _number_widths(levels, rows, count)
    names = _label_lines(labels, rows, width, max(widths, default=0))
    stub = [max(width_of(line) for cell in column for line in cell) for column in zip(*names)] if count else []
    blocks = []
    ranges = _blocks(levels, widths, width and width - sum(stub) - len(GAP) * count)
    for columns in ranges:
        numbers = [[row[count + i] for i in columns] for row in rows]
        kept = [i for i, texts in enumerate(numbers) if any(texts)] if len(ranges) > 1 else range(len(rows))
        shown = [names[0], *(names[1 + i] for i in kept)]
        block = _Block(shown, stub, _cut(levels, columns), widths[columns.start : columns.stop])
        below = {next((place for place, i in enumerate(kept) if i >= rule), 0) for rule in rules}
        blocks.append("\n".join(block.lines([numbers[i] for i in kept], below - {0})))
    return "\n\n".join(blocks)


def _number_widths(levels: Sequence[Level], rows: Sequence[Sequence[str]], count: int) -> list[int]:
    """Widths of the columns of numbers; they grow for the longest word of a heading above them."""
    leaves = [name for name, _ in levels[-1]] if levels else []
    widths = [
        max(width_of(text) for text in [name, *(row[count + i] for row in rows)]) for i, name in enumerate(leaves)
    ]
    for level in reversed(levels[:-1]):
        place = 0
        for name, span in level:
            here = slice(place, place + span)
            taken = sum(widths[here]) + len(GAP) * (span - 1)
            missing = max(width_of(line) for line in wrap(name, max(taken, NARROWEST))) - taken
            widths[here] = [width + max(0, -(-missing // span)) for width in widths[here]]
            place += span
    return widths


def _label_lines(
    labels: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, widest: int
) -> list[list[list[str]]]:
    """The text columns, header first, each cell as lines: the widest is wrapped until one column of numbers fits."""
    count = len(labels)
    cells = [list(labels), *(list(row[:count]) for row in rows)]
    natural = [max(width_of(row[i]) for row in cells) for i in range(count)]
    limits = list(natural)
    # A table of several columns of numbers should not need a block for each: text may take half of the screen.
    room = width and max(width // 2, width - 4 * (widest + len(GAP))) if len(rows and rows[0]) > count else width
    while room and sum(limits) + len(GAP) * count > room and max(limits) > NARROWEST:
        limits[limits.index(max(limits))] -= 1
    wrapped = [
        [wrap(text, limit if limit < full else None) for text, limit, full in zip(row, limits, natural)]
        for row in cells
    ]
    return wrapped


def _blocks(levels: Sequence[Level], widths: Sequence[int], room: int | None) -> list[range]:
    """Which columns of numbers stand beside each other: whole groups of the outermost level where they fit."""
    if not room or not levels:
        return [range(len(widths))]

    def taken(first: int, after: int) -> int:
        return sum(widths[first:after]) + len(GAP) * (after - first - 1)

    blocks, first, place = [], 0, 0
    for _, span in levels[0]:
        if place > first and taken(first, place + span) > room:
            blocks.append(range(first, place))
            first = place
        for column in range(place, place + span):
            if column > first and taken(first, column + 1) > room:
                blocks.append(range(first, column))
                first = column
        place += span
    return [*blocks, range(first, place)]


def _cut(levels: Sequence[Level], columns: range) -> list[list[tuple[str, int]]]:
    """The headings above some of the columns."""
    found = []
    for level in levels:
        place, kept = 0, []
        for name, span in level:
            shared = len(range(max(place, columns.start), min(place + span, columns.stop)))
            if shared:
                kept.append((name, shared))
            place += span
        found.append(kept)
    return found


@dataclass(frozen=True)
class _Block:
    """Columns of numbers that stand beside each other, behind the text columns.

    Attributes:
        names: the text columns, header first: [row][column][line].
        stub: their widths.
        levels: headings of the columns of numbers.
        widths: theirs.
    """

    names: Sequence[Sequence[Sequence[str]]]
    stub: Sequence[int]
    levels: Sequence[Level]
    widths: Sequence[int]

    def lines(self, rows: Sequence[Sequence[str]], rules: Collection[int]) -> Iterator[str]:
        """The block's lines; `rows` are the numbers' texts."""
        for level in self.levels[:-1]:
            yield from self._headings(level)
        rule = GAP.join("-" * width for width in [*self.stub, *self.widths])
        yield from self._row(self.names[0], [name for name, _ in self.levels[-1]] if self.levels else [])
        yield rule
        for number, (labels, cells) in enumerate(zip(self.names[1:], rows)):
            if number in rules:
                yield rule
            yield from self._row(labels, cells)

    def _row(self, labels: Sequence[Sequence[str]], cells: Sequence[str]) -> Iterator[str]:
        for i in range(max((len(cell) for cell in labels), default=1)):
            left = [_left(cell[i] if i < len(cell) else "", width) for cell, width in zip(labels, self.stub)]
            right = [_right(text if i == 0 else "", width) for text, width in zip(cells, self.widths)]
            yield GAP.join([*left, *right]).rstrip()

    def _headings(self, level: Level) -> Iterator[str]:
        """Lines of one level of headings, each name centred above its columns."""
        wrapped, place = [], 0
        for name, span in level:
            taken = sum(self.widths[place : place + span]) + len(GAP) * (span - 1)
            wrapped.append((wrap(name, taken), taken))
            place += span
        height = max(len(lines) for lines, _ in wrapped)
        indent = [" " * width for width in self.stub]
        for i in range(height):
            parts = [([""] * (height - len(lines)) + lines)[i] for lines, _ in wrapped]
            if any(parts):
                yield GAP.join([*indent, *(_centred(part, taken) for part, (_, taken) in zip(parts, wrapped))]).rstrip()


def _centred(text: str, width: int) -> str:
    missing = width - width_of(text)
    return " " * (missing // 2) + text + " " * (missing - missing // 2)


def _left(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))


def _right(text: str, width: int) -> str:
    return " " * (width - width_of(text)) + text


# --- records as a table ---

TABLE_COLUMNS = (
    "data",
    "task",
    "direction",
    "metric",
    "value",
    "interval",
    "chance",
    "n",
    "protocol",
    "method",
    "layers",
    "toc",
)


def records_table(records: list[dict], columns: tuple[str, ...] = (), width: int | None = None) -> str:
    """Records as a plain table; columns that no record fills are left out, what all have in common stands above, seeds
    become mean ± deviation.
    """
    columns = columns or TABLE_COLUMNS
    records = _fold_seeds(records, columns)
    shown = [name for name in columns if any(record.get(name) is not None for record in records)]
    texts = [
        {name: printable(_cell(name, record.get(name), _digits(record, shown))) for name in shown} for record in records
    ]
    shared = [name for name in shown if _is_shared(name, records, shown)]
    shown = [name for name in shown if name not in shared]
    width = width or screen()
    said = paragraph([f"{name} {texts[0][name]}" for name in shared], width)
    left, right = _sides(records, shown)
    rows = [[text[name] for name in (*left, *right)] for text in texts]
    table = grid(left, [[(name, 1) for name in right]] if right else [], rows, width)
    return f"{said}\n\n{table}" if said else table


def _is_shared(name: str, records: list[dict], shown: list[str]) -> bool:
    """Whether a column can be said above the table: one value in all rows, or what a single result is of."""
    values = {json.dumps(record.get(name)) for record in records}
    measured = name == "interval" or any(isinstance(record.get(name), (float, Spread)) for record in records)
    return len(values) == 1 and not measured and (len(records) > 1 or ("metric" in shown and name != "metric"))


def _sides(records: list[dict], names: list[str]) -> tuple[list[str], list[str]]:
    """What names a row, left, and the numbers: all columns of numbers but those that counting begins with."""

    def holds(name: str, kinds: tuple[type, ...]) -> bool:
        return all(record.get(name) is None or isinstance(record[name], kinds) for record in records)

    leading = 0
    while leading < len(names) and holds(names[leading], (int,)):
        leading += 1
    right = [name for name in names[leading:] if name == "interval" or holds(name, (int, float, Spread))]
    return [name for name in names if name not in right], right


class Spread(tuple):
    """(mean, deviation) of several seeds."""


def _fold_seeds(records: list[dict], columns: tuple[str, ...]) -> list[dict]:
    """Records that differ in their seed alone as one, in the order of the first of each."""
    groups: dict[str, list[dict]] = {}
    for number, record in enumerate(records):
        same = [record.get(name) for name in (*columns, "checkpoint") if name not in ("value", "interval", "chance")]
        groups.setdefault(json.dumps(same if "seed" in record else number), []).append(record)
    folded = []
    for group in groups.values():
        values = [record["value"] for record in group if record.get("value") is not None]
        if len({record.get("seed") for record in group}) == len(group) == len(values) > 1:
            mean = Spread((statistics.fmean(values), statistics.stdev(values)))
            group = [group[0] | {"value": mean, "interval": None}]
        folded += group
    return folded


def _cell(name: str, value: Any, digits: int) -> str:
    """A value as text: an interval in brackets, a shape as 10 x 256."""
    if value is None:
        return ""
    if isinstance(value, Spread):
        return " ± ".join(f"{each:.{digits}f}" for each in value)
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    if name == "interval":
        return "[{}]".format(", ".join(f"{each:.{digits}f}" for each in value))
    if isinstance(value, (list, tuple)):
        return (" x " if name == "shape" else ", ").join(map(str, value))
    return str(value)


def _digits(record: dict, shown: Sequence[str]) -> int:
    """Decimals of a record's numbers: one for percentages, three where all are within -1..1."""
    values = [record.get(name) for name in shown]
    numbers = [each for value in values for each in (value if isinstance(value, (list, tuple)) else [value])]
    sizes = [abs(each) for each in numbers if isinstance(each, float)]
    return 3 if sizes and max(sizes) <= 1 else 1
