"""AVE: audio-visual events, 28 classes, one event a clip (Tian et al. 2018, https://arxiv.org/abs/1803.08842).

`Annotations.txt` has lines `Category&VideoID&Quality&StartTime&EndTime`, with or without
that header. The splits come in one of three ways: `{train,val,test}_order.h5` (row numbers,
header not counted), `{train,val,test}Set.txt` (lines of the same kind) or `split.csv`
(`category,video_id,split`). 45 videos carry two classes: each line is a sample of its own.
"""

from pathlib import Path

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.annotations import tables
from hdcid_cli.tasks.annotations.clips import SPLITS, Annotations, Clip, EventList, repeated


def read(data: Path) -> Annotations:
    """Read AVE from `data/ave` or from `data` itself."""
    places = tables.folders(data, "ave")
    path = tables.require(data, places, "Annotations.txt", what="the annotation of AVE")
    rows = _rows(path)
    classes = tuple(
        dict.fromkeys(category for _, category, *_ in rows)
    )  # in order of appearance, as in the published labels
    problems, clips = [], []
    for line, category, video, onset, offset in rows:
        events = EventList()
        problem = events.add(classes.index(category), onset, offset, category)
        if problem:
            problems.append(f"{path}, line {line}: {problem}")
        clips.append(Clip(video, None, classes.index(category), events.events, line=line))
    keys = [(category, video) for _, category, video, *_ in rows]
    for (category, video), first in repeated(keys).items():
        last = len(keys) - 1 - keys[::-1].index((category, video))
        problems.append(
            f"{path}, line {rows[last][0]}: clip {video} was listed as {category} on line {rows[first][0]} already"
        )
    _read_splits(places, clips, keys, problems)
    return Annotations(path, classes, clips, problems)


def _rows(path: Path) -> list[tuple[int, str, str, float, float]]:
    """(line, category, video, onset, offset) of every line that is not the header."""
    rows = []
    for line, text in enumerate(tables.lines(path), 1):
        cells = [cell.strip() for cell in text.split("&")]
        if not text.strip() or (line == 1 and cells[0].lower() == "category"):
            continue
        if len(cells) != 5:
            raise InputError(f"{path}, line {line}: {text!r} is not Category&VideoID&Quality&StartTime&EndTime.")
        category, video, _, onset, offset = cells
        rows.append((line, category, video, tables.number(onset, path, line), tables.number(offset, path, line)))
    if not rows:
        raise InputError(f"{path} names no clips.")
    return rows


def _read_splits(places: list[Path], clips: list[Clip], keys: list[tuple[str, str]], problems: list[str]) -> None:
    """Set the split of every clip from whichever files are there."""
    if tables.find(places, "train_order.h5"):
        for split in SPLITS:
            path = tables.find(places, f"{split}_order.h5")
            for row in _order(path, len(clips)) if path else ():
                clips[row].split = split
    elif tables.find(places, "trainSet.txt"):
        rows_of = {key: row for row, key in enumerate(keys)}
        for split in SPLITS:
            path = tables.find(places, f"{split}Set.txt")
            for line, category, video, *_ in _rows(path) if path else ():
                if (category, video) in rows_of:
                    clips[rows_of[category, video]].split = split
                else:
                    problems.append(f"{path}, line {line}: clip {video} ({category}) is not in Annotations.txt")
    elif path := tables.find(places, "split.csv"):
        splits = read_split_table(path)
        known = {clip.id for clip in clips}
        problems += [
            f"{path}, line {line}: clip {video} is not in Annotations.txt"
            for video, (_, line) in splits.items()
            if video not in known
        ]
        for clip in clips:
            clip.split = splits[clip.id][0] if clip.id in splits else None


def read_split_table(path: Path) -> dict[str, tuple[str, int]]:
    """`category,video_id,split` -> {video: (split, line)}."""
    return {
        row["video_id"]: (tables.split_name(row["split"], path, row.line), row.line)
        for row in tables.table(path, "video_id", "split")
    }


def _order(path: Path, rows: int) -> np.ndarray:
    """Row numbers of one split, from a published order file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            order = file["order"][:]
    except (OSError, KeyError) as error:
        raise InputError(f"{path} is not an order file of AVE (an HDF5 file with a dataset `order`).") from error
    if order.ndim != 1 or order.dtype.kind not in "iu" or (len(order) and not 0 <= order.min() <= order.max() < rows):
        raise InputError(f"{path} does not hold row numbers of the {rows} lines of Annotations.txt.")
    return order
