"""A user's own data: one table `id,split,label[,onset,offset]`.

For `cmg classify` a line is a clip with its class. For `cmg localise` a line is an event;
a clip may have several lines, or one without label and times if nothing happens in it.
"""

from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.annotations import tables
from hdcid_cli.tasks.annotations.clips import Annotations, Clip, EventList


def find_table(data: Path, task: str) -> Path:
    """The table itself, or the only CSV file in `data/TASK/` or in `data`."""
    if data.is_file():
        return data
    for place in tables.folders(data, task):
        found = sorted(place.glob("*.csv"))
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{place} has {len(found)} CSV files: name the one with the labels by --data FILE.csv.")
    raise InputError(
        f"There is no table of labels in {data / task}: give one by --data FILE.csv with the columns id,split,label."
    )


def read(data: Path, task: str) -> Annotations:
    """Read the table of `classify` or `localise`."""
    path = find_table(data, task)
    rows = list(tables.table(path, "id", "split", "label", *(("onset", "offset") if task == "localise" else ())))
    classes = tuple(sorted({row["label"] for row in rows} - {""}))
    if not classes:
        raise InputError(f"{path} names no class.")
    clips: dict[str, Clip] = {}
    events: dict[str, EventList] = {}
    first: dict[str, int] = {}
    problems = []
    for row in rows:
        name, label = row["id"], row["label"]
        split = tables.split_name(row["split"], path, row.line)
        number = classes.index(label) if label else None
        if name not in clips:
            clips[name] = Clip(name, split, number, line=row.line)
            events[name] = EventList()
            first[name] = row.line
        elif clips[name].split != split:
            raise InputError(
                f"{path}, line {row.line}: clip {name} is in split {split} here and in {clips[name].split} on line "
                f"{first[name]}."
            )
        elif task == "classify":
            problems.append(
                f"{path}, line {row.line}: clip {name} was listed on line {first[name]} already; this line is left out"
            )
        if task == "classify" and number is None:
            raise InputError(f"{path}, line {row.line}: clip {name} has no label.")
        if task == "localise" and number is not None:
            onset, offset = (tables.number(row[column], path, row.line) for column in ("onset", "offset"))
            problem = events[name].add(number, onset, offset, label)
            if problem:
                problems.append(f"{path}, line {row.line}: clip {name}: {problem}")
    for name, found in events.items():
        clips[name].events = found.events
    return Annotations(path, classes, list(clips.values()), problems)
