"""hdcid from Python: the documented example runs, and says what the commands say."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds import SHAPES, write_features

import hdcid_cli as hdcid
from hdcid_cli.core.progress import warn
from hdcid_cli.main import run

TOP = Path(__file__).parents[1]
EXAMPLE = TOP / "examples" / "python_api.py"
RECORD = {"schema": "hdcid.result/1", "task": "ave", "train": "video", "test": "audio", "direction": "v->a"}
RECORD |= {"metric": "precision", "value": 50.0, "n": 10, "seed": 0, "method": "cpc", "protocol": "heldout"}
SMALL = {"dim": 16, "codebook": 12, "batch_size": 8, "epochs": 2, "warmup": 1}


def test_the_example_runs_and_its_classes_cross_the_modalities(capsys):
    records = runpy.run_path(str(EXAMPLE))["records"]
    said = capsys.readouterr().out
    assert "codes of the first clip's seconds" in said and "classify" in said
    precision = {record["direction"]: record["value"] for record in records if record["metric"] == "precision"}
    assert set(precision) == {"v->a", "a->v"} and min(precision.values()) > 60  # chance is 25


def test_the_example_is_short_and_the_readme_quotes_it():
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(lines) < 35
    (block,) = re.findall("```python\n(.*?)```", (TOP / "README.md").read_text(encoding="utf-8"), re.S)
    assert all(line in lines for line in block.splitlines() if line.strip())


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, hdcid_cli; print([name for name in ('torch', 'numpy', 'h5py', 'click') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_name_that_is_promised_is_there():
    from hdcid_cli import api

    assert all(getattr(hdcid, name) is getattr(api, name) for name in api.__all__)
    with pytest.raises(AttributeError):
        _ = hdcid.nothing_of_that_name


def test_python_and_the_command_train_the_same_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "features", clips=16)
    options = [part for name, value in SMALL.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    assert run(["pretrain", "-o", "by-command", *options], {}) == 0
    model = hdcid.pretrain("features", "by-python", **SMALL)
    assert model.digest == hdcid.open_checkpoint("by-command").digest


def test_of_the_processes_of_torchrun_one_talks(tmp_path, monkeypatch, capsys):
    write_features(tmp_path / "features", clips=8)
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        hdcid.pretrain(tmp_path / "features", tmp_path / rank, **SMALL | {"layers": 1, "deeper": 1})
        said = capsys.readouterr().err
        assert ("--deeper makes no difference" in said, "8 clips, 2 steps" in said) == (rank == "0",) * 2
    monkeypatch.setenv("RANK", "0")
    warn("what comes after is heard again")
    assert "heard again" in capsys.readouterr().err


def test_python_leaves_out_and_looks_at_what_the_command_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, ids = write_features(tmp_path / "features", clips=32)
    splits = ["train"] * 18 + ["val"] * 8 + ["test"] * 6
    speakers = ["bob" if number % 6 else "anna" for number in range(32)]
    rows = [f"{name},{part},x,{who}" for name, part, who in zip(ids, splits, speakers)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/classify.csv").write_text("id,split,label,who\n" + "\n".join(rows))
    small = SMALL | {"epochs": 1}
    options = [part for name, value in small.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    assert run(["pretrain", "-o", "by-command", "--leave-out", "who=anna", *options], {}) == 0
    command, model = hdcid.open_checkpoint("by-command"), hdcid.pretrain("features", leave_out="who=anna", **small)
    assert model.digest == command.digest and model.clips == command.clips == set(ids[:18]) - set(ids[::6])
    assert "without-anna" in model.name and model.clips == hdcid.open_checkpoint(model.path).clips

    def looked_at(path):
        last = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])
        return {name: value for name, value in last.items() if name.startswith("validation/")}

    assert len(looked_at(command.path)) > 1 and looked_at(model.path) == looked_at(command.path)
    chosen = hdcid.pretrain("features", "chosen", validation=ids[:6], **small)
    assert chosen.clips == set(ids[6:]) and looked_at(chosen.path)
    some = hdcid.pretrain("features", "some", data="data", clips=ids[10:], **small)
    assert some.clips == set(ids[10:18])


def test_equal_models_have_equal_digests_whatever_they_share(tmp_path):
    """MST's transformer goes by several names; each time a process says in another order which."""
    write_features(tmp_path / "features", clips=8, modalities=("audio", "video", "text"))
    train = "h.pretrain(*sys.argv[1:], align=('mst',), layers=0, epochs=1, dim=16)"
    program = f"import sys, hdcid_cli as h; print({train}.digest)"
    found = set()
    for number in range(3):
        call = [sys.executable, "-c", program, str(tmp_path / "features"), str(tmp_path / f"model{number}")]
        found.add(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1


def test_a_recipe_is_taken_by_name_and_settings_count_more(tmp_path):
    write_features(tmp_path / "features", clips=8)
    model = hdcid.pretrain(tmp_path / "features", tmp_path / "model", "av", recipe="table2_dcid_rvq4", **SMALL)
    assert model.settings.quantizer == "rvq:4" and model.settings.layers == 1
    assert model.settings.dim == 16 and set(model.inputs) == {"audio", "video"}


def test_a_model_says_how_many_codes_its_levels_make(tmp_path):
    write_features(tmp_path / "features", clips=8)
    model = hdcid.pretrain(tmp_path / "features", tmp_path / "m", **SMALL | {"quantizer": "fsq:3,3", "epochs": 1})
    assert model.describe()["codebook"] == len(model.codebooks[0]) == 9


def test_a_model_says_how_it_departs_from_the_usual_sizes_and_poolings_and_nothing_where_it_does_not(tmp_path):
    write_features(tmp_path / "features", clips=8)
    departures = {"dim": 16, "spatial_attention": "softmax", "cell_hidden": 4, "mix": 0.5}
    usual = {"codebook": 12, "heads": 2, "feedforward": 8, "text_hidden": 4, "map_hidden": 4, "map_specific": 4}
    for number, given in enumerate(({"dim": 16}, departures)):
        model = hdcid.pretrain(tmp_path / "features", tmp_path / f"m{number}", epochs=1, **usual, **given)
        assert {name: value for name, value in model.describe().items() if name in departures} == given


def test_a_model_without_maps_does_not_say_how_it_would_read_them(tmp_path):
    write_features(tmp_path / "features", clips=8, modalities=("audio", "text"))
    settings = {**SMALL, "modalities": "at", "spatial_attention": "softmax", "cell_hidden": 4}
    model = hdcid.pretrain(tmp_path / "features", tmp_path / "model", **settings)
    assert not {"spatial_attention", "cell_hidden"} & model.describe().keys()


def test_an_array_has_the_codes_of_the_file_that_holds_it(tmp_path):
    write_features(tmp_path / "features", clips=8)
    model = hdcid.pretrain(tmp_path / "features", tmp_path / "model", **SMALL)
    with hdcid.open_features(tmp_path / "features", "audio") as file:
        expected, array = hdcid.encode(model, file), file.read(range(8))
    found = hdcid.encode(model, array, "a")
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.quantized, expected.quantized)
    assert hdcid.select_channels(model.codebooks[0], 4).shape == (4,)


