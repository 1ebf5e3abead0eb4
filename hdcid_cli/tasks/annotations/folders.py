"""A folder of folders, as people keep their videos, to the tables that the suite reads.

    videos/CLASS/*.mp4            a class a folder; the clips are divided here
    videos/CLASS/RECORDING/*.mp4  clips of one recording stay together
    videos/train/CLASS/*.mp4      and `val`, `test`: divided already

`data/classify.csv` gets `id,split,label`, with `group` where clips belong together; `data/captions.csv` the words of
subtitles and texts beside the clips; `data/clips.csv` names and paths, where two files have one name.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import refuse_to_replace, write_text
from hdcid_cli.core.names import recording
from hdcid_cli.core.progress import counted
from hdcid_cli.core.splits import OTHER_NAMES, SPLITS
from hdcid_cli.media.clips import SUFFIXES, files_in
from hdcid_cli.media.subtitles import texts_beside, words_of

SHARES = (70.0, 10.0, 20.0)


@dataclass(frozen=True)
class FolderClip:
    """One clip in a folder.

    Attributes:
        id: its file's name without the suffix, with the folders before it where that is another clip's too.
        label: the class, None in a folder without classes.
        split: what the folder says, None where it says nothing.
        group: the recording that it is cut from.
        text: the file beside it that holds its words.
    """

    id: str
    path: Path
    label: str | None
    split: str | None
    group: str
    text: Path | None


@dataclass
class Tables:
    """What was written.

    Attributes:
        clips: of the folder.
        splits: {clip: split}; none without classes.
        written: the tables.
        skipped: {file: why its words could not be read}.
    """

    clips: list[FolderClip]
    splits: dict[str, str] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)

    def describe(self) -> str:
        """`150 clips of 10 classes: 105 train, 15 val and 30 test.`"""
        if not self.splits:
            return f"{counted(len(self.clips), 'clip')} without classes."
        counts = Counter(self.splits.values())
        labels, groups = ({getattr(clip, name) for clip in self.clips} for name in ("label", "group"))
        recordings = f" in {counted(len(groups), 'group')}" if len(groups) < len(self.clips) else ""
        *most, last = (f"{counts[split]} {split}" for split in SPLITS)
        return f"{len(self.clips)} clips of {len(labels)} classes{recordings}: {', '.join(most)} and {last}."

    def untested(self) -> list[str]:
        """The classes that have no clip to test."""
        tested = {clip.label for clip in self.clips if self.splits.get(clip.id) == "test"}
        return sorted({clip.label for clip in self.clips if clip.label is not None} - tested) if self.splits else []


def convert_folder(
    folder: Path,
    data: Path,
    shares: Sequence[float] = SHARES,
    group: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Tables:
    """Write the tables of a folder of clips.

    Args:
        data: where to.
        shares: of train, val and test; only used where no folders are called so.
        group: a regular expression that finds the recording in a clip's path below `folder`: its first group, or all
            that it matches. By default the folder below the class, or what the clip's name tells.
        overwrite: replace tables that are there.

    Raises:
        InputError: no clips, neither classes nor words, a single class, or a table that is there already.
    """
    clips = list(find_clips(folder, group))
    made = Tables(clips)
    tables: dict[str, str] = {}
    labels = {clip.label for clip in clips} - {None}
    if len(labels) == 1:
        raise InputError(f"{folder} has a folder of one class alone, {labels.pop()}: there is nothing to tell apart.")
    if labels:
        made.splits = _splits(clips, shares, seed)
        grouped = any(clip.group != clip.id for clip in clips)
        rows = ([clip.id, made.splits[clip.id], clip.label, *([clip.group] * grouped)] for clip in clips)
        tables["classify.csv"] = _csv(["id", "split", "label", *(["group"] * grouped)], rows)
    captions = []
    for clip in clips:
        if clip.text is not None:
            try:
                words = words_of(clip.text)
            except InputError as error:
                made.skipped[clip.text] = str(error)
                continue
            if words:
                captions.append([clip.id, words])
            else:
                made.skipped[clip.text] = f"{clip.text} has no words."
    if captions:
        tables["captions.csv"] = _csv(["video_id", "caption"], captions)
    if any(clip.id != clip.path.stem for clip in clips):
        tables["clips.csv"] = _csv(["id", "path"], ([clip.id, str(clip.path)] for clip in clips))
    if not labels and not captions:
        raise InputError(
            f"{folder} has neither classes nor words: put the clips of each class into a folder of its own, "
            f"{folder}/CLASS/, or subtitles and texts beside them (NAME.srt, NAME.vtt, NAME.txt)."
        )
    for name in tables:
        if not overwrite:
            refuse_to_replace(data / name, "use --overwrite, or another --data")
    for name, text in tables.items():
        write_text(data / name, text)
        made.written.append(data / name)
    return made


def find_clips(folder: Path, group: str | None = None) -> Iterator[FolderClip]:
    """The clips of a folder, in order of their paths."""
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.")
    try:
        pattern = re.compile(group) if group is not None else None
    except re.error as error:
        raise InputError(f"--group {group!r} is no regular expression ({error}).") from None
    files = files_in(folder)
    media: dict[Path, Path] = {}
    for kind in ("video", "audio"):  # a sound beside a video of its name is that clip's
        for file in files:
            if file.suffix.lower() in SUFFIXES[kind]:
                media.setdefault(file.with_suffix(""), file)
    if not media:
        raise InputError(f"{folder} holds no videos and no sounds.")
    places = {file: file.relative_to(folder) for file in sorted(media.values())}
    divided = _divided(folder, list(places.values()))
    loose = [place for place in places.values() if len(place.parts) == 1 + divided]
    if loose and len(loose) < len(places):
        raise InputError(f"{folder / loose[0]} is in no class's folder, and other clips are: move it into one.")
    names, texts = _names(places), texts_beside(files)
    for file, place in places.items():
        split = _split(place.parts[0]) if divided else None
        label, *below = place.parts[divided:-1] or [None]
        found = _group(names[file], place, [str(part) for part in below], pattern)
        yield FolderClip(names[file], file, label, split, found, texts.get(file.with_suffix("")))


def _split(name: str) -> str | None:
    """The split that a folder's name means, if it means one."""
    name = OTHER_NAMES.get(name.lower(), name.lower())
    return name if name in SPLITS else None


