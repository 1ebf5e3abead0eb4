"""Which clips a probe learns from, chooses by and is tested on, and where it finds their features."""

from pathlib import Path

import pytest
from cmg_world import CLASSES, run, world

from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, AnnotatedEvent, Annotations
from hdcid_cli.tasks.cmg.protocol import split_clips
from hdcid_cli.tasks.cmg.tasks import TASKS


def split_ids(source, target, protocol="heldout", task="ave"):
    parts = split_clips(TASKS[task][0], protocol, source, target)
    return [{clip.id for clip in part} if part is not None else None for part in (parts.fit, parts.choose, parts.test)]


def listed(**splits):
    clips = [AnnotatedClip(name, split, 0) for split, names in splits.items() for name in names.split()]
    return Annotations(
        Path("x.csv"),
        CLASSES,
        [AnnotatedClip(clip.id, None if clip.split == "none" else clip.split, 0) for clip in clips],
    )


def test_a_recording_that_is_tested_on_is_never_learned_on():
    both = listed(train="a b c", val="d e", test="f b e")
    assert split_ids(both, both) == [{"a", "c"}, {"d"}, {"f", "b", "e"}]


def test_without_validation_clips_a_fifth_is_set_aside():
    names = " ".join(f"n{i}" for i in range(20))
    for source in (
        listed(train=names, test="t"),
        listed(val=names, test="t"),
        listed(none=names),
    ):  # LLP has val and test alone
        fit, choose, test = split_ids(source, listed(test="t"))
        assert (len(fit), len(choose), test) == (16, 4, {"t"}) and not fit & choose


def test_another_data_set_without_splits_is_tested_on_whole():
    assert split_ids(listed(train="a", val="b"), listed(none="c d a"))[2] == {"c", "d", "a"}


def test_published_protocol_tests_ave_on_the_clips_learned_on():
    annotations = listed(train="a b", val="c", test="d")
    assert split_ids(annotations, annotations, "published") == [{"a", "b"}, None, {"a", "b"}]
    assert split_ids(annotations, annotations, "published", "avvp") == [set("abcd"), None, set("abcd")]
    assert split_ids(annotations, annotations, "published", "classify") == [{"a", "b"}, None, {"d"}]


def test_annotations_without_a_test_split_are_refused():
    annotations = listed(train="a b", val="c")
    with pytest.raises(InputError, match=r"x.csv leaves no clips to test on"):
        split_ids(annotations, annotations)


def test_clips_without_features_are_named_and_left_out():
    annotations, video, audio = world()
    annotations.clips.insert(0, AnnotatedClip("nowhere", "train", 0, [AnnotatedEvent(0, 0, 1)]))
    told = []
    trial, *_ = run("ave", annotations, video, audio, warn=told.append, epochs=1)
    assert told == ["video.h5 has no features of 1 annotated clip, left out: nowhere."]
    assert len(trial.fit) == 30
    video.ids = [f"other{row}" for row in range(60)]
    with pytest.raises(
        InputError, match=r"video.h5 has no clip that ave needs, of 31 such as nowhere, clip0, clip1: extract"
    ):
        run("ave", annotations, video, audio)


def test_llp_names_find_features_named_by_video_or_by_window():
    _, video, _ = world()
    video.ids = ["x_0_10", "x_10_20", "y", "z_0_10", *map(str, range(56))]
    clips = [AnnotatedClip(name) for name in ("x_10_20", "y_5_15", "z_0_100", "x_20_30", "z")]
    found, rows, missing = video.match(clips, CLASSES)
    assert [(clip.id, row) for clip, row in zip(found, rows)] == [
        ("x_10_20", 1),
        ("y_5_15", 2),
        ("z_0_100", 3),
        ("z", 3),
    ]
    assert missing == ["x_20_30"]  # two windows of x: which one is meant cannot be told


def test_text_may_be_one_prompt_a_class():
    _, video, _ = world()
    video.ids, video.modality = ["dog", "cat", "bell"], "text"
    assert video.match([AnnotatedClip("a", label=1), AnnotatedClip("b", label=0)], CLASSES)[1] == [1, 0]
    video.modality = "video"
    assert video.match([AnnotatedClip("a", label=1)], CLASSES)[2] == ["a"]
