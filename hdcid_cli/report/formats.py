"""Tables as text: terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby

from tabulate import tabulate

from hdcid_cli.core.terminal import grid, paragraph, screen
from hdcid_cli.report.tables import CHANCE, SUPERVISED, Cell, Column, Row, Table


def terminal(tables: Sequence[Table]) -> str:
    """Aligned plain text, on a terminal no wider than its screen; the headings' groups span their columns."""
    width = screen()
    return "\n\n".join(_plain(table.for_readers("Starred"), width) for table in tables)


def _plain(table: Table, width: int | None) -> str:
    levels = list(heading_levels(table))
    cells = [
        [f"{cell}*" if i in table.best(number) else cell for i, cell in enumerate(texts)]
        for number, texts in enumerate(table.texts("±"))
    ]
    starred = {i for number in range(len(table.rows)) for i in table.best(number)}
    cells = [[f"{cell} " if i in starred and cell and cell[-1] != "*" else cell for i, cell in enumerate(texts)]
             for texts in cells]  # fmt: skip
    rules = [number for number in range(len(table.rows)) if starts_frame(table, number)]
    rows = [[*row.labels, *texts] for row, texts in zip(table.rows, cells)]
    said = [paragraph(table.said, width)] if table.said else []
    notes = [paragraph([note], width) for note in table.notes]
    drawn = grid(table.label_names, levels if table.columns else [], rows, width, rules)
    return "\n".join([paragraph([table.title], width), *said, "", drawn, *([""] if notes else []), *notes])


def heading_levels(table: Table) -> Iterator[list[tuple[str, int]]]:
    """The headings of the columns of numbers, outermost level first: [(name, how many columns it spans), ...]."""
    depth = max((len(column.path) for column in table.columns), default=1)
    paths = [("",) * (depth - len(column.path)) + column.path for column in table.columns]
    for level in range(depth - 1):
        yield [
            (prefix[level], len(list(group))) for prefix, group in groupby(paths, key=lambda path: path[: level + 1])
        ]
    yield [(path[-1], 1) for path in paths]


def starts_frame(table: Table, number: int) -> bool:
    """Whether a rule stands above a row: the first of those that frame the results (ceiling and chance)."""
    framing = [row.kind in (SUPERVISED, CHANCE) for row in table.rows]
    return number > 0 and framing[number] and not framing[number - 1]


def markdown(tables: Sequence[Table]) -> str:
    """GitHub's tables; whatever Markdown would read as markup is escaped."""
    return "\n\n".join(_markdown(table.for_readers()) for table in tables)


def _markdown(table: Table) -> str:
    headings = [*table.label_names, *(" ".join(column.path) for column in table.columns)]
    rows = []
    for number, (row, texts) in enumerate(zip(table.rows, table.texts())):
        best = table.best(number)
        cells = [f"**{escape_markdown(text)}**" if i in best else escape_markdown(text) for i, text in enumerate(texts)]
        rows.append([*map(escape_markdown, row.labels), *cells])
    drawn = tabulate(
        rows,
        headers=[escape_markdown(heading) for heading in headings],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left"] * len(table.label_names) + ["right"] * len(table.columns),
    )
    said = [escape_markdown(", ".join(table.said)), ""] if table.said else []
    notes = [f"\n{escape_markdown(note)}" for note in table.notes]
    return "\n".join([f"**{escape_markdown(table.title)}**", "", *said, drawn, *notes])


def escape_markdown(text: str) -> str:
    """Backslashes before the characters that Markdown reads as markup; no line breaks."""
    return re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", " ".join(text.split()))


def latex(tables: Sequence[Table]) -> str:
    """`table` environments with booktabs rules; the headings' groups span their columns."""
    text = "\n\n".join(_latex_table(table.for_readers()) for table in tables)
    packages = ["booktabs", "amssymb"] if "\\checkmark" in text else ["booktabs"]
    return f"% needs \\usepackage{{{','.join(packages)}}}\n{text}"


def _latex_table(table: Table) -> str:
    caption = ". ".join([table.title, *([", ".join(table.said)] if table.said else [])])
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(caption)}}}",
        f"\\begin{{tabular}}{{{'l' * len(table.label_names)}{'r' * len(table.columns)}}}",
        "\\toprule",
        *_latex_headings(table),
        "\\midrule",
    ]
    for number, (row, texts) in enumerate(zip(table.rows, table.texts())):
        if starts_frame(table, number):
            lines.append("\\midrule")
        lines.append(_latex_row([*row.labels, *texts], {len(row.labels) + i for i in table.best(number)}))
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [f"\\par\\smallskip {escape_latex(note)}" for note in table.notes]
    return "\n".join([*lines, "\\end{table}"])


