"""True and predicted events of the tested clips, as `report --timelines` draws them."""

from collections.abc import Iterator, Sequence

import numpy as np

from hdcid_cli.core.records import timeline
from hdcid_cli.tasks.cmg.scores import Answers, runs


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
