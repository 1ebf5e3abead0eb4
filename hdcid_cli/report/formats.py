"""Tables as text: terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from hdcid_cli.report.tables import Column, Row, Table, cell_text


def terminal(tables: Sequence[Table]) -> str:
    """Plain aligned tables, headings over several lines, narrow: a table of a paper has eight columns of numbers."""
    from tabulate import tabulate

    parts = []
    for table in tables:
        headings = [*table.label_names, *("\n".join(column.path) for column in table.columns)]
        body = tabulate(_texts(table, "±"), headers=headings, disable_numparse=True, stralign="left")
        parts.append("\n".join([table.title, "", body, *(f"* {note}" for note in table.notes)]))
    return "\n\n".join(parts)


def markdown(tables: Sequence[Table]) -> str:
    """GitHub's tables; whatever Markdown would read as markup is escaped."""
    parts = []
    for table in tables:
        headings = [*table.label_names, *(" ".join(column.path) for column in table.columns)]
        rules = ["---"] * len(table.label_names) + ["---:"] * len(table.columns)
        lines = [_markdown_row(headings), _markdown_row(rules, escape=False), *(_markdown_row(texts) for texts in _texts(table))]
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
    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(_latex_table(table) for table in tables)


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
    previous = None
    for row in table.rows:
        if previous is not None and _block(row) != _block(previous):
            lines.append("\\midrule")
        cells = [cell_text(cell, column.digits) for cell, column in zip(row.cells, table.columns)]
        lines.append(_latex_row([*row.labels, *cells]))
        previous = row
    lines += ["\\bottomrule", "\\end{tabular}"]
    lines += [f"\\par\\smallskip {escape_latex(note)}" for note in table.notes]
    return "\n".join([*lines, "\\end{table}"])


def _block(row: Row) -> bool:
    """Rules stand between results and what frames them."""
    return row.source in ("ceiling", "chance")


def _latex_headings(table: Table) -> Iterable[str]:
    """One line a level of the columns' paths, with a rule under each group of several columns."""
    depth = max((len(column.path) for column in table.columns), default=1)
    paths = [column.path + ("",) * (depth - len(column.path)) for column in table.columns]
    for level in range(depth):
        last = level == depth - 1
        names = list(table.label_names) if last else [""] * len(table.label_names)
        cells = [escape_latex(name) for name in names]
        rules = []
        position = len(cells) + 1
        for prefix, group in groupby(paths, key=lambda path: path if last else path[: level + 1]):
            span = len(list(group))
            name = escape_latex(prefix[level])
            cells.append(name if span == 1 else f"\\multicolumn{{{span}}}{{c}}{{{name}}}")
            if span > 1 and name:
                rules.append(f"\\cmidrule(lr){{{position}-{position + span - 1}}}")
            position += span
        yield " & ".join(cells) + " \\\\" + "".join(rules)


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
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(LATEX.get(character, character) for character in text)


def comma_separated(tables: Sequence[Table]) -> str:
    """CSV for programs: numbers unrounded; deviations and runs in columns of their own; an empty line between tables."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for number, table in enumerate(tables):
        if number:
            stream.write("\n")
        headings = [*table.label_names, "source"]
        for column in table.columns:
            name = " ".join(column.path)
            headings += [name, f"{name} deviation", f"{name} runs"] if table.has_deviations else [name]
        writer.writerow(headings)
        for row in table.rows:
            writer.writerow([*row.labels, row.source, *_csv_cells(row, table.has_deviations)])
    return stream.getvalue().rstrip("\n")


def _csv_cells(row: Row, deviations: bool) -> Iterable[float | str]:
    for cell in row.cells:
        yield "" if cell is None else cell.mean
        if deviations:
            yield "" if cell is None or cell.deviation is None else cell.deviation
            yield "" if cell is None else cell.runs


def as_json(tables: Sequence[Table]) -> str:
    """{"schema": "hdcid.report/1", "tables": [{title, rows: [{labels, source, values: [{column, mean, ...}]}], notes}]}."""

    def values(row: Row, columns: Sequence[Column]) -> list[dict]:
        filled = [(cell, column) for cell, column in zip(row.cells, columns) if cell is not None]
        return [{"column": list(column.path), "mean": cell.mean, "deviation": cell.deviation, "runs": cell.runs} for cell, column in filled]

    content = [
        {
            "title": table.title,
            "rows": [
                {"labels": dict(zip(table.label_names, row.labels)), "source": row.source, "values": values(row, table.columns)}
                for row in table.rows
            ],
            "notes": table.notes,
        }
        for table in tables
    ]
    return json.dumps({"schema": "hdcid.report/1", "tables": content}, ensure_ascii=False, indent=2)


FORMATS = {"terminal": terminal, "markdown": markdown, "latex": latex, "csv": comma_separated, "json": as_json}
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json", ".txt": "terminal"}


def _texts(table: Table, plus_minus: str = " ± ") -> list[list[str]]:
    return [
        [*row.labels, *(cell_text(cell, column.digits, plus_minus) for cell, column in zip(row.cells, table.columns))] for row in table.rows
    ]
