"""Records say which data they are of: the published annotations are known, and so is the world of `hdcid synth`."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from hdcid_cli.core import tables
from hdcid_cli.synth import annotations as made
from hdcid_cli.synth.world import SynthWorld
from hdcid_cli.tasks.annotations import ave, identity, llp, own, vggsound
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, AnnotatedEvent, Annotations
from hdcid_cli.tasks.cmg.tasks import TASKS

PUBLISHED = {"ave": "AVE", "avvp": "LLP", "ave2avvp": "AVE-AVVP", "ucf2vgg": "UCF-VGG", "vggsound": "VGGSound-AVEL-40k"}


@pytest.mark.parametrize("direction", [("audio", "video"), ("video", "audio"), ("audio", "audio")])
@pytest.mark.parametrize("task", PUBLISHED)
def test_the_published_annotations_are_known(shared, task, direction):
    source, target = TASKS[task][0].read(shared / "annotations", *direction)
    assert identity.data_set(source, target) == PUBLISHED[task]
    assert identity.data_set(source.timed, target.timed) == PUBLISHED[task]


def test_official_editions_and_the_larger_table_are_known(shared, tmp_path):
    folder = shared / "annotations"
    classes = tables.names(folder / "avvp" / "AVVP_Categories.txt")
    for name in (name for files in llp.FILES.values() for name in files):
        assert identity.data_set(llp.read_events(folder / "avvp" / name, classes)) == "LLP"
    shutil.copytree(folder / "vggsound_avel", tmp_path / "vggsound_avel")
    (tmp_path / "vggsound_avel" / "vggsound-avel40k.csv").unlink()
    assert identity.data_set(vggsound.read(tmp_path)) == "VGGSound-AVEL-90k"
    prompts = {row["label"] for row in tables.table(folder / "avs_s4" / "AVSBenchCategories2Prompts.csv", "label")}
    scenes = [(f"clip{number}", category, "test") for number, category in zip(range(4932), [*prompts] * 300)]
    assert identity.of_scenes(scenes)["data"] == "AVSBench-S4"
    assert identity.of_scenes(scenes[1:])["data"] == "own"


def test_half_of_a_published_data_set_is_ones_own(shared, tmp_path):
    text = (shared / "annotations" / "ave" / "Annotations.txt").read_text()
    (tmp_path / "Annotations.txt").write_text(text + "\nBark&another&good&0&10\n")
    assert identity.data_set(ave.read(tmp_path)) == "own"
    (tmp_path / "Annotations.txt").write_text("Category&VideoID&Quality&StartTime&EndTime\n" + text)
    whole = ave.read(tmp_path)
    assert identity.data_set(whole) == "AVE"
    (tmp_path / "Annotations.txt").write_text(text.replace("Church bell&", "Temple bell&"))
    assert identity.data_set(whole, ave.read(tmp_path)) == "own"


@pytest.mark.parametrize("task", PUBLISHED)
def test_every_annotation_of_the_synthetic_world_is_known_by_any_file_of_it(task, tmp_path):
    files = made.files(SynthWorld(clips=16, classes=4))
    for name, text in files.items():  # copied one by one, without the mark that `hdcid synth` leaves in its folder
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert identity.data_set(*TASKS[task][0].read(tmp_path, "audio", "video")) == "synth"
    rows = [f"{row['video_id']},{row['split']},{row['category']}" for row in
            tables.table(tmp_path / "split.csv", "video_id", "split", "category")]  # fmt: skip
    (tmp_path / "classify.csv").write_text("\n".join(["id,split,label", *rows, "mine,test,bell"]))
    assert identity.data_set(own.read_classify(tmp_path)) == "synth"  # one's own clip among them makes it no less so


def test_classes_of_the_world_alone_are_no_mark():
    mine = Annotations(Path("x.csv"), ("bell", "drum"), [AnnotatedClip("a", "test", 0), AnnotatedClip("b", "train", 1)])
    assert identity.data_set(mine) == "own"
    assert identity.of_clips(["a", "b"]) == "own" and identity.of_clips(["a", "syn00000001"]) == "synth"


def test_the_digest_is_of_what_was_read():
    def annotations(**changes):
        clip = AnnotatedClip("a", "test", 0, [AnnotatedEvent(0, 0.0, 2.0)])
        for name, value in changes.items():
            setattr(clip, name, value)
        return Annotations(Path("x.csv"), ("bell",), [clip])

    same = annotations().digest
    assert re.fullmatch("[0-9a-f]{16}", same) and same == annotations(line=7).digest
    others = {
        annotations(**change).digest
        for change in (
            {"id": "b"},
            {"split": "val"},
            {"label": None},
            {"events": [AnnotatedEvent(0, 0.0, 3.0)]},
            {"events": None},
        )
    }
    assert len(others) == 5 and same not in others
    assert annotations().timed.digest == annotations().part([]).digest == same  # a part is of the whole
    first, second = annotations(), annotations(split="val")
    assert identity.digest(first, second) == identity.digest(second, first) != identity.digest(first, first) == same


def test_known_classes_are_kept_as_digests_alone(shared):
    names = {row.split("&")[0] for row in (shared / "annotations" / "ave" / "Annotations.txt").read_text().split("\n")}
    digest = hashlib.sha256("\n".join(sorted(names - {""})).encode()).hexdigest()[:16]
    assert identity.PUBLISHED[digest] == {4143: "AVE"}
