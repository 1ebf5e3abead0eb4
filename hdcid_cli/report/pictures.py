"""The pictures of a report: training, codebooks, open sets, events in clips, overlays."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from hdcid_cli.codes.toc import code_similarities, mean_similarity
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import open_regular
from hdcid_cli.core.json_lines import Skip, objects
from hdcid_cli.core.progress import counted
from hdcid_cli.core.records import GREATEST, Drawn, OpenSet, Timeline
from hdcid_cli.media.picture import encode_png, read_picture
from hdcid_cli.report.charts import Axis, Bar, Histogram, Series, curves, histogram_chart, line_chart, timeline_chart
from hdcid_cli.report.drawing import WIDTH, Drawing, Figure, Picture
from hdcid_cli.report.over import on_data
from hdcid_cli.report.results import DEPARTURES

D = TypeVar("D", bound=Drawn)

POINTS = 300  # a curve of more is thinned out
CODES = 1024  # a heat map shows no more

# Metrics of `metrics.jsonl`: NAME/LAYER or NAME/LAYER/OF -> title of the chart.
CHARTS = {
    "used": "Codes in use",
    "perplexity": "Perplexity of the codes",
    "agreement": "Share of segments where two modalities have the same code",
    "cpc_accuracy": "CPC accuracy",
    "cpc_accuracy_of_codes": "CPC accuracy, of codes",
}
# validation/NAME/... -> the same.
VALIDATION = {
    "r@1": "Validation clips: own partner found first, %",
    "agreement": "Validation clips: share of segments with one code in both modalities",
}
LOSS_TERM = "Loss: "


def training_curves(metrics: Path, model: str) -> list[Figure]:
    """Charts of a checkpoint's `metrics.jsonl`, validation first; none where nothing was logged yet.

    Args:
        model: the checkpoint's name, for the captions.
    """
    found: dict = defaultdict(lambda: defaultdict(list))
    for record in _metrics(metrics):
        for name, value in record.items():
            place = _chart_of(name)
            if place and _is_number(value):
                chart, layer, of = place
                found[chart][layer, of].append((record["step"], value, None))
    figures = []
    for title, named in sorted(found.items(), key=lambda item: not item[0].startswith("Validation")):
        # A colour a modality and a dash a layer; where there are no modalities, a colour a layer.
        colours = list(dict.fromkeys(of or layer for layer, of in named))
        series = [
            Series(
                ", ".join(filter(None, [f"layer {layer}" if layer else "", of])),
                _thinned(points),
                colours.index(of or layer),
                max(0, int(layer or 1) - 1) if of else 0,
            )
            for (layer, of), points in named.items()
        ]
        figures.append(Figure(f"{title}, {model}", curves("step", series)))
    return figures


def _metrics(path: Path) -> list[dict]:
    """The records of a metrics file; a last line that a crash cut off is none."""
    if not path.exists():
        return []
    with open_regular(path) as stream:
        return [record for _, record in objects(stream, str(path), lambda _: None) if _is_number(record.get("step"))]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= GREATEST


def _chart_of(name: str) -> tuple[str, str, str] | None:
    """(chart, layer, of what) of a metric, or None: `loss/1/cpc` -> ("Loss: cpc", "1", ""), `used/1/audio` -> (...,
    "1", "audio"), `used/1/audio/2` -> (..., "1", "audio block 2"), `validation/r@1/audio-video` -> (..., "",
    "audio-video").
    """
    kind, *parts = name.split("/")
    if kind == "validation":
        measured, *layers, of = [*parts, "", ""] if len(parts) < 2 else parts
        return (VALIDATION[measured], "".join(layers), of) if measured in VALIDATION else None
    layer, of = ([*parts[:1], " block ".join(parts[1:])] + ["", ""])[:2]
    if kind == "loss":
        return (f"{LOSS_TERM}{of}", layer, "") if of else ("Loss", "1", "")
    return (CHARTS[kind], layer, of) if kind in CHARTS and layer.isdecimal() else None


def _thinned(points: Sequence[tuple]) -> list[tuple]:
    """Every n-th point and the last, so that a page of long runs stays small."""
    every = -(-len(points) // POINTS)
    return [*points[:-1:every], points[-1]]


def heat_maps(codebook: np.ndarray, channels: np.ndarray | None, of: str) -> Iterator[Figure]:
    """Cosine similarities of all pairs of codes, on all channels and on those that TOC kept (paper, Fig. 2).

    Args:
        codebook: [L, D]; of many codes some are shown.
        channels: the channels that were kept.
        of: whose codebook it is.
    """
    codes = len(codebook)
    some = codebook[np.linspace(0, codes - 1, min(codes, CODES)).astype(int)]
    which = counted(codes, "code") if len(some) == codes else f"{len(some):,} of {codes:,} codes"
    chosen: list[tuple[np.ndarray | None, str, str]] = [(None, f"all {codebook.shape[1]} channels", "all channels")]
    if channels is not None:
        chosen.append((channels, f"the {counted(len(channels), 'channel')} that TOC kept", "toc"))
    for selection, name, short in chosen:
        mean = mean_similarity(some, selection)
        caption = f"{of}, {which}, {name}: mean similarity of two codes {mean:.3f}"
        png = similarity_png(code_similarities(some, selection))
        drawing = Drawing(WIDTH, [Picture(0, 0, WIDTH, WIDTH, png, pixelated=True)])
        yield Figure(caption, drawing, "heat", f"similarities, {of}, {short}")


def similarity_png(similarities: np.ndarray) -> bytes:
    """[L, L] in -1..1 as a picture: blue for -1, white for 0, red for 1."""
    white, blue, red = (np.array(colour, float) for colour in ((255, 255, 255), (0, 68, 136), (170, 30, 30)))
    strength = np.clip(np.abs(similarities), 0, 1)[..., None]
    ends = np.where(similarities[..., None] < 0, blue, red)
    return encode_png((white + strength * (ends - white)).round().astype(np.uint8))


def open_sets(records: Sequence[OpenSet], count: int) -> Iterator[Figure]:
    """For every task and direction the OSCR curves of all probes in one chart, and histograms of the first `count`."""
    groups = defaultdict(list)
    for record in records:
        groups[record.task, record.train, record.test, record.data, record.open_set, record.score].append(record)
    for (task, train, test, data, known, score), found in groups.items():
        of = f"{task} {train}→{test}, {known} known classes, {on_data([data])}"
        series = [
            Series(name, [(fpr, ccr, None) for fpr, ccr in _rising(record)], number)
            for number, (name, record) in enumerate(_told_apart(found))
        ]
        x, y = (Axis(label, 0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1])
                for label in ("unknown clips accepted", "known clips accepted and right"))  # fmt: skip
        yield Figure(f"OSCR curve: {of}", line_chart(x, y, series))
        for name, record in islice(_told_apart(found), count):
            edges = record.histogram["edges"]
            kinds = [
                Histogram(f"{kind} ({counted(round(sum(counts)), 'clip')})", edges, counts, number)
                for number, kind in enumerate(("known", "unknown"))
                if (counts := record.histogram[kind])
            ]
            caption = f"Scores: {of}, {name}" if len(found) > 1 else f"Scores: {of}"
            yield Figure(caption, histogram_chart(f"score ({score or 'softmax'})", kinds, record.threshold))


def _rising(record: OpenSet) -> list[tuple[float, float]]:
    return sorted(zip(record.oscr["fpr"], record.oscr["ccr"]))


def _told_apart(records: Sequence[D]) -> list[tuple[str, D]]:
    """The records by what they differ in."""
    names = ("method", "layers", "toc", "protocol", *DEPARTURES, "keep", "seed", "checkpoint_name", "checkpoint")
    said = {name: {str(record.get(name)) for record in records} for name in names}
    said["keep"] -= {"None"}  # the published protocol keeps no share
    differing = [name for name in names if len(said[name]) > 1]
    # The digest only tells what nothing else does.
    if len(differing) > 1 and differing[-1] == "checkpoint":
        differing = differing[:-1]
    words = {name: f"{name} {{}}" for name in ("toc", "seed", "keep", *DEPARTURES)} | {"layers": "{} layers"}

    def named(record: D) -> str:
        found = [(name, record.get(name)) for name in differing]
        return ", ".join(words.get(name, "{}").format(value) for name, value in found if value is not None)

    return [(named(record) or "the probe", record) for record in records]


def timelines(records: Sequence[Timeline], count: int) -> Iterator[Figure]:
    """The first `count` clips of every task, direction and probe: true events above predicted ones. Where there are
    several probes, what they said of one clip stands together.
    """
    groups = defaultdict(list)
    for record in records:
        groups[record.task, record.train, record.test, record.data].append(record)
    for (task, train, test, data), clips in groups.items():
        probes: dict[str, list[Timeline]] = defaultdict(list)
        for name, record in _told_apart(clips):
            probes[name].append(record)
        shown = [(name, record) for name, found in probes.items() for record in found[:count]]
        by_clip: dict[str, list[tuple[str, Timeline]]] = defaultdict(list)
        for name, record in shown:
            by_clip[record.clip].append((name, record))
        for name, record in chain.from_iterable(by_clip.values()):
            bars = [
                Bar(event.label, event.start, event.end, kind == "predicted")
                for kind, events in (("true", record.true), ("predicted", record.predicted))
                for event in events or ()
            ]
            of = [f"{task} {train}→{test}", on_data([data])] if task else []
            of += [name] if len(probes) > 1 else []
            caption = f"{record.clip} ({', '.join(of)})" if of else record.clip
            yield Figure(caption, timeline_chart(bars, record.seconds))


def overlays(folder: Path, count: int, skip: Skip) -> list[Figure]:
    """The first `count` pictures below a folder, as `segment --overlay` writes them; broken ones go to `skip`."""
    if not folder.is_dir():
        raise InputError(f"There is no folder of overlay pictures {folder}.")
    figures = []
    for path in islice(sorted(folder.rglob("*.png")), count):
        try:
            height, width = read_picture(path).shape[:2]
        except InputError as error:
            skip(str(error))
            continue
        with open_regular(path) as file:
            png = file.read()
        tall = WIDTH * height / width
        name = str(path.relative_to(folder).with_suffix(""))
        figures.append(Figure(name, Drawing(tall, [Picture(0, 0, WIDTH, tall, png)]), "overlay"))
    if not figures:
        raise InputError(f"There are no PNG pictures in {folder}: write some with `hdcid segment --overlay {folder}`.")
    return figures
