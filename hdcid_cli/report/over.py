"""Results over a number that their records hold: sizes of codebooks, clips learned from, shares of noise."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.records import GREATEST
from hdcid_cli.report.charts import Series, curves
from hdcid_cli.report.drawing import Figure
from hdcid_cli.report.glossary import name_in
from hdcid_cli.report.layouts import layouts
from hdcid_cli.report.pivot import cell_of, choose_metrics, column_order, phrase
from hdcid_cli.report.results import OWN, QUANTITY, SETTING, SUPERVISED, SYNTH, Measured, departures, key

CODEBOOK = "codebook"
LABELS = {
    CODEBOOK: "codes",
    "pretrain_clips": "clips pretrained on",
    "n_fit": "clips that the probe learned on",
    "mismatched_percent": "% of clips with another's sound",  # of examples/study.py
}
# How the absence of a setting reads.
ABSENT = {"layers_used": "all layers read"}
# What a chart has in common, beside the quantity.
CHART = (*QUANTITY, "ground", "protocol")
# The numbers of Table 1 are of this many codes.
PAPER_CODES = 400


def numbers_in(records: Sequence[Measured]) -> list[str]:
    """Fields that hold several numbers among the records: what results can be drawn over."""
    found: dict[str, set] = defaultdict(set)
    for record in records:
        for name in (*vars(record), *record.more):
            value = _number(record, name)
            if value is not None:
                found[name].add(value)
    results = {"value", "chance", "n", "seed", "pretrain_seed", "epoch"}
    return sorted(name for name, values in found.items() if len(values) > 1 and name not in results)


def over(records: Sequence[Measured], field: str) -> list[Figure]:
    """A chart for each task, direction and protocol that was measured at two values of the field or more.

    Raises:
        InputError: there is none.
    """
    figures = list(_figures(records, field))
    if not figures:
        others = ", ".join(name for name in numbers_in(records) if name != field) or "none"
        raise InputError(
            f"No task was measured at two values of {field!r} or more; fields with several numbers: {others}."
        )
    return figures


def codebook_curves(records: Sequence[Measured]) -> list[Figure]:
    """Results over the size of the codebook (paper, Fig. 5), where several were measured; the numbers of Table 1 stand
    beside the curves as rings.
    """
    return list(_figures(records, CODEBOOK))


def _figures(records: Sequence[Measured], field: str) -> Iterator[Figure]:
    charts = defaultdict(list)
    for record in choose_metrics(records, "headline"):
        charts[key(record, CHART)].append(record)
    for chart, found in sorted(charts.items(), key=lambda item: _order(item[0])):
        measured = [record for record in found if record.method != SUPERVISED and _number(record, field) is not None]
        values = {_number(record, field) for record in measured}
        if len(values) < 2:
            continue
        lines = list(_lines(measured, field))
        rings = [ring for line in lines for ring in _ring(line, chart, field)]
        ends = min(value for value in values if value is not None), max(value for value in values if value is not None)
        supervised = [
            record for record in records if record.method == SUPERVISED and key(record, CEILING) == _ceiling(chart)
        ]
        drawing = curves(
            LABELS.get(field, field),
            [*(series for series, _ in lines), *rings, *_frame(measured, supervised, field, ends)],
            settings=True,
        )
        yield Figure(_caption(chart, measured, LABELS.get(field, field)), drawing)


def _order(chart: tuple) -> tuple:
    *quantity, ground, protocol = chart
    return column_order(tuple(quantity)), ground or "", protocol


# The ceiling of a chart is of the same task, metric and tested modality.
CEILING = ("task", "test", "metric", "ground", "protocol")


def _ceiling(chart: tuple) -> tuple:
    named = dict(zip(CHART, chart))
    return tuple(named[name] for name in CEILING)


def _number(record: Measured, field: str) -> float | None:
    value = record.get(field)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= GREATEST
    return value if usable else None


def _lines(measured: Sequence[Measured], field: str) -> Iterator[tuple[Series, Measured]]:
    """The curves, each with one of its results: they agree in all but the field (and the seed)."""
    groups = defaultdict(list)
    for record in measured:
        groups[_setting(record, field)].append(record)
    for number, (name, found) in enumerate(sorted(_named(groups, field).items())):
        at = defaultdict(list)
        for record in found:
            at[_number(record, field) or 0].append(record)
        cells = [(value, cell_of(records)) for value, records in sorted(at.items())]
        points = [(value, cell.mean, cell.deviation) for value, cell in cells]
        yield Series(name, points, number, marked=True), found[0]


def _setting(record: Measured, field: str) -> tuple:
    names = [name for name in SETTING if name not in (field, "apart")]
    return *zip(names, key(record, names)), *(pair for pair in record.apart if pair[0] != field)


def _named(groups: dict[tuple, list[Measured]], field: str) -> dict[str, list[Measured]]:
    """The curves by name; where a short name would stand for several, it says in what they differ."""
    short = {setting: model_name(found[0]) for setting, found in groups.items()}
    named = {}
    for setting, name in short.items():
        rivals = [dict(other) for other in short if short[other] == name]
        own = dict(setting)
        differing = [each for each in own if len({str(rival.get(each)) for rival in rivals}) > 1]
        words = [phrase(each, own[each]) or ABSENT.get(each, f"{each} none") for each in differing]
        named[", ".join([name, *words])] = groups[setting]
    return named


def model_name(record: Measured) -> str:
    """A curve's short name: `H-DCID + TOC`, `1 layer, cmcm, rvq:2, published`."""
    full = sorted(record.method.split(",")) == ["cmcm", "cpc"]
    name = {1: "DCID", 2: "H-DCID"}.get(record.layers or 0) if full else None
    words = [name or f"{count_layers(record.layers)}, {record.method}"]
    if record.quantizer not in (None, "vq", "rvq:1"):
        words.append(record.quantizer)
    if record.protocol != "heldout":
        words.append(record.protocol)
    return ", ".join(words) + ("" if record.toc == "none" else " + TOC")


