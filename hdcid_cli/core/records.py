"""Results as JSON Lines: one record a result, `"schema": "hdcid.result/1"`.

To a pipe (or with `--json`) records are written one a line; to a terminal the
same records become a table. `hdcid report` reads them back from any number of
files, so a record carries all that its row in a table needs. `Result` is what
it reads: the fields of a record, each checked.
"""

import json
import math
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, BinaryIO, Self, get_args, get_type_hints

import click

from hdcid_cli import __version__
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.json_lines import Skip, objects, refuse, shown
from hdcid_cli.core.terminal import records_table

SCHEMA = "hdcid.result/1"
TIMELINE_SCHEMA = "hdcid.timeline/1"
CURVES_SCHEMA = "hdcid.open-set/1"
# What `hdcid toc` prints of its choice: no result, and no oddity among results either.
TOC_SCHEMA = "hdcid.toc/1"
REQUIRED = ("task", "train", "test", "metric", "value", "n", "protocol", "method", "seed")

# What a held-out protocol adds where the model was pretrained, without labels, on clips that are tested.
SEEN = "seen in pretraining"


def with_seen(protocol: str, pretrained: int) -> str:
    """The protocol of a result of clips, so many of which the model was pretrained on; the published one allows it."""
    return f"{protocol}, {SEEN}" if pretrained and not protocol.startswith("published") else protocol


# Nothing that is measured here comes near these.
GREATEST = 1e12
LONGEST = 10_000  # characters
SHORTEST = 1e-3  # seconds

Interval = tuple[float, float]


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


def timeline(clip: str, seconds: float, true: list[dict], predicted: list[dict], **fields) -> dict:
    """One clip's events, as `cmg --timelines FILE` writes them (JSON Lines) and `report --timelines FILE` draws them.

    Args:
        seconds: length of the clip.
        true, predicted: events as {"label": "dog", "start": 2.0, "end": 5.0}, in seconds.
        fields: what was tested, as in a result: task, train, test, data, protocol, method, layers, toc, checkpoint.
    """
    return {"schema": TIMELINE_SCHEMA, "clip": clip, "seconds": seconds, "true": true, "predicted": predicted, **fields}


def open_set_curves(histogram: dict, oscr: dict, **fields) -> dict:
    """How known and unknown clips score, as `cmg --open-set K --curves FILE` writes it (JSON Lines) and `hdcid report`
    draws it.

    Args:
        histogram: {"edges": [B + 1] scores, "known": [B] clips, "unknown": [B] clips}.
        oscr: {"fpr": [P], "ccr": [P]}, the rates of unknown clips accepted and of known ones accepted and right, 0..1,
            as the threshold falls.
        fields: what was tested, as in a result: task, train, test, data, protocol, threshold, known, ...
    """
    return {"schema": CURVES_SCHEMA, "histogram": histogram, "oscr": oscr, **fields}


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
    click.echo(records_table(list(records), columns))


class Checked:
    """A dataclass that is read from a record: every field must be of its own type, and `more` takes all others."""

    more: dict

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """The record's fields, checked.

        Raises:
            InputError: a field is missing, or of another type than it should be. The sentence lacks its subject:
                "has the task 1, which is not a text."
        """
        values, hints = dict(record), _types(cls)  # type: ignore[arg-type]
        own = [each for each in fields(cls) if each.name != "more"]  # type: ignore[arg-type]
        missing = [each.name for each in own if each.default is MISSING and each.name not in values]
        if missing:
            raise InputError(f"is without {', '.join(missing)}.")
        found = {each.name: _checked(each.name, values.pop(each.name), hints[each.name])
                 for each in own if each.name in values}  # fmt: skip
        return cls(**found, more={name: values[name] for name in values if name not in DERIVED})  # type: ignore[call-arg]

    def get(self, name: str) -> Any:
        """A field by its name, this version's own or another; None where there is none."""
        return self.__dict__[name] if name in self.__dict__ else self.__dict__["more"].get(name)


