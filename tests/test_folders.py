"""A folder of folders to tables: classes, splits, captions and names; and what is read of subtitles."""

import csv

import numpy as np
import pytest
from click.testing import CliRunner

from hdcid_cli.core.errors import InputError
from hdcid_cli.main import cli
from hdcid_cli.media.clips import find_clips
from hdcid_cli.media.subtitles import words_of
from hdcid_cli.tasks.annotations import own
from hdcid_cli.tasks.annotations.folders import convert_folder, stratify


def place(folder, *names, text=None):
    """Files of these names; media are not looked into."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text or "", encoding="utf-8")
    return folder


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- the split ---


def apportioned(shares, clips):
    """Seats by the method of Sainte-Lague: the next one goes to the largest share / (2 seats + 1)."""
    seats = [0] * len(shares)
    for _ in range(clips):
        seats[max(range(len(shares)), key=lambda part: shares[part] / (2 * seats[part] + 1))] += 1
    return seats


@pytest.mark.parametrize("clips", [1, 2, 5, 15, 101])
@pytest.mark.parametrize("shares", [(70, 10, 20), (0.8, 0, 0.2), (1, 1, 1)])
def test_single_clips_of_one_class_are_apportioned(clips, shares):
    parts = stratify(["dog"] * clips, range(clips), shares)
    assert np.bincount(parts, minlength=3).tolist() == apportioned(shares, clips)


def test_every_class_gets_its_share_and_so_does_the_whole():
    labels = np.repeat(np.arange(10), 15)
    parts = np.asarray(stratify(labels, range(150), seed=1))
    assert np.bincount(parts).tolist() == [105, 15, 30]
    for label in range(10):
        assert abs(np.bincount(parts[labels == label], minlength=3) - [10.5, 1.5, 3]).max() <= 1
    assert parts.tolist() == stratify(labels, range(150), seed=1) != stratify(labels, range(150), seed=2)


def test_groups_stay_together_and_are_balanced_all_the_same():
    random = np.random.default_rng(0)
    labels, groups = random.integers(0, 5, 1000), random.integers(0, 60, 1000)
    parts = np.asarray(stratify(labels, groups))
    assert all(len(set(parts[groups == group])) == 1 for group in range(60))
    for label in range(5):
        shares = np.bincount(parts[labels == label], minlength=3) / (labels == label).sum()
        np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.04)


# --- folders ---


def test_a_class_a_folder_becomes_a_table_that_the_task_reads(tmp_path):
    names = [f"{label}/{label}{number}.MP4" for label in ("dog", "red fox", "cat, big") for number in range(10)]
    place(tmp_path / "videos", *names, "dog/notes.pdf", "dog/.hidden.mp4", "fox.pdf")
    made = convert_folder(tmp_path / "videos", tmp_path / "data")
    assert made.written == [tmp_path / "data" / "classify.csv"]
    assert made.describe() == "30 clips of 3 classes: 21 train, 3 val and 6 test." and made.untested() == []
    found = own.read_classify(tmp_path / "data")
    assert found.classes == ("cat, big", "dog", "red fox") and not found.problems
    assert {clip.id for clip in found.clips} == {clip.id for clip in find_clips([str(tmp_path / "videos")], "video")}
    assert all(clip.id.startswith(found.classes[clip.label]) for clip in found.clips)
    with pytest.raises(InputError, match=r"classify\.csv is there already: use --overwrite"):
        convert_folder(tmp_path / "videos", tmp_path / "data")
    before = rows(tmp_path / "data" / "classify.csv")
    convert_folder(tmp_path / "videos", tmp_path / "data", seed=5, overwrite=True)
    assert rows(tmp_path / "data" / "classify.csv") != before


def test_recordings_stay_together(tmp_path):
    many = [f"{label}/tape{tape}/{label}_{tape}_{cut}.mp4" for label in "ab" for tape in range(6) for cut in range(3)]
    place(tmp_path / "videos", *many)
    convert_folder(tmp_path / "videos", tmp_path / "one")
    found = rows(tmp_path / "one" / "classify.csv")
    assert {row["group"] for row in found} == {f"{label}/tape{tape}" for label in "ab" for tape in range(6)}
    assert len({(row["group"], row["split"]) for row in found}) == 12
    convert_folder(tmp_path / "videos", tmp_path / "two", group=r"_(\d)_")
    found = rows(tmp_path / "two" / "classify.csv")
    assert len({(row["group"], row["split"]) for row in found}) == len({row["group"] for row in found}) == 6
    with pytest.raises(InputError, match=r"is not found in a/tape0/a_0_0\.mp4"):
        convert_folder(tmp_path / "videos", tmp_path / "three", group="speaker")
    with pytest.raises(InputError, match="no regular expression"):
        convert_folder(tmp_path / "videos", tmp_path / "three", group="(")


def test_windows_and_groups_of_known_names_stay_together(tmp_path):
    cuts = [f"{label}/{tape}_{cut}_{cut + 10}.mp4" for label, tape in (("a", "4YdbENYcIyE"), ("b", "McVcuryKUp4"))
            for cut in (0, 10, 20)]  # fmt: skip
    place(tmp_path / "videos", *cuts, "a/v_YoYo_g01_c01.avi", "a/v_YoYo_g01_c02.avi")
    convert_folder(tmp_path / "videos", tmp_path / "data")
    found = {row["id"]: row["group"] for row in rows(tmp_path / "data" / "classify.csv")}
    assert found["4YdbENYcIyE_10_20"] == "4YdbENYcIyE" and found["v_YoYo_g01_c02"] == "v_YoYo_g01"


def test_folders_that_are_called_train_and_test_are_the_split(tmp_path):
    place(tmp_path / "videos", "Train/dog/a.mp4", "train/cat/b.mp4", "test/dog/c.mp4", "validation/cat/d.mp4")
    made = convert_folder(tmp_path / "videos", tmp_path / "data")
    assert made.splits == {"a": "train", "b": "train", "c": "test", "d": "val"}
    assert made.untested() == ["cat"]
    assert {row["id"]: row["label"] for row in rows(tmp_path / "data" / "classify.csv")}["d"] == "cat"


def test_files_of_one_name_get_names_and_a_table_to_extract_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place(tmp_path / "videos", "dog/1.mp4", "dog/2.mp4", "dog/2.wav", "cat/1.mp4", "cat/3.mp4")
    made = convert_folder((tmp_path / "videos").relative_to(tmp_path), tmp_path / "data")
    assert [path.name for path in made.written] == ["classify.csv", "clips.csv"]
    names = {row["id"] for row in rows(tmp_path / "data" / "classify.csv")}
    assert names == {"dog_1", "2", "cat_1", "3"}
    clips = find_clips(["data/clips.csv"], "video")
    assert {clip.id: clip.source for clip in clips}["dog_1"] == "videos/dog/1.mp4"
    assert {clip.id for clip in clips} == names
    assert "videos/dog/2.mp4" in {clip.source for clip in clips}  # the sound beside it is the same clip's


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "There is no folder"),
        (("dog/notes.pdf",), "holds no videos and no sounds"),
        (("a.mp4", "b.mp4"), "has neither classes nor words: put the clips of each class into a folder"),
        (("dog/a.mp4", "b.mp4"), r"b\.mp4 is in no class's folder"),
        (("dog/a.mp4", "dog/b.mp4"), "a folder of one class alone, dog"),
        (("train/dog/a.mp4", "dog/b.mp4"), "folders of splits and dog beside them"),
        (("x/y/1.mp4", "x_y/1.mp4"), "would both be clip 'x_y_1'"),
    ],
)
def test_what_is_no_such_folder_is_said_in_a_sentence(tmp_path, names, message):
    place(tmp_path / "videos", *names)
    with pytest.raises(InputError, match=message):
        convert_folder(tmp_path / "videos", tmp_path / "data")
    assert not (tmp_path / "data").exists()


# --- words ---

SRT = """1
00:00:01,000 --> 00:00:02,500
{\\an8}<i>Good morning,</i>

