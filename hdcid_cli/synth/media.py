"""Frames and samples to files: mp4 (H.264 and AAC), PNG and WAV.

One encoder thread each, so that the bytes do not depend on the machine's load.
"""

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np

from hdcid_cli.core.files import atomic_path
from hdcid_cli.synth.sounds import SAMPLE_RATE


def write_video(path: Path, pictures: np.ndarray, rate: int, sound: np.ndarray) -> None:
    """Write pictures [frames, height, width, 3] uint8 and sound [samples] float32 in -1..1 as mp4, atomically."""
    import av

    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "26"})
        video.width, video.height, video.pix_fmt = pictures.shape[2], pictures.shape[1], "yuv420p"
        video.thread_count = 1
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", bit_rate=48000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(video.encode(frame))
        samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        container.mux(audio.encode(samples))
        container.mux(video.encode())
        container.mux(audio.encode())


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write [height, width, 3] or [height, width] uint8 as PNG, atomically."""
    import av

    layout = "rgb24" if picture.ndim == 3 else "gray"
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *picture.shape[:2], layout
    encoder.time_base, encoder.thread_count = Fraction(1, 1), 1
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=layout)
    packets = [*encoder.encode(frame), *encoder.encode()]
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(map(bytes, packets)))


def write_wav(path: Path, sound: np.ndarray) -> None:
    """Write sound [samples] float32 in -1..1 as 16-bit mono WAV, atomically."""
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, len(sound), "NONE", ""))
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
