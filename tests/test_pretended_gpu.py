"""What runs on a GPU, run on a pretended one (`pretended.py`), finds what it finds on the CPU."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from cmg_world import world
from pretended import COPIES, GPU, OnGpu, pretended_gpu
from safetensors.torch import load_file
from segment_world import TINY, write_squares, write_tiny_checkpoint
from segment_world import write_features as write_queries
from step import INPUTS, SIZES, batch, build
from test_captured import capture, state_of
from torch import nn
from worlds import write_features

from hdcid_cli.backbones.backbone import Options
from hdcid_cli.backbones.network import Network
from hdcid_cli.codes.checkpoint import open_checkpoint, write_checkpoint
from hdcid_cli.codes.encode import encode
from hdcid_cli.core.features import open_features
from hdcid_cli.core.loading import ClipReader, batches_on
from hdcid_cli.main import run
from hdcid_cli.models.assembled import build_model
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.tasks.cmg.probe import TemporalLocalizer
from hdcid_cli.tasks.cmg.protocol import ProbeSettings
from hdcid_cli.tasks.cmg.reading import Reading, read_codes
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.cmg.trial import Trial
from hdcid_cli.tasks.retrieval import RetrievalSettings, retrieve
from hdcid_cli.tasks.segmentation.experiment import Experiment
from hdcid_cli.tasks.segmentation.experiment import run as segment
from hdcid_cli.tasks.segmentation.settings import SegmenterTrainSettings
from hdcid_cli.training import captured
from hdcid_cli.training.alignments import ALIGNMENTS

TINY_RUN = ["--dim", "16", "--codebook", "6", "--batch-size", "8", "--warmup", "1", "--dropout", "0"]
TINY_RUN += ["--schedule", "constant", "--precision", "float64"]

MODELS = {
    "vq": {},
    "aligned": {"quantizer": "aligned"},
    "rvq, masked": {"quantizer": "rvq:2", "padding": "mask"},
    "fsq, prototypes": {"quantizer": "fsq:4,3", "prototypes": True},
    "pq, cells": {"quantizer": "pq:2", "cell_hidden": 4, "map_encoder": "bn"},
    "fcid": {"kind": "fcid"},
}


@pytest.fixture
def gpu(monkeypatch):
    """What runs in it runs on the pretended GPU."""
    return lambda: pretended_gpu(monkeypatch)


def records(place: str) -> list[dict]:
    return [json.loads(line) for line in Path(place, "metrics.jsonl").read_text().splitlines()]


def test_training_learns_the_same_and_goes_on_from_what_it_saved(tmp_path, monkeypatch, gpu):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hdcid_cli.training.speed.matrix_rate", lambda *_: 1e12)
    write_features(tmp_path / "features", clips=8, steps=3)
    assert run(["pretrain", *TINY_RUN, "--epochs", "2", "-o", "cpu", "--device", "cpu"], {}) == 0
    with gpu():
        for epochs in ("1", "2"):
            assert run(["pretrain", *TINY_RUN, "--epochs", epochs, "-o", "gpu"], {}) == 0
    ours, theirs = records("cpu")[-1], records("gpu")[-1]
    assert {name: theirs[name] for name in ours if "/2/c" in name} == pytest.approx(
        {name: value for name, value in ours.items() if "/2/c" in name}, rel=1e-6
    )
    ours, theirs = (load_file(f"{place}/model.safetensors") for place in ("cpu", "gpu"))
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-7)


STEPS = {
    "all": {"align": [*sorted(ALIGNMENTS), "cpc:av"], "quantizer": "rvq:2"},
    "published": {"club_gradient": "both", "cpc_steps": "random", "train": {"codebook_updates": 6, "mix": 0.5}},
    "aligned": {"quantizer": "aligned", "club": "exact", "mask": "channels", "align": ["fcmi"]},
}


@pytest.mark.parametrize("choice", STEPS.values(), ids=STEPS)
def test_a_step_learns_the_same(gpu, choice):
    def learned(device):
        trainer = build("float64", device=device, model={"dropout": 0.0, "layers": 1}, **choice)
        features = {name: x.to(device, torch.float64) for name, x in batch(steps=3).items()}
        return trainer.step(features, 0), trainer.state_dict()["model"]

    ours = learned("cpu")
    with gpu():
        theirs = learned("cuda")
        for one, other in zip(theirs, ours, strict=True):
            assert all(isinstance(x, OnGpu) for x in one.values())
            torch.testing.assert_close({name: x.cpu() for name, x in one.items()}, dict(other))


def test_a_step_waits_for_nothing_that_it_sends(gpu):
    with gpu():
        trainer = build(device="cuda", align=["fcmi", "cujp"], model={"layers": 1}, train={"mix": 0.5, "idle": 1})
        features = {name: x.to("cuda") for name, x in batch(steps=3).items()}
        trainer.start_layers(features, 1, None)
        COPIES.clear()
        trainer.step(features, 0)
        assert len(COPIES) > 5 and all(COPIES)


def test_what_no_gpu_does_the_pretended_one_does_not_either(gpu):
    with gpu():
        x = torch.ones(3).to("cuda")
        assert x.device == GPU and (2 * x).sum().item() == 6 and float((x + torch.tensor(1.0))[0]) == 2
        for wrong in (lambda: x + torch.ones(3), lambda: torch.ones(3)[x.long()], lambda: x @ torch.ones(3)):
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        for wrong in (x.numpy, lambda: np.asarray(x)):
            with pytest.raises(TypeError, match="numpy"):
                wrong()


def test_a_step_in_mixed_precision_has_nearly_the_losses_of_the_cpu_s(gpu):
    def losses(device):
        trainer = build("bf16", device=device, model={"dropout": 0.0})
        measured = trainer.step({name: x.to(device) for name, x in batch().items()}, 0)
        return {name: float(value) for name, value in measured.items() if name.startswith("loss/1")}

    ours = losses("cpu")
    with gpu():
        assert losses("cuda") == pytest.approx(ours, rel=0.02, abs=0.01)


@pytest.mark.parametrize("cache", ["device", "ram", "none"])
def test_features_come_to_the_gpu_from_wherever_they_are_kept(tmp_path, gpu, cache):
    write_features(tmp_path, clips=10)
    files = {"audio": open_features(tmp_path, "audio")}
    places = np.random.default_rng(0).permutation(10).reshape(5, 2)
    with gpu():
        reader = ClipReader(files, files["audio"].ids, cache, "cuda")
        for rows, batch in batches_on("cuda", reader, places, torch.float64):
            assert isinstance(batch["audio"], OnGpu) and batch["audio"].dtype == torch.float64
            assert np.array_equal(batch["audio"].cpu().numpy(), files["audio"].read(rows))


@pytest.fixture
def checkpoint(tmp_path):
    def make(**settings):
        torch.manual_seed(0)
        config = ModelSettings(inputs={**INPUTS, "video": (5, 5, 8)}, **{**SIZES, **settings})
        write_features(tmp_path / "features", clips=12, steps=4, modalities=("audio", "video", "text"))
        write_checkpoint(
            tmp_path / "model",
            {"model": config.to_dict(), "train": {"precision": "float64"}},
            build_model(config).double(),
        )
        return tmp_path

    return make


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_codes_and_what_they_stand_for(checkpoint, gpu, settings):
    folder = checkpoint(**settings)

    def codes(device):
        opened, found = open_checkpoint(folder / "model", device=device), []
        for name in INPUTS:
            with open_features(folder / "features", name) as file:
                made = encode(opened, file, batch_size=5, cache=False)
            found += [made.indices, made.read([3, 1])]
        return [*found, *opened.codebooks]

    want = codes("cpu")
    with gpu():
        for one, other in zip(codes("auto"), want, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_ranks(checkpoint, gpu):
    folder = checkpoint()

    def ranks(device):
        opened = open_checkpoint(folder / "model", device=device)
        with (
            open_features(folder / "features", "audio") as query,
            open_features(folder / "features", "video") as gallery,
        ):
            return list(retrieve(opened, query, gallery, RetrievalSettings(by="all")))

    want = ranks("cpu")
    with gpu():
        assert [each["value"] for each in ranks("auto")] == [each["value"] for each in want]


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("ave", {"classifier": "mean", "open_set": "2"}),
        ("avvp", {"localizer": "tcn", "threshold": "chosen", "dropout": 0.0}),
    ],
)
def test_probes(gpu, monkeypatch, task, settings):
    monkeypatch.setattr(TemporalLocalizer, "DROPOUT", 0.0)
    annotations, video, audio = world()

    def scores(device):
        reading = Reading(video, audio)
        trial = Trial(TASKS[task][0], annotations, annotations, reading, ProbeSettings(epochs=3, **settings), device)
        return [score.value for score in trial.probe(3).scores]

    ours = scores("cpu")
    with gpu():
        assert scores("auto") == pytest.approx(ours, abs=1e-3)


def test_codes_with_the_encoder_s_dropout(checkpoint, gpu):
    folder = checkpoint(dropout=0.3)
    with gpu(), open_features(folder / "features", "audio") as file:
        reading = read_codes(open_checkpoint(folder / "model"), file, file, "ave", "none")
        first, again, other = (reading.train.read_noisy([2, 0], seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_a_segmenter_is_trained_and_tested(tmp_path, monkeypatch, gpu):
    monkeypatch.setitem(sys.modules["hdcid_cli.tasks.segmentation.backbones"].PUBLISHED, "tiny", ("nowhere", TINY))
    write_queries(tmp_path / "features", write_squares(tmp_path / "data", {"train": 4, "val": 3, "test": 3}))
    write_tiny_checkpoint(tmp_path / "tiny")

    def values(device):
        settings = SegmenterTrainSettings(epochs=1, augment=True)
        places = {"features": tmp_path / "features", "data": tmp_path / "data", "output": tmp_path / device}
        of = {"backbone": "tiny", "random_weights": True, "size": 32, "width": 16, "settings": settings}
        opened = open_checkpoint(tmp_path / "tiny", device=device)
        asked = Experiment("audio", ("audio", "text"), opened, None, device=device, **places, **of)
        return [record["value"] for record in segment(asked, {})]

    ours = values("cpu")
    with gpu():
        assert values("cuda") == pytest.approx(ours, abs=0.1)


def test_networks_of_backbones_take_parts_in_turn(gpu):
    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(1))

        def forward(self, parts):
            return parts.to(self.one.dtype).mean(dim=2) * self.one

    parts = [np.random.default_rng(number).random((1, 3, 8)).astype(np.float32) for number in range(5)]
    with gpu():
        network = Network(Means(), Options(device="auto", batch_size=2), 1, 2, half=True)
        assert network.output == torch.float16 and next(network.module.parameters()).dtype == torch.float16
        begun = [network.begin(parts[start : start + 2]) for start in (0, 2, 4)]
        found = [each for pending in begun for each in pending()]
    for part, made in zip(parts, found, strict=True):
        assert made.dtype == np.float16
        np.testing.assert_allclose(made, part.mean(axis=2), atol=2e-3)


def test_recorded_steps_learn_what_computed_ones_do(gpu, monkeypatch):
    class NoRules(nullcontext):
        """The library makes its constants on the CPU here (`meta` tensors show where in test_captured.py)."""

        broken = ()

    monkeypatch.setattr(captured, "WARM_UP", 1)
    monkeypatch.setattr(captured, "Rules", NoRules)
    with gpu(), torch.backends.mkldnn.flags(enabled=False):
        options = {"model": {"dropout": 0.0, "layers": 1}, "align": ["fcmi"], "device": "cuda"}
        computed, played = build("float64", **options), build("float64", **options)
        tape, refused = capture(played)
        for number in range(3):
            features = {name: x.to("cuda", torch.float64) for name, x in batch(seed=number).items()}
            ours, theirs = (trainer.step(features, 0) for trainer in (computed, played))
            for name, value in ours.items():
                torch.testing.assert_close(theirs[name].cpu(), value.cpu(), rtol=1e-6, atol=1e-7)
        assert not refused and tape.operators
        for mine, other in zip(state_of(computed), state_of(played), strict=True):
            torch.testing.assert_close(other.cpu(), mine.cpu(), rtol=1e-5, atol=1e-6)
