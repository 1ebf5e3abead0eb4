"""LLP, the data set of audio-visual video parsing (Tian et al. 2020, https://arxiv.org/abs/2007.10558).

What is heard and what is seen are annotated apart, in `AVVP_eval_audio*.csv` and
`AVVP_eval_visual*.csv`: columns filename, onset, offset, event_labels, in the official
files one event a line, in the combined ones all events of a clip on one line, separated by
commas. All lines of a clip are taken together, whichever format. A `filename` is a video
and a window, `4YdbENYcIyE_23_33`; features may be named so or by the video alone.

Splits: `split.csv` (`category,video_id,split`), or the official lists `AVVP_train.csv`,
`AVVP_val_pd.csv` and `AVVP_test_pd.csv`. The real training list has no times, so that the
clips of LLP's `val` are all that a decoder can learn from.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.progress import counted
from hdcid_cli.tasks.annotations import places
from hdcid_cli.tasks.annotations.ave import read_split_table
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, Annotations, EventList

FILES = {
    "audio": ("AVVP_eval_audio_checked_combined.csv", "AVVP_eval_audio.csv"),
    "video": ("AVVP_eval_visual_checked_combined.csv", "AVVP_eval_visual.csv"),
}
SPLIT_FILES = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
COLUMNS = ("filename", "onset", "offset", "event_labels")


def read(data: Path, modality: str) -> Annotations:
    """Read what is heard (audio) or seen (video) from `data/avvp` or from `data` itself."""
    folders = places.folders(data, "avvp")
    path = places.require(data, folders, *FILES[modality], what=f"LLP's annotation of the {modality}")
    listed = places.find(folders, "AVVP_Categories.txt", "Categories.txt")
    classes = tables.names(listed) if listed else _classes(folders)
    annotations = read_events(path, classes)
    if mark_splits(annotations, folders):
        unlisted = [clip for clip in annotations.clips if clip.split is None]
        annotations.problems += [
            f"{path}, line {clip.line}: clip {clip.id} is in none of the lists of splits" for clip in unlisted
        ]
    return annotations


def mark_splits(annotations: Annotations, folders: Sequence[Path]) -> bool:
    """Give the clips the splits that files in `folders` name; False where there are no such files."""
    splits = _splits(folders)
    for clip in annotations.clips:
        clip.split = splits.get(clip.id, splits.get(clip.group))
    return bool(splits)


def read_events(path: Path, classes: Sequence[str]) -> Annotations:
    """Read one file of events, official or combined."""
    numbers = {name: number for number, name in enumerate(classes)}
    events: dict[str, EventList] = {}
    lines: dict[str, int] = {}
    problems = []
    combined = False
    for row in tables.table(path, *COLUMNS):
        onsets, offsets, labels = (row[column].split(",") for column in COLUMNS[1:])
        if not len(onsets) == len(offsets) == len(labels):
            raise InputError(
                f"{path}, line {row.line}: {counted(len(onsets), 'onset')}, {counted(len(offsets), 'offset')} and "
                f"{counted(len(labels), 'event')}."
            )
        combined = combined or len(labels) > 1
        name = row["filename"]
        if combined and name in events:
            problems.append(
                f"{path}, line {row.line}: clip {name} was listed on line {lines[name]} already; its events are "
                "put together"
            )
        clip = events.setdefault(name, EventList())
        lines.setdefault(name, row.line)
        for onset, offset, label in zip(onsets, offsets, labels):
            if label not in numbers:
                problems.append(f"{path}, line {row.line}: there is no class {label!r}; the event is left out")
                continue
            problem = clip.add(
                numbers[label], tables.seconds(onset, path, row.line), tables.seconds(offset, path, row.line), label
            )
            if problem:
                problems.append(f"{path}, line {row.line}: clip {name}: {problem}")
    if not events:
        raise InputError(f"{path} names no clips.")
    clips = [
        AnnotatedClip(name, None, None, found.events, video_id(name), lines[name]) for name, found in events.items()
    ]
    return Annotations(path, tuple(classes), clips, problems)


def video_id(filename: str) -> str:
    """`4YdbENYcIyE_23_33` -> `4YdbENYcIyE` (some official lines end in a stray character)."""
    return re.sub(r"_\d+_\d+\W*$", "", filename)


def _classes(folders: Sequence[Path]) -> tuple[str, ...]:
    """Without a list of categories: all labels of both files, sorted."""
    found: set[str] = set()
    for files in FILES.values():
        if path := places.find(folders, *files):
            found.update(label for row in tables.table(path, *COLUMNS) for label in row["event_labels"].split(","))
    return tuple(sorted(found - {""}))


def _splits(folders: Sequence[Path]) -> dict[str, str]:
    """{filename or video: split}."""
    if path := places.find(folders, "split.csv"):
        return {video: split for video, (split, _) in read_split_table(path).items()}
    splits = {}
    for split, name in SPLIT_FILES.items():
        if path := places.find(folders, name):
            splits.update({row["filename"]: split for row in tables.table(path, "filename")})
    return splits
