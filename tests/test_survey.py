"""`hdcid info DATA`: which tasks are complete, which clips lack features, what to do next."""

import json

import pytest
from described import undocumented
from worlds import write_features

from hdcid_cli.commands.info import _sentences
from hdcid_cli.core.errors import InputError
from hdcid_cli.main import cli
from hdcid_cli.tasks.survey import survey_data

SPLIT = ("train", "train", "val", "test")


def write(folder, **texts):
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def classify(names, labels=("dog", "cat"), more=""):
    rows = (f"{name},{SPLIT[number % 4]},{labels[number // 4 % len(labels)]}\n" for number, name in enumerate(names))
    return "id,split,label\n" + "".join(rows) + more


def survey(folder, checkpoints="checkpoints"):
    *tasks, last = survey_data(folder / "data", folder / "features", folder / checkpoints)
    return {record["task"]: record for record in tasks}, last


@pytest.fixture
def place(tmp_path):
    """Features of 16 clips, and a table of them."""
    _, names = write_features(tmp_path / "features", clips=16)
    write(tmp_path / "data", classify=classify(names))
    return tmp_path


def test_a_complete_task_is_ready_and_the_next_step_is_named(place):
    found, last = survey(place)
    assert found.keys() == {"classify"}
    assert found["classify"] == {
        "kind": "annotations", "task": "classify", "path": str(place / "data" / "classify.csv"), "sound": True,
        "state": "ready", "clips": 16, "classes": 2, "train": 8, "val": 4, "test": 4, "findings": [],
    }  # fmt: skip
    assert last["next"] == ["hdcid pretrain"] and "ave" in last["absent"] and "classify" not in last["absent"]
    write(place / "data", captions="video_id,caption\nclip0000,hello\n")
    assert survey(place)[1]["next"] == [
        f"hdcid extract --modality text {place / 'data' / 'captions.csv'}",
        "hdcid pretrain",
    ]
    latest = place / "checkpoints" / "latest"
    latest.mkdir(parents=True)
    (latest / "model.safetensors").touch()
    (latest / "clips.txt").write_text("clip0000\nclip0003\n")
    _, last = survey(place)
    assert last["next"][-1] == "hdcid cmg classify --train v --test a"
    [finding] = last["findings"]
    assert "learned from 1 of 4 clips that classify tests" in finding  # clip0003


def test_features_that_are_missing_are_named(place):
    (place / "features" / "audio.h5").unlink()
    found, last = survey(place)
    assert found["classify"]["state"] == "lacks features"
    assert found["classify"]["findings"] == ["There are no features of audio."]
    assert last["next"] == ["hdcid extract --modality audio videos/"]
    write(place / "data", clips="id,path\nclip0000,a.mp4\n")
    assert survey(place)[1]["next"] == [f"hdcid extract --modality audio {place / 'data' / 'clips.csv'}"]


def test_clips_without_features_are_named_and_so_are_other_names(place):
    write(place / "data", classify=classify([f"clip{number:04d}" for number in range(20)]))
    found, last = survey(place)
    assert found["classify"]["findings"] == [
        f"{place / 'features' / name}.h5 lacks 4 of 20 clips: clip0016, clip0017, clip0018 and 1 more."
        for name in ("video", "audio")
    ]
    assert last["next"] == ["hdcid pretrain"]
    write(place / "data", classify=classify(["a", "b", "c", "d", "e", "f", "g", "h"]))
    found, last = survey(place)
    assert "has none of its clips: they are called 'a' in" in found["classify"]["findings"][0]
    assert "'clip0000' there" in found["classify"]["findings"][0] and last["next"] == []


def test_features_of_a_task_lie_in_its_folder(place):
    write_features(place / "features" / "classify", ids=["a", "b", "c", "d", "e", "f", "g", "h"])
    write(place / "data", classify=classify("abcdefgh"))
    assert survey(place)[0]["classify"]["state"] == "ready"


def test_splits_that_nothing_can_be_learned_or_tested_with_are_told(place):
    table = "id,split,label,group\na,train,dog,x\nb,test,dog,x\nc,train,cat,y\nd,train,bell,z\ne,test,bell,w\n"
    write(place / "data", classify=table)
    findings = survey(place)[0]["classify"]["findings"]
    assert findings[:3] == [
        "No clip is to choose the epoch by: a fifth of the train clips will.",
        "Classes without a test clip: cat.",
        "Recordings with clips to test and to learn on, of which nothing will be learned: x.",
    ]
    write(place / "data", classify="id,split,label\na,train,dog\nb,val,cat\n")
    assert "No clip is to test: give some the split `test`." in survey(place)[0]["classify"]["findings"]


def test_files_that_are_missing_or_broken_make_a_task_incomplete(place, capsys):
    llp = "filename\tonset\toffset\tevent_labels\n" + "".join(f"clip{n:04d}_0_6\t0\t3\tdog\n" for n in range(16))
    write(
        place / "data", avvp__AVVP_eval_audio=llp, localise="id,split,label,onset,offset\nclip0000,sometimes,dog,0,1\n"
    )
    (place / "data" / "ave").mkdir()
    (place / "data" / "avs_s4").mkdir()
    found, last = survey(place)
    states = {name: record["state"] for name, record in found.items()}
    incomplete = dict.fromkeys(("ave", "avvp", "localise", "segment"), "incomplete")
    assert states == {"classify": "ready", **incomplete}
    assert "has no AVVP_eval_visual" in found["avvp"]["findings"][0]
    assert "line 2: there is no split 'sometimes'" in found["localise"]["findings"][0]
    assert "has no Annotations.txt" in found["ave"]["findings"][0]
    assert last["next"] == ["hdcid pretrain"]
    arguments = ["info", str(place / "data"), "--features", str(place / "features")]
    assert cli.main(arguments, standalone_mode=False, obj={}) == 2
    out = capsys.readouterr().out
    assert not undocumented(out)
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["kind"] for record in records] == ["annotations"] * 5 + ["next"]


def test_a_table_of_something_else_is_no_task(tmp_path):
    write(tmp_path / "data", captions="video_id,caption\na,hello\n")
    with pytest.raises(InputError, match="nor annotations of a task: make them with"):
        survey(tmp_path)
    write(tmp_path / "data", split="id,split\na,train\n")
    with pytest.raises(InputError, match="nor annotations of a task"):
        survey(tmp_path)


def test_one_table_alone_is_read_as_what_its_columns_say(place):
    table = place / "mine.csv"
    table.write_text("id,split,label,onset,offset\nclip0000,train,dog,0,2\nclip0001,test,dog,1,1\n")
    record, _ = survey_data(table, place / "features", place / "checkpoints")
    assert (record["task"], record["clips"]) == ("localise", 2)
    assert "line 3: clip clip0001: the interval of dog is empty" in record["findings"][0]


def test_findings_are_broken_at_words(place, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    record = {"kind": "annotations", "task": "classify", "state": "ready", "clips": 3, "classes": 2, "test": 3,
              "findings": ["word " * 30]}  # fmt: skip
    lines = "\n".join(_sentences(record)).splitlines()
    assert lines[0] == "classify     ready: 3 clips of 2 classes (3 test)"
    assert max(map(len, lines)) <= 60 and all(line.startswith(" " * 13) for line in lines[1:])
