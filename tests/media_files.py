"""Small media files for tests, of any timing, with or without each stream."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_media(
    path: Path, pictures=(), times=None, fps=25, sound=None, rate=16_000, sound_start=0.0, codecs=("libx264", "aac")
) -> Path:
    """Write a file with video, sound or both.

    Args:
        pictures: [h, w, 3] uint8 each.
        times: when each is shown, in seconds; by default `fps` of them a second.
        sound: [channels, samples] or [samples], -1..1, at `rate`; it begins at `sound_start`.
    """
    pictures = list(pictures)
    times = [number / fps for number in range(len(pictures))] if times is None else times
    with av.open(str(path), "w") as container:
        video = audio = None
        if pictures:
            video = container.add_stream(
                codecs[0], rate=fps, options={"crf": "4", "preset": "veryfast"} if codecs[0] == "libx264" else {}
            )
            video.height, video.width, video.pix_fmt = *pictures[0].shape[:2], "yuv420p"
            # MPEG-1 knows only a few rates; elsewhere milliseconds allow any times.
            video.codec_context.time_base = Fraction(1, fps if codecs[0] == "mpeg1video" else 1000)
        if sound is not None:
            sound = np.atleast_2d(np.asarray(sound, np.float32))
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            audio = container.add_stream(codecs[1], rate=rate, layout=layout)
        for picture, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        if video:
            container.mux(video.encode())
        if audio:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, round(sound_start * rate), Fraction(1, rate)
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def grey(level: int, size: int = 32) -> np.ndarray:
    """A picture of one brightness."""
    return np.full((size, size, 3), level, np.uint8)


def tone(hertz: float, seconds: float, rate: int = 16_000, loudness: float = 0.5) -> np.ndarray:
    """A sine wave, [samples] float32."""
    return (loudness * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def rotate(path: Path) -> Path:
    """Mark an mp4's picture as to be shown turned clockwise by 90 degrees, as phones do (matrix of the `tkhd` box)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    assert struct.unpack_from(">9i", data, place)[0] == 0x10000
    struct.pack_into(">9i", data, place, 0, 0x10000, 0, -0x10000, 0, 0, 32 << 16, 0, 0x40000000)
    path.write_bytes(data)
    return path
