"""A table as data, between the records it came from and the format it is printed in."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hdcid_cli.core.progress import printable

MEASURED, PAPER = "measured", "paper"
# Rows that frame the measured ones rather than compete with them.
SUPERVISED, CHANCE = "supervised", "chance"

SPREADS = ("deviation", "interval", "none")


@dataclass(frozen=True)
class Cell:
    """One number of a table: the mean over `runs` seeds, their sample standard deviation (n - 1), and the 95 %
    interval over clips (of several runs the mean of their bounds).
    """

    mean: float
    deviation: float | None = None
    runs: int = 1
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Sequence[float], intervals: Sequence[tuple[float, float] | None] = ()) -> "Cell":
        """The mean of one or more values; a single one has no deviation, and without each interval there is none."""
        known = [interval for interval in intervals if interval]
        mean = (
            (statistics.fmean(low for low, _ in known), statistics.fmean(high for _, high in known)) if known else None
        )
        return cls(
            statistics.fmean(values),
            statistics.stdev(values) if len(values) > 1 else None,
            len(values),
            mean if len(known) == len(values) else None,
        )


@dataclass(frozen=True)
class Column:
    """A column of numbers: its heading, from the outermost group to the innermost name.

    Attributes:
        lower: the lowest number is the best one.
    """

    path: tuple[str, ...]
    digits: int = 1
    lower: bool = False


@dataclass(frozen=True)
class Row:
    """A row: what stands left of the numbers, the numbers, and where they come from (MEASURED, PAPER, SUPERVISED or
    CHANCE).
    """

    labels: tuple[str, ...]
    cells: tuple[Cell | None, ...]
    kind: str


@dataclass(frozen=True)
class Look:
    """How tables are printed: what stands beside a mean (one of SPREADS), and whether the best of a column is bold."""

    spread: str = "deviation"
    best: bool = False


PLAIN = Look()


@dataclass
class Table:
    """Title, names of the label columns, columns of numbers, rows, and remarks.

    Attributes:
        said: what holds of all rows, in phrases.
        notes: remarks below.
        constant: {label column: how its only value reads} of those columns that need not stand there.
    """

    title: str
    label_names: tuple[str, ...]
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    constant: Mapping[str, str] = field(default_factory=dict)
    look: Look = PLAIN

    def __post_init__(self):
        """Texts come from strangers' files: one line each, and nothing that moves a terminal's cursor."""
        self.title = one_line(self.title)
        self.label_names = tuple(map(one_line, self.label_names))
        self.columns = [replace(column, path=tuple(map(one_line, column.path))) for column in self.columns]
        self.rows = [replace(row, labels=tuple(map(one_line, row.labels))) for row in self.rows]
        self.notes, self.said = list(map(one_line, self.notes)), list(map(one_line, self.said))

    @property
    def has_deviations(self) -> bool:
        return any(cell is not None and cell.deviation is not None for row in self.rows for cell in row.cells)

    @property
    def has_intervals(self) -> bool:
        return any(cell is not None and cell.interval is not None for row in self.rows for cell in row.cells)

    def for_readers(self, marked: str = "Bold") -> "Table":
        """The same with what all rows agree in said once, instead of in a column.

        Args:
            marked: how the best number of a column looks.
        """
        said: list[str] = []
        kept: list[int] = []
        for place, name in enumerate(self.label_names):
            if name in self.constant and len({row.labels[place] for row in self.rows} - {""}) <= 1:
                said += filter(None, [self.constant[name]])
            else:
                kept.append(place)
        rows = [replace(row, labels=tuple(row.labels[place] for place in kept)) for row in self.rows]
        names = tuple(self.label_names[place].replace("_", " ") for place in kept)
        return replace(
            self,
            label_names=names,
            rows=rows,
            said=[*said, *self.said],
            notes=[*self.notes, *self._legend(marked)],
            constant={},
        )

    def _legend(self, marked: str) -> Iterator[str]:
        """What the numbers' marks mean."""
        if self.look.spread == "deviation" and self.has_deviations:
            runs = sorted({cell.runs for row in self.rows for cell in row.cells if cell and cell.deviation is not None})
            count = str(runs[0]) if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
            yield f"Mean ± sample standard deviation over {count} runs with other seeds."
        if self.look.spread == "interval" and self.has_intervals:
            several = any(cell and cell.interval and cell.runs > 1 for row in self.rows for cell in row.cells)
            yield "In brackets: 95 % bootstrap interval over recordings" + (
                "; of several runs, the mean of their bounds." if several else "."
            )
        if any(self.best(number) for number in range(len(self.rows))):
            yield f"{marked}: the best of its column" + (
                ", of the paper's rows and of the measured ones."
                if any(row.kind == PAPER for row in self.rows)
                else "."
            )

    def texts(self, plus_minus: str = " ± ") -> list[list[str]]:
        """The rows' cells as text, without their labels."""
        return [
            [
                cell_text(cell, column.digits, self.look.spread, plus_minus)
                for cell, column in zip(row.cells, self.columns)
            ]
            for row in self.rows
        ]

    def best(self, number: int) -> set[int]:
        """Which cells of a row are the best of their column, among the rows of its kind; none if there is one row."""
        row = self.rows[number]
        rivals = [other for other in self.rows if other.kind == row.kind]
        if not self.look.best or row.kind not in (MEASURED, PAPER) or len(rivals) < 2:
            return set()
        found = set()
        for place, (cell, column) in enumerate(zip(row.cells, self.columns)):
            if cell is None:
                continue
            # As printed: of what reads the same none is better.
            values = [round(other.cells[place].mean, column.digits) for other in rivals if other.cells[place]]  # type: ignore[union-attr]
            best = min(values) if column.lower else max(values)
            if len(values) > 1 and round(cell.mean, column.digits) == best:
                found.add(place)
        return found


def one_line(text: str) -> str:
    """A text in one line, with what cannot be seen shown as an escape."""
    return printable(" ".join(text.split()))


def digits_for(means: Sequence[float]) -> int:
    """Decimals of a column: one for percentages, as in the papers; three for numbers within -1..1."""
    return 3 if means and all(abs(mean) <= 1 for mean in means) else 1


def cell_text(cell: Cell | None, digits: int, spread: str = "deviation", plus_minus: str = " ± ") -> str:
    """A cell as it is printed: `44.1 ± 1.2`, `44.1 [40.2, 48.0]`, `44.1`, or nothing."""
    if cell is None:
        return ""
    text = f"{cell.mean:.{digits}f}"
    if spread == "deviation" and cell.deviation is not None:
        return f"{text}{plus_minus}{cell.deviation:.{digits}f}"
    if spread == "interval" and cell.interval is not None:
        return f"{text} [{cell.interval[0]:.{digits}f}, {cell.interval[1]:.{digits}f}]"
    return text
