"""Log-mel energies in four steps a second: an audio backbone without weights.

Each second gives 4 quarter-seconds x 32 mel bands = 128 numbers, as many as VGGish, that keep some order
in time: the mean over 10 ms frames of log(1 + 10 power) / 4. Silence is 0, speech 1 to 2, never negative.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from hdcid_cli.backbones.backbone import Backbone, Options
from hdcid_cli.media.audio import RATE, audio_seconds
from hdcid_cli.media.clips import MediaClip
from hdcid_cli.media.mel import frame_magnitudes, mel_filterbank

WINDOW, HOP, FFT = 400, 160, 512  # 25 ms, 10 ms
QUARTERS, BANDS = 4, 32
LOUDNESS = 10.0  # the power that counts as 0.1 is where the logarithm bends: about the noise of a quiet room
SCALE = 0.25


def load(options: Options) -> Backbone:
    """The backbone; `options.seconds` applies."""
    prepare = partial(_prepare, seconds=options.seconds)
    return Backbone(name="logmel", modality="audio", shape=(QUARTERS * BANDS,), prepare=prepare)


def _prepare(clip: MediaClip, seconds: int) -> Iterator[np.ndarray]:
    for wave in audio_seconds(clip.source, seconds, clip.start):
        yield logmel(wave)[None]


def logmel(wave: np.ndarray) -> np.ndarray:
    """One second [16000] of sound in -1..1 -> [128], float32: quarter by quarter, low to high bands."""
    power = frame_magnitudes(np.pad(wave, (0, WINDOW - HOP)), WINDOW, HOP, FFT) ** 2  # [100, 257]
    bands = power @ mel_filterbank(BANDS, FFT, RATE, 50.0, 7600.0)
    energy = np.log1p(LOUDNESS * bands).reshape(QUARTERS, -1, BANDS).mean(axis=1)
    return (SCALE * energy).astype(np.float32).ravel()
