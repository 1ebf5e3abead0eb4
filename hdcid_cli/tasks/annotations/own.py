"""A user's own data: one table `id,split,label[,onset,offset][,group]`.

For `cmg classify` a line is a clip with its class. For `cmg localise` a line is an event;
a clip may have several lines, or one without label and times if nothing happens in it.
Clips that are cut from one recording should name it in the column `group`.
"""

from pathlib import Path

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.splits import split_name
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, Annotations, EventList
from hdcid_cli.tasks.annotations.places import MissingAnnotations

COLUMNS = {"classify": ("id", "split", "label"), "localise": ("id", "split", "label", "onset", "offset")}


def find_table(data: Path, task: str) -> Path:
    """The table itself, `data/TASK.csv`, or the only CSV file in `data/TASK/` or in `data`."""
    if data.suffix == ".csv" or (data.exists() and not data.is_dir()):
        return data
    named = data / f"{task}.csv"
    if named.exists():
        return named
    for place in (data / task, data):
        if (place / named.name).exists():
            return place / named.name
        found = [path for path in sorted(place.glob("*.csv")) if (task, path.name) != ("localise", "classify.csv")]
        if len(found) == 1:
            return found[0]
        if found:
            raise MissingAnnotations(
                f"{place} has {len(found)} CSV files and none is {named.name}: call the one with the labels so, or "
                "name it by --data FILE.csv."
            )
    folders = " (of a folder a class, `hdcid convert annotations videos/` does)" if task == "classify" else ""
    raise MissingAnnotations(
        f"There is no table of labels {named}: make it with the columns {','.join(COLUMNS[task])}{folders}, or name "
        "one by --data FILE.csv."
    )


def read_classify(data: Path) -> Annotations:
    """Read the table of `classify`: one class a clip."""
    path = find_table(data, "classify")
    numbers = _classes(path, "id", "split", "label")
    clips: dict[str, AnnotatedClip] = {}
    problems = []
    for row in tables.table(path, "id", "split", "label"):
        if not row["label"]:
            raise InputError(f"{path}, line {row.line}: clip {row['id']} has no label.")
        clip = _clip(row, path, clips)
        if clip.line == row.line:
            clip.label, clip.events = numbers[row["label"]], None  # what, not when
        else:
            problems.append(
                f"{path}, line {row.line}: clip {clip.id} was listed on line {clip.line} already; this line is left out"
            )
    return Annotations(path, tuple(numbers), list(clips.values()), problems)


def read_localise(data: Path) -> Annotations:
    """Read the table of `localise`: events with their times."""
    path = find_table(data, "localise")
    columns = COLUMNS["localise"]
    numbers = _classes(path, *columns)
    clips: dict[str, AnnotatedClip] = {}
    events: dict[str, EventList] = {}
    problems = []
    for row in tables.table(path, *columns):
        clip, label = _clip(row, path, clips), row["label"]
        found = events.setdefault(clip.id, EventList())
        clip.events = found.events
        if not label:
            continue
        if clip.line == row.line:
            clip.label = numbers[label]
        onset, offset = (tables.seconds(row[column], path, row.line) for column in ("onset", "offset"))
        problem = found.add(numbers[label], onset, offset, label)
        if problem:
            problems.append(f"{path}, line {row.line}: clip {clip.id}: {problem}")
    return Annotations(path, tuple(numbers), list(clips.values()), problems)


def _classes(path: Path, *columns: str) -> dict[str, int]:
    """{class: its number}, in alphabetical order."""
    names = sorted({row["label"] for row in tables.table(path, *columns)} - {""})
    if not names:
        raise InputError(f"{path} names no class.")
    return {name: number for number, name in enumerate(names)}


def _clip(row: tables.TableRow, path: Path, clips: dict[str, AnnotatedClip]) -> AnnotatedClip:
    """The clip of a line, which must say of it what the lines before said."""
    name, split, group = row["id"], split_name(row["split"], path, row.line), row.get("group") or row["id"]
    if not name:
        raise InputError(f"{path}, line {row.line}: the clip has no id.")
    clip = clips.setdefault(name, AnnotatedClip(name, split, group=group, line=row.line))
    for what, here, there in (("split", split, clip.split), ("group", group, clip.group)):
        if here != there:
            raise InputError(
                f"{path}, line {row.line}: clip {name} is in {what} {here} here and in {there} on line {clip.line}."
            )
    return clip
