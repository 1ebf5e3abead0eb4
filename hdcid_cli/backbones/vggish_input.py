"""What VGGish gets of a clip: waves, second by second. Its spectra are made where the network is (`vggish.py`)."""

from collections.abc import Iterator

import numpy as np

from hdcid_cli.media.audio import audio_seconds
from hdcid_cli.media.clips import MediaClip


def vggish_parts(clip: MediaClip, seconds: int) -> Iterator[np.ndarray]:
    """The seconds of a clip, [1, 16000] each."""
    for wave in audio_seconds(clip.source, seconds, clip.start):
        yield wave[None]