@cache
def _types(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


# What a reader need not keep: the reader knows the schema, and the direction follows from train and test.
DERIVED = ("schema", "direction")


@dataclass(frozen=True, kw_only=True)
class Result(Checked):
    """One result. hdcid-files(5) says what each field means; None stands for what a record does not say."""

    task: str
    train: str
    test: str
    metric: str
    value: float | None
    n: int
    protocol: str
    method: str
    seed: int
    interval: Interval | None = None
    chance: float | None = None
    data: str | None = None
    data_digest: str | None = None
    features_digest: str | None = None
    layers: int | None = None
    layers_used: int | None = None
    quantizer: str | None = None
    codebook: int | None = None
    toc: str | int | None = None
    toc_criterion: str | None = None
    modalities: str | None = None
    pretrain_clips: int | None = None
    pretrain_seed: int | None = None
    n_fit: int | None = None
    n_choose: int | None = None
    n_pretrained: int | None = None
    epoch: int | None = None
    probe_epochs: int | None = None
    probe_lr: float | None = None
    encoder_dropout: float | None = None
    backbone: str | None = None
    checkpoint: str | None = None
    checkpoint_name: str | None = None
    per_class: dict | None = None
    versions: dict | None = None
    more: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Drawn(Checked):
    """What a drawing says of itself: some of a result's fields."""

    task: str | None = None
    train: str | None = None
    test: str | None = None
    data: str | None = None
    protocol: str | None = None
    method: str | None = None
    layers: int | None = None
    toc: str | int | None = None
    seed: int | None = None
    more: dict = field(default_factory=dict)


@dataclass(frozen=True)
class TimelineEvent:
    """Something that happens in a clip, in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Timeline(Drawn):
    """One clip's events."""

    clip: str
    seconds: float
    true: list | None = None
    predicted: list | None = None

    def __post_init__(self):
        if self.seconds < SHORTEST:
            raise InputError(f"is a timeline of {self.seconds} seconds.")
        for kind in ("true", "predicted"):
            object.__setattr__(self, kind, [self._event(kind, event) for event in getattr(self, kind) or ()])

    def _event(self, kind: str, found: object) -> TimelineEvent:
        try:
            label, start, end = (found[name] for name in ("label", "start", "end"))  # type: ignore[index]
            times = _number(start) and _number(end) and 0 <= start <= end <= self.seconds
        except (TypeError, LookupError):
            label = times = None
        if not (_text(label) and times):
            raise InputError(f"has a {kind} event that is no label, start and end within the clip: {shown(found)}.")
        return TimelineEvent(label, start, end)


@dataclass(frozen=True, kw_only=True)
class OpenSet(Drawn):
    """How the known and unknown clips of an open set score; see `open_set_curves`."""

    histogram: dict
    oscr: dict
    threshold: float | None = None
    open_set: int | None = None
    score: str | None = None

    def __post_init__(self):
        edges, known, unknown = (_list_in("histogram", self.histogram, name) for name in ("edges", "known", "unknown"))
        rates = [_list_in("OSCR curve", self.oscr, name) for name in ("fpr", "ccr")]
        if not len(edges) - 1 == len(known) == len(unknown) > 0 or not len(rates[0]) == len(rates[1]) > 1:
            raise InputError("has a histogram or an OSCR curve with lists of unequal length.")
        if list(edges) != sorted(edges) or min(*known, *unknown) < 0:
            raise InputError("has a histogram whose edges fall or whose counts are negative.")
        if not all(0 <= rate <= 1 for each in rates for rate in each):
            raise InputError("has an OSCR curve whose rates are not within 0 and 1.")


def _list_in(what: str, found: dict, name: str) -> list[float]:
    if not _numbers(found.get(name)):
        raise InputError(f"has a {what} whose {name} are no list of numbers.")
    return found[name]


READ: dict[str, type[Checked]] = {SCHEMA: Result, TIMELINE_SCHEMA: Timeline, CURVES_SCHEMA: OpenSet}


def read_records(stream: BinaryIO, source: str, skip: Skip = refuse, schema: str = SCHEMA) -> Iterator[tuple[str, Any]]:
    """JSON Lines of one schema: ("FILE, line N", what `READ` makes of it), of every line that is one.

    A line that is not such a record is handed to `skip` as a sentence with its place, and left out; without `skip` it
    is an InputError. Lines of `hdcid toc` are passed over.
    """
    for place, record in objects(stream, source, skip):
        if record.get("schema") == TOC_SCHEMA:
            continue
        try:
            if record.get("schema") != schema:
                said = "no schema" if "schema" not in record else f"the schema {shown(repr(record['schema']))}"
                raise InputError(f"is of {said}, not {schema!r}.")
            yield place, READ[schema].read(record)
        except InputError as error:
            skip(f"{place} {error}")


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST


def _integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= GREATEST


def _numbers(value: object, count: int | None = None) -> bool:
    return isinstance(value, list) and count in (None, len(value)) and all(map(_number, value))


# Of the types that fields have: what is one, in JSON, and in words.
TYPES: dict[object, tuple[Callable[[Any], bool], str]] = {
    str: (_text, "a text"),
    int: (_integer, "a whole number"),
    float: (_number, "a number"),
    Interval: (lambda value: _numbers(value, 2), "two numbers"),
    dict: (lambda value: isinstance(value, dict), "an object"),
    list: (lambda value: isinstance(value, list), "a list"),
}


def _checked(name: str, value: object, hint: Any) -> Any:
    """The value, if it is of the field's type; lists of numbers as tuples."""
    kinds = [hint] if hint in TYPES else [kind for kind in get_args(hint) if kind is not type(None)]
    if value is None and type(None) in get_args(hint):
        return None
    if not any(TYPES[kind][0](value) for kind in kinds):
        expected = " or ".join(TYPES[kind][1] for kind in kinds)
        raise InputError(f"has the {name} {shown(repr(value))}, which is not {expected}.")
    return tuple(value) if isinstance(value, list) and list not in kinds else value
