"""Records read from any number of files, with what cannot be used named and left out."""

import io
import json
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import reason
from hdcid_cli.core.json_lines import Skip
from hdcid_cli.core.records import CURVES_SCHEMA, SCHEMA, TIMELINE_SCHEMA, OpenSet, Result, Timeline, read_records

# What a result is of: one column of a table ...
QUANTITY = ("task", "train", "test", "metric")
# ... what was done: one row; records that agree in these differ by their seeds alone ...
SETTING = (
    "method",
    "layers",
    "layers_used",
    "quantizer",
    "codebook",
    "toc",
    "toc_criterion",
    "protocol",
    "ground",
    "modalities",
    "pretrain_clips",
    "apart",
)
# ... and which repetition it is, on which features.
RUN = ("checkpoint", "pretrain_seed", "seed", "backbone")

# The data sets that the papers measure each task on, by the names that records have for them.
PAPER_DATA = {
    "ave": ("AVE",),
    "avvp": ("LLP",),
    "ave2avvp": ("AVE-AVVP",),
    "ucf2vgg": ("UCF-VGG",),
    "ucf51": ("UCF-51",),
    "vggsound": ("VGGSound-AVEL-40k", "VGGSound-AVEL-90k"),
    "segment": ("AVSBench-S4",),
}
SUPERVISED = "supervised"  # the method of a probe on raw features
SYNTH, OWN, UNSAID = "synth", "own", "not said"

# Fields in which results of one quantity may differ and are then no repetitions of each other: on which data ...
DATA = ("data", "data_digest", "features_digest")
# ... and how. So do the fields that this version does not know.
OPTIONS = ("encoder_dropout", "probe_epochs", "probe_lr")
# Fields of `more` that do not: what was found rather than chosen, and what another field says already.
FOUND = ("left_out", "n_unknown", "threshold", "probe_dropout", "seconds", "shared")
# Fields of `more` that say in what a result departs from the papers' way, and are there only then: where they keep
# nothing apart, as all results of a quantity have them, they are told of all.
DEPARTURES = (
    *("classifier", "localizer", "decision", "dropout", "probe_batch_size"),
    *("open_set", "segmenter", "dim", "spatial_attention", "cell_hidden", "align_on", "mix", "read"),
)


@dataclass(frozen=True, kw_only=True)
class Measured(Result):
    """A result as tables take it.

    Attributes:
        ground: None for a result on a published data set (if the papers measure its task, on theirs); else SYNTH, OWN
            or UNSAID: not to stand beside what the papers measured.
        apart: (name, value as text) of the fields that keep it apart from others of its quantity; those that it has.
    """

    ground: str | None = None
    apart: tuple[tuple[str, str], ...] = ()


def key(record: Result, names: Sequence[str]) -> tuple:
    """The record's values of `names`, None where it has none; what cannot be hashed as text."""
    values = (record.get(name) for name in names)
    return tuple(json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value for value in values)


def read_results(files: Sequence[Path], skip: Skip) -> list[Measured]:
    """All usable records of `files` ("-" is standard input), in any order, without repetitions.

    Lines that are no results, results that contradict each other, and those
    without a value are handed to `skip` as sentences.
    """
    placed = []
    for file in files:
        placed += _read_file(file, skip)
    return kept_apart(_without_contradictions(placed, skip))


def results_of(records: Iterable[dict], skip: Skip) -> list[Measured]:
    """The same of records that are at hand; the place of one is its number, from 1."""
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    placed = list(read_records(io.BytesIO(lines.encode()), "records", skip))
    return kept_apart(_without_contradictions(placed, skip))


def read_timelines(files: Sequence[Path], skip: Skip) -> list[Timeline]:
    """All usable timelines of `files`, in their order; other lines are handed to `skip`."""
    return [record for file in files for _, record in _read_file(file, skip, TIMELINE_SCHEMA)]


def read_curves(files: Sequence[Path], skip: Skip) -> list[OpenSet]:
    """All usable curves of open sets of `files`, in their order; other lines are handed to `skip`."""
    return [record for file in files for _, record in _read_file(file, skip, CURVES_SCHEMA)]


def _read_file(file: Path, skip: Skip, schema: str = SCHEMA) -> list[tuple[str, Any]]:
    if str(file) == "-":
        return list(read_records(sys.stdin.buffer, "standard input", skip, schema))
    if file.is_dir():
        raise InputError(f"{file} is a folder; give the files of records in it, such as {file}/*.jsonl.")
    try:
        with open(file, "rb") as stream:  # a pipe too, as of `report <(hdcid cmg ...)`
            return list(read_records(stream, str(file), skip, schema))
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(f"The records {file} cannot be read: {reason(error)}.") from error


