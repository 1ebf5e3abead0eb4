"""Which clips are learned from, and in which order."""

from collections.abc import Set

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.core.progress import counted, warn


def common_clips(features: dict[str, FeatureFile], chosen: Set[str] | None = None) -> list[str]:
    """Names of the clips that every modality has (and `chosen` holds), in the first file's order.

    Clips that only some files have are counted on stderr; none in common is an InputError.
    """
    files = list(features.values())
    everywhere = set(files[0].ids).intersection(*(file.ids for file in files[1:]))
    if not everywhere:
        names = ", ".join(file.name for file in files)
        example = ", ".join(f"{file.ids[0]!r}" for file in files)
        raise InputError(
            f"{names} have no clip in common (their first ids: {example}): extract them from the same media."
        )
    for file in files:
        alone = len(file) - len(everywhere)
        if alone:
            warn(f"{alone} of {counted(len(file), 'clip')} in {file.name} left out: not in every modality.")
    ids = [name for name in files[0].ids if name in everywhere and (chosen is None or name in chosen)]
    if not ids:
        raise InputError("The split leaves no clip to train on: its names are not those of the feature files.")
    return ids


def epoch_batches(count: int, batch: int, epoch: int, seed: int) -> list[np.ndarray]:
    """Positions of every batch of an epoch, shuffled by seed and epoch alone, so that a resumed run sees the same.

    Every batch is full; the clips left over are others in every epoch. Fewer clips than
    one batch are one batch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count)
    batch = min(batch, count)
    return [order[start : start + batch] for start in range(0, count - batch + 1, batch)]
