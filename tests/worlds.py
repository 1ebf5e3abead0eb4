"""Small feature files made of a few latent events, for tests that need something to learn."""

import numpy as np

from hdcid_cli.core.features import FeatureWriter

SHAPES = {"video": (5, 5, 8), "audio": (12,), "text": (10,)}


def write_features(
    folder, clips=40, steps=6, classes=4, modalities=("audio", "video"), seed=0, noise=0.3, dtype="float32", ids=None
):
    """`folder/M.h5` for each modality; every segment shows one of `classes` events, the same in all modalities.

    Returns the event of every segment, [clips, steps], and the clips' names.
    """
    rng, clips = np.random.default_rng(seed), len(ids or range(clips))
    events = rng.integers(classes, size=(clips, steps))
    ids = ids or [f"clip{number:04d}" for number in range(clips)]
    for name in modalities:
        looks = rng.normal(size=(classes, *SHAPES[name]))
        attributes = {"modality": name, "backbone": "made", "weights": "none", "segment_seconds": 1.0}
        with FeatureWriter(folder / f"{name}.h5", ids, (steps, *SHAPES[name]), attributes, dtype=dtype) as writer:
            for clip, row in zip(ids, events, strict=True):
                x = looks[row] + noise * rng.normal(size=(steps, *SHAPES[name]))
                writer.write(clip, np.maximum(0, x), steps)
            writer.finish()
    return events, ids