def count_layers(layers: int | None) -> str:
    """`1 layer`, `2 layers`."""
    return f"{layers} layer{'' if layers == 1 else 's'}"


def _frame(
    measured: Sequence[Measured], supervised: Sequence[Measured], field: str, ends: tuple[float, float]
) -> Iterator[Series]:
    """The ceiling and chance, in grey."""
    ceilings = defaultdict(list)
    for record in supervised:
        ceilings[", ".join([SUPERVISED, *(phrase(*pair) for pair in record.apart)])].append(record)
    for name, found in sorted(ceilings.items()):
        yield Series(name, [(end, cell_of(found).mean, None) for end in ends], dash=1, grey=True)
    chance = defaultdict(list)
    for record in measured:
        if record.chance is not None:
            chance[_number(record, field) or 0].append(record.chance)
    if chance:
        points = [(value, fmean(found), None) for value, found in sorted(chance.items())]
        yield Series("chance", points, dash=2, grey=True)


def _ring(line: tuple[Series, Measured], chart: tuple, field: str) -> Iterator[Series]:
    """The paper's number, if it has one for the curve."""
    series, record = line
    if field != CODEBOOK or record.ground is not None:
        return
    labels = {
        "DCID": ["DCID", "1", "–"],
        "DCID + TOC": ["DCID", "1", "✓"],
        "H-DCID": ["H-DCID", "2", "–"],
        "H-DCID + TOC": ["H-DCID", "2", "✓"],
    }
    paper, quantity = layouts()["table1"], list(chart[: len(QUANTITY)])
    columns = [column["of"] for column in paper["columns"]]
    rows = [row["values"] for row in paper["rows"] if row["labels"] == labels.get(model_name(record))]
    if rows and quantity in columns:
        value = rows[0][columns.index(quantity)]
        yield Series("the paper", [(PAPER_CODES, value, None)], series.number, hollow=True)


def _caption(chart: tuple, records: Sequence[Measured], label: str) -> str:
    named = dict(zip(CHART, chart))
    task, metric = named["task"], named["metric"]
    direction = f"{named['train']}→{named['test']}"
    words = [f"{task} {direction}, {name_in(task, metric)} over {label}", on_data(each.data for each in records)]
    if named["protocol"] != "heldout":
        words.append(named["protocol"])
    return ", ".join([*words, *departures(records)])


def on_data(names) -> str:
    """On which data, for a caption."""
    spoken = {SYNTH: "synthetic clips", OWN: "own clips", None: "data that the records do not name"}
    return "on " + " and ".join(sorted({spoken.get(name, str(name)) for name in names}))
