"""`--padding mask`: segments after a clip's last valid one cannot change anything."""

import itertools

import numpy as np
import pytest
import torch
from worlds import SHAPES

from hdcid_cli.codes.encode import encode
from hdcid_cli.core.features import FeatureWriter, open_features
from hdcid_cli.models.assembled import build_model
from hdcid_cli.models.quantizers.vq import VectorQuantizer
from hdcid_cli.models.segments import masked_mean, time_mean
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.losses.club import Club
from hdcid_cli.training.losses.commitment import commitment
from hdcid_cli.training.losses.cpc import CPC
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.pretrain import Run, pretrain
from hdcid_cli.training.settings import ObjectiveSettings, PretrainSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

STEPS = 5


pytestmark = pytest.mark.usefixtures("double")


def valid(*lengths):
    return torch.arange(STEPS) < torch.tensor(lengths).unsqueeze(1)


def test_means_are_those_of_the_valid_segments():
    x, mask = torch.randn(3, STEPS, 2), valid(5, 2, 1)
    assert masked_mean(x, mask).item() == pytest.approx(np.concatenate([x[0], x[1, :2], x[2, :1]]).mean())
    np.testing.assert_allclose(time_mean(x, mask), [x[0].mean(0).numpy(), x[1, :2].mean(0).numpy(), x[2, 0].numpy()])


def test_masked_losses_of_equal_lengths_are_those_of_shorter_clips():
    """Where every clip ends after three segments, masking equals cutting them off."""
    mask = {name: valid(3, 3, 3, 3) for name in ("audio", "video")}
    z, q = ({name: torch.randn(4, STEPS, 6) for name in mask} for _ in range(2))
    short = {name: x[:, :3] for name, x in z.items()}
    for cross in (True, False):
        long, cut = (
            commitment(z, q, valid=mask, cross=cross),
            commitment(short, {m: x[:, :3] for m, x in q.items()}, cross=cross),
        )
        assert all(long[name].item() == pytest.approx(cut[name].item()) for name in mask)
    cpc = CPC(tuple(mask), dim=6, context=6)
    long, cut = cpc.score(z, [1, 2, 3], mask), cpc.score(short, [1])
    assert long[0].item() == pytest.approx(cut[0].item()) and long[1].item() == pytest.approx(cut[1].item())
    club, permutation = Club(6, 6, hidden=5), torch.tensor([2, 0, 3, 1])
    x, y = z["audio"], z["video"]
    for loss in (club.log_likelihood, club.exact_bound, lambda x, y, *m: club.sampled_bound(x, y, permutation, *m)):
        assert loss(x, y, mask["audio"]).item() == pytest.approx(loss(x[:, :3], y[:, :3]).item())


def test_cpc_asks_and_answers_with_clips_that_are_there():
    z = {name: torch.randn(4, STEPS, 6) for name in ("audio", "video")}
    mask = {"audio": valid(5, 5, 2, 5), "video": valid(5, 3, 5, 5)}
    cpc = CPC(tuple(z), dim=6, context=6, own_weight=0.0)
    loss, _ = cpc.score(z, [2], mask)
    expected = 0.0
    for m, n in itertools.permutations(z):
        there = [i for i in range(4) if mask[m][i, 2] and mask[n][i, 3]]
        predicted = cpc.predictors[m][0](cpc.context[m](z[m][:, :3])[0][:, -1])
        scores = (z[n][:, 3] @ predicted.T)[there][:, there]
        expected += -torch.log_softmax(scores, dim=1).diagonal().mean().item()
    assert loss.item() == pytest.approx(expected)


def test_mm_ema_counts_valid_segments_and_falls_back_on_what_is_there():
    vq, z = (
        VectorQuantizer(3, 2, epsilon=0.0),
        {"audio": torch.randn(2, STEPS, 2), "video": torch.randn(2, STEPS, 2)},
    )
    indices = {"audio": torch.zeros(2, STEPS, 1, dtype=torch.long)}
    indices["video"] = indices["audio"] + 1
    mask = {"audio": valid(4, 2), "video": valid(3, 5)}
    vq.update({"audio": z["audio"], "video": z["video"]}, indices, mask, decay=0.0)
    # Audio came first; decay 0 forgets it when video follows, so look at video's code.
    target = []
    for clip, step in mask["video"].nonzero().tolist():
        own = z["video"][clip, step]
        target.append(0.5 * own + 0.5 * (z["audio"][clip, step] if mask["audio"][clip, step] else own))
    assert vq.count[0].tolist() == [0, 8, 0]
    torch.testing.assert_close(vq.codebook[0, 1], torch.stack(target).mean(dim=0))


def test_codes_of_padding_alone_die():
    vq, generator = VectorQuantizer(4, 2), torch.Generator().manual_seed(0)
    vq.codebook.copy_(torch.tensor([[[0.0, 0], [1, 1], [50, 50], [90, 90]]]))
    indices = {"audio": torch.tensor([[[0], [1], [2], [2], [2]]])}
    for _ in range(5):
        vq.revive(indices, generator, idle=2, valid={"audio": valid(2)})
    assert vq.codebook[0, 2].max() < 2


