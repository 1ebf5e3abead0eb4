"""AVE to AVVP: learn on AVE's clips of the classes that both data sets have, find them in LLP.

The shared classes are read off the files: AVE's names and LLP's agree once commas and
spaces are underscores, but for two synonyms. `AVE_AVVP_Categories.txt` fixes their order
where it is there; the events come from `AVE_AVVP_eval_*` or, filtered, from LLP's own files.
"""

import re
from pathlib import Path

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.annotations import ave, llp, places
from hdcid_cli.tasks.annotations.clips import Annotations

# AVE's name -> LLP's, where spelling alone does not tell.
SYNONYMS = {"bark": "dog", "race_car_auto_racing": "car"}

FILES = {
    "audio": ("AVE_AVVP_eval_audio_checked_combined.csv", "AVE_AVVP_eval_audio_checked.csv"),
    "video": ("AVE_AVVP_eval_visual_checked_combined.csv", "AVE_AVVP_eval_visual_checked.csv"),
}


def read(data: Path, modality: str) -> tuple[Annotations, Annotations]:
    """AVE restricted to the shared classes, and LLP's events of one modality restricted to them."""
    source = ave.read(_with_ave(data))
    folders = places.folders(data, "ave2avvp", "ave_avvp")
    listed = places.find(folders, "AVE_AVVP_Categories.txt")
    path = places.find(folders, *FILES[modality])
    if listed and path:
        classes = tables.names(listed)
        target = llp.read_events(path, classes)
        llp.mark_splits(target, folders)  # none for the real clips, which AVE does not share
    else:
        target = llp.read(_with_llp(data), modality)
        classes = tuple(name for name in target.classes if same(name) in {same(own) for own in source.classes})
    by_key = {same(name): name for name in classes}
    names = {name: by_key[same(name)] for name in source.classes if same(name) in by_key}
    if not names:
        raise InputError(f"{source.source} and {target.source} have no class in common.")
    return source.restricted(classes, names), target.restricted(classes, {name: name for name in classes})


def same(name: str) -> str:
    """A class name without the differences of spelling between AVE and LLP."""
    key = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return SYNONYMS.get(key, key)


def _with_ave(data: Path) -> Path:
    """AVE's files may lie in the task's own folder too."""
    own = data / "ave2avvp"
    return own if (own / "Annotations.txt").is_file() else data


def _with_llp(data: Path) -> Path:
    own = data / "ave2avvp"
    return own if places.find([own], *llp.FILES["audio"], *llp.FILES["video"]) else data
