"""The sound of a file, 16 kHz mono, second by second."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hdcid_cli.media.stream import decode

RATE = 16_000


def audio_seconds(path: Path | str, seconds: int, start: float = 0.0) -> Iterator[np.ndarray]:
    """Yield up to `seconds` arrays [16000], float32 in -1..1: one a second.

    Channels are averaged, as VGGish does it. Sound that begins after the clip does is preceded by silence.
    A last second counts if half of it is there and is filled with silence; a clip has at least one.

    Raises InputError as `stream.decode` does.
    """
    buffer = np.zeros(0, np.float32)
    done = 0
    for piece in _mono(path, start):
        buffer = np.concatenate([buffer, piece])
        while len(buffer) >= RATE and done < seconds:
            yield buffer[:RATE]
            buffer = buffer[RATE:]
            done += 1
        if done == seconds:
            return
    if len(buffer) >= RATE // 2 or done == 0:
        yield np.pad(buffer, (0, RATE - len(buffer)))


def _mono(path: Path | str, start: float) -> Iterator[np.ndarray]:
    """Pieces of the sound from `start` on, averaged over channels and resampled."""
    from av import AudioResampler

    resampler = kind = skip = None
    for time, _, frame in decode(path, "audio", start):
        if skip is None:  # the first frame places the stream: samples to drop, or silence to put before it
            skip = -round(time * RATE)
            if skip < 0:
                yield np.zeros(-skip, np.float32)
                skip = 0
        if kind != (frame.format.name, frame.layout.name, frame.sample_rate):  # may change within a stream
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = AudioResampler(format="fltp", rate=RATE)
        frame.pts = None  # the resampler counts samples; gaps in the file's timestamps would upset it
        for piece in resampler.resample(frame):
            wave = piece.to_ndarray().mean(axis=0)
            yield wave[skip:]
            skip = max(0, skip - len(wave))
    for piece in resampler.resample(None):
        yield piece.to_ndarray().mean(axis=0)[skip:]
