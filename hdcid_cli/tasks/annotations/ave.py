"""AVE: audio-visual events, 28 classes, one event a clip (Tian et al. 2018, https://arxiv.org/abs/1803.08842).

`Annotations.txt` has lines `Category&VideoID&Quality&StartTime&EndTime`, with or without
that header. The splits come in one of three ways: `{train,val,test}_order.h5` (row numbers,
header not counted), `{train,val,test}Set.txt` (lines of the same kind) or `split.csv`
(`category,video_id,split`). 45 videos carry two classes: each line is a sample of its own.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.splits import SPLITS, split_name
from hdcid_cli.tasks.annotations import places
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, Annotations, EventList, repeated


def read(data: Path) -> Annotations:
    """Read AVE from `data/ave` or from `data` itself."""
    folders = places.folders(data, "ave")
    path = places.require(data, folders, "Annotations.txt", what="the annotation of AVE")
    numbers: dict[str, int] = {}  # classes in order of appearance, as in the published labels
    problems, clips, keys = [], [], []
    for line, category, video, onset, offset in _rows(path):
        label = numbers.setdefault(category, len(numbers))
        events = EventList()
        problem = events.add(label, onset, offset, category)
        if problem:
            problems.append(f"{path}, line {line}: {problem}")
        clips.append(AnnotatedClip(video, None, label, events.events, line=line))
        keys.append((category, video))
    if not clips:
        raise InputError(f"{path} names no clips.")
    last = {key: row for row, key in enumerate(keys)}
    for (category, video), first in repeated(keys).items():
        here, there = clips[last[category, video]].line, clips[first].line
        problems.append(f"{path}, line {here}: clip {video} was listed as {category} on line {there} already")
    _read_splits(folders, clips, keys, problems)
    return Annotations(path, tuple(numbers), clips, problems)


def _rows(path: Path) -> Iterator[tuple[int, str, str, float, float]]:
    """(line, category, video, onset, offset) of every line that is not the header."""
    for line, text in tables.lines(path):
        cells = [cell.strip() for cell in text.split("&")]
        if not text.strip() or (line == 1 and cells[0].lower() == "category"):
            continue
        if len(cells) != 5:
            raise InputError(f"{path}, line {line}: {text[:80]!r} is not Category&VideoID&Quality&StartTime&EndTime.")
        category, video, _, onset, offset = cells
        yield line, category, video, tables.seconds(onset, path, line), tables.seconds(offset, path, line)


def _read_splits(
    folders: list[Path], clips: list[AnnotatedClip], keys: list[tuple[str, str]], problems: list[str]
) -> None:
    """Set the split of every clip from whichever files are there."""
    if places.find(folders, "train_order.h5"):
        for split in SPLITS:
            path = places.find(folders, f"{split}_order.h5")
            for row in _order(path, len(clips)) if path else ():
                clips[row].split = split
    elif places.find(folders, "trainSet.txt"):
        rows_of = {key: row for row, key in enumerate(keys)}
        for split in SPLITS:
            path = places.find(folders, f"{split}Set.txt")
            for line, category, video, *_ in _rows(path) if path else ():
                if (category, video) in rows_of:
                    clips[rows_of[category, video]].split = split
                else:
                    problems.append(f"{path}, line {line}: clip {video} ({category}) is not in Annotations.txt")
    elif path := places.find(folders, "split.csv"):
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
        row["video_id"]: (split_name(row["split"], path, row.line), row.line)
        for row in tables.table(path, "video_id", "split")
    }


def _order(path: Path, rows: int) -> np.ndarray:
    """Row numbers of one split, from a published order file."""
    from hdcid_cli.core.hdf5 import judging, open_hdf5, own_dataset

    kind = "file of row numbers (HDF5 with a dataset `order`)"
    with open_hdf5(path, kind) as file, judging(path, kind):
        dataset = own_dataset(file, "order")
        order = dataset[:] if dataset.ndim == 1 and dataset.dtype.kind in "iu" and len(dataset) <= rows else None
    if order is None or (len(order) and not 0 <= order.min() <= order.max() < rows):
        raise InputError(f"{path} does not hold row numbers of the {rows} lines of Annotations.txt.")
    return order
