"""The small world of `hdcid synth`: repeatable, resumable, and truly what its annotations say."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from hdcid_cli.core.errors import InputError
from hdcid_cli.media.audio import audio_seconds
from hdcid_cli.media.video import video_seconds
from hdcid_cli.synth import pictures, sounds
from hdcid_cli.synth.classes import KINDS
from hdcid_cli.synth.make import make
from hdcid_cli.synth.world import SCENE_SECONDS, SECONDS, SynthWorld
from hdcid_cli.tasks.annotations import ave, ave2avvp, llp, ucf2vgg, ucf51, vggsound
from hdcid_cli.tasks.segmentation import avsbench

SMALL = SynthWorld(clips=8, classes=2)


def files_of(folder):
    """{path below folder: bytes}, without the temporary files that a killed process may leave."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".tmp"
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    make(SMALL, folder)
    return folder


def rows_of(path, separator=","):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=separator))


def test_the_same_seed_gives_the_same_files_however_many_workers_make_them(small, tmp_path):
    make(SMALL, tmp_path, workers=2)
    assert files_of(tmp_path) == files_of(small)


def test_another_seed_gives_other_videos():
    first, second = (SynthWorld(seed=seed, clips=10, classes=2).videos[0] for seed in (0, 1))
    assert not np.array_equal(pictures.frames(first, 1, 32)[0], pictures.frames(second, 1, 32)[0])
    assert not np.array_equal(sounds.track(first), sounds.track(second))


def test_a_killed_run_leaves_no_half_video_and_is_taken_up_again(small, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "hdcid_cli", "synth", tmp_path, "--clips", "8", "--classes", "2", "--workers", "2"],
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(tmp_path.glob("videos/*.mp4"))) < 2:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    whole = files_of(small)
    left = files_of(tmp_path)
    assert left.items() <= whole.items()
    assert "data/ave/Annotations.txt" not in left  # the truth comes when all that it speaks of is there
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("videos/*.mp4")}
    make(SMALL, tmp_path)
    assert files_of(tmp_path) == whole
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())


def test_files_of_others_are_not_overwritten_without_being_told(tmp_path):
    taken = tmp_path / "data" / "ave" / "Annotations.txt"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    with pytest.raises(InputError, match=r"Annotations\.txt exists and was not made by"):
        make(SMALL, tmp_path)
    assert files_of(tmp_path) == {"data/ave/Annotations.txt": b"mine"}


def test_another_world_is_replaced_only_with_overwrite_and_then_wholly(small, tmp_path):
    own = tmp_path / "videos" / "holiday.mp4"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    make(SynthWorld(clips=12, classes=3, seed=5), tmp_path)
    with pytest.raises(InputError, match="another world"):
        make(SMALL, tmp_path)
    make(SMALL, tmp_path, overwrite=True)
    assert files_of(tmp_path) == {**files_of(small), "videos/holiday.mp4": b"mine"}


def test_a_damaged_mark_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "synth.yaml").write_text("clips: [")
    with pytest.raises(InputError, match=r"synth\.yaml is damaged"):
        make(SMALL, tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"classes": 1}, "--classes"),
        ({"classes": 99}, "--classes"),
        ({"clips": 3}, "--clips"),
        ({"clips": 10**9}, "--clips"),
    ],
)
def test_a_world_that_cannot_be_is_refused(settings, option):
    with pytest.raises(InputError, match=option):
        SynthWorld(**settings)


def test_the_command_works_in_an_empty_folder_and_says_nothing_on_stdout(hdcid, small, tmp_path):
    done = hdcid("synth", "--clips", 8, "--classes", 2, "--workers", 0)
    assert (done.returncode, done.stdout) == (0, "")
    assert files_of(tmp_path) == files_of(small)
    assert hdcid("synth", "--clips", 12, "--classes", 2).returncode == 2


def test_every_video_has_ten_seconds_of_picture_and_sound(small):
    videos = sorted((small / "videos").glob("*.mp4"))
    assert len(videos) == SMALL.clips
    for path in videos:
        assert len(list(video_seconds(path, 20, fps=8, size=32))) == SECONDS
        assert len(list(audio_seconds(path, 20))) == SECONDS