def _without_contradictions(placed: list[tuple[str, Result]], skip: Skip) -> list[Measured]:
    """Keep one of equal records; of records that give one result two values keep none.

    Keeping the first of two would make the table depend on the order of the files.
    """
    groups = defaultdict(list)
    for place, result in placed:
        record = _canonical(result)
        others = tuple(sorted(name for name in record.more if name not in FOUND))
        names = (*QUANTITY, *SETTING, *RUN, *DATA, *OPTIONS, *others)
        groups[others, key(record, names)].append((place, record))
    kept = []
    for group in groups.values():
        (first_place, first), *more = group
        contradiction = next((place for place, record in more if record.value != first.value), None)
        if contradiction is not None:
            values = ", ".join(f"{record.value} ({place})" for place, record in group)
            skip(f"{name_of(first)} has contradictory values, and all of them are left out: {values}.")
        elif first.value is None:
            skip(f"{first_place}: {name_of(first)} has no value.")
        else:
            kept.append(first)
    return kept


def _canonical(record: Result) -> Measured:
    """The record with one spelling for what means the same: nothing where all layers were read, or by both of TOC's
    criteria.
    """
    toc = str(record.toc or "none")
    used = max(1, record.layers or 1)  # 0 layers have a codebook, too
    changes = {
        "toc": toc,
        "toc_criterion": None if toc == "none" or record.toc_criterion == "both" else record.toc_criterion,
        "layers_used": None if record.layers_used == used else record.layers_used,
        "encoder_dropout": record.encoder_dropout or None,
        "ground": _ground(record),
    }
    return Measured(**{**vars(record), **changes})


def _ground(record: Result) -> str | None:
    papers = PAPER_DATA.get(record.task)
    if record.data is None:
        return UNSAID if papers else None
    if record.data in (SYNTH, OWN):
        return record.data
    return None if papers is None or record.data in papers else OWN


def kept_apart(records: Sequence[Measured]) -> list[Measured]:
    """The records, each with the fields in which its quantity differs among them, so that no mean is taken over two
    data sets, or over anything else that was chosen to differ.
    """
    further = dict.fromkeys(name for record in records for name in record.more if name not in FOUND)
    # Lists last: the names of known classes say nothing more where their number differs as well.
    listed = {name for record in records for name in further if isinstance(record.more.get(name), (list, dict))}
    names = (*DATA, *OPTIONS, *sorted(set(further) - listed), *sorted(listed))
    for name in names:
        found = defaultdict(set)
        for record in records:
            found[_rivals(record, name)].add(key(record, (name,)))
        records = [
            replace(record, apart=(*record.apart, (name, text(name, record.get(name)))))
            if record.get(name) is not None and len(found[_rivals(record, name)]) > 1
            else record
            for record in records
        ]
    return list(records)


def departures(records: Sequence[Measured], but: Collection[str] = ()) -> list[str]:
    """In what all results of some quantities depart from the papers' way, in words: `dim 32`, and where not all of the
    records do, of which tasks and directions: `classifier mean of ave, ucf2vgg v→a`.

    Args:
        but: fields that are told elsewhere.
    """
    everywhere = {key(record, QUANTITY[:3]) for record in records}
    found: dict[tuple[str, str], set] = defaultdict(set)
    for record in records:
        for name in set(DEPARTURES) - {*but, *(name for name, _ in record.apart)}:
            if record.get(name) is not None:
                found[name, text(name, record.get(name))].add(key(record, QUANTITY[:3]))
    return [
        f"{name} {value}" + (f" of {_named(places, everywhere)}" if places != everywhere else "")
        for (name, value), places in sorted(found.items(), key=lambda item: (DEPARTURES.index(item[0][0]), item[0]))
    ]


def _named(places: Collection[tuple], everywhere: Collection[tuple]) -> str:
    """Tasks, with the directions that are meant where not all of a task's are."""
    words = []
    for task in sorted({task for task, _, _ in places}):
        here, all_here = ({place for place in among if place[0] == task} for among in (places, everywhere))
        directions = " and ".join(f"{train}→{test}" for _, train, test in sorted(here))
        words.append(task if here == all_here else f"{task} {directions}")
    return ", ".join(words)


def _rivals(record: Measured, name: str) -> tuple:
    """What other results of the same quantity share with this one, if a field's other value is to set them apart."""
    if name in DATA:  # whatever was done
        return key(record, (*QUANTITY, "ground"))
    names = (*QUANTITY, "ground", "protocol")
    listed = isinstance(record.get(name), (list, dict))
    return key(record, (*names, "apart") if listed else names) + (record.method == SUPERVISED,)


def text(name: str, value: Any) -> str:
    """A setting's value as it stands in a row."""
    if value is None:
        return ""
    if name in ("checkpoint", "data_digest", "features_digest"):
        return str(value).removeprefix("sha256:")[:8]
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)


def name_of(record: Result) -> str:
    """A result in words: `ave v->a precision of cpc,cmcm, heldout, seed 0`."""
    return (
        f"{record.task} {record.train}->{record.test} {record.metric} of {record.method}, "
        f"{record.protocol}, seed {record.seed}"
    )
