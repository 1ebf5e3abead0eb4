"""The pictures of the HTML page, each as a piece of HTML: curves, heat maps, timelines, overlays."""

import base64
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from itertools import islice
from pathlib import Path

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.json_lines import Skip
from hdcid_cli.core.records import Timeline
from hdcid_cli.report.pivot import SUPERVISED, cell_of, choose_metrics, column_order
from hdcid_cli.report.results import QUANTITY, SETTING, Measured, key
from hdcid_cli.report.svg import Bar, Series, line_chart, timeline_chart

POINTS = 300  # a curve of more is thinned out

# Metrics of `metrics.jsonl`: NAME/LAYER or NAME/LAYER/OF -> title of the chart.
CHARTS = {
    "used": "Codes in use",
    "perplexity": "Perplexity of the codes",
    "agreement": "Share of segments where two modalities have the same code",
    "cpc_accuracy": "CPC accuracy",
}
# validation/NAME/... -> the same.
VALIDATION = {
    "r@1": "Validation clips: own partner found first, %",
    "agreement": "Validation clips: share of segments with one code in both modalities",
}


def figure(picture: str, caption: str, kind: str = "chart") -> str:
    """A picture with its caption."""
    return f'<figure class="{kind}"><figcaption>{escape(caption)}</figcaption>{picture}</figure>'


def inline_image(png: bytes, alt: str, kind: str = "png") -> str:
    """An <img> that carries its own bytes."""
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(png).decode()}">'


def training_curves(metrics: Path) -> dict[str, str]:
    """Charts of a checkpoint's `metrics.jsonl` by their titles; none where nothing was logged yet."""
    curves: dict = defaultdict(lambda: defaultdict(list))
    for record in _metrics(metrics):
        for name, value in record.items():
            place = _chart_of(name)
            if place and isinstance(value, (int, float)) and math.isfinite(value):
                chart, layer, of = place
                curves[chart][layer, of].append((record["step"], value, None))
    charts = {}
    for title, named in curves.items():
        # A colour a modality and a dash a layer; where there are no modalities, a colour a layer.
        colours = list(dict.fromkeys(of or layer for layer, of in named))
        series = [
            Series(
                ", ".join(filter(None, [layer and f"layer {layer}", of])),
                _thinned(points),
                colours.index(of or layer),
                int(layer or 1) - 1 if of else 0,
            )
            for (layer, of), points in named.items()
        ]
        charts[title] = figure(line_chart(title, "step", series), title)
    return charts


