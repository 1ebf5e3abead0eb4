"""What is in a feature file, and whether all of it is sound."""

from collections.abc import Iterable

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile


def survey(file: FeatureFile, rows: Iterable[int]) -> dict:
    """Read the rows and describe them with the file, as a flat record.

    `damaged` and `not_finite` name clips whose bytes have changed since they were written, or hold NaN;
    `mean`, `std`, `min`, `max` and `zeros` (a share) are over the valid segments of all others.
    """
    damaged, not_finite = [], []
    count, total, squares, zeros, low, high = 0, 0.0, 0.0, 0, np.inf, -np.inf
    for row in rows:
        if not file.intact(row):
            damaged.append(file.ids[row])
            continue
        try:
            values = file.read([row])[0, : file.length[row]].astype(np.float64)
        except InputError:
            not_finite.append(file.ids[row])
            continue
        count += values.size
        total += values.sum()
        squares += np.square(values).sum()
        zeros += values.size - np.count_nonzero(values)
        low, high = min(low, values.min()), max(high, values.max())
    mean = total / count if count else None
    return {
        "modality": file.modality,
        "backbone": file.backbone,
        "weights": file.weights,
        "clips": len(file),
        "failed": len(file.failed),
        "shape": list(file.shape),
        "dtype": str(file.dtype),
        "segment_seconds": file.segment_seconds,
        "length": [int(file.length.min()), int(file.length.max())] if len(file) else None,
        "mean": mean,
        "std": float(np.sqrt(max(0.0, squares / count - mean**2))) if count else None,
        "min": float(low) if count else None,
        "max": float(high) if count else None,
        "zeros": zeros / count if count else None,
        "damaged": damaged,
        "not_finite": not_finite,
        "digest": file.digest,
    }
