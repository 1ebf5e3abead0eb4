"""A table as data, between the records it came from and the format it is printed in."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One number of a table: the mean over `runs` seeds and their sample standard deviation (n - 1)."""

    mean: float
    deviation: float | None = None
    runs: int = 1

    @classmethod
    def of(cls, values: Sequence[float]) -> "Cell":
        """The mean of one or more values; a single one has no deviation."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Column:
    """A column of numbers: its heading, from the outermost group to the innermost name."""

    path: tuple[str, ...]
    digits: int = 1


@dataclass(frozen=True)
class Row:
    """A row: what stands left of the numbers, the numbers, and where they come from."""

    labels: tuple[str, ...]
    cells: tuple[Cell | None, ...]
    kind: str  # "measured", "paper", "supervised" or "chance"


@dataclass
class Table:
    """Title, names of the label columns, columns of numbers, rows, and remarks below."""

    title: str
    label_names: tuple[str, ...]
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @property
    def has_deviations(self) -> bool:
        return any(cell is not None and cell.deviation is not None for row in self.rows for cell in row.cells)


def digits_for(means: Sequence[float]) -> int:
    """Decimals of a column: one for percentages, as in the papers; three for numbers within -1..1."""
    return 3 if means and all(abs(mean) <= 1 for mean in means) else 1


def cell_text(cell: Cell | None, digits: int, plus_minus: str = " ± ") -> str:
    """A cell as it is printed: `44.1 ± 1.2`, `44.1`, or nothing."""
    if cell is None:
        return ""
    text = f"{cell.mean:.{digits}f}"
    return text if cell.deviation is None else f"{text}{plus_minus}{cell.deviation:.{digits}f}"
