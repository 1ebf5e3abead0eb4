"""VGGSound-AVEL 40k and 90k: 141 classes, one a clip (Zhou et al. 2021, https://arxiv.org/abs/2104.00239).

`vggsound-avel40k.csv` (or `...90k-new.csv`) has the columns `category,video_id,split`;
`VggsoundAVEL40kCategories.txt` lists the classes. When in the clip the event takes place is
published as one small file a clip, `labels/ID.zip` with a pickled array of T zeros and
ones; columns `onset` and `offset` in the table do as well. Localisation needs either.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import safe_name
from hdcid_cli.core.splits import split_name
from hdcid_cli.tasks.annotations import places
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, AnnotatedEvent, Annotations, EventList

FOLDERS = ("vggsound", "vggsound_avel")
TABLES = (
    "vggsound-avel40k.csv",
    "vggsound-avel90k-new.csv",
    "vggsound-avel90k.csv",
    "vggsound-avel100k-new.csv",
    "split.csv",
)
CATEGORIES = ("VggsoundAVEL40kCategories.txt", "VggsoundAVELCategories.txt", "Categories.txt")
MOST_SEGMENTS = 10_000  # of one clip


def read(data: Path) -> Annotations:
    """Read the clips; their events too where times are given."""
    folders = places.folders(data, *FOLDERS)
    what = "the annotation of VGGSound-AVEL"
    path = places.require(data, folders, *TABLES, what=what)
    classes = tables.names(places.require(data, folders, *CATEGORIES, what=what))
    annotations = read_categories(path, classes)
    labels = path.parent / "labels"
    if labels.is_dir():
        _read_segments(labels, annotations)
    return annotations


def read_categories(path: Path, classes: Sequence[str]) -> Annotations:
    """A table `category,video_id[,split][,onset,offset]`: one clip a line."""
    numbers = {name: number for number, name in enumerate(classes)}
    first: dict[str, int] = {}
    clips, problems = [], []
    for row in tables.table(path, "category", "video_id"):
        video, category = row["video_id"], row["category"]
        if category not in numbers:
            problems.append(f"{path}, line {row.line}: there is no class {category!r}; clip {video} is left out")
            continue
        if video in first:
            problems.append(
                f"{path}, line {row.line}: clip {video} was listed on line {first[video]} already; this line is "
                "left out"
            )
            continue
        first[video] = row.line
        split = split_name(row["split"], path, row.line) if row.get("split") else None
        clip = AnnotatedClip(video, split, numbers[category], None, line=row.line)
        if row.get("onset") and row.get("offset"):
            onset, offset = (tables.seconds(row[name], path, row.line) for name in ("onset", "offset"))
            events = EventList()
            problem = events.add(numbers[category], onset, offset, category)
            clip.events = events.events
            if problem:
                problems.append(f"{path}, line {row.line}: {problem}")
        clips.append(clip)
    return Annotations(path, tuple(classes), clips, problems)


def _read_segments(folder: Path, annotations: Annotations) -> None:
    """Add the events of `labels/ID.zip`: runs of ones, a second each."""
    from hdcid_cli.published.features import read_zipped_array

    for clip in annotations.clips:
        path = folder / f"{safe_name(clip.id)}.zip"
        if not path.is_file():
            annotations.problems.append(
                f"{annotations.source}, line {clip.line}: {path} is missing, so clip {clip.id} is not localised"
            )
            continue
        active = np.asarray(read_zipped_array(path))
        if active.dtype.kind not in "biuf" or active.size > MOST_SEGMENTS:
            raise InputError(f"{path} holds {active.size:,} of {active.dtype}, not a zero or one for every second.")
        edges = np.flatnonzero(np.diff((active.reshape(-1) > 0).astype(np.int8), prepend=0, append=0))
        assert clip.label is not None  # every line of the table has a category
        clip.events = [
            AnnotatedEvent(clip.label, float(start), float(end)) for start, end in zip(edges[::2], edges[1::2])
        ]
