"""Segmentation from files to records, on squares of which the query names the colour."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from described import undocumented
from segment_world import TINY, write_features, write_squares, write_tiny_checkpoint

from hdcid_cli import main
from hdcid_cli.codes.checkpoint import Checkpoint, open_checkpoint
from hdcid_cli.codes.state import load_state
from hdcid_cli.codes.toc import select
from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.media.picture import read_picture, write_picture
from hdcid_cli.synth.classes import KINDS
from hdcid_cli.synth.world import SynthWorld
from hdcid_cli.tasks.segmentation import training
from hdcid_cli.tasks.segmentation.avsbench import Clip, Reader, read_masks, read_meta
from hdcid_cli.tasks.segmentation.directory import load_segmenter
from hdcid_cli.tasks.segmentation.experiment import Experiment, run
from hdcid_cli.tasks.segmentation.overlay import Overlays
from hdcid_cli.tasks.segmentation.predict import predict
from hdcid_cli.tasks.segmentation.segmenter import Segmenter, SegmenterSettings
from hdcid_cli.tasks.segmentation.settings import SegmenterTrainSettings


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    """A working directory with data, features and a checkpoint."""
    folder = tmp_path_factory.mktemp("squares")
    made = write_squares(folder / "data", {"train": 24, "val": 6, "test": 9})
    write_features(folder / "features", made)
    write_tiny_checkpoint(folder / "checkpoints" / "tiny")
    return folder


@pytest.fixture
def tiny_backbone(monkeypatch):
    """`--backbone tiny --random-weights` is a ResNet small enough for a test."""
    monkeypatch.setitem(sys.modules["hdcid_cli.tasks.segmentation.backbones"].PUBLISHED, "tiny", ("nowhere", TINY))


def experiment(folder: Path, output: str = "segment", **options) -> Experiment:
    settings = {"epochs": 1, "lr": 3e-3, **options.pop("settings", {})}
    values = {
        "train": "audio",
        "test": ("audio", "text"),
        "checkpoint": open_checkpoint(None, folder / "checkpoints", "cpu"),
        "selection": None,
        "features": folder / "features",
        "data": folder / "data",
        "output": folder / output,
        "backbone": "tiny",
        "random_weights": True,
        "size": 32,
        "width": 16,
        "device": "cpu",
        **options,
    }
    return Experiment(settings=SegmenterTrainSettings(**settings), **values)


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, symlinks=True)
    return to


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_state(folder)["model"]


@pytest.mark.slow
def test_query_decides_what_is_found(squares, tiny_backbone):
    """A model asked with sounds finds the right squares, with prompts too, and one that hears nothing does not."""
    values = {}
    for blind in (False, True):
        for record in run(experiment(squares, f"learned-{blind}", blind=blind, settings={"epochs": 14}), {}):
            values[blind, record["direction"], record["metric"]] = record["value"]
            chance = record["chance"]
            assert record["value"] > chance
            assert record["interval"][0] <= record["value"] <= record["interval"][1]
            assert record["method"] == ("blind" if blind else "cpc")
    for direction in ("a->a", "a->t"):
        assert values[False, direction, "miou"] > values[True, direction, "miou"] + 10


def test_records_name_what_was_done(squares, tiny_backbone):
    checkpoint = open_checkpoint(None, squares / "checkpoints", "cpu")
    left_out = {}
    records = list(
        run(experiment(squares, "records", train="text", selection=select(checkpoint.codebooks, 4)), left_out)
    )
    assert [(record["direction"], record["metric"]) for record in records] == [
        (direction, metric) for direction in ("t->a", "t->t") for metric in ("miou", "fscore", "fscore_shared")
    ]
    for record in records:
        assert (
            record["task"] == "segment"
            and record["n"] == 9
            and (record["data"], record["n_pretrained"]) == ("own", 0)
            and record["toc"] == "4"
            and record["protocol"] == "heldout"
        )
        assert record["checkpoint"] == checkpoint.digest
        assert record["segmenter"] == "backbone tiny, random weights, size 32, width 16, epochs 1, lr 0.003"
    assert not left_out


def test_chance_is_the_better_of_everything_and_nothing(squares, tiny_backbone):
    miou = next(
        run(
            experiment(
                squares,
                "records",
                train="text",
                selection=select(open_checkpoint(None, squares / "checkpoints", "cpu").codebooks, 4),
            ),
            {},
        )
    )
    shares = [
        mask.mean() for clip in read_meta(squares / "data") if clip.split == "test" for mask in read_masks(clip, 32)
    ]
    assert miou["chance"] == pytest.approx(100 * np.mean(shares), rel=1e-5)


@pytest.mark.parametrize("stops", [(2,), (6, 9)], ids=["within the first epoch", "after it and again"])
def test_interrupted_training_ends_with_the_same_weights(squares, tiny_backbone, monkeypatch, stops):
    settings = {"epochs": 2, "augment": True, "schedule": "cosine"}
    list(run(experiment(squares, "undisturbed", settings=settings), {}))
    original, steps = training.SegmenterTrainer.train_step, []
    interruption = training.Interruption

    def counted(trainer, batch, modality):
        steps.append(trainer.step)
        return original(trainer, batch, modality)

    class Stopping(interruption):
        asked = property(lambda self: len(steps) in stops, lambda self, value: None)

    monkeypatch.setattr(training.SegmenterTrainer, "train_step", counted)
    monkeypatch.setattr(training, "Interruption", Stopping)
    output = f"disturbed-{len(stops)}"
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            list(run(experiment(squares, output, settings=settings), {}))
        steps.append(None)  # the stop is over
    monkeypatch.setattr(training, "Interruption", interruption)
    list(run(experiment(squares, output, settings=settings), {}))
    done = [step for step in steps if step is not None]
    assert done == list(range(12)), "no step is done twice or left out"
    one, other = weights(squares / "undisturbed"), weights(squares / output)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (squares / "undisturbed" / "metrics.jsonl").read_text() == (squares / output / "metrics.jsonl").read_text()


def test_trained_segmenter_is_not_trained_again(squares, tiny_backbone, monkeypatch):
    list(run(experiment(squares, "once", test=("audio",)), {}))
    monkeypatch.setattr(training.SegmenterTrainer, "train_step", lambda *_: pytest.fail("trained again"))
    assert [record["test"] for record in run(experiment(squares, "once", test=("text",)), {})] == ["t", "t", "t"]


def test_loss_that_is_not_finite_ends_the_run(squares, tiny_backbone):
    with pytest.raises(HdcidError, match="smaller --lr"):
        list(run(experiment(squares, "wild", settings={"lr": 1e9}), {}))
    assert not (squares / "wild" / "state.pt").exists()


def test_other_settings_are_refused(squares, tiny_backbone):
    list(run(experiment(squares, "settled"), {}))
    with pytest.raises(InputError, match=r"lr was 0\.003, now 0\.01"):
        list(run(experiment(squares, "settled", settings={"lr": 0.01}), {}))
    with pytest.raises(InputError, match="not a segmenter's directory"):
        list(run(experiment(squares, "features"), {}))


def test_longer_training_goes_on_only_if_its_steps_would_be_the_same(squares, tiny_backbone):
    for epochs in (1, 2):
        list(run(experiment(squares, "longer", settings={"epochs": epochs}), {}))
    assert len((squares / "longer" / "metrics.jsonl").read_text().splitlines()) == 2
    list(run(experiment(squares, "falling", settings={"schedule": "cosine"}), {}))
    with pytest.raises(InputError, match="epochs was 1, now 2"):
        list(run(experiment(squares, "falling", settings={"epochs": 2, "schedule": "cosine"}), {}))


def test_scheduled_rate_rises_and_falls_to_nothing():
    rates = [training.rate(step, 1000, "cosine") for step in range(1000)]
    top = int(np.argmax(rates))
    assert rates[0] < 0.05 and rates[-1] < 1e-5 and max(rates) > 0.99 and top < 50
    assert np.all(np.diff(rates[:top]) > 0) and np.all(np.diff(rates[top:]) < 0)
    assert {training.rate(step, 1000, "constant") for step in range(1000)} == {1.0}


def test_steps_take_the_scheduled_rate(squares, tiny_backbone, monkeypatch):
    seen, original = [], training.SegmenterTrainer.train_step

    def noted(trainer, batch, modality):
        original(trainer, batch, modality)
        seen.append(trainer.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(training.SegmenterTrainer, "train_step", noted)
    list(run(experiment(squares, "scheduled", settings={"epochs": 2, "schedule": "cosine"}), {}))
    assert seen == [pytest.approx(3e-3 * training.rate(step, 12, "cosine")) for step in range(12)]


def test_prompts_of_the_synthetic_world_use_words_that_captions_teach():
    """The hash text backbone knows no word forms: of a prompt it can tell only what captions say."""
    world = SynthWorld(seed=0, clips=400, classes=10)
    known = {word for clip in world.videos for word in clip.caption.split()}
    for kind in KINDS[: world.classes]:
        assert set(kind.prompt.lower().split()) - known == {"that"}
        assert all(clip.caption != kind.prompt.lower() for clip in world.videos)


def test_heldout_epoch_is_chosen_without_the_test_modality(squares, tiny_backbone):
    """Under the held-out protocol training never reads the other modality's queries; the published one
    judges by them.
    """
    list(run(experiment(squares, "heldout", test=("text",)), {}))
    list(run(experiment(squares, "published", test=("text",), protocol="published"), {}))
    judged = {name: sorted(path.name for path in (squares / name).glob("best-*")) for name in ("heldout", "published")}
    assert judged == {"heldout": ["best-audio.safetensors"], "published": ["best-text.safetensors"]}


def test_test_masks_change_nothing_but_the_score(squares, tiny_backbone, tmp_path):
    folder = copy(squares, tmp_path / "w")
    first = [record["value"] for record in run(experiment(folder, "honest"), {})]
    before = weights(folder / "honest")
    for path in (folder / "data").glob("avs_s4/s4_data/gt_masks/test/*/*/*.png"):
        write_picture(path, 255 - read_picture(path, "gray"))
    second = [record["value"] for record in run(experiment(folder, "honest", overwrite=True), {})]
    after = weights(folder / "honest")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert first != second


def test_frozen_backbone_stays_as_it_is(squares):
    torch.manual_seed(0)
    model = Segmenter(SegmenterSettings(TINY, query=4, width=16, size=32))
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    clips = [clip for clip in read_meta(squares / "data") if clip.split == "train"][:2]
    batch = Reader(clips, {"audio": np.ones((2, 5, 4), np.float32)}, 32).read([0, 1])
    trainer = training.SegmenterTrainer(model, SegmenterTrainSettings(freeze_backbone=True), "cpu")
    decoder = model.decoder.head.conv1.weight.clone()
    trainer.train_step(training.to_device(batch, "cpu"), "audio")
    assert all(torch.equal(before[name], value) for name, value in model.backbone.state_dict().items())
    assert not torch.equal(decoder, model.decoder.head.conv1.weight)


def test_pictures_of_any_kind_are_read_alike(squares, tmp_path):
    """A mask of 0 and 1, a coloured one, and one of another size mark the same pixels."""
    clip = next(clip for clip in read_meta(copy(squares, tmp_path / "w") / "data") if clip.split == "train")
    expected = read_masks(clip, 32)
    mask = expected[0].astype(np.uint8)
    large = mask.repeat(2, 0).repeat(2, 1) * 255
    for picture in (mask, np.stack([mask * 255] * 3, 2), large):
        write_picture(clip.masks[0], picture)
        np.testing.assert_array_equal(read_masks(clip, 32), expected)


def test_bad_clips_are_left_out_and_named(squares, tiny_backbone, tmp_path):
    folder = copy(squares, tmp_path / "w")
    data = folder / "data" / "avs_s4"
    clips = {clip.name: clip for clip in read_meta(folder / "data")}
    clips["test000"].masks[2].unlink()
    clips["test001"].frames[1].write_text("no picture")
    clips["train000"].masks[0].write_bytes(clips["train001"].masks[0].read_bytes()[:40])
    prompts = data / "AVSBenchCategories2Prompts.csv"
    meta = data / "s4_meta_data.csv"
    meta.write_text(meta.read_text().replace("test003,0,red", "test003,0,violet"))
    for kind in ("visual_frames", "gt_masks"):
        place = data / "s4_data" / kind / "test"
        (place / "violet").mkdir()
        (place / "red" / "test003").rename(place / "violet" / "test003")
    left_out = {}
    records = list(run(experiment(folder, "segment"), left_out))
    assert records[0]["n"] == 6
    assert set(left_out) == {"test000", "test001", "train000", "test003"}
    assert "test000_3.png" in left_out["test000"]
    assert "not a picture" in left_out["test001"] and "not a picture" in left_out["train000"]
    assert left_out["test003"] == "its category 'violet' has no prompt"
    assert prompts.exists()


def test_nothing_to_learn_from_is_an_error(squares, tiny_backbone, tmp_path):
    folder = copy(squares, tmp_path / "w")
    shutil.rmtree(folder / "data" / "avs_s4" / "s4_data" / "gt_masks")
    with pytest.raises(
        InputError,
        match=r"Of 24 clips of the train split none can be used; the first, train000: there is no .*_1\.png",
    ):
        list(run(experiment(folder), {}))


def test_overlays_stay_in_their_folder_whatever_a_clip_is_called(tmp_path):
    overlays, frames = Overlays(tmp_path / "pictures", {}), np.zeros((5, 8, 8, 3), np.uint8)
    mask = np.ones((5, 8, 8), bool)
    overlays(Clip("a/$\\frac{", "../../x\n", "test", (), ()), frames, mask, {"text": mask.astype(np.float32)})
    assert [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.png")] == ["pictures"]


def test_overlay_shows_frames_truth_and_findings(squares, tiny_backbone, tmp_path):
    list(run(experiment(squares, "overlaid", overlay=tmp_path / "pictures"), {}))
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert len(pictures) == 9 and pictures[0].name == "blue-test002-audio+text.png"
    picture = read_picture(pictures[0])
    assert picture.shape[0] > 600 and picture.shape[1] > 700
    assert picture.std() > 20


def test_a_blind_segmenter_is_not_asked(squares, tiny_backbone, tmp_path):
    list(run(experiment(squares, "checkpoints/blind", test=("audio",), blind=True), {}))
    asked = squares / "checkpoints" / "blind"
    with pytest.raises(InputError, match="was trained blind"):
        next(predict(tmp_path / "x.mp4", "red", asked, tmp_path, None, squares / "checkpoints", device="cpu"))


def test_tested_clips_that_the_model_was_pretrained_on_are_said(squares, tiny_backbone, monkeypatch):
    monkeypatch.setattr(Checkpoint, "clips", {"test000", "train001"})
    for protocol, said in (("heldout", "heldout, seen in pretraining"), ("published", "published")):
        found = list(run(experiment(squares, f"seen-{protocol}", test=("audio",), protocol=protocol), {}))
        assert {(record["protocol"], record["n_pretrained"]) for record in found} == {(said, 1)}


def test_predict_marks_a_users_video(squares, tiny_backbone, tmp_path, monkeypatch):
    """Seven seconds of video: words give seven pictures and masks; the model is found by its digest."""
    list(run(experiment(squares, "checkpoints/asked", test=("audio",)), {}))
    video = tmp_path / "mine.mp4"
    write_video(video, seconds=7)
    monkeypatch.setattr("hdcid_cli.tasks.segmentation.predict.load_again", lambda *_: Words())
    rows = list(
        predict(
            video,
            "a red square",
            squares / "checkpoints" / "asked",
            tmp_path / "out",
            None,
            squares / "checkpoints",
            device="cpu",
        )
    )
    assert [row["second"] for row in rows] == list(range(1, 8)) and not undocumented(json.dumps(rows[0]))
    for row in rows:
        mask = read_picture(row["mask"], "gray")
        assert mask.shape == (32, 32) and set(np.unique(mask)) <= {0, 255}
        assert row["share"] == pytest.approx(100 * (mask > 0).mean(), abs=0.01)
        assert read_picture(row["overlay"]).shape == (32, 32, 3)
    with pytest.raises(InputError, match=r"no sound file nowhere\.wav"):
        list(
            predict(
                video,
                "nowhere.wav",
                squares / "checkpoints" / "asked",
                tmp_path / "out",
                None,
                squares / "checkpoints",
                device="cpu",
            )
        )


class Words:
    """A text backbone as wide as the test's model."""

    network, weights = None, "none"

    def prepare(self, clip):
        assert clip.source == "a red square"
        yield np.ones((3, 12), np.float32)


