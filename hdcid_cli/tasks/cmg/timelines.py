"""True and predicted events of the tested clips, as `report --timelines` draws them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import open_regular
from hdcid_cli.core.records import CURVES_SCHEMA, SEEN, TIMELINE_SCHEMA, read_records, timeline
from hdcid_cli.tasks.cmg.scores import Answers, runs

# Fields of a record that say by what probe a question was asked.
PROBED = ("classifier", "localizer", "decision", "open_set", "score", "keep")


def refuse_others(path: Path, schema: str, fields: dict) -> None:
    """Raise InputError if a file is there that another question's drawings, or something else, would be lost with.

    Args:
        schema: of the drawings, TIMELINE_SCHEMA or CURVES_SCHEMA.
        fields: what is asked, as in a result: the same question's drawings may be replaced.
    """
    what = {TIMELINE_SCHEMA: "timelines", CURVES_SCHEMA: "curves"}[schema]
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        with open_regular(path) as stream:
            _, first = next(read_records(stream, str(path), schema=schema))
    except (InputError, StopIteration):
        raise InputError(f"{path} is there already and holds no {what}: name another file.") from None
    said = {name: first.get(name) for name in fields}
    if isinstance(said.get("protocol"), str):
        said["protocol"] = said["protocol"].removesuffix(f", {SEEN}")
    if said != fields:
        described = [f"{first.get('task')} {first.get('train')}->{first.get('test')}", str(first.get("protocol"))]
        described += [f"{name} {said[name]}" for name in ("toc", *PROBED) if said.get(name) is not None]
        described += [f"seed {first.get('seed')}", str(first.get("checkpoint_name") or first.get("method"))]
        raise InputError(f"{path} holds the {what} of {', '.join(described)} already: name another file, or remove it.")


def timelines(
    ids: Sequence[str], answers: Answers, classes: Sequence[str], seconds: float, fields: dict
) -> Iterator[dict]:
    """One record a clip.

    Args:
        ids: [N] names of the clips.
        answers: to a localization task.
        seconds: length of a segment.
        fields: what was tested, as in a result.
    """
    for row, name in enumerate(ids):
        steps = int(answers.truth.valid[row].sum())
        true, predicted = (
            _events(active[row, :steps, :-1], classes, seconds) for active in (answers.truth.actual, answers.said)
        )
        yield timeline(name, steps * seconds, true, predicted, **fields)


def _events(active: np.ndarray, classes: Sequence[str], seconds: float) -> list[dict]:
    """[T, classes] bool -> events."""
    return [
        {"label": classes[label], "start": start * seconds, "end": end * seconds}
        for label in np.flatnonzero(active.any(0)).tolist()
        for start, end in runs(active[:, label])
    ]
