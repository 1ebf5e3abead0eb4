"""Records read from any number of files, with what cannot be used named and left out."""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.records import SCHEMA, TIMELINE_SCHEMA, read_records

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
    "modalities",
    "pretrain_clips",
)
# ... and which repetition it is, on which features.
RUN = ("checkpoint", "pretrain_seed", "seed", "backbone")

Skip = Callable[[str], None]


def key(record: dict, names: Sequence[str]) -> tuple:
    """The record's values of `names`, None where it has none; lists as text, so that a key can be compared
    and hashed.
    """
    values = (record.get(name) for name in names)
    return tuple(json.dumps(value) if isinstance(value, (list, dict)) else value for value in values)


def read_results(files: Sequence[Path], skip: Skip) -> list[dict]:
    """All usable records of `files` ("-" is standard input), in any order, without repetitions.

    Lines that are no results, results that contradict each other, and those
    without a value are handed to `skip` as sentences.
    """
    placed = []
    for file in files:
        placed += _read_file(file, skip)
    return _without_contradictions(placed, skip)


def read_timelines(files: Sequence[Path], skip: Skip) -> list[dict]:
    """All usable timelines of `files`, in their order; other lines are handed to `skip`."""
    return [record for file in files for _, record in _read_file(file, skip, TIMELINE_SCHEMA)]


def _read_file(file: Path, skip: Skip, schema: str = SCHEMA) -> list[tuple[str, dict]]:
    if str(file) == "-":
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
        return list(read_records(sys.stdin, "standard input", skip, schema))
    if file.is_dir():
        raise InputError(f"{file} is a folder; give the files of records in it, such as {file}/*.jsonl.")
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as lines:
            return list(read_records(lines, str(file), skip, schema))
    except OSError as error:
        raise InputError(f"The records {file} cannot be read: {error.strerror}.") from error


def _without_contradictions(placed: list[tuple[str, dict]], skip: Skip) -> list[dict]:
    """Keep one of equal records; of records that give one result two values keep none.

    Keeping the first of two would make the table depend on the order of the files.
    """
    groups = defaultdict(list)
    for place, record in placed:
        record = _canonical(record)
        groups[key(record, QUANTITY + SETTING + RUN)].append((place, record))
    kept = []
    for group in groups.values():
        (first_place, first), *others = group
        contradiction = next((place for place, record in others if record["value"] != first["value"]), None)
        if contradiction is not None:
            values = ", ".join(f"{record['value']} ({place})" for place, record in group)
            skip(f"{name_of(first)} has contradictory values, and all of them are left out: {values}.")
        elif first["value"] is None:
            skip(f"{first_place}: {name_of(first)} has no value.")
        else:
            kept.append(first)
    return kept


def _canonical(record: dict) -> dict:
    """The record with one spelling for what means the same: nothing where all layers were read, or by both of TOC's
    criteria.
    """
    toc = str(record.get("toc") or "none")
    criterion = record.get("toc_criterion")
    used = record.get("layers_used")
    return record | {
        "toc": toc,
        "toc_criterion": None if toc == "none" or criterion == "both" else criterion,
        "layers_used": None if used == max(1, record.get("layers") or 1) else used,  # 0 layers have a codebook, too
    }


def name_of(record: dict) -> str:
    """A result in words: `ave v->a precision of cpc,cmcm, heldout, seed 0`."""
    return (
        f"{record['task']} {record['train']}->{record['test']} {record['metric']} of {record['method']}, "
        f"{record['protocol']}, seed {record['seed']}"
    )
