"""Which data set annotations are of: the published ones by themselves, the world of `hdcid synth` by its clips' names.

A published data set is known by how many clips its files name and by its classes. What nobody knows is "own".
"""

import hashlib
from collections.abc import Iterable, Sequence

from hdcid_cli.core.names import is_synthetic
from hdcid_cli.tasks.annotations.clips import Annotations

SYNTH, OWN = "synth", "own"

# Digest of the class names -> the data set, by the number of clips. LLP and AVE-AVVP name other clips for what is heard
# and for what is seen, circulate in an official and in a combined, checked edition, and AVE-AVVP's clips are a part of
# AVE's and a part of LLP's. UCF-VGG has two data sets' clips under one list of classes.
PUBLISHED: dict[str, dict[int, str]] = {
    "4e6703198e014b45": {4143: "AVE"},
    "57f8b0be01d03fe1": dict.fromkeys((1844, 1850, 1661, 1665), "LLP"),
    "354dd1fc1cdafbbe": dict.fromkeys((1831, 1085, 1084, 1032, 1033), "AVE-AVVP"),
    "df861233e55bd602": {6845: "UCF-51"},
    "5dfc8a17b1e432c3": dict.fromkeys((2003, 4813), "UCF-VGG"),
    "962183f251c954dc": {40801: "VGGSound-AVEL-40k", 87323: "VGGSound-AVEL-90k"},
    "529ba51bab305f15": {4932: "AVSBench-S4"},
}


def data_set(*annotations: Annotations) -> str:
    """The name of the data set that one or more files of annotations are of: SYNTH if any clip is synthetic, a
    published one's name if all are of it, else OWN.
    """
    names = {_name(each) for each in annotations}
    if SYNTH in names:
        return SYNTH
    return names.pop() if len(names) == 1 else OWN


def digest(*annotations: Annotations) -> str:
    """Digest of what was learned on and of what was tested on, which may be the same."""
    found = sorted({each.digest for each in annotations})
    return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()[:16]


def of_clips(clips: Iterable[str]) -> str:
    """What the names of clips tell without any annotations: SYNTH or OWN."""
    return SYNTH if any(map(is_synthetic, clips)) else OWN


def of_scenes(scenes: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    """What a record says of clips to segment, (name, category, split) each: `data` and `data_digest`."""
    return {
        "data": _of([name for name, _, _ in scenes], {category for _, category, _ in scenes}),
        "data_digest": hashlib.sha256(repr(list(scenes)).encode("utf-8", "surrogatepass")).hexdigest()[:16],
    }


def _name(annotations: Annotations) -> str:
    annotations = annotations.whole or annotations
    return _of([clip.id for clip in annotations.clips], annotations.classes)


def _of(clips: Sequence[str], classes: Iterable[str]) -> str:
    if any(map(is_synthetic, clips)):
        return SYNTH
    return PUBLISHED.get(classes_digest(classes), {}).get(len(clips), OWN)


def classes_digest(classes: Iterable[str]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 of the class names in alphabetical order."""
    return hashlib.sha256("\n".join(sorted(classes)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