def _divided(folder: Path, places: Sequence[Path]) -> bool:
    """Whether the first folders are splits: train and others, and nothing else."""
    first = {place.parts[0] for place in places}
    if not all(map(_split, first)):
        if any(name.lower() in ("train", "test") for name in first):
            others = sorted(name for name in first if not _split(name))
            raise InputError(f"{folder} has folders of splits and {others[0]} beside them: is that a class?")
        return False
    return True


def _names(places: dict[Path, Path]) -> dict[Path, str]:
    """A name for every clip: its file's, with folders before it where two would have one."""
    stems = Counter(file.stem for file in places)
    names = {
        file: file.stem if stems[file.stem] == 1 else "_".join((*place.parts[:-1], file.stem))
        for file, place in places.items()
    }
    again = [name for name, count in Counter(names.values()).items() if count > 1]
    if again:
        one, other, *_ = (file for file, name in names.items() if name == again[0])
        raise InputError(f"{one} and {other} would both be clip {again[0]!r}: rename one of them.")
    return names


def _group(name: str, place: Path, below: Sequence[str], pattern: re.Pattern | None) -> str:
    """The recording that a clip is cut from."""
    if pattern is None:
        cut = recording(place.stem)
        return "/".join(place.parts[:-1]) if below else cut if cut != place.stem else name
    match = pattern.search(place.as_posix())
    if match is None:
        raise InputError(f"--group {pattern.pattern!r} is not found in {place}.")
    return (match[1] if pattern.groups else match[0]) or name


def _splits(clips: Sequence[FolderClip], shares: Sequence[float], seed: int) -> dict[str, str]:
    if clips[0].split is not None:
        return {clip.id: clip.split for clip in clips if clip.split}
    found = stratify([clip.label for clip in clips], [clip.group for clip in clips], shares, seed)
    return {clip.id: SPLITS[part] for clip, part in zip(clips, found, strict=True)}


def stratify(labels: Sequence, groups: Sequence, shares: Sequence[float] = SHARES, seed: int = 0) -> list[int]:
    """The part of each clip: groups stay together, and every part gets its share of every class as nearly as it can.

    Groups are placed one after the other, large ones first and equal ones in an order drawn from the seed, each where
    the squared distance from the wanted numbers, relative to them, grows least: for groups of one clip that is the
    method of Sainte-Lague, in every class and over all.

    Args:
        labels, groups: of the clips.
        shares: of the parts, in any unit.

    Returns:
        A part a clip, counted from 0.
    """
    share = np.asarray(shares, float)
    if not (np.isfinite(share).all() and (share >= 0).all() and share.sum() > 0):
        raise InputError(f"Shares are numbers from 0, and not all 0, not {', '.join(f'{part:g}' for part in shares)}.")
    _, label, of_class = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    _, group, of_group = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    everything = len(of_class)  # all clips count as one more class
    pairs, count = np.unique(np.stack([group, label], 1), axis=0, return_counts=True)
    classes = np.split(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(1, len(of_group))))
    counts = np.split(count, np.searchsorted(pairs[:, 0], np.arange(1, len(of_group))))
    with np.errstate(divide="ignore"):
        weight = 1 / (share[:, None] / share.sum() * np.append(of_class, len(label)))  # infinite: nothing goes there
    order = np.random.default_rng(seed).permutation(len(of_group))
    order = order[np.argsort(-of_group[order], kind="stable")]
    filled = np.zeros((len(share), everything + 1))
    part = np.zeros(len(of_group), int)
    for number in order:
        new, seen = np.append(counts[number], of_group[number]), np.append(classes[number], everything)
        # (filled + new - wanted)^2 - (filled - wanted)^2, but for what is the same in all parts
        growth = (2 * filled[:, seen] + new) * new * weight[:, seen]
        part[number] = int(np.argmin(growth.sum(1)))
        filled[part[number], seen] += new
    return part[group].tolist()


def _csv(header: Sequence[str], rows) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    return text.getvalue()
