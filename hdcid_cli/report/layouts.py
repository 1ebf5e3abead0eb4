"""The papers' tables, with measured results beside the papers' own.

A layout (`papers.yaml`) fixes columns and rows. Every row of a paper is followed
by the measured rows that belong to it, one for each way in which they differ
from each other; the last label says "paper" or "measured". Results on other data
than the paper's are no such rows: they make a table of their own, of the same form.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from statistics import fmean

import yaml

from hdcid_cli.core.errors import InputError
from hdcid_cli.report import openset
from hdcid_cli.report.glossary import LOWER_IS_BETTER
from hdcid_cli.report.pivot import (
    GROUND_NOTES,
    SUPERVISED,
    TITLES,
    cell_of,
    choose_metrics,
    framing,
    notes_on,
    phrase,
    rank,
    split_by_setting,
)
from hdcid_cli.report.results import DEPARTURES, QUANTITY, Measured, departures, key, text
from hdcid_cli.report.tables import MEASURED, PAPER, PLAIN, Cell, Column, Look, Row, Table

# `method` of the full model: the paper's, and the released two-layer code's, which leaves CMCM out.
FULL_MODEL = ("cmcm,cpc", "cpc")

# In what the measured rows beside one row of a paper may differ, and how that reads.
VARIANTS = {
    "protocol": "{}",
    "ground": "{} data",
    "method": "aligned by {}",
    "quantizer": "{}",
    "codebook": "{} codes",
    "modalities": "pretrained on {}",
    "pretrain_clips": "pretrained on {} clips",
    "apart": "{}",
}


@dataclass(frozen=True, kw_only=True)
class Placed(Measured):
    """A result as rows and columns of a layout compare it.

    Attributes:
        size: of the paper's pretraining data that it is of.
    """

    size: int | None = None


@cache
def layouts() -> dict[str, dict]:
    """The content of papers.yaml: {"table1": {title, labels, columns, rows, ...}, ...}."""
    return yaml.safe_load(files("hdcid_cli.report").joinpath("papers.yaml").read_text(encoding="utf-8"))["layouts"]


def lay_out(name: str, records: Sequence[Measured], look: Look = PLAIN) -> tuple[list[Table], int]:
    """The layout's table with what was measured on the paper's data, one for each other kind of data that something was
    measured on; and how many of the headline results found no place in any (supervised ones frame it).
    """
    if name == openset.NAME:
        return openset.open_set_tables(records, look)
    if name not in layouts():
        raise InputError(f"There is no layout {name!r}; there are {', '.join([*layouts(), openset.NAME])}.")
    layout = layouts()[name]
    records = choose_metrics(records, "headline")
    tables, unplaced = [], 0
    for ground in TITLES:
        here = [record for record in records if record.ground == ground]
        table, placed = _table(layout if ground is None else _form(layout), here, look)
        unplaced += sum(record.method != SUPERVISED for record in here) - placed
        if ground is None:
            tables.append(table)
        elif placed:
            title = f"{TITLES[ground]}, in the form of {name}: not the data of the paper"
            tables.append(replace(table, title=title, notes=[GROUND_NOTES[ground], *table.notes]))
    return tables, unplaced


def _form(layout: dict) -> dict:
    """The layout without the paper: its rows without numbers, its columns named by task and direction."""
    columns = [
        {"of": column["of"], "path": [column["of"][0], *column["path"][-1:]]}
        for column in layout["columns"]
        if "clips" not in column
    ]
    rows = [
        {"labels": row["labels"], "match": row["match"], "labelled": row.get("labelled"), "empty": _empty(row)}
        for row in layout["rows"]
        if "match" in row
    ]
    return {**layout, "columns": columns, "rows": rows}


def _empty(spec: dict) -> list[bool]:
    """Which cells of a row the paper leaves empty."""
    return list(spec.get("empty") or ()) or [value is None for value in spec.get("values", [])]


def _table(layout: dict, records: Sequence[Measured], look: Look) -> tuple[Table, int]:
    sizes = {column["clips"] for column in layout["columns"] if "clips" in column}
    measured = [_normal(record, sizes) for record in records if record.method != SUPERVISED]
    of_row = [[record for record in measured if _matches(record, spec, layout["columns"])] for spec in layout["rows"]]
    placed = [record for found in of_row for record in found]
    columns = layout["columns"]
    if sizes and all(record.size for record in placed):
        columns = [column for column in columns if "clips" in column]  # nothing was measured on other data

    variants = _variants(placed)
    rows, words = [], []
    for spec, found in zip(layout["rows"], of_row):
        if "values" in spec:
            cells = [None if value is None else Cell(value) for value in spec["values"]]
            cells += [None] * (len(columns) - len(cells))
            average = Cell(spec["average"]) if "average" in spec else None
            rows.append(Row((*spec["labels"], "paper"), (*cells, average), PAPER))
        groups = split_by_setting(found, list(variants))
        for variant, group in sorted(groups, key=lambda pair: [rank(value) for value in pair[0].values()]):
            belonging = [[record for record in group if _belongs(record, column, spec)] for column in columns]
            cells = [cell_of(each) if each else None for each in belonging]
            words.append(_described(variant, group, variants, spec, layout))
            rows.append(Row((*spec["labels"], "measured"), (*cells, _average(cells, columns, spec)), MEASURED))
    rows, notes = _say_sources(rows, words)
    rows += _framing_rows(records, columns, rows, layout)

    headings = [
        Column(tuple(column["path"]), lower=LOWER_IS_BETTER.fullmatch(column["of"][-1]) is not None)
        for column in columns
    ]
    if layout["average"]:
        headings.append(Column(("Avg.",), digits=2))
    else:
        rows = [Row(row.labels, row.cells[:-1], row.kind) for row in rows]
    table = Table(
        layout["title"],
        (*layout["labels"], "source"),
        headings,
        rows,
        [*notes, *layout.get("notes", ()), *notes_on(rows)],
        look=look,
    )
    return table, len({id(record) for record in placed})


def _normal(record: Measured, sizes: set[int]) -> Placed:
    clips = record.pretrain_clips
    # Give or take a tenth: videos vanish from the net.
    size = next((size for size in sizes if clips is not None and abs(clips - size) <= size / 10), None)
    changes = {
        "method": ",".join(sorted(record.method.split(","))),
        "quantizer": "vq" if record.quantizer in ("rvq:1", None) else record.quantizer,
        "pretrain_clips": None if size else clips,
        "size": size,
    }
    return Placed(**{**vars(record), **changes})


def _matches(record: Placed, spec: dict, columns: Sequence[dict]) -> bool:
    """Whether a result was made as the row says and is of one of the columns."""
    if "match" not in spec or not any(_belongs(record, column, spec) for column in columns):
        return False
    wanted = {"layers_used": None, "toc_criterion": None, **spec["match"]}
    method = wanted.pop("method", None)
    quantizer = wanted.pop("quantizer", record.quantizer)
    toc = wanted.pop("toc", None)
    return (
        record.method in ((method,) if method else FULL_MODEL)
        and (record.quantizer == quantizer or str(record.quantizer).startswith(f"{quantizer}:"))
        and (toc is None or (toc == "none") == (record.toc == "none"))
        and all(record.get(name) == value for name, value in wanted.items())
    )


def _belongs(record: Measured, column: dict, spec: dict) -> bool:
    """Whether the record is the column's quantity (of the labelled modality in a grey row) on the column's size of
    data.
    """
    task, train, test, metric = column["of"]
    quantity = (task, train, train if spec.get("labelled") else test, metric)
    return key(record, QUANTITY) == quantity and record.get("size") == column.get("clips")


def _variants(records: Sequence[Placed]) -> dict[str, str]:
    """The fields that keep measured rows apart, and how each reads.

    The channels that TOC chose are among them only if a result was measured with
    several choices: the papers choose them for each task, within one row.
    """
    choices = defaultdict(set)
    for record in records:
        choices[key(record, ("layers", "layers_used", "toc_criterion", "size", *VARIANTS, *QUANTITY))].add(record.toc)
    variants = dict(VARIANTS)
    if any(len(found - {"none"}) > 1 for found in choices.values()):
        variants["toc"] = "TOC {}"
    return variants


def _described(
    variant: dict, group: Sequence[Measured], phrases: dict[str, str], spec: dict, layout: dict
) -> list[str]:
    """Protocol, data and departures from the papers' way, in one phrase that every row has, whatever they all share;
    and whatever else is neither the row's own nor the paper's setting.
    """
    always: list[str] = []
    said: list[str] = []
    for name, value in variant.items():
        if name == "apart":
            for pair in value:
                (always if pair[0] in DEPARTURES else said).append(phrase(*pair))
        elif value is not None and value not in (spec["match"].get(name), layout["settings"].get(name)):
            words = {**phrases, "checkpoint": "model {}"}[name].format(text(name, value))
            (always if name in ("protocol", "ground") else said).append(words)
    return [", ".join([*always, *departures(group)]), *said]


def _say_sources(rows: Sequence[Row], words: Sequence[list[str]]) -> tuple[list[Row], list[str]]:
    """The rows with their last label completed, and a note for what holds of all measured rows.

    Args:
        words: for each measured row what `_described` says.
    """
    common = [word for word in (words[0][1:] if words else ()) if all(word in others for others in words)]
    described = iter(words)
    said = []
    for row in rows:
        if row.kind == MEASURED:
            source = ", ".join(["measured", *(word for word in next(described) if word not in common)])
            row = Row((*row.labels[:-1], source), row.cells, row.kind)
        said.append(row)
    return said, [f"All measured rows: {', '.join(common)}."] if common else []


def _average(cells: Sequence[Cell | None], columns: Sequence[dict], spec: dict) -> Cell | None:
    """The mean of a measured row once no block of columns that was begun has holes.

    An average over whatever happens to be measured could not be compared with
    anything. Cells that the paper leaves empty do not count.
    """
    empty = _empty(spec)
    empty = empty + [False] * (len(cells) - len(empty))
    blocks = defaultdict(list)
    for cell, column, ignored in zip(cells, columns, empty):
        if not ignored:
            blocks[column.get("clips")].append(cell)
    begun = [block for block in blocks.values() if any(block)]
    if not begun or not all(all(block) for block in begun):
        return None
    return Cell(fmean(cell.mean for block in begun for cell in block if cell))


def _framing_rows(records: Sequence[Measured], columns: Sequence[dict], rows: Sequence[Row], layout: dict) -> list[Row]:
    """The ceiling and chance of the columns in which something was measured."""
    ground = [VARIANTS["ground"].format(record.ground) for record in records[:1] if record.ground]
    used = [any(row.cells[i] for row in rows if row.kind == MEASURED) for i in range(len(columns))]
    framed = []
    for frame in framing(records, [tuple(column["of"]) for column in columns]):
        there = [cell if column_used else None for cell, column_used in zip(frame.cells, used)]
        if any(there):
            source = ", ".join(["measured", frame.protocol, *ground, *frame.words()])
            labels = (frame.name, *[""] * (len(layout["labels"]) - 1), source)
            framed.append(Row(labels, (*there, None), frame.kind))
    return framed
