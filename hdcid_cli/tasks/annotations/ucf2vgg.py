"""UCF-101 video and VGGSound audio, 16 shared classes.

`ucf2vggsound.csv` (`category,video_id`) and `vggsound2ucf.csv` (`category,video_id,split`)
name the clips; `UCF101sameVGGSound.txt` and `VGGSoundsameUCF101.txt` pair the classes line
by line. UCF's clips of one group (`..._g02_c03`) are cut from one recording; as in UCF-101's
own first split, groups 1 to 7 are for testing.
"""

import re
from pathlib import Path

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.annotations import places
from hdcid_cli.tasks.annotations.clips import Annotations
from hdcid_cli.tasks.annotations.vggsound import read_categories

FOLDERS = ("ucf2vgg", "ucf_vgg")


def read_ucf(data: Path) -> Annotations:
    """The clips of UCF-101."""
    annotations = _read(data, "ucf2vggsound.csv", "UCF101sameVGGSound.txt")
    for clip in annotations.clips:
        if match := re.fullmatch(r"(v_.+_g(\d{1,4}))_c\d+", clip.id):
            clip.group, clip.split = match[1], "test" if int(match[2]) <= 7 else "train"
    return annotations


def read_vggsound(data: Path) -> Annotations:
    """The clips of VGGSound."""
    return _read(data, "vggsound2ucf.csv", "VGGSoundsameUCF101.txt")


def _read(data: Path, clips: str, classes: str) -> Annotations:
    folders = places.folders(data, *FOLDERS)
    what = "the annotation of UCF to VGGSound"
    pair = [
        tables.names(places.require(data, folders, name, what=what))
        for name in ("UCF101sameVGGSound.txt", "VGGSoundsameUCF101.txt")
    ]
    if len(pair[0]) != len(pair[1]):
        raise InputError(
            f"{folders[0]}: the two lists of classes have {len(pair[0])} and {len(pair[1])} lines, so they cannot "
            "be paired."
        )
    own = pair[0] if classes.startswith("UCF") else pair[1]
    annotations = read_categories(places.require(data, folders, clips, what=what), own)
    annotations.classes = pair[1]  # one name for both
    return annotations
