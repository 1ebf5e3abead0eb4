"""What the name of a clip tells of it."""

import re
from collections.abc import Iterable

# `hdcid synth` names its clips so, and every annotation file of its worlds carries the names: whoever copies one
# file out of a world takes the mark along.
SYNTHETIC_VIDEO = "syn{:08d}"
SYNTHETIC_SCENE = "avs{:08d}"
_SYNTHETIC = re.compile(r"(syn|avs)\d{8}(_\d+_\d+)?")

# A window of a video, as LLP names it by an id of eleven characters and two seconds; and a clip of a group of UCF-101.
_WINDOW = re.compile(r"(?s)(.{11})_\d+_\d+\W*")
_UCF = re.compile(r"(v_\w+_g\d+)_c\d+")


def recording(name: str) -> str:
    """The recording that a clip is cut from, which other clips may be cut from too; else the clip's own name.

    `4YdbENYcIyE_23_33` -> `4YdbENYcIyE`, `v_Bowling_g08_c01` -> `v_Bowling_g08`.
    """
    match = _WINDOW.fullmatch(name) or _UCF.fullmatch(name)
    return match[1] if match else name


def count_of_recordings(names: Iterable[str], others: Iterable[str]) -> int:
    """How many of the clips are, or are cut from the same recording as, one of the others."""
    known = set(map(recording, others))
    return sum(recording(name) in known for name in names)


def is_synthetic(name: str) -> bool:
    """Whether the clip was made by `hdcid synth`."""
    return _SYNTHETIC.fullmatch(name) is not None
