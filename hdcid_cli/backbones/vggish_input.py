"""VGGish's log-mel front end in numpy (Hershey et al., "CNN architectures for large-scale audio classification", ICASSP
2017).
"""

from collections.abc import Iterator

import numpy as np

from hdcid_cli.media.audio import RATE, audio_seconds
from hdcid_cli.media.clips import MediaClip
from hdcid_cli.media.mel import frame_magnitudes, mel_filterbank

WINDOW, HOP, FFT = 400, 160, 512  # 25 ms, 10 ms
BANDS, LOW, HIGH = 64, 125.0, 7500.0
OFFSET = 0.01
FRAMES = 96  # one example, 0.96 s


def log_mel(wave: np.ndarray) -> np.ndarray:
    """Sound [n] in -1..1 at 16 kHz -> [frames, 64], in the wave's precision; a frame every 10 ms."""
    filters = mel_filterbank(BANDS, FFT, RATE, LOW, HIGH).astype(wave.dtype)
    return np.log(frame_magnitudes(wave, WINDOW, HOP, FFT) @ filters + wave.dtype.type(OFFSET))


def vggish_parts(clip: MediaClip, seconds: int) -> Iterator[np.ndarray]:
    """One example [1, 96, 64] a second: the second's first 0.96 s, as in the published AVE features."""
    for wave in audio_seconds(clip.source, seconds, clip.start):
        yield log_mel(wave)[None, :FRAMES]