def test_the_primary_event_is_in_sight_exactly_while_the_annotation_says():
    for clip in SynthWorld(clips=48, classes=12).videos[:24]:
        _, truth = pictures.frames(clip, 2, 48)
        shown = truth.reshape(SECONDS, 2, -1).any(-1)
        event = clip.events[0]
        assert np.array_equal(np.flatnonzero(shown.all(1)), np.arange(event.onset, event.offset))
        assert shown.any(1).sum() == event.offset - event.onset


def test_what_is_seen_and_heard_changes_when_events_begin_and_end():
    """Against the mp4's own frames and samples, not the plan: events are brighter and louder than no events."""
    seen, heard = [], []
    for clip in SynthWorld(clips=60, classes=12).videos:
        active = np.zeros((2, SECONDS), bool)
        for event in clip.events:
            active[:, event.onset : event.offset] |= [[event.seen], [event.heard]]
        light = pictures.frames(clip, 1, 32)[0].mean((1, 2, 3))
        power = (sounds.track(clip).reshape(SECONDS, -1) ** 2).mean(1)
        for changes, values, on in ((seen, light, active[0]), (heard, power, active[1])):
            if not on.all():
                changes.append(values[on].mean() > values[~on].mean())
    assert np.mean(seen) > 0.95
    assert np.mean(heard) > 0.95


def test_what_is_seen_and_heard_of_an_event_has_one_tempo():
    """A drum: its size in the picture and its loudness change as often."""
    clip = next(clip for clip in SynthWorld(clips=48, classes=12).videos if KINDS[clip.kind].name == "drum")
    event = clip.events[0]
    beats = 2 * event.rate  # a drum is struck twice a beat
    size = pictures.frames(clip, 32, 48)[1][event.onset * 32 : event.offset * 32].sum((1, 2))
    loud = sounds.track(clip)[event.onset * sounds.SAMPLE_RATE : event.offset * sounds.SAMPLE_RATE] ** 2
    for signal_, rate in ((size, 32), (loud.reshape(-1, 500).mean(1), 32)):
        spectrum = np.abs(np.fft.rfft(signal_ - signal_.mean(), 1024))
        assert np.fft.rfftfreq(1024, 1 / rate)[spectrum.argmax()] == pytest.approx(beats, abs=0.2)


def test_the_plan_has_second_events_of_every_sort():
    clips = SynthWorld(clips=400).videos
    second = [clip.events[1] for clip in clips if len(clip.events) > 1]
    assert 0.4 < len(second) / len(clips) < 0.6
    assert all(clip.events[1].kind != clip.kind for clip in clips if len(clip.events) > 1)
    for sort in ((True, False), (False, True), (True, True)):
        assert sum((event.seen, event.heard) == sort for event in second) > len(second) / 5
    assert [sum(clip.split == split for clip in clips) for split in ("train", "val", "test")] == [280, 40, 80]
    for split in ("train", "val", "test"):
        assert len({clip.kind for clip in clips if clip.split == split}) == 10


def test_captions_name_what_happens_within_ten_words():
    for clip in SynthWorld(clips=400, classes=12).videos:
        words = clip.caption.split()
        assert len(words) <= 10
        for event in clip.events:
            assert set(words) & set(KINDS[event.kind].nouns)


def test_no_word_tells_of_two_classes():
    words = [word for kind in KINDS for word in {*kind.nouns, *kind.sounding, *kind.moving}]
    assert len(words) == len(set(words))


def test_every_kind_looks_and_sounds():
    assert list(pictures.LOOKS) == list(sounds.VOICES) == [kind.name for kind in KINDS]


def test_the_readers_of_the_data_sets_find_nothing_odd(small):
    data = small / "data"
    read = [
        ave.read(data),
        *(llp.read(data, sense) for sense in ("audio", "video")),
        ucf2vgg.read_ucf(data),
        ucf2vgg.read_vggsound(data),
    ]
    read += [vggsound.read(data), *ave2avvp.read(data, "audio"), *ave2avvp.read(data, "video")]
    assert [problem for annotations in read for problem in annotations.problems] == []
    splits = {row["video_id"]: row["split"] for row in rows_of(data / "split.csv")}
    for annotations in (*read[:3], *read[3:6]):
        assert annotations.clips
        assert all(clip.split == splits[llp.video_id(clip.id)] for clip in annotations.clips)


