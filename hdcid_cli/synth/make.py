"""A world to a folder: what is seen and heard first, then the truth about it.

    videos/syn00000000.mp4 ...            96 x 96 pixels, 8 a second, H.264; 16 kHz mono, AAC; 10 s
    data/...                              the annotation files of `annotations`
    data/avs_s4/s4_data/                  the segmentation set, in AVSBench-S4's layout:
        visual_frames/SPLIT/CATEGORY/NAME/NAME_1.png ... NAME_5.png    one a second, 128 x 128, RGB
        gt_masks/SPLIT/CATEGORY/NAME/NAME_1.png [... NAME_5.png]       0 or 255; in train the first alone
        audio_wav/SPLIT/CATEGORY/NAME.wav                              5 s, 16 kHz mono

`data/synth.yaml` says from what the folder's world is made. It is written first, so
that an interrupted run is taken up where it stopped and that files which are not ours
are never overwritten by accident. Every file appears whole or not at all.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hdcid_cli.core.entries import Entries
from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.files import write_text
from hdcid_cli.core.plain_yaml import read_yaml
from hdcid_cli.core.progress import progress
from hdcid_cli.core.settings import MOST_SEED
from hdcid_cli.media.picture import write_picture
from hdcid_cli.synth import annotations, media, pictures, sounds
from hdcid_cli.synth.classes import KINDS
from hdcid_cli.synth.world import MOST_CLIPS, SCENE_SECONDS, PlannedClip, SynthWorld

SIZE, RATE = 96, 8  # pixels and frames a second of the videos
SCENE_SIZE = 128  # pixels of the pictures to segment
# Raised when the same settings no longer give the same files.
VERSION = 2
MARK = "data/synth.yaml"


def make(world: SynthWorld, folder: Path, workers: int = 1, overwrite: bool = False) -> None:
    """Write a world's videos and annotations below `folder`, or what is missing of them.

    Raises:
        InputError: the folder holds another world or files that are not ours
            (and `overwrite` is not set), or it is not a folder.
    """
    _claim(world, folder, overwrite)
    jobs: list[tuple[Callable, PlannedClip, Path]] = [
        (write_video, clip, folder) for clip in world.videos if not video_path(folder, clip).exists()
    ]
    jobs += [
        (write_scene, scene, folder)
        for scene in world.scenes
        if not all(path.exists() for path in scene_paths(folder, scene))
    ]
    for _ in progress(_run(jobs, workers), total=len(jobs), description="synth", unit="clip"):
        pass
    for name, text in annotations.files(world).items():
        write_text(folder / "data" / name, text)


def video_path(folder: Path, clip: PlannedClip) -> Path:
    return folder / "videos" / f"{clip.name}.mp4"


def scene_paths(folder: Path, scene: PlannedClip) -> list[Path]:
    """The files of one clip of AVSBench-S4: its sound, five frames, and one mask (train) or five."""
    root, place = folder / "data" / "avs_s4" / "s4_data", Path(scene.split, KINDS[scene.kind].name)
    masks = 1 if scene.split == "train" else SCENE_SECONDS
    return [
        root / "audio_wav" / place / f"{scene.name}.wav",
        *(
            root / "visual_frames" / place / scene.name / f"{scene.name}_{number + 1}.png"
            for number in range(SCENE_SECONDS)
        ),
        *(root / "gt_masks" / place / scene.name / f"{scene.name}_{number + 1}.png" for number in range(masks)),
    ]


def write_video(clip: PlannedClip, folder: Path) -> None:
    """Draw, sound and encode one clip of `videos/`."""
    drawn, _ = pictures.frames(clip, RATE, SIZE)
    media.write_video(video_path(folder, clip), drawn, RATE, sounds.track(clip))


def write_scene(scene: PlannedClip, folder: Path) -> None:
    """Write one clip of the segmentation set: a frame and a mask from the middle of every second."""
    drawn, truth = pictures.frames(scene, 1, SCENE_SIZE)
    sound, *images = scene_paths(folder, scene)
    media.write_wav(sound, sounds.track(scene))
    for path, image in zip(images, [*drawn, *(truth * np.uint8(255))], strict=False):
        write_picture(path, image)


def _paths(world: SynthWorld, folder: Path) -> list[Path]:
    """Every file of a world."""
    videos = [video_path(folder, clip) for clip in world.videos]
    scenes = [path for scene in world.scenes for path in scene_paths(folder, scene)]
    return videos + scenes + [folder / "data" / name for name in annotations.files(world)]


def _claim(world: SynthWorld, folder: Path, overwrite: bool) -> None:
    """Make sure that the folder is ours to write to, and sign it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder to make the world in.")
    mark = folder / MARK
    settings = {"version": VERSION, **asdict(world)}
    found = _read_mark(mark, settings)
    if found == settings and not overwrite:
        return
    if found and not overwrite:
        made = ", ".join(f"{name} {value}" for name, value in found.items())
        raise InputError(
            f"{folder} holds another world ({made}): choose another folder, or replace it with --overwrite."
        )
    taken = [path for path in _paths(world, folder) if path.exists()]
    if taken and not overwrite:
        raise InputError(
            f"{taken[0]} exists and was not made by `hdcid synth`: choose another folder, or replace it with "
            "--overwrite."
        )
    if found:
        del found["version"]
        taken += _paths(SynthWorld(**found), folder)
    for path in taken:
        path.unlink(missing_ok=True)
    write_text(mark, "".join(f"{name}: {value}\n" for name, value in settings.items()))


def _read_mark(mark: Path, expected: dict) -> dict:
    """What the folder's world was made from; empty if there is none."""
    if not os.path.lexists(mark):
        return {}
    try:
        found = Entries(read_yaml(mark), mark)
        if found.values.keys() != expected.keys():
            raise InputError(f"{mark} does not say {', '.join(expected)}.")
        return {name: found.whole(name, most=MOST_SEED if name == "seed" else MOST_CLIPS) for name in expected}
    except InputError as error:
        why = str(error).removesuffix(".")
        raise InputError(f"{mark} is damaged: remove it, or choose another folder ({why}).") from error


def _run(jobs: list[tuple], workers: int) -> Iterator[None]:
    """Run (function, *arguments) jobs, in this process or in several, yielding as each ends."""
    if workers <= 1 or len(jobs) <= 1:
        for function, *arguments in jobs:
            yield function(*arguments)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker) as pool:
        try:
            for done in as_completed([pool.submit(*job) for job in jobs]):
                yield done.result()
        except BrokenProcessPool as error:
            raise HdcidError(
                "A worker process was killed (out of memory?): run the command again, perhaps with fewer --workers."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow():
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
