"""UCF-101's classes with sound (Soomro et al. 2012, https://arxiv.org/abs/1212.0402): 51 classes, one a clip.

UCF-101's own first split says it: `trainlist01.txt` and `testlist01.txt`, lines `CLASS/v_CLASS_g08_c01.avi 1` with or
without the number. Clips of the 50 classes without sound are passed over; single clips of the others have none either,
and are left out where their features are missing. Clips of one group are cut from one recording. Classes are numbered
as UCF-101 lists them, or as a `Categories.txt` beside the lists does.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.names import recording
from hdcid_cli.tasks.annotations import places
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, Annotations

LISTS = {"train": "trainlist01.txt", "test": "testlist01.txt"}
_NAMES = """
ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BasketballDunk BlowDryHair BlowingCandles
BodyWeightSquats Bowling BoxingPunchingBag BoxingSpeedBag BrushingTeeth CliffDiving CricketBowling CricketShot
CuttingInKitchen FieldHockeyPenalty FloorGymnastics FrisbeeCatch FrontCrawl Haircut Hammering HammerThrow
HandstandPushups HandstandWalking HeadMassage IceDancing Knitting LongJump MoppingFloor ParallelBars PlayingCello
PlayingDaf PlayingDhol PlayingFlute PlayingSitar Rafting ShavingBeard Shotput SkyDiving SoccerPenalty StillRings
SumoWrestling Surfing TableTennisShot Typing UnevenBars WallPushups WritingOnBoard
"""
CLASSES = tuple(_NAMES.split())


def read(data: Path) -> Annotations:
    """Read UCF-101's first split from `data/ucf51`, from `ucfTrainTestlist` in it, or from `data` itself."""
    folders = places.folders(data, "ucf51", "ucf51/ucfTrainTestlist", "ucfTrainTestlist")
    paths = {
        split: places.require(data, folders, name, what="UCF-101's own list of clips") for split, name in LISTS.items()
    }
    source = paths["train"]
    listed = source.with_name("Categories.txt")
    classes = tables.names(listed) if listed.exists() else CLASSES
    numbers = {name: number for number, name in enumerate(classes)}
    clips: dict[str, AnnotatedClip] = {}
    problems = []
    for split, path in paths.items():
        for line, category, video in _rows(path):
            if category not in numbers:
                continue
            if video in clips:
                problems.append(f"{path}, line {line}: clip {video} was listed already; this line is left out")
                continue
            clips[video] = AnnotatedClip(video, split, numbers[category], None, recording(video), line)
    if not clips:
        raise InputError(f"{source} names no clip of {classes[0]} or of another of the {len(classes)} classes.")
    return Annotations(source, classes, list(clips.values()), problems)


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, class, clip) of every line."""
    for line, text in tables.lines(path):
        if not text.strip():
            continue
        parts = PurePosixPath(text.split()[0]).parts
        if len(parts) != 2:
            raise InputError(f"{path}, line {line}: {text[:80]!r} is not CLASS/CLIP.avi.")
        yield line, parts[0], parts[1].removesuffix(".avi")