def train(fill, align, quantizer="vq", steps=3, kind="hdcid"):
    """A few steps on clips whose padding holds `fill`; returns model and metrics."""
    torch.manual_seed(1)
    config = ModelSettings(
        inputs=SHAPES,
        dim=16,
        codebook=9,
        feedforward=16,
        text_hidden=4,
        dropout=0.0,
        padding="mask",
        quantizer=quantizer,
        prototypes="turn" in align,
        kind=kind,
    )
    model = build_model(config)
    objective = Objective(ObjectiveSettings(align=align), model)
    trainer = Trainer(
        model, objective, TrainSettings(epochs=9, batch_size=6, warmup=0, idle=1, precision="float64"), 1, "cpu"
    )
    lengths = {
        "audio": torch.tensor([5, 4, 3, 1, 2, 5]),
        "video": torch.tensor([5, 5, 2, 1, 3, 4]),
        "text": torch.tensor([3, 5, 1, 1, 2, 5]),
    }
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        features = {name: torch.rand(6, STEPS, *shape, generator=generator) for name, shape in SHAPES.items()}
        for name, x in features.items():
            x[torch.arange(STEPS) >= lengths[name].unsqueeze(1)] = fill
        metrics = trainer.step(features, 0, lengths)
    return model, features, lengths, metrics


@pytest.mark.parametrize(
    "align,quantizer,kind",
    [
        (("cpc", "cmcm"), "vq", "hdcid"),
        (("cpc", "cmcm"), "rvq:2", "hdcid"),
        (("smit", "codis", "turn"), "vq", "hdcid"),
        (("mst",), "fsq", "hdcid"),
        (("cpc", "cmcm", "cujp"), "aligned", "hdcid"),
        (("infonce", "fcmi", "cmcm"), "pq:4", "hdcid"),
        (("cpc:av", "cmcm", "infonce:t"), "vq", "fcid"),
    ],
)
def test_whatever_the_padding_holds_the_same_is_learned(align, quantizer, kind):
    one, features, lengths, metrics = train(0.0, align, quantizer, kind=kind)
    other, different, _, others = train(7.0, align, quantizer, kind=kind)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-9, atol=1e-9)
    assert others["loss"].item() == pytest.approx(metrics["loss"].item())
    one.eval()
    for name in SHAPES:
        quantized, indices = one.encode(name, features[name], lengths[name])
        again, same = one.encode(name, different[name], lengths[name])
        torch.testing.assert_close(again, quantized)
        assert torch.equal(same, indices)
        assert torch.equal(indices[3], indices[3, :1].expand_as(indices[3]))  # one valid segment: its code throughout


def test_published_padding_does_read_the_repeated_segments():
    model, features, lengths, _ = train(0.0, ("cpc",), steps=1)
    object.__setattr__(model.config, "padding", "repeat")
    one = model.eval().encode("audio", features["audio"], lengths["audio"])[0]
    torch.testing.assert_close(one, model.encode("audio", features["audio"])[0])


def write(folder, fill):
    rng = np.random.default_rng(0)
    for name in ("audio", "video"):
        attributes = {"modality": name, "backbone": "made", "weights": "none", "segment_seconds": 1.0}
        with FeatureWriter(
            folder / f"{name}.h5", [f"clip{i}" for i in range(8)], (STEPS, *SHAPES[name]), attributes, dtype="float32"
        ) as writer:
            for i in range(8):
                x, length = rng.random((STEPS, *SHAPES[name])), 1 + (i + (name == "video")) % STEPS
                x[length:] = fill
                writer.write(f"clip{i}", x, length)
            writer.finish()


@pytest.mark.parametrize("padding,equal", [("mask", True), ("repeat", False)])
def test_a_whole_run_from_files_to_codes_sees_no_padding(tmp_path, padding, equal):
    from hdcid_cli.codes.checkpoint import open_checkpoint

    torch.set_default_dtype(torch.float32)
    found = []
    for fill in (0.0, 3.0):
        folder = tmp_path / f"{fill}"
        write(folder, fill)
        run = Run(
            ("audio", "video"),
            folder,
            folder / "model",
            PretrainSettings.of(
                dim=16, codebook=9, feedforward=16, padding=padding, epochs=2, batch_size=4, warmup=1, device="cpu"
            ),
        )
        opened = open_checkpoint(pretrain(run), device="cpu")
        with open_features(folder, "video") as file:
            found.append((opened.model.state_dict(), encode(opened, file)))
    (one, codes), (other, again) = found
    same = all(torch.allclose(value, other[name], atol=1e-6) for name, value in one.items())
    assert same is equal
    if equal:
        np.testing.assert_array_equal(codes.indices, again.indices)
