"""Sound that is in memory, or in an HDF5 file, rather than in a media file."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hdcid_cli.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Wave:
    """A sound as an array; a clip's `source` can be one.

    Attributes:
        samples: [samples] or [channels, samples], or an HDF5 data set of that shape: numbers in -1..1, or whole numbers
            over all of their type's range.
        rate: samples a second.
    """

    samples: Any
    rate: float

    def __str__(self) -> str:
        return f"an array of {self.rate:g} Hz"

    def at(self, rate: int) -> np.ndarray:
        """[samples] float32, the mean of the channels at another rate, resampled by torchaudio if it is one."""
        samples = np.asarray(self.samples)
        if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu" or samples.size == 0:
            raise InputError(
                f"A wave should be numbers [samples] or [channels, samples], not {samples.dtype} {samples.shape}."
            )
        if not (self.rate == int(self.rate) and 1 <= self.rate <= 10_000_000):
            raise InputError(f"A wave's rate should be a whole number of samples a second, not {self.rate}.")
        if samples.dtype.kind == "u":
            middle = np.iinfo(samples.dtype).max // 2 + 1
            samples = (samples.astype(np.float32) - middle) / middle
        elif samples.dtype.kind == "i":
            samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
        mono = np.atleast_2d(samples).mean(axis=0, dtype=np.float64).astype(np.float32)
        if self.rate == rate:
            return mono
        return resample(mono, int(self.rate), rate)


def resample(wave: np.ndarray, rate: int, target: int) -> np.ndarray:
    """[samples] float32 from one rate to another, through a windowed sinc."""
    import torch

    from hdcid_cli.core.torchaudio import check_torchaudio

    functional = check_torchaudio("Resampling").functional
    return functional.resample(torch.from_numpy(np.ascontiguousarray(wave)), rate, target).numpy()
