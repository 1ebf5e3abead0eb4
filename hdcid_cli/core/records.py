"""Results as JSON Lines: one record a result, `"schema": "hdcid.result/1"`.

To a pipe (or with `--json`) records are written one a line; to a terminal the
same records become a table. `hdcid report` reads them back from any number of
files, so a record carries all that its row in a table needs.

Fields (those marked * are always there):

schema*      "hdcid.result/1"
task*        ave, avvp, ave2avvp, ucf2vgg, vggsound, classify, localise, segment, retrieve, ...
train*       modality that the decoder learned on: "v", "a" or "t" (query modality of `retrieve`)
test*        modality that it was tested on (gallery modality of `retrieve`)
direction*   "v->a"
metric*      precision, accuracy, f1, map, miou, fscore, r@1, ...
value*       a number in the metric's own unit (percentages are 0..100), or null
interval     [low, high], 95 % bootstrap over clips, or null
n*           how many clips the value was computed on
chance       what guessing gives on the same clips, where that is known
protocol*    "heldout" or "published", with ", seen in pretraining" or what was left out behind it
method*      what aligned the modalities ("cpc,cmcm", ...), or "supervised" for a
             probe on the raw features of one modality (the ceiling)
layers       number of disentangling layers (0, 1, 2, ...), null for "supervised"
quantizer    "vq", "rvq:4", "fsq:8,5,5,2", null for "supervised"
codebook     codes a layer (400), null for "supervised"
layers_used  layers whose codes the task read
toc          "none" or what was selected, such as "128" or "224/196"
toc_criterion  "similarity", "variance" or "both" (the default) where toc is not "none"
modalities   what the model was pretrained on ("av", "avt", ...)
pretrain_clips  and on how many clips
backbone     of the features that were tested
checkpoint   digest of the model, null for "supervised"
seed*        of the probe; `pretrain_seed` is the checkpoint's
versions*    {"hdcid": ..., "torch": ...}
"""

import json
import math
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator

import click

from hdcid_cli import __version__
from hdcid_cli.core.errors import InputError

SCHEMA = "hdcid.result/1"
TIMELINE_SCHEMA = "hdcid.timeline/1"
CURVES_SCHEMA = "hdcid.open-set/1"
REQUIRED = ("task", "train", "test", "metric", "value", "n", "protocol", "method", "seed")
TEXTS = ("task", "train", "test", "metric", "protocol", "method")


def result(**fields) -> dict:
    """A record with schema, direction and versions filled in; required fields are checked."""
    missing = [name for name in REQUIRED if name not in fields]
    if missing:
        raise TypeError(f"a result needs {', '.join(missing)}")
    value = fields["value"]
    if value is not None and not math.isfinite(value):
        fields["value"] = None  # NaN is not JSON
    record = {"schema": SCHEMA, **fields}
    record["direction"] = f"{fields['train']}->{fields['test']}"
    record["versions"] = versions()
    return record