def _latex_headings(table: Table) -> Iterator[str]:
    """One line a level of the headings, with a rule under each group of several columns."""
    *groups, leaves = heading_levels(table)
    for level in groups:
        cells = [""] * len(table.label_names)
        rules = []
        position = len(cells) + 1
        for name, span in level:
            cells.append(f"\\multicolumn{{{span}}}{{c}}{{{escape_latex(name)}}}" if span > 1 else escape_latex(name))
            if span > 1:
                rules.append(f"\\cmidrule(lr){{{position}-{position + span - 1}}}")
            position += span
        yield " & ".join(cells) + " \\\\" + "".join(rules)
    yield _latex_row([*table.label_names, *(name for name, _ in leaves)])


def _latex_row(cells: Sequence[str], bold: Collection[int] = ()) -> str:
    texts = [f"\\textbf{{{escape_latex(cell)}}}" if i in bold else escape_latex(cell) for i, cell in enumerate(cells)]
    return " & ".join(texts) + " \\\\"


LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "→": "$\\rightarrow$",
    "↔": "$\\leftrightarrow$",
    "±": "$\\pm$",
    "–": "--",
    "✓": "$\\checkmark$",
    "|": "$|$",
    "<": "$<$",
    ">": "$>$",
    "[": "{[}",  # behind a line's end it would be an option
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(LATEX.get(character, character) for character in text)


def comma_separated(tables: Sequence[Table]) -> str:
    """CSV for programs: numbers unrounded; deviations and runs, or intervals, in columns of their own; an empty line
    between tables.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for number, table in enumerate(tables):
        if number:
            stream.write("\n")
        beside = {name: take for name, (wanted, take) in BESIDE.items() if wanted(table)}
        headings = [name for column in table.columns for name in _named(" ".join(column.path), beside)]
        writer.writerow(map(no_formula, [*table.label_names, "kind", *headings]))
        for row in table.rows:
            numbers = ["" if cell is None else take(cell) for cell in row.cells for take in (_mean, *beside.values())]
            writer.writerow([*map(no_formula, row.labels), row.kind, *numbers])
    return stream.getvalue().rstrip("\n")


def _mean(cell: Cell) -> float:
    return cell.mean


def _seeds(table: Table) -> bool:
    return table.look.spread == "deviation" and table.has_deviations


def _bounds(table: Table) -> bool:
    return table.look.spread == "interval" and table.has_intervals


# What stands beside a number in columns of its own: when, and what.
BESIDE: dict[str, tuple[Callable[[Table], bool], Callable[[Cell], float | str]]] = {
    "deviation": (_seeds, lambda cell: "" if cell.deviation is None else cell.deviation),
    "runs": (_seeds, lambda cell: cell.runs),
    "low": (_bounds, lambda cell: "" if cell.interval is None else cell.interval[0]),
    "high": (_bounds, lambda cell: "" if cell.interval is None else cell.interval[1]),
}


def _named(column: str, beside: Iterable[str]) -> list[str]:
    return [column, *(f"{column} {name}" for name in beside)]


def no_formula(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe before what would begin one."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text


def as_json(tables: Sequence[Table]) -> str:
    """{"schema": "hdcid.report/1", "tables": [{title, rows: [{labels, kind, values: [{column, mean,
    ...}]}], notes}]}.
    """

    def values(row: Row, columns: Sequence[Column]) -> list[dict]:
        filled = [(cell, column) for cell, column in zip(row.cells, columns) if cell is not None]
        return [
            {"column": list(column.path), "mean": cell.mean, "deviation": cell.deviation, "runs": cell.runs}
            | ({"interval": list(cell.interval)} if cell.interval else {})
            for cell, column in filled
        ]

    content = [
        {
            "title": table.title,
            "rows": [
                {
                    "labels": dict(zip(table.label_names, row.labels)),
                    "kind": row.kind,
                    "values": values(row, table.columns),
                }
                for row in table.rows
            ],
            "notes": table.notes,
        }
        for table in tables
    ]
    return json.dumps({"schema": "hdcid.report/1", "tables": content}, ensure_ascii=False, indent=2)


RENDERERS = {"terminal": terminal, "markdown": markdown, "latex": latex, "csv": comma_separated, "json": as_json}
