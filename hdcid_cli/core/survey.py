"""What is in a feature file, and whether all of it is sound."""

from collections.abc import Iterable

import numpy as np

from hdcid_cli.core.features import FeatureFile, Inspected

AT_ONCE = 1 << 16


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


def survey(file: FeatureFile, parts: Iterable[Inspected]) -> dict:
    """Describe a file with all its rows (as `file.inspect()` gives them), as a flat record.

    `damaged` and `not_finite` name clips whose bytes have changed since they were written, or hold NaN;
    `mean`, `std`, `min`, `max` and `zeros` (a share) are over the valid segments of all others.
    """
    damaged: list[str] = []
    not_finite: list[str] = []
    moments = Moments()
    for part in parts:
        damaged += [file.ids[row] for row in part.rows[~part.intact].tolist()]
        not_finite += [file.ids[row] for row in part.rows[part.intact & ~part.finite].tolist()]
        good, length = part.intact & part.finite, file.length[part.rows]
        if good.all() and (length == file.shape[0]).all():
            moments.add(part.features)
        else:
            moments.add(part.features[good[:, None] & (np.arange(file.shape[0]) < length[:, None])])
    return {
        **describe(file),
        **moments.describe(),
        "damaged": damaged,
        "not_finite": not_finite,
        "digest": file.digest,
    }


class Moments:
    """Of numbers that come a part at a time, in float64."""

    def __init__(self) -> None:
        self.count, self.total, self.squares, self.zeros = 0, 0.0, 0.0, 0
        self.low, self.high = np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        """Finite numbers of any shape; so few of them are converted at a time that they stay in the cache."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, AT_ONCE):
            part = flat[start : start + AT_ONCE].astype(np.float64)
            self.total += float(part.sum())
            self.squares += float(part @ part)
            self.zeros += part.size - int(np.count_nonzero(part))
            self.low, self.high = min(self.low, float(part.min())), max(self.high, float(part.max()))
        self.count += flat.size

    def describe(self) -> dict:
        """Mean, deviation, the smallest and the largest, and the share of zeros; None of nothing."""
        if not self.count:
            return dict.fromkeys(("mean", "std", "min", "max", "zeros"))
        mean = self.total / self.count
        return {
            "mean": mean,
            "std": float(np.sqrt(max(0.0, self.squares / self.count - mean**2))),
            "min": self.low,
            "max": self.high,
            "zeros": self.zeros / self.count,
        }
