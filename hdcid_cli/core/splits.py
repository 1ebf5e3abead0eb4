"""Which clips are for learning and which for testing, as tables of a user's data say."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.names import recording
from hdcid_cli.core.progress import counted, say

SPLITS = ("train", "val", "test")
OTHER_NAMES = {"training": "train", "validation": "val", "valid": "val", "eval": "val", "testing": "test"}
NAME_COLUMNS = ("id", "video_id", "filename", "name")


def split_name(text: str, path: Path, line: int) -> str:
    """train, val or test (validation, valid, eval are other names of val); anything else is an InputError."""
    name = OTHER_NAMES.get(text.lower(), text.lower())
    if name not in SPLITS:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise InputError(f"{path}, line {line}: there is no split {shown!r}; write train, val or test.")
    return name


def read_splits(path: Path) -> dict[str, str]:
    """{clip: split} of a table with a column `split` and one of `id`, `video_id`, `filename`.

    A clip that is listed in two splits belongs to the later of train, val, test: what is tested on is not learned on.
    """
    header = tables.columns_of(path)
    column = _name_column(header)
    if column is None or "split" not in header:
        raise InputError(f"{path} is not a table of splits: its header should name `id` (or `video_id`) and `split`.")
    found: dict[str, str] = {}
    for row in tables.table(path, column, "split"):
        split = split_name(row["split"], path, row.line)
        found[row[column]] = max(split, found.get(row[column], split), key=SPLITS.index)
    return found


@dataclass(frozen=True)
class HeldOut:
    """The clips that must not be learned from.

    Attributes:
        splits: {clip: "val" or "test"}.
        tables: the files that say so.
    """

    splits: dict[str, str]
    tables: tuple[Path, ...]

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """Those of the clips that are held out, or cut from a recording of which any clip is: {clip: split}."""
        recordings: dict[str, str] = {}
        for name, split in self.splits.items():
            recordings[recording(name)] = max(split, recordings.get(recording(name), split), key=SPLITS.index)
        found = {name: self.splits.get(name) or recordings.get(recording(name)) for name in names}
        return {name: split for name, split in found.items() if split}

    def __or__(self, other: "HeldOut") -> "HeldOut":
        """What either holds out; of two splits the later."""
        splits = dict(self.splits)
        for name, split in other.splits.items():
            splits[name] = max(split, splits.get(name, split), key=SPLITS.index)
        return HeldOut(splits, tuple(dict.fromkeys(self.tables + other.tables)))

    def describe(self, names: Iterable[str]) -> str:
        """`24 val and 48 test clips of data/classify.csv`."""
        counts = Counter(self.of(names).values())
        clips = " and ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
        tables = ", ".join(map(str, self.tables[:2])) + f" and {len(self.tables) - 2} more" * (len(self.tables) > 2)
        return f"{clips} {'clip' if counts.total() == 1 else 'clips'} of {tables}"


NOTHING = HeldOut({}, ())


def held_out(data: Path) -> HeldOut:
    """What the tables in a folder of data say is for validation and test: `*.csv` in it and in its folders (`TASK/`).

    Args:
        data: the folder, or one table. A CSV file without a column of names and one of splits says nothing.
    """
    held = NOTHING
    for path in _tables_with(data, "split"):
        found = {name: split for name, split in read_splits(path).items() if split != "train"}
        if found:
            held |= HeldOut(found, (path,))
    return held


def left_out(data: Path, rule: str) -> HeldOut:
    """The clips of some groups, all of them to test: those that a table of the data gives a value in a column.

    Args:
        data: the folder, whose tables (`*.csv` in it and in its folders) are asked, or one table.
        rule: `speaker=anna`, or several values as in `speaker=anna,bob`.
    """
    column, values = parse_rule(rule)
    paths = _tables_with(data, column)
    if not paths:
        raise InputError(f"No table in {data} has a column {column!r} beside one of {', '.join(NAME_COLUMNS)}.")
    splits: dict[str, str] = {}
    said: list[Path] = []
    known: set[str] = set()
    for path in paths:
        names = _name_column(tables.columns_of(path))
        for row in tables.table(path, names, column) if names else ():
            known.add(row[column])
            if row[column] in values:
                splits[row[str(names)]] = "test"
                said += [path] if path not in said else []
    if unknown := sorted(values - known):
        shown = sorted(known - {""})
        raise InputError(
            f"No clip has the {column} {unknown[0]!r} in {', '.join(map(str, paths))}; there "
            f"{'is' if len(shown) == 1 else 'are'} {', '.join(shown[:10])}{', ...' * (len(shown) > 10)}."
        )
    return HeldOut(splits, tuple(said))


def parse_rule(rule: str) -> tuple[str, set[str]]:
    """`speaker=anna,bob` -> ("speaker", {"anna", "bob"})."""
    column, _, values = rule.partition("=")
    parts = {value.strip() for value in values.split(",")} - {""}
    if not column.strip() or not parts:
        raise InputError(f"--leave-out takes COLUMN=VALUE, such as speaker=anna or speaker=anna,bob, not {rule!r}.")
    return column.strip().lower(), parts


def training_clips(
    split: Path | None, data: Path, names: Sequence[str], leave_out: str | None = None, more: HeldOut = NOTHING
) -> frozenset[str] | None:
    """Which of the clips to learn from, None for all; what is left out is said.

    Args:
        split: a table of splits, whose train clips alone count; "none" for all clips; None: the train clips of
            `data/split.csv` if there is one, or else all clips, but none that a table in `data` is to test or to
            choose by.
        names: of all clips.
        leave_out: groups whose clips are not learned from either, as `left_out` takes them.
        more: what other files than tables of splits hold out; it counts where `split` is None.
    """
    clips = _by_splits(split, data, names, more)
    if leave_out is None:
        return clips
    before = frozenset(names) if clips is None else clips
    group = left_out(data, leave_out).of(before)
    if len(group) == len(before):
        raise InputError(f"--leave-out {leave_out} leaves no clip to learn from.")
    say(f"Learning without {counted(len(group), 'clip')} more, of {leave_out}.")
    return before - group.keys()


def validation_clips(
    split: Path | None, data: Path, names: Sequence[str], leave_out: str | None = None, more: HeldOut = NOTHING
) -> list[str]:
    """Which of the clips a run may look at while it learns, to choose by and not to learn from: those of the split
    `val`, as `training_clips` reads the same tables; none where nothing is held out.
    """
    if str(split) == "none":
        return []
    splits = (held_out(data) | more if split is None else held_out(split)).of(names)
    tested = left_out(data, leave_out).of(names) if leave_out else {}
    return [name for name in names if splits.get(name) == "val" and name not in tested]


def require_data(data: Path) -> None:
    """Raise InputError if annotations that somebody named are not there: what they test would be learned from."""
    if not (data.is_dir() or data.is_file()):
        raise InputError(f"There is no folder {data}: say with --data where the annotations lie, or --split none.")


def _by_splits(split: Path | None, data: Path, names: Sequence[str], more: HeldOut) -> frozenset[str] | None:
    if str(split) == "none":
        return None
    if split is None and (data / "split.csv").exists():
        return _without_tested(data / "split.csv", data, more)
    if split is not None:
        clips = _train_clips(split)
        say(f"Learning from the {counted(len(clips), 'train clip')} of {split} (--split none takes all).")
        return clips
    try:
        held = held_out(data) | more
    except InputError as error:
        raise InputError(f"{error} (To learn all the same, say from what: --split FILE.csv or --split none.)") from None
    left = frozenset(names) - held.of(names).keys()
    if len(left) == len(names):
        return None
    if not left:
        raise InputError(f"{held.describe(names)} are all there is to learn from: --split none takes them.")
    of = f"{len(left)} of {counted(len(names), 'clip')}"
    say(f"Learning from {of}, without {held.describe(names)} (--split none takes all).")
    return left


def _train_clips(path: Path) -> frozenset[str]:
    clips = frozenset(name for name, part in read_splits(path).items() if part == "train")
    if not clips:
        raise InputError(f"{path} names no clip of the split `train`.")
    return clips


def _without_tested(path: Path, data: Path, more: HeldOut) -> frozenset[str]:
    """The train clips of `data/split.csv`, but for those that another table in the data is to test or choose by."""
    clips = _train_clips(path)
    try:
        held = held_out(data) | more
    except InputError as error:
        raise InputError(f"{error} (To learn all the same, name the table of splits: --split {path}.)") from None
    others = HeldOut(held.of(clips), tuple(table for table in held.tables if table != path))
    if not others.splits:
        say(f"Learning from the {counted(len(clips), 'train clip')} of {path} (--split none takes all).")
        return clips
    if len(others.splits) == len(clips):
        raise InputError(f"{others.describe(clips)} are all train clips of {path}: --split {path} takes them.")
    say(
        f"Learning from {counted(len(clips) - len(others.splits), 'train clip')} of {path}, without "
        f"{others.describe(clips)} (--split {path} takes those too, --split none all)."
    )
    return clips - others.splits.keys()


def _tables_with(data: Path, column: str) -> list[Path]:
    """The tables in a folder of data (or that one table) that name clips and have the column; others are no errors."""
    paths = [data] if data.is_file() else sorted([*data.glob("*.csv"), *data.glob("*/*.csv")])
    found = []
    for path in paths:
        try:
            header = tables.columns_of(path)
        except InputError:
            continue
        if column in header and _name_column(header) is not None:
            found.append(path)
    return found


def _name_column(header: list[str]) -> str | None:
    """Which column names the clips of a table; None if none does."""
    return next((name for name in NAME_COLUMNS if name in header), None)