def test_what_was_written_is_read_again(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((5, 3, *SHAPES["audio"]))
    file = hdcid.write_features(tmp_path / "audio.h5", list("abcde"), x, "a", length=[3, 1, 2, 3, 3])
    np.testing.assert_allclose(file.read([0]), x[:1], rtol=1e-6)
    assert list(file.ids) == list("abcde") and file.length.tolist() == [3, 1, 2, 3, 3]


@pytest.mark.parametrize(
    "call,reason",
    [
        (lambda place: hdcid.pretrain(place, layer=2), "no setting 'layer'"),
        (lambda place: hdcid.pretrain(place, epochs=float("nan")), "--epochs should be"),
        (lambda place: hdcid.pretrain(place, recipe="table9"), "no recipe 'table9'"),
        (lambda place: hdcid.write_features(place / "x.h5", ["a"], np.zeros((1, 3)), "a"), "should be"),
        (lambda place: hdcid.pretrain(place, data=place / "none"), "There is no folder .*none: say with --data"),
        (lambda place: hdcid.open_checkpoint(place / "none"), "not a checkpoint"),
        (lambda place: hdcid.write_features(place / "x.h5", ["a", "a"], np.zeros((2, 3, 4)), "a"), "each once"),
        (lambda place: hdcid.write_features(place / "x.h5", ["a"], np.zeros((1, 3, 4)), "a", [4]), "from 1 to 3 valid"),
        (lambda place: hdcid.extract(place, "audio", second=5), "no setting 'second' of extraction"),
        (lambda place: hdcid.cmg("av", place, "v", "a"), "no task 'av'"),
        (lambda place: hdcid.cmg("ave", place, "v", "a", classifer="mean"), "no setting 'classifer' of cmg"),
        (lambda place: hdcid.table([], "pdf"), "a table is"),
        (lambda place: hdcid.table([], layout="table9"), "no layout 'table9'; there are table1"),
        (lambda place: hdcid.table([RECORD], metrics="recall"), "no record is of recall"),
    ],
)
def test_what_cannot_be_is_one_sentence(tmp_path, call, reason):
    with pytest.raises(hdcid.InputError, match=re.compile(reason, re.I)):
        call(tmp_path)


def test_records_go_through_a_file(tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps(RECORD) + "\n")
    assert "50.0" in hdcid.table(hdcid.read_records(tmp_path / "r.jsonl"))


def test_an_open_sets_table_has_all_of_its_columns():
    opened = [
        RECORD | {"metric": name, "value": value, "open_set": 5} for name, value in (("hos", 41.0), ("auroc", 72.0))
    ]
    table = hdcid.table(opened, layout="openset")
    assert "41.0" in table and "72.0" in table


def test_an_array_that_is_not_finite_has_no_codes(tmp_path):
    write_features(tmp_path / "features", clips=8)
    model = hdcid.pretrain(tmp_path / "features", tmp_path / "model", **SMALL | {"epochs": 1})
    with pytest.raises(hdcid.InputError, match="no finite number"):
        hdcid.encode(model, np.full((1, 6, *SHAPES["audio"]), np.nan), "a")


def test_features_that_are_not_finite_leave_no_file(tmp_path):
    x = np.ones((2, 3, 4))
    for value in (np.nan, 1e300):
        x[1, 2, 0] = value
        with pytest.raises(hdcid.InputError, match="clip 'b' hold what is no finite number in float32"):
            hdcid.write_features(tmp_path / "audio.h5", ["a", "b"], x, "audio")
    assert not list(tmp_path.iterdir())


def test_python_and_the_command_probe_alike(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, ids = write_features(tmp_path / "features", clips=16)
    rows = [f"{name},{('train', 'train', 'val', 'test')[i % 4]},{'xy'[i // 4 % 2]}" for i, name in enumerate(ids)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/classify.csv").write_text("id,split,label\n" + "\n".join(rows))
    model = hdcid.pretrain("features", "model", data="data", **SMALL | {"layers": 2})
    line = "classify --train v --test a --checkpoint model --epochs 1 --seeds 2 --layers-used 1 --per-class"
    assert run(["cmg", *line.split()], {}) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    asked = {"train": "v", "test": "a", "epochs": 1, "seeds": 2, "layers_used": 1, "per_class": True}
    assert json.loads(json.dumps(hdcid.cmg("classify", model, **asked))) == said
    capsys.readouterr()
    hdcid.cmg("classify", None, "a", "a", epochs=1, toc="8", layers_used=1)
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["toc", "layers_used"]