def test_the_annotations_agree_with_each_other(small):
    data = small / "data"
    parsed = {sense: {clip.group: clip for clip in llp.read(data, sense).clips} for sense in ("audio", "video")}
    events, avel = ave.read(data), vggsound.read(data)
    assert len(events.clips) == len(avel.clips) == SMALL.clips
    for clip, other in zip(events.clips, avel.clips, strict=True):
        assert (clip.id, clip.events[0].onset, clip.events[0].offset) == (
            other.id,
            other.events[0].onset,
            other.events[0].offset,
        )
        for sense in parsed.values():  # what AVE calls an event is seen and heard
            assert clip.events[0] in sense[clip.id].events
    ucf, vgg = ({clip.id for clip in read(data).clips} for read in (ucf2vgg.read_ucf, ucf2vgg.read_vggsound))
    assert not ucf & vgg
    assert ucf | vgg == {clip.id for clip in events.clips} == {clip.id for clip in ucf51.read(data).clips}
    assert [clip.label for clip in ucf51.read(data).clips if clip.id == events.clips[0].id] == [events.clips[0].label]


def test_the_segmentation_set_shows_one_sounding_thing_among_silent_ones(small):
    clips = avsbench.read_meta(small / "data")
    assert {clip.split for clip in clips} == {"train", "val", "test"}
    assert set(avsbench.read_prompts(small / "data")) == set(SMALL.labels)
    for clip in clips:
        assert clip.missing() is None
        masks = avsbench.read_masks(clip, 128)
        assert len(masks) == (1 if clip.split == "train" else SCENE_SECONDS)
        assert masks.any((1, 2)).all()
        assert masks.mean() < 0.5
        # The masked thing stands out from the rest of the picture.
        light = avsbench.read_frames(clip, 128)[: len(masks)].mean(-1)
        assert light[masks].mean() > light[~masks].mean()
    scenes = SynthWorld(clips=400).scenes
    assert all(
        [event.heard for event in scene.events] == [True] + [False] * (len(scene.events) - 1) for scene in scenes
    )
    assert 0.6 < np.mean([len(scene.events) > 1 for scene in scenes]) < 0.9
    sounds_of = list(
        audio_seconds(
            small / f"data/avs_s4/s4_data/audio_wav/{clips[0].split}/{clips[0].category}/{clips[0].name}.wav", 10
        )
    )
    assert len(sounds_of) == SCENE_SECONDS


@pytest.mark.slow
def test_classes_can_be_learned_from_either_modality_but_not_perfectly():
    """The ceiling: ridge regression on HOG and log-mel features, averaged over the primary event, on clips not learned
    on.
    """
    from hdcid_cli.backbones.hog import hog
    from hdcid_cli.backbones.logmel import logmel

    world = SynthWorld(clips=240, classes=6)
    features = {"video": [], "audio": []}
    for clip in world.videos:
        event = clip.events[0]
        drawn = pictures.frames(clip, 2, 56)[0].reshape(SECONDS, 2, 56, 56, 3)
        heard = sounds.track(clip).reshape(SECONDS, -1)
        inside = range(event.onset, event.offset)
        features["video"].append(np.mean([hog(drawn[second]).ravel() for second in inside], 0))
        features["audio"].append(np.mean([logmel(heard[second]) for second in inside], 0))
    labels = np.array([clip.kind for clip in world.videos])
    train = np.arange(world.clips) < 160
    for values in features.values():
        x = np.array(values)
        x = np.c_[(x - x[train].mean(0)) / (x[train].std(0) + 1e-3), np.ones(len(x))]
        gram = x[train] @ x[train].T + 100 * np.eye(train.sum())
        guess = (x @ (x[train].T @ np.linalg.solve(gram, np.eye(6)[labels[train]]))).argmax(1)
        assert 0.75 < (guess == labels)[~train].mean() < 1
