"""Frames and samples to files: mp4 (H.264 and AAC) and WAV. Equal input gives equal bytes."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from hdcid_cli.core.files import atomic_path
from hdcid_cli.synth.sounds import SAMPLE_RATE


def write_video(path: Path, pictures: np.ndarray, rate: int, sound: np.ndarray) -> None:
    """Write pictures [frames, height, width, 3] uint8 and sound [samples] float32 in -1..1 as mp4, atomically."""
    # A constant quantizer: under `crf`, x264's macroblock tree gives other bytes from run to run.
    options = {"preset": "veryfast", "qp": "28"}
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=rate, options=options)
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


def write_wav(path: Path, sound: np.ndarray) -> None:
    """Write sound [samples] float32 in -1..1 as 16-bit mono WAV, atomically."""
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, len(sound), "NONE", ""))
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
