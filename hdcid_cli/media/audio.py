"""The sound of a file, 16 kHz mono, second by second."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hdcid_cli.media.stream import decode

RATE = 16_000
# Sound whose timestamps jump by more than this has lost something (a damaged packet, a late start).
GAP_SECONDS = 0.1


def audio_seconds(path: Path | str, seconds: int, start: float = 0.0) -> Iterator[np.ndarray]:
    """Yield up to `seconds` arrays [16000], float32 in -1..1: one a second.

    Channels are averaged, as VGGish does it. Sound that begins after the clip does is preceded by silence.
    A last second counts if half of it is there and is filled with silence; a clip has at least one.

    Raises InputError as `stream.decode` does.
    """
    buffer = np.zeros(0, np.float32)
    done = 0
    for piece in _mono(path, seconds, start):
        buffer = np.concatenate([buffer, piece])
        while len(buffer) >= RATE and done < seconds:
            yield buffer[:RATE]
            buffer = buffer[RATE:]
            done += 1
        if done == seconds:
            return
    if len(buffer) >= RATE // 2 or done == 0:
        yield np.pad(buffer, (0, RATE - len(buffer)))


def _mono(path: Path | str, seconds: int, start: float) -> Iterator[np.ndarray]:
    """Pieces of the sound from `start` on, resampled and averaged over channels, gaps filled with silence."""
    from av import AudioResampler

    resampler, kind, heard = AudioResampler(format="fltp", rate=RATE), None, None
    for time, duration, frame in decode(path, "audio", start):
        if heard is None or time > heard + GAP_SECONDS:  # the beginning, or a gap
            silence = min(time - max(heard or 0.0, 0.0), seconds)
            yield np.zeros(max(0, round(silence * RATE)), np.float32)
            early = max(0, round(-time * RATE))  # samples that lie before the clip
            heard = time
        heard += duration
        if kind != (frame.format.name, frame.layout.name, frame.sample_rate):  # may change within a stream
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = AudioResampler(format="fltp", rate=RATE)
        frame.pts = None  # gaps are ours to fill; the resampler only counts samples
        for piece in resampler.resample(frame):
            wave = piece.to_ndarray().mean(axis=0)
            yield wave[early:]
            early = max(0, early - len(wave))
    for piece in resampler.resample(None):
        yield piece.to_ndarray().mean(axis=0)[early:]
