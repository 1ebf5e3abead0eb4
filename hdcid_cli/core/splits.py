"""Which clips are for learning and which for testing, as tables of a user's data say."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.names import recording
from hdcid_cli.core.progress import say

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
    column = _name_column(tables.columns_of(path))
    if column is None:
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

    def describe(self, names: Iterable[str]) -> str:
        """`24 val and 48 test clips of data/classify.csv`."""
        counts = Counter(self.of(names).values())
        clips = " and ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
        return f"{clips} clips of {', '.join(map(str, self.tables))}"


def held_out(data: Path) -> HeldOut:
    """What the tables in a folder of data say is for validation and test: `*.csv` in it and in its folders (`TASK/`).

    Args:
        data: the folder, or one table. A CSV file without a column of names and one of splits says nothing.
    """
    paths = [data] if data.is_file() else sorted([*data.glob("*.csv"), *data.glob("*/*.csv")])
    splits: dict[str, str] = {}
    said = []
    for path in paths:
        try:
            if _name_column(tables.columns_of(path)) is None:
                continue
        except InputError:
            continue
        found = {name: split for name, split in read_splits(path).items() if split != "train"}
        if found:
            said.append(path)
        for name, split in found.items():
            splits[name] = max(split, splits.get(name, split), key=SPLITS.index)
    return HeldOut(splits, tuple(said))


def training_clips(split: Path | None, data: Path, names: Sequence[str]) -> frozenset[str] | None:
    """Which of the clips to learn from, None for all; what is left out is said.

    Args:
        split: a table of splits, whose train clips alone count; "none" for all clips; None: `data/split.csv` if there
            is one, or else all clips that no table in `data` is to test or to choose by.
        names: of all clips.
    """
    if str(split) == "none":
        return None
    if split is None and (data / "split.csv").exists():
        split = data / "split.csv"
    if split is not None:
        clips = frozenset(name for name, part in read_splits(split).items() if part == "train")
        if not clips:
            raise InputError(f"{split} names no clip of the split `train`.")
        say(f"Learning from the {len(clips)} train clips of {split} (--split none takes all).")
        return clips
    try:
        held = held_out(data)
    except InputError as error:
        raise InputError(f"{error} (To learn all the same, say from what: --split FILE.csv or --split none.)") from None
    left = frozenset(names) - held.of(names).keys()
    if len(left) == len(names):
        return None
    if not left:
        raise InputError(f"{held.describe(names)} are all there is to learn from: --split none takes them.")
    say(f"Learning from {len(left)} of {len(names)} clips, without {held.describe(names)} (--split none takes all).")
    return left


def _name_column(header: list[str]) -> str | None:
    """Which column names the clips of a table of splits; None if it is none."""
    return next((name for name in NAME_COLUMNS if name in header), None) if "split" in header else None