2
00:00:02,500 --> 00:00:04,000
everyone.
- Hello!
"""
VTT = """WEBVTT - a title
Kind: captions

NOTE
not said

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.000 align:start position:0%
good<00:00:01.500><c> morning</c>

00:02.000 --> 00:03.000
good morning
everyone
"""


def test_words_of_subtitles_without_times_and_markup(tmp_path):
    place(tmp_path, "a.srt", text=SRT)
    place(tmp_path, "a.vtt", text=VTT)
    place(tmp_path, "a.txt", text="good morning\n\n  everyone\n")
    assert words_of(tmp_path / "a.srt") == "Good morning, everyone. - Hello!"
    assert words_of(tmp_path / "a.vtt") == words_of(tmp_path / "a.txt") == "good morning everyone"
    (tmp_path / "dos.srt").write_bytes(b"\xef\xbb\xbf" + SRT.replace("\n", "\r\n").encode())
    assert words_of(tmp_path / "dos.srt") == "Good morning, everyone. - Hello!"


def test_the_command_writes_captions_of_what_lies_beside_and_says_what_it_skipped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place(tmp_path / "videos", *(f"{label}/{label}{number}.mp4" for label in ("dog", "cat") for number in range(5)))
    place(tmp_path / "videos", "dog/dog0.srt", "cat/cat0.en.srt", "cat/cat0.de.srt", text=SRT)
    place(tmp_path / "videos", "dog/dog1.txt", text='a "barking" dog, far')
    place(tmp_path / "videos", "dog/dog1.en.vtt", text=VTT)  # another's name comes second
    place(tmp_path / "videos", "cat/cat1.vtt", text="WEBVTT\n")
    (tmp_path / "videos" / "dog" / "dog2.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\nfür\n".encode("latin-1"))
    status = cli.main(["convert", "annotations", "videos"], standalone_mode=False, obj={})
    out, err = capsys.readouterr()
    assert (status, out.split()) == (3, ["data/classify.csv", "data/captions.csv"])
    assert "10 clips of 2 classes" in err and "dog2.srt is not UTF-8 text" in err and "cat1.vtt has no words" in err
    found = {row["video_id"]: row["caption"] for row in rows(tmp_path / "data" / "captions.csv")}
    hello = "Good morning, everyone. - Hello!"
    assert found == {"dog0": hello, "cat0": hello, "dog1": 'a "barking" dog, far'}
    assert {clip.id: clip.source for clip in find_clips(["data/captions.csv"], "text")} == found


def test_a_folder_without_classes_gives_captions_alone(tmp_path):
    place(tmp_path / "talks", "one.mp4", "two.mp4")
    place(tmp_path / "talks", "one.srt", text=SRT)
    made = convert_folder(tmp_path / "talks", tmp_path / "data")
    assert [path.name for path in made.written] == ["captions.csv"]
    assert made.describe() == "2 clips without classes."


@pytest.mark.parametrize("shares", ["70/10", "a/b/c", "0/0/0", "-1/1/1", "nan/1/1"])
def test_shares_that_are_none_are_refused(tmp_path, shares):
    place(tmp_path / "videos", "dog/a.mp4", "cat/b.mp4")
    done = CliRunner().invoke(cli, ["convert", "annotations", str(tmp_path / "videos"), "--shares", shares])
    assert done.exit_code == 2 and "three numbers such as 70/10/20" in done.output
