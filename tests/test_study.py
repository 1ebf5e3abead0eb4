"""`examples/study.py`: settings compared on clips that are not the test's."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds import write_features

from hdcid_cli.core.features import open_features
from hdcid_cli.report.over import over
from hdcid_cli.report.results import read_results

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
        for _, probe in module["PROBES"]:
            probe["epochs"] = 3
        module["main"]()
    finally:
        sys.argv = argv


def test_settings_are_compared_on_clips_that_are_not_tested_and_nothing_is_run_twice(world, capsys, monkeypatch):
    study(str(world))
    table = capsys.readouterr().out
    header, _, *rows = table.splitlines()
    probes = ("ave", "ave by mean", "avvp")
    assert header.split("|")[2:-1] == [f" small {probe} {way} " for way in ("v->a", "a->v") for probe in probes]
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


def test_few_clips_and_wrong_sounds_are_numbers_that_report_draws_over(world, capsys):
    asked = (str(world), "--final", "one", "--clips", "10", "20", "--mismatched", "0", "50")
    study(*asked)
    rows = [row.split("|")[1].strip() for row in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [
        "one, 10 clips",
        "one, 10 clips, 50 % mismatched",
        "one, 20 clips",
        "one, 20 clips, 50 % mismatched",
    ]
    results = read_results(sorted((world / "study").glob("final-*.jsonl")), pytest.fail)
    assert {(each.pretrain_clips, each.get("mismatched_percent")) for each in results} == {
        (clips, percent) for clips in (10, 20) for percent in (0, 50)
    }
    assert {each.n_fit for each in results} == {30}  # the probes learn from all
    labels = {"pretrain_clips": "clips pretrained on", "mismatched_percent": "% of clips with another's sound"}
    for field, label in labels.items():
        captions = [figure.caption for figure in over(results, field)]
        assert len(captions) == 4 and all(f"over {label}" in caption for caption in captions)


def test_mismatched_clips_have_each_others_sounds_and_all_else_stays(world):
    module = runpy.run_path(str(STUDY), run_name="study")
    learned = [f"clip{number:07d}" for number in range(0, 40, 2)]
    folder = module["mismatched"](world / "features", world / "wrong", learned, module["Case"]("one", None, 40, 3))
    sounds = {}
    for place in (world / "features", folder):
        with open_features(place, "audio") as audio:
            sounds[place] = dict(zip(audio.ids, audio.read(range(len(audio)))))
            assert audio.backbone == "made"
    true, wrong = sounds.values()
    assert set(true) == set(wrong)
    changed = [name for name in true if not np.array_equal(true[name], wrong[name])]
    assert len(changed) == 8 and set(changed) <= set(learned)
    assert sorted(wrong[name].tobytes() for name in changed) == sorted(true[name].tobytes() for name in changed)
    with open_features(world / "features", "video") as one, open_features(folder, "video") as other:
        assert one.ids == other.ids and np.array_equal(one.read(range(50)), other.read(range(50)))


def test_what_it_recommends_is_among_its_settings():
    module = runpy.run_path(str(STUDY), run_name="study")
    recipes = {settings.get("recipe") for settings in module["SETTINGS"].values()}
    assert "recommended" in recipes
    assert np.isclose(sum(module["CHOOSE"].values()), 320)
