"""Records to one table: settings down, tasks and directions across, seeds as mean and deviation.

Below the measured rows stand what frames them: the supervised ceiling (a probe
on the raw features of the modality that a column tests on) and chance.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

from hdcid_cli.report.results import QUANTITY, RUN, SETTING, key
from hdcid_cli.report.tables import Cell, Column, Row, Table, digits_for

# The metric that the papers give for each task (method.md).
PAPER_METRICS = {
    "ave": ("precision",),
    "avvp": ("accuracy",),
    "ave2avvp": ("f1",),
    "ucf2vgg": ("precision",),
    "vggsound": ("precision", "segment_accuracy"),
    "segment": ("miou", "fscore"),
}
TASKS = list(PAPER_METRICS)
DIRECTIONS = [("v", "a"), ("a", "v"), ("a", "t"), ("t", "a"), ("v", "t"), ("t", "v")]
SUPERVISED = "supervised"
CHANCE = "chance"

# Between the selections of one row, if each column has its own.
SEVERAL = ", "

# Columns that every table has; the others of SETTING stand there only if rows differ in them.
ALWAYS = ("method", "layers", "quantizer", "toc", "protocol")


def choose_metrics(records: Sequence[dict], metrics: str) -> list[dict]:
    """The records that a table shows: those of the papers' metrics ("paper"), "all", or of the metrics named."""
    if metrics == "all":
        return list(records)
    if metrics != "paper":
        wanted = {name.strip().lower() for name in metrics.split(",")}
        return [record for record in records if str(record["metric"]).lower() in wanted]
    measured = defaultdict(set)
    for record in records:
        measured[record["task"]].add(record["metric"])
    shown = {task: names & set(PAPER_METRICS.get(task, ())) or names for task, names in measured.items()}
    return [record for record in records if record["metric"] in shown[record["task"]]]


def pivot(records: Sequence[dict], title: str = "Results") -> Table:
    """One row a setting, one column a task, direction and metric."""
    measured = with_selections_together([record for record in records if record["method"] != SUPERVISED])
    quantities = sorted({key(record, QUANTITY) for record in measured or records}, key=column_order)
    settings = split_by_setting(measured, SETTING)
    settings.sort(key=lambda pair: _row_order(pair[0]))
    fields = (*SETTING, "checkpoint")
    shown = [name for name in fields if name in ALWAYS or len({setting[name] for setting, _ in settings}) > 1]
    rows = [
        Row(tuple(label(name, setting[name]) for name in shown), cells_of(found, quantities), "measured")
        for setting, found in settings
    ]
    for kind, name, protocol, cells in framing(records, quantities):
        labels = {"method": name, "protocol": protocol}
        rows.append(Row(tuple(labels.get(column, "") for column in shown), cells, kind))
    columns = [
        Column((f"{task} {metric}", f"{train}→{test}"), digits_for([row.cells[i].mean for row in rows if row.cells[i]]))
        for i, (task, train, test, metric) in enumerate(quantities)
    ]
    notes = notes_on(rows)
    if any(SEVERAL in setting["toc"] for setting, _ in settings):
        notes.append("toc with several numbers: each column has a selection of its own, among these.")
    return Table(title, tuple(shown), columns, rows, notes)


def with_selections_together(records: Sequence[dict]) -> list[dict]:
    """Records whose `toc` names all selections of their row, where every quantity has one of its own.

    The papers choose other channels for each task and direction (`--toc paper`); that is one way to measure, and
    one row. It is taken for that if every run of the row measured the same quantities with the same selections.
    """
    others = [name for name in SETTING if name != "toc"]
    rows = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for record in records:
        if record["toc"] != "none":
            rows[key(record, others)][key(record, RUN[:-1])][key(record, QUANTITY)].add(record["toc"])
    together = {}
    for row, runs in rows.items():
        first, *more = runs.values()
        if all(len(found) == 1 for found in first.values()) and all(run == first for run in more):
            together[row] = SEVERAL.join(sorted(set.union(*first.values()), key=rank))
    return [
        record | {"toc": together[key(record, others)]}
        if record["toc"] != "none" and key(record, others) in together
        else record
        for record in records
    ]


