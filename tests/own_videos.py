"""Videos as people have them: a folder a class, under names of their own."""

from pathlib import Path

import numpy as np
from media_files import tone, write_media

CLASSES = ("bell", "dog", "rain")


def write_videos(folder: Path, clips: int = 8, seconds: float = 3.0) -> Path:
    """`folder/CLASS/CLASS take N.mp4`: a square that moves in a class's own way, and its tone."""
    random = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for take in range(clips):
            pictures = np.full((int(5 * seconds), 32, 32, 3), random.integers(0, 60), np.uint8)
            for frame, picture in enumerate(pictures):
                at = (4 + 2 * frame) % 20 if number else 10
                row, column = (at, 8) if number == 1 else (8, at)
                picture[row : row + 8, column : column + 8, number] = 200
            sound = tone(300 * (number + 1), seconds) + 0.05 * random.normal(size=int(16_000 * seconds))
            write_media(folder / name / f"{name} take {take}.mp4", pictures, fps=5, sound=sound)
    return folder
