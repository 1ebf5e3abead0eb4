"""The sound of a file, mono, 16 kHz unless another rate is asked for, second by second."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from av import AudioResampler

from hdcid_cli.core.errors import InputError
from hdcid_cli.media.clips import MediaClip
from hdcid_cli.media.stream import decode
from hdcid_cli.media.wave import Wave

RATE = 16_000
# Sound whose timestamps jump by more than this has lost something (a damaged packet, a late start).
GAP_SECONDS = 0.1


def audio_seconds(path: Path | str | Wave, seconds: int, start: float = 0.0, rate: int = RATE) -> Iterator[np.ndarray]:
    """Yield up to `seconds` arrays [rate], float32 in -1..1: one a second, of a file or of a wave in memory.

    Channels are averaged, as VGGish does it. Sound that begins after the clip does is preceded by silence.
    A last second counts if half of it is there and is filled with silence; a clip has at least one.

    Raises InputError as `stream.decode` does.
    """
    buffer = np.zeros(0, np.float32)
    done = 0
    pieces = _part(path, start, rate) if isinstance(path, Wave) else _mono(path, seconds, start, rate)
    for piece in pieces:
        buffer = np.concatenate([buffer, piece])
        while len(buffer) >= rate and done < seconds:
            yield buffer[:rate]
            buffer = buffer[rate:]
            done += 1
        if done == seconds:
            return
    if len(buffer) >= rate // 2 or done == 0:
        yield np.pad(buffer, (0, rate - len(buffer)))


def wave_parts(clip: MediaClip, seconds: int, rate: int, window: int) -> Iterator[np.ndarray]:
    """The sound of a clip in windows of up to `window` seconds, [seconds in it, rate] each."""
    waves: list[np.ndarray] = []
    for wave in audio_seconds(clip.source, seconds, clip.start, rate):
        waves.append(wave)
        if len(waves) == window:
            yield np.stack(waves)
            waves.clear()
    if waves:
        yield np.stack(waves)


def _part(wave: Wave, start: float, rate: int) -> Iterator[np.ndarray]:
    samples = wave.at(rate)[round(start * rate) :]
    if not len(samples):
        raise InputError(f"{wave} has no audio after {start:g} s.")
    yield samples


def _mono(path: Path | str, seconds: int, start: float, rate: int) -> Iterator[np.ndarray]:
    """Pieces of the sound from `start` on, resampled and averaged over channels, gaps filled with silence."""
    resampler, kind, heard = AudioResampler(format="fltp", rate=rate), None, None
    for time, duration, frame in decode(path, "audio", start):
        if heard is None or time > heard + GAP_SECONDS:  # the beginning, or a gap
            silence = min(time - max(heard or 0.0, 0.0), seconds)
            yield np.zeros(max(0, round(silence * rate)), np.float32)
            early = max(0, round(-time * rate))  # samples that lie before the clip
            heard = time
        heard += duration
        if kind != (frame.format.name, frame.layout.name, frame.sample_rate):  # may change within a stream
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = AudioResampler(format="fltp", rate=rate)
        frame.pts = None  # gaps are ours to fill; the resampler only counts samples
        for piece in resampler.resample(frame):
            wave = piece.to_ndarray().mean(axis=0)
            yield wave[early:]
            early = max(0, early - len(wave))
    for piece in resampler.resample(None):
        yield piece.to_ndarray().mean(axis=0)[early:]