def _metrics(path: Path) -> list[dict]:
    """The records of a metrics file; a last line that a crash cut off is none."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and "step" in record:
            records.append(record)
    return records


def _chart_of(name: str) -> tuple[str, str, str] | None:
    """(chart, layer, of what) of a metric, or None: `loss/1/cpc` -> ("Loss: cpc", "1", ""), `used/1/audio` -> (...,
    "1", "audio"), `validation/r@1/audio-video` -> (..., "", "audio-video").
    """
    if name.startswith("validation/"):
        kind, *layers, of = name.split("/")[1:]
        return (VALIDATION[kind], "".join(layers), of) if kind in VALIDATION else None
    kind, layer, of = (name.split("/") + ["", ""])[:3]
    if kind == "loss":
        return (f"Loss: {of}", layer, "") if of else ("Loss", "1", "")
    return (CHARTS[kind], layer, of) if kind in CHARTS else None


def _thinned(points: Sequence[tuple]) -> list[tuple]:
    """Every n-th point and the last, so that a page of long runs stays small."""
    every = -(-len(points) // POINTS)
    return [*points[:-1:every], points[-1]]


def heat_maps(codebook: np.ndarray, channels: np.ndarray | None) -> list[str]:
    """Cosine similarities of all pairs of codes, on all channels and on those that TOC kept (paper, Fig. 2); [L, D]."""
    from hdcid_cli.codes.toc import code_similarities, mean_similarity

    chosen: list[tuple[np.ndarray | None, str]] = [(None, f"all {codebook.shape[1]} channels")]
    if channels is not None:
        chosen.append((channels, f"the {len(channels)} channels that TOC kept"))
    pictures = []
    for selection, name in chosen:
        caption = f"{name}: mean similarity of two codes {mean_similarity(codebook, selection):.3f}"
        picture = similarity_png(code_similarities(codebook, selection))
        pictures.append(figure(inline_image(picture, caption), caption, "heat"))
    return pictures


def similarity_png(similarities: np.ndarray) -> bytes:
    """[L, L] in -1..1 as a picture: blue for -1, white for 0, red for 1."""
    from hdcid_cli.media.picture import encode_png

    white, blue, red = (np.array(colour, float) for colour in ((255, 255, 255), (0, 68, 136), (170, 30, 30)))
    strength = np.clip(np.abs(similarities), 0, 1)[..., None]
    ends = np.where(similarities[..., None] < 0, blue, red)
    return encode_png((white + strength * (ends - white)).round().astype(np.uint8))


def codebook_curves(records: Sequence[Measured], paper: dict) -> list[str]:
    """Results over the size of the codebook, a chart a task and direction (paper, Fig. 5), where two sizes or more were
    measured.

    Args:
        paper: Table 1's layout; its numbers (400 codes) stand beside the curves as rings.
    """
    charts: dict = defaultdict(lambda: defaultdict(list))
    for record in choose_metrics(records, "headline"):
        if record.method != SUPERVISED and record.codebook is not None:
            charts[(*key(record, QUANTITY), record.ground)][key(record, CURVE)].append(record)
    pictures = []
    for (*quantity, ground), curves in sorted(
        charts.items(), key=lambda item: (column_order(item[0][:4]), str(item[0]))
    ):
        if len({record.codebook for found in curves.values() for record in found}) < 2:
            continue
        series, rings = [], []
        for colour, (name, found) in enumerate(sorted(_named(curves).items())):
            sizes = defaultdict(list)
            for record in found:
                sizes[record.codebook or 0].append(record)
            cells = [(size, cell_of(records)) for size, records in sorted(sizes.items())]
            series.append(
                Series(name, [(size, cell.mean, cell.deviation) for size, cell in cells], colour, marked=True)
            )
            value = _paper_value(paper, tuple(quantity), _model(found[0])) if ground is None else None
            if value is not None:
                rings.append(Series("the paper", [(400, value, None)], colour, hollow=True))
        task, train, test, metric = quantity
        title = f"{task} {train}→{test}, {metric}" + (f", {ground} data" if ground else "")
        pictures.append(figure(line_chart(title, "codes", [*series, *rings]), title))
    return pictures


# Results of one curve agree in all but the size of the codebook (and the seed).
CURVE = tuple(name for name in SETTING if name != "codebook")


def _named(curves: dict[tuple, list[Measured]]) -> dict[str, list[Measured]]:
    """The curves by name; where a short name would stand for several, it says in what they differ."""
    short = {setting: _model(found[0]) for setting, found in curves.items()}
    named = {}
    for setting, name in short.items():
        rivals = [other for other in short if short[other] == name]
        differing = [i for i in range(len(CURVE)) if len({rival[i] for rival in rivals}) > 1]
        named[", ".join([name, *(f"{CURVE[i]} {setting[i]}" for i in differing)])] = curves[setting]
    return named


def _model(record: Measured) -> str:
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


def _paper_value(paper: dict, quantity: tuple, model: str) -> float | None:
    labels = {
        "DCID": ["DCID", "1", "–"],
        "DCID + TOC": ["DCID", "1", "✓"],
        "H-DCID": ["H-DCID", "2", "–"],
        "H-DCID + TOC": ["H-DCID", "2", "✓"],
    }
    columns = [tuple(column["of"]) for column in paper["columns"]]
    rows = [row["values"] for row in paper["rows"] if row["labels"] == labels.get(model)]
    return rows[0][columns.index(quantity)] if rows and quantity in columns else None


def timelines(records: Sequence[Timeline], count: int) -> list[str]:
    """The first `count` clips of every task and direction: true events above predicted ones."""
    groups = defaultdict(list)
    for record in records:
        groups[record.task, record.train, record.test, record.data].append(record)
    pictures = []
    for (task, train, test, data), clips in groups.items():
        for record in clips[:count]:
            bars = [
                Bar(event.label, event.start, event.end, kind == "predicted")
                for kind, events in (("true", record.true), ("predicted", record.predicted))
                for event in events or ()
            ]
            of = f" ({task} {train}→{test}{f', {data} data' if data else ''})" if task else ""
            caption = record.clip + of
            pictures.append(figure(timeline_chart(caption, bars, record.seconds), caption))
    return pictures


def overlays(folder: Path, count: int, skip: Skip) -> list[str]:
    """The first `count` pictures below a folder, as `segment --overlay` writes them; broken ones go to `skip`."""
    from hdcid_cli.media.picture import read_picture

    if not folder.is_dir():
        raise InputError(f"There is no folder of overlay pictures {folder}.")
    pictures = []
    for path in islice(sorted(folder.rglob("*.png")), count):
        try:
            read_picture(path)
        except InputError as error:
            skip(str(error))
            continue
        name = str(path.relative_to(folder).with_suffix(""))
        pictures.append(figure(inline_image(path.read_bytes(), name), name, "overlay"))
    if not pictures:
        raise InputError(f"There are no PNG pictures in {folder}: write some with `hdcid segment --overlay {folder}`.")
    return pictures
