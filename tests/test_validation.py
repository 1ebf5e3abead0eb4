"""What `pretrain` says of validation clips equals what `retrieve` and counting say, and it changes nothing."""

import json

import numpy as np
import pytest
import torch
from worlds import write_features

import hdcid_cli
from hdcid_cli.core.features import open_features
from hdcid_cli.core.splits import validation_clips
from hdcid_cli.models.assembled import build_model
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.tasks.ranks import Owned, Vectors, count_ranks, retrieval_scores
from hdcid_cli.training.telling import summary
from hdcid_cli.training.validation import Validation, found_first


@pytest.fixture
def files(tmp_path):
    write_features(tmp_path / "features", clips=80)
    return {name: open_features(tmp_path / "features", name) for name in ("audio", "video")}


@pytest.fixture
def model(files):
    torch.manual_seed(1)
    inputs = {name: file.shape[1:] for name, file in files.items()}
    return HDCID(ModelSettings(inputs=inputs, layers=2, dim=16, codebook=12, heads=2)).train()


def test_retrieval_and_agreement_are_those_of_the_codes(files, model):
    found = Validation(files, files["audio"].ids, every=10).measure(model, 2)
    model.eval()
    codes = {name: model.encode(name, torch.from_numpy(file.read(range(80)))) for name, file in files.items()}
    means = {name: quantized.flatten(2).mean(1).numpy() for name, (quantized, _) in codes.items()}
    unit = {name: mean / np.linalg.norm(mean, axis=1, keepdims=True) for name, mean in means.items()}
    both = []
    for one, other in (("audio", "video"), ("video", "audio")):
        (counts,) = count_ranks([Vectors(unit[one], unit[other])], [(1.0,)], Owned.one_each(np.arange(80), 80))
        both += [score.value for score, _ in retrieval_scores(counts) if score.name == "r@1"]
    assert found["validation/r@1/audio-video"] == pytest.approx(np.mean(both), abs=1e-3)
    for layer in range(2):
        same = codes["audio"][1][:, :, layer, 0] == codes["video"][1][:, :, layer, 0]
        assert found[f"validation/agreement/{layer + 1}/audio-video"] == pytest.approx(same.float().mean().item())
    assert found.keys() == {
        "validation/r@1/audio-video",
        "validation/agreement/1/audio-video",
        "validation/agreement/2/audio-video",
    }


def test_layers_that_have_not_joined_do_not_count(files, model):
    found = Validation(files, files["audio"].ids, every=10).measure(model, 1)
    assert "validation/agreement/1/audio-video" in found and "validation/agreement/2/audio-video" not in found


def test_levels_without_codes_are_passed_over(tmp_path):
    write_features(tmp_path / "three", clips=20, modalities=("audio", "video", "text"))
    files = {name: open_features(tmp_path / "three", name) for name in ("audio", "video", "text")}
    inputs = {name: file.shape[1:] for name, file in files.items()}
    fcid = build_model(ModelSettings(kind="fcid", inputs=inputs, dim=16, codebook=12, heads=2))
    look = Validation(files, files["audio"].ids, every=10)
    assert look.measure(fcid, 1) == {}  # the fine level alone
    assert summary({"loss": 1.0, "used/2/audio": 3, "agreement/2/a-v": 0.5}) == "loss 1.00, 3 codes, 50 % agree"
    found = look.measure(fcid, 2)
    pairs = {"audio-video", "audio-text", "video-text"}
    assert found.keys() == {f"validation/{name}/{pair}" for name in ("r@1", "agreement/2") for pair in pairs}
    codes = {name: fcid.eval().encode(name, torch.from_numpy(files[name].read(range(20))))[1] for name in inputs}
    same = (codes["audio"] == codes["text"]).float().mean().item()
    assert found["validation/agreement/2/audio-text"] == pytest.approx(same)


def test_blocks_of_codes_agree_on_average(files):
    inputs = {name: file.shape[1:] for name, file in files.items()}
    model = HDCID(ModelSettings(inputs=inputs, layers=1, dim=16, codebook=12, heads=2, quantizer="pq:4"))
    found = Validation(files, files["audio"].ids, every=10).measure(model, 1)
    codes = [model.eval().encode(name, torch.from_numpy(file.read(range(80))))[1] for name, file in files.items()]
    assert found["validation/agreement/1/audio-video"] == pytest.approx((codes[0] == codes[1]).float().mean().item())


def test_looking_changes_neither_model_nor_chance(files, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    Validation(files, files["audio"].ids, every=10).measure(model, 2)
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_perfect_partner_is_always_found_and_equal_ones_by_chance():
    assert found_first(torch.eye(5)) == 1
    assert found_first(torch.ones(5, 5)) == pytest.approx(0.2)
    assert found_first(torch.eye(4).flip(0)) == 0
    own = torch.tensor([[1.0, 1, 0], [0, 1, 2], [0, 0, 1]])
    assert found_first(own) == pytest.approx((0.5 + 0 + 1) / 3)


def test_it_is_due_every_so_many_steps_and_at_the_end(files):
    ids = files["audio"].ids
    validation = Validation(files, ["unknown", *ids], every=30)
    other = Validation(files, ids, every=30, measures=False)  # another process knows when, too
    assert [step for step in range(1, 101) if other.due(step, 100)] == [30, 60, 90, 100]
    assert [step for step in range(1, 101) if validation.due(step, 100)] == [30, 60, 90, 100]
    assert validation.clips == ids
    assert not any(Validation(files, ids, every=0).due(step, 100) for step in range(1, 101))
    assert not any(Validation(files, ids[:3], every=1).due(step, 100) for step in range(1, 101))


def test_a_run_looks_when_asked_and_says_where_it_cannot(files, tmp_path, capsys):
    names = files["audio"].ids
    small = {"layers": 1, "dim": 16, "codebook": 12, "batch_size": 20, "epochs": 3}
    for watched, expected in ((names[60:], [2, 4, 6, 8, 9]), (names[77:], [])):
        path = hdcid_cli.pretrain(
            tmp_path / "features",
            tmp_path / str(len(watched)),
            clips=names[:60],
            validation=watched,
            validate_every=2,
            **small,
        ).path
        records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        assert [record["step"] for record in records if "validation/r@1/audio-video" in record] == expected
        told = "--validate-every makes no difference: there are fewer than 4 validation clips"
        assert (told in capsys.readouterr().err) == (not expected)


def test_validation_clips_are_those_that_the_tables_choose_by(tmp_path):
    names = [f"c{number}" for number in range(6)]
    (tmp_path / "classify.csv").write_text("id,split,label,who\nc0,train,x,a\nc1,val,x,a\nc2,val,y,b\nc3,test,y,b\n")
    (tmp_path / "more.csv").write_text("id,split\nc1,test\nc4,val\n")
    assert validation_clips(None, tmp_path, names) == ["c2", "c4"]
    assert validation_clips(tmp_path / "classify.csv", tmp_path, names) == ["c1", "c2"]
    assert validation_clips(None, tmp_path, names, "who=b") == ["c4"]
    assert validation_clips("none", tmp_path, names) == []
    assert validation_clips(None, tmp_path / "nowhere", names) == []
