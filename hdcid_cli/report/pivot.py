"""Records to tables: settings down, tasks and directions across, seeds as mean and deviation.

Below the measured rows stand what frames them: the supervised ceiling (a probe
on the raw features of the modality that a column tests on) and chance. Results on
published data, on one's own and on synthetic clips are tables of their own.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.progress import warn
from hdcid_cli.report.glossary import LOWER_IS_BETTER, TASKS, explanation, headline, name_in, order, place
from hdcid_cli.report.results import (
    DATA,
    OWN,
    QUANTITY,
    RUN,
    SETTING,
    SUPERVISED,
    SYNTH,
    UNSAID,
    Measured,
    departures,
    key,
    text,
)
from hdcid_cli.report.tables import CHANCE, MEASURED, PLAIN, Cell, Column, Look, Row, Table, digits_for

DIRECTIONS = [("v", "a"), ("a", "v"), ("a", "t"), ("t", "a"), ("v", "t"), ("t", "v")]

# Between the selections of one row, if each column has its own.
SEVERAL = ", "

# Metrics that count codes.
COUNTS = re.compile(r"layer \d+ (block \d+ )?(used|shared)")

# What chance depends on, of what keeps results apart; ceilings depend on all of it.
FRAMED = (*DATA, "open_set", "known")
# Columns that every table has; the others of SETTING stand there only if rows differ in them.
ALWAYS = ("method", "layers", "quantizer", "toc", "protocol")
# How a setting reads that all rows share.
PHRASES = {
    "layers": "{} layers",
    "quantizer": "{}",
    "codebook": "{} codes",
    "layers_used": "{} layers read",
    "toc": "toc {}",
    "toc_criterion": "toc by {}",
    "protocol": "{}",
    "modalities": "pretrained on {}",
    "pretrain_clips": "pretrained on {} clips",
}
# Tables of their own, by where their data are from.
TITLES = {
    None: "Results",
    OWN: "Results on own clips",
    SYNTH: "Results on synthetic clips",
    UNSAID: "Results on data that their records do not name",
}
GROUND_NOTES = {
    OWN: "Own clips: no data set that is known by its clips and classes, so not to be compared with published numbers.",
    SYNTH: "Synthetic clips, made by hdcid synth: not to be compared with results on real data.",
    UNSAID: "Records of earlier versions do not say which data they are of: not to be compared with published results.",
}


def choose_metrics(records: Sequence[Measured], metrics: str) -> list[Measured]:
    """The records that a table shows: those of each task's headline ("headline" or "paper"), "all", or of the metrics
    named; of those that no record has it is warned.

    Raises:
        InputError: there are records, and none of the metrics named.
    """
    if metrics == "all":
        return list(records)
    if metrics not in ("headline", "paper"):
        wanted = {name.strip().lower() for name in metrics.split(",")}
        names = [{record.metric.lower(), name_in(record.task, record.metric).lower()} for record in records]
        shown = [record for record, own in zip(records, names, strict=True) if own & wanted]
        missing = sorted(wanted - {""}.union(*names)) if records else []
        there = f"there are {', '.join(sorted({record.metric for record in records}))}."
        if records and not shown:
            raise InputError(f"No record is of {', '.join(missing) or repr(metrics)}; {there}")
        if missing:
            warn(f"no record is of {', '.join(missing)}; {there}")
        return shown
    measured: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        measured[record.task][record.metric] = None
    headlines = {task: headline(task, names) for task, names in measured.items()}
    return [record for record in records if record.metric in headlines[record.task]]


def pivots(records: Sequence[Measured], look: Look = PLAIN) -> list[Table]:
    """A table for each kind of data: one row a setting, one column a task, direction and metric."""
    grounds = [ground for ground in TITLES if any(record.ground == ground for record in records)]
    return [_pivot([record for record in records if record.ground == ground], ground, look) for ground in grounds]


def _pivot(records: Sequence[Measured], ground: str | None, look: Look) -> Table:
    measured = with_selections_together([record for record in records if record.method != SUPERVISED])
    quantities = sorted({key(record, QUANTITY) for record in measured or records}, key=column_order)
    settings = split_by_setting(measured, SETTING)
    settings.sort(key=lambda pair: _row_order(pair[0]))
    fields = [*SETTING, "checkpoint", *dict.fromkeys(name for setting, _ in settings for name, _ in setting["apart"])]
    values = [{**setting, **dict(setting["apart"])} for setting, _ in settings]
    fields.remove("apart")
    fields.remove("ground")
    differing = {name for name in fields if len({value.get(name) for value in values}) > 1}
    shown = [name for name in fields if name in ALWAYS or name in differing]
    labels = list(shown)
    if ground is not None:
        labels.insert(1, "data")  # in every row, whatever becomes of the title
    rows = []
    for value, (_, found) in zip(values, settings):
        texts = {name: text(name, value.get(name)) for name in shown} | (
            {"data": _data(value, ground)} if ground else {}
        )
        rows.append(Row(tuple(texts[name] for name in labels), cells_of(found, quantities), MEASURED))
    for frame in framing(records, quantities):
        texts = {"protocol": frame.protocol, "data": ground or "", **dict(frame.apart)}
        texts["method"] = ", ".join([frame.name, *frame.words(but=labels)])
        rows.append(Row(tuple(texts.get(column, "") for column in labels), frame.cells, frame.kind))
    table = Table(
        TITLES[ground],
        tuple(labels),
        [_column(quantity, [row.cells[i] for row in rows]) for i, quantity in enumerate(quantities)],
        rows,
        notes_on(rows, ground),
        [
            *(phrase(name, values[0][name]) for name in PHRASES if values and name not in shown and values[0][name]),
            *departures(measured),
        ],
        {name: phrase(name, values[0].get(name)) for name in shown
         if values and name != "method" and name not in differing},
        look,
    )  # fmt: skip
    if any(SEVERAL in setting["toc"] for setting, _ in settings):
        table.notes.append("toc with several numbers: each column has a selection of its own, among these.")
    return table


def phrase(name: str, value: Any) -> str:
    """A setting in words: `2 layers`, `toc none`; nothing for none."""
    if value is None:
        return ""
    words = PHRASES.get(name, f"{name} {{}}").format(text(name, value))
    return re.sub("(layer|code|clip)s", r"\1", words) if value == 1 else words


def _data(value: dict[str, Any], ground: str) -> str:
    return value["data"] if value.get("data") not in (None, ground, "") else ground


def _column(quantity: tuple, cells: Sequence[Cell | None]) -> Column:
    task, train, test, metric = quantity
    counts = COUNTS.fullmatch(metric) and not any(cell.deviation for cell in cells if cell)
    # What is known is in percent, or a rank, however small; what is not may be a share.
    digits = 0 if counts else 1 if explanation(metric) else digits_for([cell.mean for cell in cells if cell])
    lower = LOWER_IS_BETTER.fullmatch(metric) is not None
    return Column((f"{task} {name_in(task, metric)}", f"{train}→{test}"), digits, lower)


def with_selections_together(records: Sequence[Measured]) -> list[Measured]:
    """Records whose `toc` names all selections of their row, where every quantity has one of its own.

    The papers choose other channels for each task and direction (`--toc paper`); that is one way to measure, and
    one row. It is taken for that if every run of the row measured the same quantities with the same selections.
    """
    others = [name for name in SETTING if name != "toc"]
    rows: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for record in records:
        if record.toc != "none":
            rows[key(record, others)][key(record, RUN[:-1])][key(record, QUANTITY)].add(record.toc)
    together = {}
    for row, runs in rows.items():
        first, *more = runs.values()
        if all(len(found) == 1 for found in first.values()) and all(run == first for run in more):
            together[row] = SEVERAL.join(sorted(set.union(*first.values()), key=rank))
    return [
        replace(record, toc=together[key(record, others)])
        if record.toc != "none" and key(record, others) in together
        else record
        for record in records
    ]


def split_by_setting(records: Sequence[Measured], names: Sequence[str]) -> list[tuple[dict, list[Measured]]]:
    """Records that agree in the fields `names` together: [({field: value, ..., "checkpoint": ...}, records)].

    The mean over a group should be one over seeds. So where one seed was measured
    on several models (trained for longer, say), each model makes a group of its own.
    """
    groups = defaultdict(list)
    for record in records:
        groups[key(record, names)].append(record)
    split = []
    for values, group in groups.items():
        models: dict[str | None, list[Measured]] = defaultdict(list)
        for record in group:
            models[record.checkpoint].append(record)
        runs = {key(record, (*QUANTITY, "pretrain_seed", "seed")) for record in group}
        if len(runs) == len(group):
            models = {None: group}
        split += [(dict(zip((*names, "checkpoint"), (*values, model))), found) for model, found in models.items()]
    return split


def cells_of(records: Sequence[Measured], quantities: Sequence[tuple]) -> tuple[Cell | None, ...]:
    """One cell a quantity: the mean over the records that measured it, or None."""
    found = defaultdict(list)
    for record in records:
        found[key(record, QUANTITY)].append(record)
    return tuple(cell_of(found[quantity]) if quantity in found else None for quantity in quantities)


def cell_of(records: Sequence[Measured]) -> Cell:
    """The mean over records of one quantity."""
    return Cell.of(
        [record.value for record in records if record.value is not None], [each.interval for each in records]
    )


@dataclass(frozen=True)
class Frame:
    """A row of ceilings or of chance.

    Attributes:
        kind: SUPERVISED or CHANCE.
        apart: (field, value) of what it is measured on, where there are several.
    """

    kind: str
    name: str
    protocol: str
    apart: tuple[tuple[str, str], ...]
    cells: tuple[Cell | None, ...]

    def words(self, but: Collection[str] = ()) -> list[str]:
        """What it is measured on, but for what stands in columns of the table."""
        return [f"{name} {value}" for name, value in self.apart if value and name not in but]


def framing(records: Sequence[Measured], quantities: Sequence[tuple]) -> Iterator[Frame]:
    """The ceiling and chance of each column.

    A column's ceiling is the supervised probe of the same task, metric and
    *tested* modality: what a decoder reaches that need not cross modalities.
    What was measured on other data, or with an open set of other classes, has a row of its own.
    """
    groups = defaultdict(list)
    for record in records:
        groups[record.protocol, tuple(each for each in record.apart if each[0] in FRAMED)].append(record)
    for (protocol, apart), group in sorted(groups.items()):
        supervised = [record for record in group if record.method == SUPERVISED]
        for (name, further), found in _ceilings(supervised):
            ceiling = defaultdict(list)
            for record in found:
                ceiling[key(record, ("task", "test", "metric"))].append(record)
            ceilings = [ceiling.get((task, test, metric)) for task, _, test, metric in quantities]
            cells = tuple(cell_of(each) if each else None for each in ceilings)
            if any(cells):
                yield Frame(SUPERVISED, ", ".join([name, *departures(found)]), protocol, further, cells)
        chance = defaultdict(list)
        for record in group:
            if record.chance is not None:
                chance[key(record, QUANTITY)].append(record.chance)
        # Chance varies with the labels that were drawn, not with what was learned: no deviation.
        values = [chance.get(quantity) for quantity in quantities]
        if any(values):
            cells = tuple(Cell(fmean(each)) if each else None for each in values)
            yield Frame(CHANCE, CHANCE, protocol, apart, cells)


def _ceilings(supervised: Sequence[Measured]) -> list[tuple[tuple[str, tuple], list[Measured]]]:
    """The ceilings by their names and what keeps them apart: one for all records, or one for each backbone where a
    modality has several, and for each way of probing.
    """
    backbones = defaultdict(set)
    for record in supervised:
        backbones[record.test].add(record.backbone)
    groups = defaultdict(list)
    for record in supervised:
        several = len(backbones[record.test]) > 1
        groups[f"{SUPERVISED}, {record.backbone}" if several else SUPERVISED, record.apart].append(record)
    return sorted(groups.items(), key=lambda item: item[0])


def notes_on(rows: Sequence[Row], ground: str | None = None) -> list[str]:
    """What a reader of the rows must know to read them."""
    notes = [GROUND_NOTES[ground]] if ground else []
    if any(row.kind == SUPERVISED for row in rows):
        notes.append(
            "supervised: a probe on the raw features of the modality that is tested, the ceiling of each column."
        )
    return notes


def column_order(quantity: tuple) -> tuple:
    """Tasks, metrics and directions in the papers' order, others after them."""
    task, train, test, metric = quantity
    headlines = order(task)
    return (
        place(TASKS, task),
        task,
        place(headlines, metric),
        metric,
        DIRECTIONS.index((train, test)) if (train, test) in DIRECTIONS else len(DIRECTIONS),
        train,
        test,
    )


def _row_order(setting: dict) -> tuple:
    """By layers, method, quantizer and TOC, then whatever else differs."""
    return tuple(rank(setting[name]) for name in ["layers", "method", "quantizer", "toc", *setting])


def rank(value: Any) -> tuple:
    """A place in the order of rows: nothing first, then numbers as numbers, then words."""
    if value in (None, "none", ()):
        return (0, 0, "")
    # Sixty digits are a name rather than a number.
    return (1, float(value), "") if str(value).isdecimal() and len(str(value)) < 20 else (2, 0, str(value))
