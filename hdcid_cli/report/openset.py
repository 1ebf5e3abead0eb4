"""The layout `openset`: who rejects unknown clips, and how well known ones are still told apart.

MICU's own tables are not at hand, so there are no rows of a paper. One row a question
(task, direction, known classes) and model, one column a measure.
"""

from collections import defaultdict
from collections.abc import Sequence

from hdcid_cli.report.glossary import LOWER_IS_BETTER
from hdcid_cli.report.pivot import (
    TITLES,
    cell_of,
    column_order,
    notes_on,
    phrase,
    rank,
    split_by_setting,
)
from hdcid_cli.report.results import SETTING, SUPERVISED, Measured, departures, key, text
from hdcid_cli.report.tables import CHANCE, MEASURED, Cell, Column, Look, Row, Table

NAME = "openset"
# As hdcid-methods(7) explains them; the headline first.
MEASURES = {
    "hos": "HOS",
    "os_star": "OS*",
    "unk": "UNK",
    "kept": "kept",
    "closed": "closed",
    "auroc": "AUROC",
    "oscr": "OSCR",
    "fpr95": "FPR95",
}
QUESTION = ("task", "train", "test", "open_set")


def open_set_tables(records: Sequence[Measured], look: Look) -> tuple[list[Table], int]:
    """A table for each kind of data, and how many results have no place in any: those without an open set."""
    opened = [record for record in records if record.get("open_set") is not None and record.metric in MEASURES]
    tables = [
        _table([record for record in opened if record.ground == ground], ground, look)
        for ground in TITLES
        if any(record.ground == ground for record in opened)
    ]
    return tables, sum(record.method != SUPERVISED for record in records) - sum(
        record.method != SUPERVISED for record in opened
    )


def _table(records: Sequence[Measured], ground: str | None, look: Look) -> Table:
    names = [name for name in SETTING if name not in ("ground", "apart", "method")]
    groups = defaultdict(list)
    for record in records:
        groups[key(record, QUESTION)].append(record)
    found, framing = [], []
    for question, group in sorted(groups.items(), key=lambda item: (column_order((*item[0][:3], "")), str(item[0][3]))):
        settings = split_by_setting(group, (*SETTING, "protocol"))
        settings.sort(key=lambda pair: [rank(pair[0][name]) for name in ("layers", "method", *names)])
        for setting, results in settings:
            kind = SUPERVISED if setting["method"] == SUPERVISED else MEASURED
            if kind == SUPERVISED:
                setting = {**setting, "method": ", ".join([SUPERVISED, *departures(results, but=("open_set",))])}
            found.append((question, setting, kind, _cells(results)))
        if any(chance := _chance(group)):
            framing.append((question, chance))
    apart = dict.fromkeys(name for _, setting, _, _ in found for name, _ in setting["apart"] if name != "open_set")
    fields = ["method", *names, *apart, "checkpoint"]
    values = [{**setting, **dict(setting["apart"])} for _, setting, kind, _ in found if kind == MEASURED]
    differing = {name for name in fields if len({value.get(name) for value in values}) > 1}
    shown = ["method", *(name for name in fields[1:] if name in differing)]
    questions = {"task": "{}", "direction": "{}", "known": "{} known classes"}
    labels = [*questions, *(["data"] if ground else []), *shown]
    rows = []
    for question, setting, kind, cells in found:
        value = {**setting, **dict(setting["apart"])}
        texts = [text(name, value.get(name)) for name in shown]
        rows.append(Row((*_asked(question), *([ground] if ground else []), *texts), cells, kind))
    for question, cells in framing:
        texts = [CHANCE, *[""] * (len(shown) - 1)]
        rows.append(Row((*_asked(question), *([ground] if ground else []), *texts), cells, CHANCE))
    # What was asked is a column of its own only where several things were.
    constant = {name: words.format(rows[0].labels[place]) for place, (name, words) in enumerate(questions.items())}
    said = [phrase(name, values[0].get(name)) for name in fields if values and name not in (*shown, "checkpoint")]
    said += departures([record for record in records if record.method != SUPERVISED], but=("open_set",))
    columns = [Column((label,), lower=LOWER_IS_BETTER.fullmatch(name) is not None) for name, label in MEASURES.items()]
    title = f"{TITLES[ground]}: open sets"
    notes = [*notes_on(rows, ground), "HOS is the harmonic mean of OS* and UNK; of FPR95 the lowest is the best."]
    return Table(title, tuple(labels), columns, rows, notes, [word for word in said if word], constant, look)


def _asked(question: tuple) -> tuple[str, str, str]:
    task, train, test, known = question
    return task, f"{train}→{test}", str(known)


def _cells(records: Sequence[Measured]) -> tuple[Cell | None, ...]:
    by_metric = defaultdict(list)
    for record in records:
        by_metric[record.metric].append(record)
    return tuple(cell_of(by_metric[name]) if name in by_metric else None for name in MEASURES)


def _chance(records: Sequence[Measured]) -> tuple[Cell | None, ...]:
    """Of `hos` and `oscr` it depends on how good the probe is: the mean over the rows."""
    by_metric = defaultdict(list)
    for record in records:
        if record.chance is not None and record.method != SUPERVISED:
            by_metric[record.metric].append(record.chance)
    return tuple(Cell(sum(found) / len(found)) if (found := by_metric.get(name)) else None for name in MEASURES)
