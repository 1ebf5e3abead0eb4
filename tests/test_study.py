"""`examples/study.py`: settings compared on clips that are not the test's."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds import write_features

STUDY = Path(__file__).parents[1] / "examples" / "study.py"
SECONDS = 4


@pytest.fixture
def world(tmp_path):
    """A small world as `hdcid synth` and `hdcid extract` make it: three events, one a clip, with their times."""
    ids = [f"clip{number:07d}" for number in range(50)]
    write_features(tmp_path / "small" / "features", ids=ids, steps=SECONDS, classes=3)
    data, names = tmp_path / "small" / "data", ["bell", "drum", "horn"]
    for task in ("ave", "avvp"):
        (data / task).mkdir(parents=True)
    labels = [names[number % 3] for number in range(50)]
    parts = ["train"] * 30 + ["val"] * 10 + ["test"] * 10
    rows = [f"{label},{name},{part}\n" for label, name, part in zip(labels, ids, parts)]
    (data / "split.csv").write_text("category,video_id,split\n" + "".join(rows))
    (data / "ave" / "Annotations.txt").write_text(
        "Category&VideoID&Quality&StartTime&EndTime\n"
        + "".join(f"{label}&{name}&good&0&{SECONDS}\n" for label, name in zip(labels, ids))
    )
    (data / "avvp" / "Categories.txt").write_text("\n".join(names) + "\n")
    for kind in ("audio", "visual"):
        (data / "avvp" / f"AVVP_eval_{kind}.csv").write_text(
            "filename\tonset\toffset\tevent_labels\n"
            + "".join(f"{name}_0_10\t0\t{SECONDS - 1}\t{label}\n" for label, name in zip(labels, ids))
        )
    return tmp_path / "small"


def study(*arguments):
    argv, sys.argv = sys.argv, ["study.py", *arguments]
    try:
        module = runpy.run_path(str(STUDY), run_name="study")
        module["SETTINGS"].clear()
        module["SETTINGS"].update({"one": {"align": ("smit",)}, "two": {"align": ("seconds",), "mix": 0.5}})
        for settings in module["SETTINGS"].values():
            settings.update(dim=16, codebook=12, epochs=2, batch_size=8)
        module["main"]()
    finally:
        sys.argv = argv


def test_settings_are_compared_on_clips_that_are_not_tested_and_nothing_is_run_twice(world, capsys, monkeypatch):
    study(str(world))
    table = capsys.readouterr().out
    header, _, *rows = table.splitlines()
    assert header.split("|")[2:-1] == [f" small {task} {way} " for way in ("v->a", "a->v") for task in ("ave", "avvp")]
    assert [row.split("|")[1].strip() for row in rows] == ["one", "two"]
    kept = sorted((world / "study").glob("*.jsonl"))
    assert [path.name for path in kept] == ["choose-one-0.jsonl", "choose-two-0.jsonl"]
    records = [json.loads(line) for line in kept[1].read_text().splitlines()]
    assert {record["mix"] for record in records} == {0.5} and {record["dim"] for record in records} == {16}
    # Of 40 clips that are not the test's.
    assert {record["pretrain_clips"] for record in records} == {28} and {record["n"] for record in records} == {9}
    assert not {record["n_pretrained"] for record in records} - {0}

    def never(*_, **__):
        raise AssertionError("it is there already")

    monkeypatch.setattr("hdcid_cli.api.pretrain", never)
    study(str(world))
    assert capsys.readouterr().out == table


def test_the_test_clips_are_looked_at_on_request_alone(world, capsys):
    study(str(world), "--final", "one")
    assert "| one |" in capsys.readouterr().out
    (kept,) = (world / "study").glob("*.jsonl")
    records = [json.loads(line) for line in kept.read_text().splitlines()]
    assert {record["pretrain_clips"] for record in records} == {30} and {record["n"] for record in records} == {10}


def test_what_it_recommends_is_among_its_settings():
    module = runpy.run_path(str(STUDY), run_name="study")
    recipes = {settings.get("recipe") for settings in module["SETTINGS"].values()}
    assert "recommended" in recipes
    assert np.isclose(sum(module["CHOOSE"].values()), 320)
