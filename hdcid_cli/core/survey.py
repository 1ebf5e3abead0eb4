"""What is in a feature file, and whether all of it is sound."""

from collections.abc import Iterable

import numpy as np

from hdcid_cli.core.features import FeatureFile, Inspected


def describe(file: FeatureFile) -> dict:
    """What a file says of itself, without reading its features, as a flat record."""
    return {
        "modality": file.modality,
        "backbone": file.backbone,
        "weights": file.weights,
        **({"revision": file.revision} if file.revision else {}),
        "clips": len(file),
        "failed": len(file.failed),
        "shape": list(file.shape),
        "dtype": str(file.dtype),
        "segment_seconds": file.segment_seconds,
        "length": [int(file.length.min()), int(file.length.max())] if len(file) else None,
    }


def survey(file: FeatureFile, rows: Iterable[Inspected]) -> dict:
    """Describe a file with all its rows (as `file.inspect()` gives them), as a flat record.

    `damaged` and `not_finite` name clips whose bytes have changed since they were written, or hold NaN;
    `mean`, `std`, `min`, `max` and `zeros` (a share) are over the valid segments of all others.
    """
    damaged: list[str] = []
    not_finite: list[str] = []
    count, total, squares, zeros, low, high = 0, 0.0, 0.0, 0, np.inf, -np.inf
    for row, features, intact, finite in rows:
        if features is None or not (intact and finite):
            (not_finite if intact else damaged).append(file.ids[row])
            continue
        values = features[: file.length[row]].astype(np.float64)
        count += values.size
        total += values.sum()
        squares += np.square(values).sum()
        zeros += values.size - int(np.count_nonzero(values))
        low, high = min(low, values.min()), max(high, values.max())
    mean = total / count if count else None
    return {
        **describe(file),
        "mean": mean,
        "std": float(np.sqrt(max(0.0, squares / count - (total / count) ** 2))) if count else None,
        "min": float(low) if count else None,
        "max": float(high) if count else None,
        "zeros": zeros / count if count else None,
        "damaged": damaged,
        "not_finite": not_finite,
        "digest": file.digest,
    }
