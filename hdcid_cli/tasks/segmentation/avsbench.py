"""AVSBench-S4 as it lies on disk: which clips there are, their frames, masks and prompts.

s4_meta_data.csv                                        name, ..., category, split
s4_data/visual_frames/SPLIT/CATEGORY/NAME/NAME_1.png    ... NAME_5.png, one a second
s4_data/gt_masks/SPLIT/CATEGORY/NAME/NAME_1.png         train: the first frame alone; val, test: all five
AVSBenchCategories2Prompts.csv                          label, prompt
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import safe_name
from hdcid_cli.core.splits import split_name
from hdcid_cli.media.picture import read_picture
from hdcid_cli.tasks.annotations import places

FRAMES = 5
META = "s4_meta_data.csv"
PROMPTS = "AVSBenchCategories2Prompts.csv"
WHAT = "AVSBench-S4"


@dataclass(frozen=True)
class Clip:
    """One clip: five frames, and the masks that its split comes with (1 for train, 5 otherwise)."""

    name: str
    category: str
    split: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]

    def missing(self) -> Path | None:
        """The first frame or mask that is not there."""
        return next((path for path in (*self.frames, *self.masks) if not path.is_file()), None)


def read_meta(data: Path) -> list[Clip]:
    """All clips of the data set, in the order of its table; an unknown split or a clip listed twice is an
    InputError.
    """
    folders = places.folders(data, "avs_s4", "Single-source")
    path = places.require(data, folders, META, what=WHAT)
    root = path.parent / "s4_data"
    if not root.is_dir():
        root = path.parent
    clips: dict[str, Clip] = {}
    for row in tables.table(path, "name", "category", "split"):
        name, category, split = row["name"], row["category"], split_name(row["split"], path, row.line)
        if name in clips:
            raise InputError(f"{path}, line {row.line}: clip {name} is listed twice.")
        stem = safe_name(name)
        place = Path(split, safe_name(category), stem)
        masks = 1 if split == "train" else FRAMES
        clips[name] = Clip(
            name,
            category,
            split,
            tuple(root / "visual_frames" / place / f"{stem}_{number}.png" for number in range(1, FRAMES + 1)),
            tuple(root / "gt_masks" / place / f"{stem}_{number}.png" for number in range(1, masks + 1)),
        )
    return list(clips.values())


def read_prompts(data: Path) -> dict[str, str]:
    """{category: prompt}; empty if the data set has no such table."""
    path = places.find(places.folders(data, "avs_s4", "Single-source"), PROMPTS)
    return {row["label"]: row["prompt"] for row in tables.table(path, "label", "prompt")} if path else {}


def read_frames(clip: Clip, size: int) -> np.ndarray:
    """[5, size, size, 3] uint8 RGB, whatever size and colours the files have; a broken one is an InputError."""
    return np.stack([read_picture(path, "rgb24", size) for path in clip.frames])


def read_masks(clip: Clip, size: int) -> np.ndarray:
    """[1 or 5, size, size] bool, True on the object; a broken file is an InputError."""
    return np.stack([_mask(path, size) for path in clip.masks])


def _mask(path: Path, size: int) -> np.ndarray:
    """The brighter half of the file's range, so that masks of 0 and 1 are read as well as those of 0 and 255."""
    picture = read_picture(path, "gray", size, "POINT")
    return picture > picture.max() / 2


class Reader:
    """Pictures, masks and queries of clips by position; what cannot be read is left out and remembered.

    Args:
        clips: N clips of one split.
        queries: {modality: float32 [N, 5, Q]}.
        size: of the pictures.

    Attributes:
        unreadable: {clip name: why}.
    """

    def __init__(self, clips: Sequence[Clip], queries: dict[str, np.ndarray], size: int):
        self.clips, self.queries, self.size = list(clips), queries, size
        self.unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, positions: Sequence[int]) -> dict:
        """A batch of those clips that can be read (maybe none): `clips`, `pictures` [n, 5, S, S, 3] uint8,
        `masks` [n, 1 or 5, S, S] bool, `queries` {modality: [n, 5, Q]}."""
        kept, pictures, masks = [], [], []
        for position in positions:
            clip = self.clips[position]
            try:
                both = read_frames(clip, self.size), read_masks(clip, self.size)
            except InputError as error:
                self.unreadable[clip.name] = str(error)
                continue
            kept.append(position)
            pictures.append(both[0])
            masks.append(both[1])
        return {
            "clips": [self.clips[position] for position in kept],
            "pictures": np.stack(pictures) if kept else None,
            "masks": np.stack(masks) if kept else None,
            "queries": {name: values[kept] for name, values in self.queries.items()},
        }
