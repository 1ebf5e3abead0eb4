"""`hdcid pretrain` as a user meets it: good input, strange input, and a model that has learned something."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from worlds import SHAPES, write_features

from hdcid_cli.codes.checkpoint import CHECKPOINT, open_checkpoint
from hdcid_cli.codes.encode import encode
from hdcid_cli.core.features import FeatureWriter, open_features
from hdcid_cli.core.run_directory import read_config
from hdcid_cli.main import run
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

SMALL = ["--dim", "16", "--codebook", "12", "--batch-size", "8", "--epochs", "2", "--warmup", "1"]


@pytest.fixture
def pretrain(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder, in this process: `pretrain("--layers", 1)` -> (status, what it said)."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)

    def call(*options, small=SMALL):
        status = run(["pretrain", *small, *map(str, options)], {"debug": False})
        return status, capsys.readouterr().err

    return call


def records(name="latest"):
    with open(f"checkpoints/{name}/metrics.jsonl") as file:
        return [json.loads(line) for line in file]


def write(folder, name, x, ids=None):
    """A feature file of the given clips [N, T, ...]."""
    attributes = {"modality": name, "backbone": "made", "weights": "none", "segment_seconds": 1.0}
    ids = ids or [f"clip{number}" for number in range(len(x))]
    with FeatureWriter(folder / f"{name}.h5", ids, x.shape[1:], attributes, dtype="float32") as writer:
        for clip, row in zip(ids, x, strict=True):
            writer.write(clip, row, len(row))
        writer.finish()


def test_the_events_that_both_modalities_show_become_shared_codes(pretrain, tmp_path):
    events, _ = write_features(tmp_path / "features", clips=48, classes=4)
    status, _ = pretrain(
        "--layers", 1, small=["--dim", "32", "--codebook", "16", "--batch-size", "16", "--epochs", "16"]
    )
    assert status == 0
    checkpoint, codes = open_checkpoint(device="cpu"), {}
    for name in ("audio", "video"):
        with open_features(tmp_path / "features", name) as file:
            codes[name] = encode(checkpoint, file).indices[..., 0, 0]
    # What each code stands for, learned from audio alone and read off video.
    meaning = [np.bincount(events[codes["audio"] == code], minlength=4).argmax() for code in range(16)]
    assert (np.take(meaning, codes["video"]) == events).mean() > 0.8  # chance is 0.25
    assert (codes["audio"] == codes["video"]).mean() > 3 / 16


def test_every_loss_and_measure_is_in_the_metrics(pretrain, tmp_path):
    write_features(tmp_path / "features", clips=16, modalities=("audio", "video", "text"))
    assert pretrain()[0] == 0
    last = records()[-1]
    for layer in (1, 2):
        names = [f"loss/{layer}/{name}" for name in ("commitment", "club", "cpc", "cmcm", "reconstruction")]
        names += [
            f"{measure}/{layer}/{name}" for measure in ("used", "perplexity") for name in ("audio", "video", "text")
        ]
        names += [f"agreement/{layer}/audio-video", f"agreement/{layer}/video-text", f"cpc_accuracy/{layer}"]
        assert set(names) <= set(last)
    assert last["step"] == 4 and last["epoch"] == 2 and last["samples_per_second"] > 0
    total = sum(
        (1 if layer == 1 else 0.3) * last[f"loss/{layer}/{name}"]
        for layer in (1, 2)
        for name in ("commitment", "club", "cpc", "cmcm", "reconstruction")
    )
    assert last["loss"] < total * 1.5  # the mean over steps, of which the second layer has half


def test_the_rate_is_told_against_the_machines_own(pretrain, tmp_path):
    write_features(tmp_path / "features", clips=16)
    assert pretrain("--layers", 1)[0] == 0
    last = records()[-1]
    assert last["flops_per_second"] > 0 and 0 < last["share_of_peak"] < 1


def test_where_the_features_are_kept_changes_nothing(pretrain, tmp_path):
    write_features(tmp_path / "features", clips=16)
    for cache in ("none", "ram", "device"):
        assert pretrain("--cache", cache, "-o", f"checkpoints/{cache}")[0] == 0
    weights = {cache: load_file(f"checkpoints/{cache}/model.safetensors") for cache in ("none", "ram", "device")}
    for name, value in weights["none"].items():
        assert torch.equal(value, weights["ram"][name]) and torch.equal(value, weights["device"][name]), name


def test_metrics_for_tensorboard(pretrain, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_features(tmp_path / "features", clips=16)
    assert pretrain("--tensorboard")[0] == 0
    board = EventAccumulator("checkpoints/latest/tensorboard").Reload()
    (event,) = board.Scalars("loss")
    assert event.step == 4 and event.value == pytest.approx(records()[-1]["loss"])


def test_without_tensorboards_package_nothing_is_touched(pretrain, tmp_path, monkeypatch):
    write_features(tmp_path / "features", clips=16)
    assert pretrain()[0] == 0
    before = (tmp_path / "checkpoints" / "latest" / "model.safetensors").read_bytes()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    status, said = pretrain("--tensorboard", "--overwrite")
    assert status == 2 and "hdcid[tensorboard]" in said
    assert (tmp_path / "checkpoints" / "latest" / "model.safetensors").read_bytes() == before


class Wandb:
    """Stands in for the package: takes note of what it is asked."""

    def __init__(self):
        self.runs = []

    def init(self, **given):
        self.runs.append(given | {"logged": [], "ended": None})
        return self

    id = "run-1"

    def define_metric(self, name, step_metric):
        self.runs[-1]["by"] = (name, step_metric)

    def log(self, record):
        self.runs[-1]["logged"].append(record)

    def finish(self, exit_code):
        self.runs[-1]["ended"] = exit_code


def same(logged, written):
    """Whether records are those of the log, which rounds."""
    return [record.keys() for record in logged] == [record.keys() for record in written] and all(
        record == pytest.approx(line, rel=1e-6) for record, line in zip(logged, written, strict=True)
    )


def test_metrics_for_weights_and_biases_go_on_in_the_same_run(pretrain, tmp_path, monkeypatch):
    write_features(tmp_path / "features", clips=16)
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    assert pretrain("--wandb", "-o", "checkpoints/mine")[0] == 0
    (run,) = wandb.runs
    assert same(run["logged"], records("mine")) and (run["by"], run["ended"]) == (("*", "step"), 0)
    assert (run["project"], run["name"], run["config"]["model"]["dim"]) == ("hdcid", "mine", 16)
    assert "id" not in run
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    assert pretrain("--wandb", "-o", "checkpoints/mine", "--epochs", "4")[0] == 0
    _, run = wandb.runs
    assert (run["id"], run["resume"], run["project"]) == ("run-1", "allow", "ours")
    assert same(run["logged"], [record for record in records("mine") if record["step"] > 4])


def test_without_wandb_or_where_it_fails_one_sentence_says_so(pretrain, tmp_path, monkeypatch):
    write_features(tmp_path / "features", clips=16)
    monkeypatch.setitem(sys.modules, "wandb", None)
    status, said = pretrain("--wandb", "-o", "mine")
    assert status == 2 and "hdcid[wandb]" in said and not (tmp_path / "mine").exists()
    wandb = Wandb()
    wandb.init = lambda **given: (_ for _ in ()).throw(ValueError("no key"))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    status, said = pretrain("--wandb", "-o", "mine")
    assert status == 2 and "wandb does not begin a run (no key): `wandb login`" in said


@pytest.mark.parametrize("clips", [1, 3])
def test_a_handful_of_clips_is_one_batch(pretrain, tmp_path, clips):
    write_features(tmp_path / "features", clips=clips)
    assert pretrain()[0] == 0
    assert all(np.isfinite(record["loss"]) for record in records())


def test_clips_without_a_time_axis(pretrain, tmp_path):
    write_features(tmp_path / "features", clips=16, steps=1)
    assert pretrain()[0] == 0
    assert np.isfinite(records()[-1]["loss/1/cpc"])


def test_modalities_of_different_numbers_of_segments(pretrain, tmp_path):
    rng = np.random.default_rng(0)
    for name, steps in (("audio", 6), ("video", 3), ("text", 4)):
        write(tmp_path / "features", name, rng.random((16, steps, *SHAPES[name])))
    assert pretrain()[0] == 0
    assert np.isfinite(records()[-1]["loss"])
    checkpoint = open_checkpoint(device="cpu")
    for name, steps in (("audio", 6), ("video", 3), ("text", 4)):
        with open_features(tmp_path / "features", name) as file:
            assert encode(checkpoint, file).indices.shape == (16, steps, 2, 1)


@pytest.mark.parametrize("letters", ["at", "vt", "a"])
def test_any_subset_of_the_modalities(pretrain, tmp_path, letters):
    write_features(tmp_path / "features", clips=16, modalities=("audio", "video", "text"))
    assert pretrain("--modalities", letters)[0] == 0
    assert open_checkpoint().describe()["modalities"] == letters


def test_records_say_how_wide_codes_are_and_whether_clips_were_mixed(pretrain, tmp_path):
    write_features(tmp_path / "features", clips=16)
    assert pretrain("--mix", "0.5")[0] == 0
    described = open_checkpoint().describe()
    assert described["mix"] == 0.5 and described["dim"] == open_checkpoint().settings.dim != 256
    assert pretrain("--overwrite", "--dim", "256")[0] == 0
    assert not {"mix", "dim"} & set(open_checkpoint().describe())


@pytest.mark.parametrize("quantizer", ["rvq:2", "fsq", "fsq:4,3"])
def test_every_quantizer_in_both_layers(pretrain, tmp_path, quantizer):
    write_features(tmp_path / "features", clips=16)
    assert pretrain("--quantizer", quantizer)[0] == 0
    checkpoint = open_checkpoint(device="cpu")
    with open_features(tmp_path / "features", "audio") as file:
        codes = encode(checkpoint, file)
    assert codes.indices.shape == (16, 6, 2, 2 if quantizer == "rvq:2" else 1)
    assert codes.quantized.shape == (16, 6, 2, 16)


def test_split_decides_what_is_learned_from(pretrain, tmp_path):
    _, ids = write_features(tmp_path / "features", clips=16)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "split.csv").write_text(
        "id,split\n" + "".join(f"{name},{'train' if i < 10 else 'test'}\n" for i, name in enumerate(ids))
    )
    assert "10 train clips" in pretrain("-o", "split")[1]
    assert (tmp_path / "split" / "clips.txt").read_text().split() == ids[:10]
    assert pretrain("-o", "whole", "--split", "none")[0] == 0
    assert (tmp_path / "whole" / "clips.txt").read_text().split() == ids


def test_validation_clips_are_looked_at_and_change_nothing(pretrain, tmp_path):
    _, ids = write_features(tmp_path / "features", clips=48)
    (tmp_path / "data").mkdir()
    table = "".join(f"{name},{('train', 'train', 'val', 'test')[i % 4]}\n" for i, name in enumerate(ids))
    (tmp_path / "data" / "split.csv").write_text("id,split\n" + table)
    for name, every in (("watched", 3), ("alone", 0)):
        assert pretrain("-o", f"checkpoints/{name}", "--validate-every", every, "--save-every", "1steps")[0] == 0
    rows = [json.loads(line) for line in Path("checkpoints/watched/metrics.jsonl").read_text().splitlines()]
    measured = {row["step"]: row["validation/r@1/audio-video"] for row in rows if "validation/r@1/audio-video" in row}
    assert list(measured) == [3, 6] and all(0 <= value <= 100 for value in measured.values())
    assert "validation" not in Path("checkpoints/alone/metrics.jsonl").read_text()
    states = [Path(f"checkpoints/{name}/model.safetensors").read_bytes() for name in ("watched", "alone")]
    assert states[0] == states[1]


def test_groups_that_are_left_out_name_the_checkpoint_and_are_never_mixed_up(pretrain, tmp_path):
    _, ids = write_features(tmp_path / "features", clips=16)
    (tmp_path / "data").mkdir()
    speakers = ["anna", "bob"] * 8
    table = ["id,split,speaker", *(f"{name},train,{speaker}" for name, speaker in zip(ids, speakers, strict=True))]
    (tmp_path / "data" / "split.csv").write_text("\n".join(table))
    assert pretrain("--leave-out", "speaker=anna")[0] == 0
    folder = tmp_path / "checkpoints" / "hdcid-av-L12-without-anna"
    assert (folder / "clips.txt").read_text().split() == ids[1::2]
    status, said = pretrain("--leave-out", "speaker=bob", "-o", folder)  # as many clips, but others
    assert status == 2 and "learned from other clips" in said
    assert "has had its 2 epochs already" in pretrain("--leave-out", "speaker=anna")[1]


def test_clips_that_only_some_modalities_have_are_left_out_and_counted(pretrain, tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path / "features", "audio", rng.random((10, 6, 12)))
    write(tmp_path / "features", "video", rng.random((8, 6, 5, 5, 8)), [f"clip{number}" for number in range(4, 12)])
    status, said = pretrain()
    assert status == 0
    assert "4 of 10 clips" in said and "2 of 8 clips" in said
    assert open_checkpoint().description.clips == 6


def no_files(folder):
    folder.mkdir()


def other_names(folder):
    write(folder, "audio", np.ones((4, 6, 12)), list("abcd"))
    write(folder, "video", np.ones((4, 6, 5, 5, 8)), list("efgh"))


def not_finite(folder):
    write_features(folder, clips=8)
    with h5py.File(folder / "audio.h5", "r+") as file:
        file["features"][3, 2, 1] = np.nan


def no_features(folder):
    write_features(folder, clips=8)
    (folder / "video.h5").write_text("features, honestly")


def too_small(folder):
    write(folder, "video", np.ones((4, 6, 3, 3, 8)))


@pytest.mark.parametrize(
    "make,reason",
    [
        (no_files, "no feature files in features/"),
        (other_names, "have no clip in common"),
        (not_finite, "clip 'clip0003' hold NaN"),
        (no_features, "video.h5 is not a feature file"),
        (too_small, "5 x 5 or more"),
    ],
)
def test_features_that_cannot_be_learned_from_are_refused_in_a_sentence(pretrain, tmp_path, make, reason):
    make(tmp_path / "features")
    status, said = pretrain()
    assert status == 2 and reason in said.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["features"]


def test_of_a_run_that_is_refused_as_it_begins_nothing_is_left(pretrain, tmp_path, monkeypatch):
    write_features(tmp_path / "features", clips=8)
    monkeypatch.setattr("hdcid_cli.training.board.require_wandb", lambda: None)  # wandb that nobody has logged in to
    monkeypatch.setattr("hdcid_cli.training.pretrain.require_wandb", lambda: None)
    (tmp_path / "mine").mkdir()
    for output in ("mine", "runs/a"):
        status, said = pretrain("--wandb", "-o", output)
        assert status == 2 and "wandb does not begin a run" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features", "mine"]
    assert not list((tmp_path / "mine").iterdir())


def test_maps_too_small_for_convolutions_are_read_where_there_are_none(pretrain, tmp_path):
    too_small(tmp_path / "features")
    write(tmp_path / "features", "audio", np.ones((4, 6, 12)))
    status, said = pretrain("--layers", "0", "--align", "smit", "--spatial-attention", "softmax", "--cell-hidden", "4")
    assert status == 0, said


@pytest.mark.parametrize(
    "options,reason",
    [
        (["--modalities", "avt"], "There is no feature file features/text.h5"),
        (["--modalities", "ax"], "no modality 'x'"),
        (["--split", "nowhere.csv"], "There is no file nowhere.csv"),
        (["--data", "nowhere"], "There is no folder nowhere: say with --data where the annotations lie"),
        (["--align", "cpc,clip"], "no alignment 'clip'"),
        (["--quantizer", "rvq:0"], "quantizer"),
        (["--dim", "18"], "divisible by the 4 attention heads"),
        (["--config", "nowhere.yaml"], "no file nowhere.yaml"),
        (["--config", "wrong.yaml"], "no option 'layer'"),
        (["--config", "list.yaml"], "mapping"),
        (["-o", "mine"], "mine exists and is not a checkpoint directory"),
        (["--layers", "0", "--modalities", "a"], "--layers 0"),
        (["--graph", "on", "--device", "cpu"], "--graph on: steps cannot be recorded, as CUDA does it"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_a_sentence(pretrain, tmp_path, options, reason):
    write_features(tmp_path / "features", clips=8)
    (tmp_path / "wrong.yaml").write_text("layer: 1\n")
    (tmp_path / "list.yaml").write_text("- layers\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("do not touch")
    status, said = pretrain(*options)
    assert status == 2 and reason in said
    assert (tmp_path / "mine" / "thesis.tex").exists()
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(pretrain, tmp_path):
    write_features(tmp_path / "features", clips=16)
    status, said = pretrain("--lr", "1e9", "--epochs", 40, "--save-every", 0)
    assert status == 1 and "not finite" in said and "--lr" in said
    good = open_checkpoint(device="cpu").model
    assert all(torch.isfinite(value).all() for value in good.state_dict().values())


def test_the_newest_versions_are_kept(pretrain, tmp_path):
    write_features(tmp_path / "features", clips=24)
    assert pretrain("--save-every", 0, "--keep", 3)[0] == 0
    kept = sorted(path.name for path in tmp_path.glob("checkpoints/latest/steps/*"))
    assert kept == ["000000004.safetensors", "000000005.safetensors", "000000006.safetensors"]


def test_saves_come_after_so_many_steps(pretrain, tmp_path):
    write_features(tmp_path / "features", clips=24)
    assert pretrain("--save-every", "4steps", "--keep", 9)[0] == 0
    assert sorted(path.name for path in tmp_path.glob("checkpoints/latest/steps/*")) == [
        "000000004.safetensors",
        "000000006.safetensors",
    ]


@pytest.mark.parametrize("value", ["often", "-1", "0steps", "nan", "inf", "2.5steps"])
def test_no_time_to_save_is_refused(hdcid, value):
    done = hdcid("pretrain", "--save-every", value)
    assert done.returncode == 2 and "--save-every" in done.stderr


def test_a_config_file_sets_options_and_the_line_overrides_it(pretrain, tmp_path):
    write_features(tmp_path / "features", clips=8)
    (tmp_path / "recipe.yaml").write_text(
        "layers: 1\nalign: [cpc, cmcm]\ncpc-steps: random\nstandardize: false\nidle: 7\n"
    )
    assert pretrain("--config", "recipe.yaml", "--idle", 9)[0] == 0
    config = read_config(open_checkpoint().path, CHECKPOINT)
    assert config["model"]["layers"] == 1 and config["model"]["standardize"] is False
    assert config["objective"]["cpc_steps"] == "random" and config["train"]["idle"] == 9
    assert config["train"]["precision"] == "float32"  # what `auto` came to, not `auto`


def test_a_layer_that_has_not_joined_is_not_computed_at_all():
    torch.set_num_threads(1)
    model = HDCID(ModelSettings(inputs={"audio": (12,), "video": (5, 5, 8)}, dim=16, codebook=12))
    objective = Objective(ObjectiveSettings(), model)
    trainer = Trainer(model, objective, TrainSettings(epochs=3, warmup=2, batch_size=4), 1, "cpu")
    calls = []
    for part in (model.layers[1], objective.layers[1]):
        for module in part.modules():
            module.register_forward_pre_hook(lambda module, _: calls.append(module))
    features = {"audio": torch.rand(4, 6, 12), "video": torch.rand(4, 6, 5, 5, 8)}
    before = {name: value.clone() for name, value in model.layers[1].state_dict().items()}
    for epoch in (0, 1):
        metrics = trainer.step(features, epoch)
    assert not calls and not any("/2/" in name for name in metrics)
    assert all(torch.equal(value, before[name]) for name, value in model.layers[1].state_dict().items())
    metrics = trainer.step(features, 2)
    assert calls and "loss/2/cpc" in metrics


def test_collapse_half_way_is_told(pretrain, tmp_path):
    write_features(tmp_path / "features", clips=8)
    status, said = pretrain("--codebook", 3, "--epochs", 4)
    assert status == 0 and "collapsed" in said
