"""Tables as text: terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from hdcid_cli.report.tables import Column, Row, Table, cell_text

GAP = "  "


def terminal(tables: Sequence[Table]) -> str:
    """Aligned plain text; the headings' groups span their columns, so that eight columns of numbers stay narrow."""
    return "\n\n".join(
        "\n".join([table.title, "", *_aligned(table), *(f"* {note}" for note in table.notes)]) for table in tables
    )


def _aligned(table: Table) -> Iterator[str]:
    texts = _texts(table, "±")
    levels = list(heading_levels(table))
    left = len(table.label_names)
    leaves = [*table.label_names, *(name for name, _ in levels[-1])]
    widths = [max(len(row[i]) for row in [leaves, *texts]) for i in range(len(leaves))]
    for level in levels[:-1]:
        position = left
        for name, span in level:
            here = slice(position, position + span)
            missing = len(name) - (sum(widths[here]) + len(GAP) * (span - 1))
            widths[here] = [width + max(0, -(-missing // span)) for width in widths[here]]
            position += span

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(cells, widths))
        ]
        return GAP.join(aligned).rstrip()

    for level in levels[:-1]:
        position = left
        parts = [" " * width for width in widths[:left]]
        for name, span in level:
            here = widths[position : position + span]
            parts.append(name.center(sum(here) + len(GAP) * (span - 1)))
            position += span
        yield GAP.join(parts).rstrip()
    yield line(leaves)
    yield GAP.join("-" * width for width in widths)
    for number, cells in enumerate(texts):
        if starts_frame(table, number):
            yield GAP.join("-" * width for width in widths)
        yield line(cells)


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
    framing = [row.kind in ("supervised", "chance") for row in table.rows]
    return number > 0 and framing[number] and not framing[number - 1]


def markdown(tables: Sequence[Table]) -> str:
    """GitHub's tables; whatever Markdown would read as markup is escaped."""
    parts = []
    for table in tables:
        headings = [*table.label_names, *(" ".join(column.path) for column in table.columns)]
        rules = ["---"] * len(table.label_names) + ["---:"] * len(table.columns)
        lines = [
            _markdown_row(headings),
            _markdown_row(rules, escape=False),
            *(_markdown_row(texts) for texts in _texts(table)),
        ]
        notes = [f"\n{escape_markdown(note)}" for note in table.notes]
        parts.append("\n".join([f"**{escape_markdown(table.title)}**", "", *lines, *notes]))
    return "\n\n".join(parts)


def _markdown_row(cells: Sequence[str], escape: bool = True) -> str:
    return "| " + " | ".join(escape_markdown(cell) if escape else cell for cell in cells) + " |"


def escape_markdown(text: str) -> str:
    """Backslashes before the characters that Markdown reads as markup; no line breaks."""
    return re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", " ".join(text.split()))


def latex(tables: Sequence[Table]) -> str:
    """`table` environments with booktabs rules; the headings' groups span their columns."""
    text = "\n\n".join(_latex_table(table) for table in tables)
    packages = ["booktabs", "amssymb"] if "\\checkmark" in text else ["booktabs"]
    return f"% needs \\usepackage{{{','.join(packages)}}}\n{text}"


def _latex_table(table: Table) -> str:
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escape_latex(table.title)}}}",
        f"\\begin{{tabular}}{{{'l' * len(table.label_names)}{'r' * len(table.columns)}}}",
        "\\toprule",
        *_latex_headings(table),
        "\\midrule",
    ]
    for number, cells in enumerate(_texts(table)):
        if starts_frame(table, number):
            lines.append("\\midrule")
        lines.append(_latex_row(cells))
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


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(escape_latex(cell) for cell in cells) + " \\\\"


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
    """CSV for programs: numbers unrounded; deviations and runs in columns of their own; an empty line
    between tables.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for number, table in enumerate(tables):
        if number:
            stream.write("\n")
        headings = [*table.label_names, "kind"]
        for column in table.columns:
            name = " ".join(column.path)
            headings += [name, f"{name} deviation", f"{name} runs"] if table.has_deviations else [name]
        writer.writerow(headings)
        for row in table.rows:
            writer.writerow([*row.labels, row.kind, *_csv_cells(row, table.has_deviations)])
    return stream.getvalue().rstrip("\n")


def _csv_cells(row: Row, deviations: bool) -> Iterator[float | str]:
    for cell in row.cells:
        yield "" if cell is None else cell.mean
        if deviations:
            yield "" if cell is None or cell.deviation is None else cell.deviation
            yield "" if cell is None else cell.runs


def as_json(tables: Sequence[Table]) -> str:
    """{"schema": "hdcid.report/1", "tables": [{title, rows: [{labels, kind, values: [{column, mean,
    ...}]}], notes}]}.
    """

    def values(row: Row, columns: Sequence[Column]) -> list[dict]:
        filled = [(cell, column) for cell, column in zip(row.cells, columns) if cell is not None]
        return [
            {"column": list(column.path), "mean": cell.mean, "deviation": cell.deviation, "runs": cell.runs}
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


def _texts(table: Table, plus_minus: str = " ± ") -> list[list[str]]:
    return [
        [*row.labels, *(cell_text(cell, column.digits, plus_minus) for cell, column in zip(row.cells, table.columns))]
        for row in table.rows
    ]