def write_video(path: Path, seconds: int) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        random = np.random.default_rng(0)
        for _ in range(4 * seconds):
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(random.integers(0, 255, (64, 64, 3), np.uint8), format="rgb24")
                )
            )
        container.mux(stream.encode())


def test_command_line_trains_tests_and_reports_what_it_left_out(squares, hdcid, tmp_path):
    folder = copy(squares, tmp_path / "w")
    next(clip for clip in read_meta(folder / "data") if clip.name == "test000").masks[0].unlink()
    small = (
        "--backbone",
        "resnet18",
        "--random-weights",
        "--size",
        32,
        "--width",
        8,
        "--epochs",
        1,
        "--batch-size",
        12,
    )
    done = hdcid("segment", "--train", "a", "--test", "t", *small, cwd=folder)
    assert done.returncode == 3, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["metric"] for record in records] == ["miou", "fscore", "fscore_shared"]
    assert records[0]["direction"] == "a->t" and records[0]["n"] == 8
    assert "skipped test000" in done.stderr
    assert (folder / "checkpoints" / "segment-a" / "best-audio.safetensors").exists()


def test_command_line_needs_queries_that_exist(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, sentence in (
        ((), "say which queries"),
        (("--train", "v", "--test", "a"), "Video is what is searched"),
        (("--train", "a", "--test", "t"), "There is no checkpoint in checkpoints/"),
        (("predict", "x.mp4", "--query", "a dog"), "There is no trained segmenter"),
        (("--device", "cpu", "predict", "x.mp4", "--query", "a dog"), "options after `predict`: --device is before"),
    ):
        assert main.run(["segment", *arguments], {"debug": False}) == 2
        assert sentence in capsys.readouterr().err


def test_damaged_segmenter_is_named(squares, tiny_backbone, tmp_path):
    list(run(experiment(squares, "sound"), {}))
    broken = copy(squares / "sound", tmp_path / "broken")
    (broken / "best-audio.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"best-audio\.safetensors is not a sound file of weights"):
        load_segmenter(broken, "audio", "cpu")
