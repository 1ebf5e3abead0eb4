"""FCID: with the published weights it gives the published outputs; it trains, and tasks read its codes."""

import json
import re
from functools import partial
from itertools import combinations

import pytest
import torch
from references import Reference
from torch.nn.functional import mse_loss
from worlds import write_features

import hdcid_cli as hdcid
from hdcid_cli.core.errors import InputError
from hdcid_cli.models.assembled import build_model
from hdcid_cli.models.fcid import FCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.published.fcid import fcid_state
from hdcid_cli.published.names import club_state, cpc_state
from hdcid_cli.training.losses.club import Club
from hdcid_cli.training.losses.cmcm import cmcm, code_distribution
from hdcid_cli.training.losses.commitment import commitment
from hdcid_cli.training.losses.cpc import CPC
from hdcid_cli.training.losses.infonce import info_nce
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

SHORT = {"video": "v", "audio": "a", "text": "t"}


def close(ours, reference, tolerance=1e-8):
    torch.testing.assert_close(ours.detach().to(reference.dtype), reference, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def reference(shared):
    torch.set_num_threads(1)
    return Reference(shared / "reference" / "fcid.npz")


@pytest.fixture
def published(reference):
    config = ModelSettings(
        kind="fcid",
        inputs={name: tuple(reference[f"in/{name}"].shape[2:]) for name in SHORT},
        dim=32,
        codebook=50,
        map_hidden=20,
        map_specific=40,
        specific={"audio": 12, "video": 24, "text": 32},
        standardize=False,
    )
    model = build_model(config).double().eval()
    model.load_state_dict(fcid_state(reference.module("encoder"), reference.module("decoder")))
    return model


def published_cmcm(distributions):
    """Cross-modal code matching to the last digit: the published code adds 1e-5 to a sum of exponentials."""
    loss = 0.0
    for p, q in combinations(distributions.values(), 2):
        similarity = p @ (q + 1e-10).log().T + q @ (p + 1e-10).log().T
        scaled = (similarity + (-similarity).max()).exp()
        loss = loss - 0.5 * (scaled.diagonal() / (scaled.sum(dim=1) + 1e-5)).log().mean()
    return loss


def published_bound(club, x, y, permutation):
    """The bound of the released code on clips: a mean over channels, and a sum over clips."""
    mu, logvar = (z[:, 0] for z in club(x))
    positive, negative = (-((mu - other[:, 0]) ** 2).mean(1) / logvar.mean(1).exp() for other in (y, y[permutation]))
    return (positive.sum() - negative.sum()) / 2


def outputs_of(model, reference):
    return model({name: reference[f"in/{name}"] for name in SHORT})


def test_both_levels_reproduce_every_published_output(published, reference):
    fine, coarse = outputs_of(published, reference)
    for name in ("video", "audio"):
        short = SHORT[name]
        close(fine.general[name], reference[f"out/{short}_gen"])
        close(fine.quantized[name], reference[f"out/{short}_fine_code"])
        close(fine.summary[name], reference[f"out/{short}_spec"])
    close(fine.specific["video"], reference["out/v_spec_map"])
    for name, short in SHORT.items():
        close(coarse.inputs[name][:, 0], reference[f"out/{short}_coarse"])
        close(coarse.general[name][:, 0], reference[f"out/{short}_coarse_gen"])
        close(coarse.specific[name][:, 0], reference[f"out/{short}_coarse_spec"])
        close(coarse.quantized[name], reference[f"out/{short}_vq"])


def test_reconstructions_and_losses_are_the_published_ones(published, reference):
    fine, coarse = outputs_of(published, reference)
    rebuilt, rebuilt_coarse = published.layers[0].decode(fine), published.layers[1].decode(coarse)
    close(rebuilt["video"], reference["out/recon_v"])
    close(rebuilt["audio"], reference["out/recon_a"])
    close(sum(mse_loss(x, fine.inputs[name]) for name, x in rebuilt.items()), reference["out/recon_loss_fine"])
    for name, short in SHORT.items():
        close(rebuilt_coarse[name][:, 0], reference[f"out/recon_{short}_coarse"])
    total = sum(mse_loss(x, coarse.inputs[name]) for name, x in rebuilt_coarse.items())
    close(total, reference["out/recon_loss_coarse"])
    close(sum(commitment(coarse.general, coarse.codes).values()), reference["out/commit"])
    quantizer = published.layers[1].quantizer
    distributions = {name: code_distribution(quantizer.distances(z, name)) for name, z in coarse.general.items()}
    close(cmcm(distributions), reference["out/cmcm"], 1e-4)
    close(published_cmcm(distributions), reference["out/cmcm"])
    assert reference["out/equal"] == sum(
        len({int(index[b]) for index in coarse.indices.values()}) == 1 for b in range(6)
    )
    cpc = CPC(("video", "audio"), dim=32, context=32).double()
    cpc.load_state_dict(cpc_state(reference.module("cpc")))
    loss, _ = cpc.score({name: fine.general[name] for name in ("video", "audio")}, reference["out/cpc_t"].tolist())
    close(loss, reference["out/cpc_loss"])


def test_the_total_and_its_gradients_are_the_published_ones(published, reference):
    fine, coarse = outputs_of(published, reference)
    for z in (*fine.general.values(), *coarse.inputs.values()):
        z.retain_grad()
    rebuilt = {}
    for layer, out in zip(published.layers, (fine, coarse), strict=True):
        rebuilt |= {(layer, name): mse_loss(x, out.inputs[name]) for name, x in layer.decode(out).items()}
    quantizer = published.layers[1].quantizer
    distributions = {name: code_distribution(quantizer.distances(z, name)) for name, z in coarse.general.items()}
    cpc = CPC(("video", "audio"), dim=32, context=32).double()
    cpc.load_state_dict(cpc_state(reference.module("cpc")))
    predicted, _ = cpc.score({name: fine.general[name] for name in ("video", "audio")}, reference["out/cpc_t"].tolist())
    clubs, terms = {}, published.layers[0].disentangled(fine) | published.layers[1].disentangled(coarse)
    for ours, name in (("video", "v"), ("audio", "a"), ("text", "t"), ("audio_video", "va")):
        x, y, _ = terms[ours]
        clubs[name] = Club(32, y.shape[-1], hidden=12).double()
        clubs[name].load_state_dict(club_state(reference.module(f"club_{name}")))
        bound = clubs[name].sampled_bound if len(x[0]) > 1 else partial(published_bound, clubs[name])
        rebuilt[name] = bound(x, y, reference[f"out/club_{name}_perm"])
    means = {name: z[:, 0] for name, z in coarse.general.items()}
    total = (
        sum(rebuilt.values())
        + sum(commitment(coarse.general, coarse.codes).values())
        + published_cmcm(distributions)
        + predicted
        + sum(info_nce(means[name], means["text"]) for name in ("video", "audio"))
    )
    close(total, reference["out/total"])
    total.backward()
    close(fine.general["video"].grad, reference["out/grad_v_gen"])
    close(fine.general["audio"].grad, reference["out/grad_a_gen"])
    close(coarse.inputs["text"].grad[:, 0], reference["out/grad_t_coarse"])


@pytest.mark.parametrize("name", ["v", "a"])
def test_club_of_the_fine_level_reads_features_before_quantization(published, reference, name):
    fine = outputs_of(published, reference)[0]
    full = {"v": "video", "a": "audio"}[name]
    x, y = fine.quantized[full], fine.summary[full]
    club = Club(32, y.shape[-1], hidden=12).double()
    club.load_state_dict(club_state(reference.module(f"club_{name}")))
    close(club.log_likelihood(x, y), reference[f"out/club_{name}_loglikelihood"])
    close(club.sampled_bound(x, y, reference[f"out/club_{name}_perm"]), reference[f"out/club_{name}_mi"])


@pytest.mark.parametrize("name,ours", [("t", "text"), ("va", "audio_video")])
def test_club_of_the_coarse_level_reads_clips_before_quantization(published, reference, name, ours):
    coarse = outputs_of(published, reference)[1]
    x, y, _ = published.layers[1].disentangled(coarse)[ours]
    club = Club(32, 32, hidden=12).double()
    club.load_state_dict(club_state(reference.module(f"club_{name}")))
    close(club.log_likelihood(x, y), reference[f"out/club_{name}_loglikelihood"])
    close(published_bound(club, x, y, reference[f"out/club_{name}_perm"]), reference[f"out/club_{name}_mi"])
    # Ours takes a clip as one step: a sum over channels, and a mean over clips.
    mu, logvar = club(x)
    other = y[reference[f"out/club_{name}_perm"]]
    each = (((mu - other) ** 2 - (mu - y) ** 2) / logvar.exp()).sum(-1) / 2
    close(club.sampled_bound(x, y, reference[f"out/club_{name}_perm"]), each.mean())


def test_the_codebook_moves_as_published_video_first(published, reference):
    coarse = outputs_of(published, reference)[1]
    quantizer = published.layers[1].quantizer
    quantizer.update(coarse.general, coarse.indices)
    quantizer.revive(coarse.indices, torch.Generator(), idle=300)
    for ours, name in (("codebook", "embedding"), ("weight", "ema_weight"), ("count", "ema_count")):
        close(getattr(quantizer, ours)[0], reference[f"out/after_update/{name}"])
    close(quantizer.unused[0], reference["out/after_update/unactivated_count"])


@pytest.mark.parametrize("name", list(SHORT))
def test_seconds_and_clips_have_the_published_codes(published, reference, name):
    x, short = reference[f"in/{name}"], SHORT[name]
    code, index = published.encode(name, x)
    assert torch.equal(index[:, :, 0, 0], reference[f"out/seconds_{short}_index"])
    if name != "text":
        close(code[:, :, 0], reference[f"out/seconds_{short}_code"])
    code, index = published.encode_clips(name, x)
    assert torch.equal(index[:, 0, 0, 0], reference[f"out/clip_{short}_index"])
    close(code[:, 0, 0], reference[f"out/clip_{short}_code"])


def test_it_trains_and_goes_on_where_it_stopped(tmp_path):
    write_features(tmp_path / "features", clips=24, modalities=("audio", "video", "text"))
    small = {"kind": "fcid", "dim": 16, "codebook": 12, "batch_size": 8, "schedule": "constant"}
    once = hdcid.pretrain(tmp_path / "features", tmp_path / "once", epochs=4, **small)
    hdcid.pretrain(tmp_path / "features", tmp_path / "twice", epochs=2, **small)
    twice = hdcid.pretrain(tmp_path / "features", tmp_path / "twice", epochs=4, **small)
    assert once.digest == twice.digest and once.method == "fcid"
    last = json.loads((tmp_path / "once" / "metrics.jsonl").read_text().splitlines()[-1])
    terms = {name for name in last if name.startswith("loss/")}
    levels = [{name.partition(f"loss/{level}/")[2] for name in terms if f"/{level}/" in name} for level in (1, 2)]
    assert levels == [
        {"cpc:av", "club", "reconstruction"},
        {"cmcm", "infonce:t", "club", "reconstruction", "commitment"},
    ]
    total = sum(last[name] for name in terms)  # both levels weigh the same
    assert last["loss"] == pytest.approx(total, rel=1e-5)
    with hdcid.open_features(tmp_path / "features", "text") as words:
        assert hdcid.encode(once, words).quantized.shape[2:] == (1, 16)


@pytest.mark.parametrize(
    "options,reason", [({"layers": 3}, "leave --layers out"), ({"quantizer": "rvq:2"}, "leave --quantizer out")]
)
def test_options_that_it_has_not_are_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        ModelSettings(kind="fcid", **options)


def test_it_needs_all_three_modalities():
    with pytest.raises(InputError, match="--modalities avt"):
        FCID(ModelSettings(kind="fcid", inputs={"audio": (12,), "video": (5, 5, 8)}))


def test_every_published_tensor_has_a_place_or_is_known_to_serve_nothing(reference):
    state = fcid_state(reference.module("encoder"), reference.module("decoder"))
    assert len(state) > 60
    with pytest.raises(KeyError, match="mystery"):
        fcid_state({"mystery.weight": torch.zeros(1)}, {})
    assert not [name for name in state if re.search("encoder_layer|affine_video", name)]


@pytest.mark.parametrize("padding", ["repeat", "mask"])
def test_texts_and_clips_may_be_of_other_lengths(double, padding):
    """CPC takes audio and video at their common length; everything else is of clips."""
    inputs = {"audio": (12,), "video": (5, 5, 8), "text": (10,)}
    sizes = {"dim": 16, "codebook": 7, "feedforward": 16, "heads": 2, "map_hidden": 4, "map_specific": 4}
    model = build_model(ModelSettings(kind="fcid", inputs=inputs, padding=padding, **sizes))
    objective = Objective(ObjectiveSettings(align=("cpc:av", "cmcm", "infonce:t")), model)
    trainer = Trainer(model, objective, TrainSettings(epochs=9, batch_size=6, warmup=0, precision="float64"), 1, "cpu")
    steps = {"audio": 6, "video": 3, "text": 8}
    features = {name: torch.rand(6, steps[name], *shape) for name, shape in inputs.items()}
    lengths = {name: torch.tensor([steps[name], 2, 1, 3, 3, 2]) for name in inputs}
    measured = trainer.step(features, 0, lengths if padding == "mask" else None)
    for name in ("loss/1/cpc:av", "loss/2/cmcm", "loss/2/infonce:t", "loss/2/club"):
        assert measured[name].isfinite()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
    quantized, indices = model.eval().encode("text", features["text"], lengths["text"])
    assert quantized.shape == (6, 8, 1, 16)
    if padding == "mask":
        assert (indices[1, 2:] == indices[1, 1]).all()