def versions() -> dict[str, str]:
    """Versions that a result depends on (torch only if it took part)."""
    found = {"hdcid": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy"):
        module = sys.modules.get(name)
        if module is not None:
            found[name] = str(module.__version__)
    return found


def emit(records: Iterable[dict], as_json: bool, columns: tuple[str, ...] = ()) -> None:
    """Write records to stdout as they come (pipe, `--json`) or as one table (terminal)."""
    if as_json or not sys.stdout.isatty():
        for record in records:
            click.echo(json.dumps(record, ensure_ascii=False))
            sys.stdout.flush()  # the next stage of a pipe should not wait for the last record
        return
    click.echo(table(list(records), columns))


TABLE_COLUMNS = (
    "task",
    "direction",
    "metric",
    "value",
    "interval",
    "chance",
    "n",
    "protocol",
    "method",
    "layers",
    "toc",
)


def table(records: list[dict], columns: tuple[str, ...] = ()) -> str:
    """Records as a plain table for a terminal; columns that no record fills are left out, seeds become mean ±
    deviation.
    """
    from tabulate import tabulate

    columns = columns or TABLE_COLUMNS
    records = _fold_seeds(records, columns)
    shown = [name for name in columns if any(record.get(name) is not None for record in records)]
    rows = [[_cell(record.get(name)) for name in shown] for record in records]
    return tabulate(rows, headers=shown, disable_numparse=True)


def _fold_seeds(records: list[dict], columns: tuple[str, ...]) -> list[dict]:
    """Records that differ in their seed alone as one, in the order of the first of each."""
    groups: dict[str, list[dict]] = {}
    for number, record in enumerate(records):
        same = [record.get(name) for name in (*columns, "checkpoint") if name not in ("value", "interval", "chance")]
        groups.setdefault(json.dumps(same if "seed" in record else number), []).append(record)
    folded = []
    for group in groups.values():
        values = [record["value"] for record in group if record.get("value") is not None]
        if len({record.get("seed") for record in group}) == len(group) == len(values) > 1:
            group = [
                group[0]
                | {"value": f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}", "interval": None}
            ]
        folded += group
    return folded


def _cell(value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, (list, tuple)):
        return " - ".join(_cell(item) for item in value)
    return str(value)


def timeline(clip: str, seconds: float, true: list[dict], predicted: list[dict], **fields) -> dict:
    """One clip's events, as `cmg --timelines FILE` writes them (JSON Lines) and `report --timelines FILE` draws them.

    Args:
        seconds: length of the clip.
        true, predicted: events as {"label": "dog", "start": 2.0, "end": 5.0}, in seconds.
        fields: what was tested, as in a result: task, train, test, protocol, method, layers, toc, checkpoint.
    """
    return {"schema": TIMELINE_SCHEMA, "clip": clip, "seconds": seconds, "true": true, "predicted": predicted, **fields}


def open_set_curves(histogram: dict, oscr: dict, **fields) -> dict:
    """How known and unknown clips score, as `cmg --open-set K --curves FILE` writes it (JSON Lines).

    Args:
        histogram: {"edges": [B + 1] scores, "known": [B] clips, "unknown": [B] clips}.
        oscr: {"fpr": [P], "ccr": [P]}, the rates of unknown clips accepted and of known ones accepted and right, 0..1,
            as the threshold falls.
        fields: what was tested, as in a result: task, train, test, protocol, threshold, known, ...
    """
    return {"schema": CURVES_SCHEMA, "histogram": histogram, "oscr": oscr, **fields}


def read_records(
    lines: Iterable[str], source: str, skip: Callable[[str], None] | None = None, schema: str = SCHEMA
) -> Iterator[tuple[str, dict]]:
    """Parse JSON Lines of one schema: yield ("FILE, line N", record).

    A line that is not such a record raises InputError with its place, or, if
    `skip` is given, is handed to it as a sentence and left out.
    """
    check = {SCHEMA: _check_result, TIMELINE_SCHEMA: _check_timeline, CURVES_SCHEMA: _check_curves}[schema]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = _parse(line, schema)
            check(record)
        except InputError as error:
            message = f"{source}, line {number} {error}"
            if skip is None:
                raise InputError(message) from error
            skip(message)
        else:
            yield f"{source}, line {number}", record


def _parse(line: str, schema: str) -> dict:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"is not JSON ({getattr(error, 'msg', error)}).") from error
    found = record.get("schema") if isinstance(record, dict) else type(record).__name__
    if found != schema:
        raise InputError(f"is of the schema {found!r}, not {schema!r}.")
    return record


def _check_result(record: dict) -> None:
    missing = [name for name in REQUIRED if name not in record]
    if missing:
        raise InputError(f"is a result without {', '.join(missing)}.")
    for name in TEXTS:
        if not isinstance(record[name], str):
            raise InputError(f"has the {name} {record[name]!r}, which is not a text.")
    for name in ("value", "chance"):
        if record.get(name) is not None and not _is_number(record[name]):
            raise InputError(f"has the {name} {record[name]!r}, which is not a number.")


def _check_timeline(record: dict) -> None:
    if not isinstance(record.get("clip"), str) or not _is_number(record.get("seconds")) or record["seconds"] <= 0:
        raise InputError("is a timeline without the name of its clip or its seconds.")
    for kind in ("true", "predicted"):
        for event in record.get(kind) or ():
            whole = (
                isinstance(event, dict)
                and isinstance(event.get("label"), str)
                and _is_number(event.get("start"))
                and _is_number(event.get("end"))
            )
            if not whole or not 0 <= event["start"] <= event["end"] <= record["seconds"]:
                raise InputError(f"has a {kind} event that is no label, start and end within the clip: {event!r}.")


def _check_curves(record: dict) -> None:
    histogram, oscr = record.get("histogram"), record.get("oscr")
    if not isinstance(histogram, dict) or not isinstance(oscr, dict):
        raise InputError("is of an open set, without its histogram and its OSCR curve.")
    lists = {name: histogram.get(name) for name in ("edges", "known", "unknown")}
    lists |= {name: oscr.get(name) for name in ("fpr", "ccr")}
    for name, numbers in lists.items():
        if not isinstance(numbers, list) or not all(map(_is_number, numbers)):
            raise InputError(f"is of an open set, and its {name} are no list of numbers.")
    bins = len(lists["edges"]) - 1
    if not bins == len(lists["known"]) == len(lists["unknown"]) or len(lists["fpr"]) != len(lists["ccr"]):
        raise InputError("is of an open set, and its histogram or its curve has lists of unequal length.")


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