def split_by_setting(records: Sequence[dict], names: Sequence[str]) -> list[tuple[dict, list[dict]]]:
    """Records that agree in the fields `names` together: [({field: value, ..., "checkpoint": ...}, records)].

    The mean over a group should be one over seeds. So where one seed was measured
    on several models (trained for longer, say), each model makes a group of its own.
    """
    groups = defaultdict(list)
    for record in records:
        groups[key(record, names)].append(record)
    split = []
    for values, group in groups.items():
        models = defaultdict(list)
        for record in group:
            models[record.get("checkpoint")].append(record)
        runs = {key(record, (*QUANTITY, "pretrain_seed", "seed")) for record in group}
        if len(runs) == len(group):
            models = {None: group}
        split += [(dict(zip((*names, "checkpoint"), (*values, model))), found) for model, found in models.items()]
    return split


def cells_of(records: Sequence[dict], quantities: Sequence[tuple]) -> tuple[Cell | None, ...]:
    """One cell a quantity: the mean over the records that measured it, or None."""
    values = defaultdict(list)
    for record in records:
        values[key(record, QUANTITY)].append(record["value"])
    return tuple(Cell.of(values[quantity]) if quantity in values else None for quantity in quantities)


def framing(
    records: Sequence[dict], quantities: Sequence[tuple]
) -> Iterator[tuple[str, str, str, tuple[Cell | None, ...]]]:
    """The ceiling and chance of each column: ("supervised" or "chance", name, protocol, cells).

    A column's ceiling is the supervised probe of the same task, metric and
    *tested* modality: what a decoder reaches that need not cross modalities.
    """
    for protocol in sorted({record["protocol"] for record in records}):
        of_protocol = [record for record in records if record["protocol"] == protocol]
        supervised = [record for record in of_protocol if record["method"] == SUPERVISED]
        for name, group in _by_backbone(supervised).items():
            ceiling = defaultdict(list)
            for record in group:
                ceiling[key(record, ("task", "test", "metric"))].append(record["value"])
            values = [ceiling.get((task, test, metric)) for task, _, test, metric in quantities]
            yield SUPERVISED, name, protocol, tuple(Cell.of(found) if found else None for found in values)
        chance = defaultdict(list)
        for record in of_protocol:
            if record.get("chance") is not None:
                chance[key(record, QUANTITY)].append(record["chance"])
        if chance:
            # Chance varies with the labels that were drawn, not with what was learned: no deviation.
            values = [chance.get(quantity) for quantity in quantities]
            yield CHANCE, CHANCE, protocol, tuple(Cell(fmean(found)) if found else None for found in values)


def _by_backbone(supervised: Sequence[dict]) -> dict[str, list[dict]]:
    """One ceiling for all records, or one for each backbone where a modality has several."""
    backbones = defaultdict(set)
    for record in supervised:
        backbones[record["test"]].add(record.get("backbone"))
    groups = defaultdict(list)
    for record in supervised:
        several = len(backbones[record["test"]]) > 1
        groups[f"{SUPERVISED}, {record.get('backbone')}" if several else SUPERVISED].append(record)
    return groups


def notes_on(rows: Sequence[Row]) -> list[str]:
    """What a reader of the rows must know to read them."""
    notes = []
    runs = sorted({cell.runs for row in rows for cell in row.cells if cell and cell.deviation is not None})
    if runs:
        count = str(runs[0]) if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
        notes.append(f"Mean ± sample standard deviation over {count} runs with other seeds.")
    if any(row.kind == SUPERVISED for row in rows):
        notes.append(
            "supervised: a probe on the raw features of the modality that is tested, the ceiling of each column."
        )
    return notes


def label(name: str, value) -> str:
    """A setting's value as it stands in a row."""
    if value is None:
        return ""
    if name == "checkpoint":
        return str(value).removeprefix("sha256:")[:8]
    return str(value)


def column_order(quantity: tuple) -> tuple:
    """Tasks, metrics and directions in the papers' order, others after them."""
    task, train, test, metric = quantity
    metrics = PAPER_METRICS.get(task, ())
    return (
        TASKS.index(task) if task in TASKS else len(TASKS),
        str(task),
        metrics.index(metric) if metric in metrics else len(metrics),
        str(metric),
        DIRECTIONS.index((train, test)) if (train, test) in DIRECTIONS else len(DIRECTIONS),
        str(train),
        str(test),
    )


def _row_order(setting: dict) -> tuple:
    """By layers, method, quantizer and TOC, then whatever else differs."""
    return tuple(rank(setting[name]) for name in ["layers", "method", "quantizer", "toc", *setting])


def rank(value) -> tuple:
    """A place in the order of rows: nothing first, then numbers as numbers, then words."""
    if value is None or value == "none":
        return (0, 0, "")
    return (1, float(value), "") if str(value).isdecimal() else (2, 0, str(value))
