"""True and predicted events of the tested clips, as `report --timelines` draws them."""

from collections.abc import Iterator, Sequence

import numpy as np

from hdcid_cli.core.records import timeline
from hdcid_cli.tasks.cmg.llp_scores import runs
from hdcid_cli.tasks.cmg.tasks import Outcome


def timelines(outcome: Outcome, classes: Sequence[str], seconds: float, fields: dict) -> Iterator[dict]:
    """One record a clip.

    Args:
        outcome: of a localisation task.
        seconds: length of a segment.
        fields: what was tested, as in a result.
    """
    labels, valid = outcome.tested.labels.cpu().numpy() > 0, outcome.tested.valid.cpu().numpy()
    for row, name in enumerate(outcome.tested.ids):
        steps = int(valid[row].sum())
        true, predicted = (
            _events(active[row, :steps, :-1], classes, seconds) for active in (labels, outcome.logits > 0)
        )
        yield timeline(name, steps * seconds, true, predicted, **fields)


def _events(active: np.ndarray, classes: Sequence[str], seconds: float) -> list[dict]:
    """[T, classes] bool -> events."""
    return [
        {"label": classes[label], "start": start * seconds, "end": end * seconds}
        for label in np.flatnonzero(active.any(0))
        for start, end in runs(active[:, label])
    ]
