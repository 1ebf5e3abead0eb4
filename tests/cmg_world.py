"""Annotated clips with codes that show their events, and one probe of them."""

from pathlib import Path

import numpy as np

from hdcid_cli.tasks.annotations.clips import AnnotatedClip, AnnotatedEvent, Annotations
from hdcid_cli.tasks.cmg.inputs import Inputs
from hdcid_cli.tasks.cmg.protocol import ProbeSettings
from hdcid_cli.tasks.cmg.reading import Reading
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.cmg.trial import Trial

CLASSES = ("dog", "cat", "bell")


def world(clips=60, steps=5, width=8, seed=0, noise=0.6):
    """Annotated clips with one event each, and codes of two modalities that show it."""
    random = np.random.default_rng(seed)
    looks = random.normal(size=(len(CLASSES) + 1, width))
    labels = random.integers(0, len(CLASSES), clips)
    made, shown = [], np.full((clips, steps), len(CLASSES))
    for number, label in enumerate(labels):
        onset = random.integers(0, steps - 1)
        offset = random.integers(onset + 1, steps + 1)
        shown[number, onset:offset] = label
        split = ("train", "train", "val", "test")[number % 4]
        made.append(
            AnnotatedClip(f"clip{number}", split, int(label), [AnnotatedEvent(int(label), float(onset), float(offset))])
        )

    def codes(modality):
        values = (looks[shown] + noise * random.normal(size=(clips, steps, width))).astype(np.float32)
        return Inputs(
            f"{modality}.h5",
            modality,
            [clip.id for clip in made],
            np.full(clips, steps),
            1.0,
            values.shape[1:],
            values.__getitem__,
        )

    return Annotations(Path("world.csv"), CLASSES, made), codes("video"), codes("audio")


def run(task, annotations, train, test, seed=3, target=None, warn=lambda _: None, **settings):
    """One probe: what it was tried on, what it answered, and {metric: score}."""
    reading = Reading(train, test)
    trial = Trial(TASKS[task][0], annotations, target or annotations, reading, ProbeSettings(**settings), "cpu", warn)
    found = trial.probe(seed)
    return trial, found, {score.name: score for score in found.scores}


def headline(task):
    return TASKS[task][0].metric
