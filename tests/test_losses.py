"""Losses and quantizers against formulas written out in plain numpy."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hdcid_cli.core.errors import InputError
from hdcid_cli.models.quantizers import make_quantizer
from hdcid_cli.models.quantizers.fsq import FiniteScalarQuantizer
from hdcid_cli.models.quantizers.levels import default_levels, former_levels
from hdcid_cli.models.quantizers.vq import VectorQuantizer, nearest
from hdcid_cli.models.segments import at_length
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.losses.club import Club
from hdcid_cli.training.losses.cmcm import cmcm, code_distribution
from hdcid_cli.training.losses.commitment import commitment
from hdcid_cli.training.losses.cpc import CPC

NAMES = ("audio", "video", "text")


pytestmark = pytest.mark.usefixtures("double")


def randoms(*shape, names=NAMES):
    return {name: torch.randn(*shape) for name in names}


def quantizer(name, codes):
    return make_quantizer(ModelSettings(inputs={"audio": (3,)}, quantizer=name, codebook=codes, dim=4))


def log_softmax(x, axis):
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def test_commitment_is_the_formula():
    z, q = randoms(4, 5, 3), randoms(4, 5, 3)
    losses = commitment(z, q, beta=0.25)
    for name in NAMES:
        expected = 2 * 0.25 * ((z[name] - q[name]) ** 2).mean()
        expected += sum(0.25 / 2 * ((z[name] - q[other]) ** 2).mean() for other in NAMES if other != name)
        assert losses[name].item() == pytest.approx(expected.item(), rel=1e-12)


def test_commitment_of_one_modality_has_no_cross_terms():
    z, q = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert commitment({"audio": z}, {"audio": q})["audio"].item() == pytest.approx(0.5 * ((z - q) ** 2).mean().item())


def test_cmcm_is_the_formula():
    distances = {name: torch.rand(5, 4, 7) * 3 for name in NAMES}
    ours = cmcm({name: code_distribution(d) for name, d in distances.items()}).item()
    p = {name: np.exp(log_softmax(-d.numpy(), -1)).mean(axis=1) for name, d in distances.items()}
    expected = 0.0
    for m, n in combinations(NAMES, 2):
        similarity = np.array(
            [[p[m][i] @ np.log(p[n][j]) + p[n][i] @ np.log(p[m][j]) for j in range(5)] for i in range(5)]
        )
        expected += 0.5 * -np.diag(log_softmax(similarity, 1)).mean()
    assert ours == pytest.approx(expected, rel=1e-9)


def test_exact_club_bound_is_the_mean_over_all_pairs():
    club, x, y = Club(3, 2, hidden=5), torch.randn(4, 3, 3), torch.randn(4, 3, 2)
    mu, logvar = (value.detach().numpy() for value in club(x))

    def log_q(i, j):
        return (0.5 * (-((mu[i] - y[j].numpy()) ** 2) / np.exp(logvar[i]) - logvar[i])).sum(-1).mean()

    expected = np.mean([log_q(i, i) - np.mean([log_q(i, j) for j in range(4)]) for i in range(4)])
    assert club.exact_bound(x, y).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("steps", [[3], [1, 2, 3]])
def test_cpc_is_the_formula(steps):
    z = randoms(4, 5, 6, names=("audio", "video"))
    cpc = CPC(("audio", "video"), dim=6, context=6, context_layers=1)
    loss, accuracy = cpc.score(z, steps)
    expected, right = 0.0, []
    for m in z:
        for n in z:
            values = []
            for t in steps:
                context = cpc.context[m](z[m][:, : t + 1])[0][:, -1]
                predicted = cpc.predictors[m][0](context).detach().numpy()
                scores = np.array([[z[n][i, t + 1].numpy() @ predicted[j] for j in range(4)] for i in range(4)])
                values.append(-np.diag(log_softmax(scores, 1)).mean())
                if m != n:
                    right.append((scores.argmax(1) == np.arange(4)).mean())
            expected += (0.1 if m == n else 1.0) * np.mean(values)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert accuracy.item() == pytest.approx(np.mean(right))


def test_cpc_of_clips_without_a_time_axis_is_infonce_between_modalities():
    z = randoms(6, 1, 4, names=("audio", "video"))
    cpc = CPC(("audio", "video"), dim=4, context=4)
    loss, _ = cpc.score(z, list(cpc.steps(1)))
    assert torch.isfinite(loss)
    predicted = cpc.predictors["audio"][0](cpc.context["audio"](z["audio"])[0][:, 0])
    scores = (z["video"][:, 0] @ predicted.T).detach().numpy()
    assert -np.diag(log_softmax(scores, 1)).mean() < loss.item()


@given(st.integers(1, 30), st.integers(1, 4))
@settings(max_examples=40)
def test_cpc_steps_leave_room_for_the_future(time, horizon):
    cpc = CPC(("audio",), dim=2, context=2, horizon=horizon)
    steps = list(cpc.steps(time))
    assert steps and min(steps) >= 0 and max(steps) < time
    if time > horizon:
        assert max(steps) + horizon < time


def test_resampling_takes_the_segment_at_the_same_relative_time():
    x = torch.arange(10.0).reshape(1, 10, 1)
    assert at_length(x, 10) is x
    assert at_length(x, 5).flatten().tolist() == [1, 3, 5, 7, 9]
    assert at_length(x[:, :2], 4).flatten().tolist() == [0, 0, 1, 1]


def test_each_stage_quantizes_what_the_stages_before_left():
    rvq = VectorQuantizer(7, 3, stages=3)
    rvq.codebook.normal_()
    z = torch.randn(2, 4, 3)
    code, indices = rvq(z)
    residual, total = z.numpy(), np.zeros(z.shape)
    for stage in range(3):
        book = rvq.codebook[stage].numpy()
        index = ((residual[..., None, :] - book) ** 2).sum(-1).argmin(-1)
        np.testing.assert_array_equal(indices[..., stage], index)
        residual, total = residual - book[index], total + book[index]
    torch.testing.assert_close(code, torch.from_numpy(total))
    torch.testing.assert_close(rvq.decode(indices), code)


def test_rvq_of_one_stage_is_vq():
    vq, rvq = quantizer("vq", 9), quantizer("rvq:1", 9)
    rvq.load_state_dict(vq.state_dict())
    z = randoms(3, 5, 4)
    for m in z:
        torch.testing.assert_close(vq(z[m]), rvq(z[m]))


def test_mm_ema_moves_codes_as_the_formula_says():
    vq, z = VectorQuantizer(6, 3), randoms(4, 5, 3)
    vq.codebook.normal_()
    vq.weight.copy_(vq.codebook)
    vq.count.fill_(1.0)
    book, weight, count = vq.codebook[0].numpy().copy(), vq.weight[0].numpy().copy(), vq.count[0].numpy().copy()
    indices = {m: vq(x)[1] for m, x in z.items()}
    vq.update(z, indices)
    for m in NAMES:
        onehot = np.eye(6)[indices[m][..., 0].flatten()]
        target = 0.5 * z[m].reshape(-1, 3).numpy() + sum(0.25 * z[n].reshape(-1, 3).numpy() for n in NAMES if n != m)
        count = 0.99 * count + 0.01 * onehot.sum(0)
        count = (count + 1e-5) / (count.sum() + 6 * 1e-5) * count.sum()
        weight = 0.99 * weight + 0.01 * onehot.T @ target
        book = weight / count[:, None]
    np.testing.assert_allclose(vq.codebook[0], book, rtol=1e-10)


def test_mm_ema_accepts_modalities_of_different_lengths():
    vq, z = VectorQuantizer(6, 3), {"audio": torch.randn(4, 10, 3), "video": torch.randn(4, 5, 3)}
    vq.update(z, {m: vq(x)[1] for m, x in z.items()})
    assert torch.isfinite(vq.codebook).all()


@pytest.mark.parametrize("persist", [True, False])
def test_a_code_that_nobody_uses_is_replaced_by_a_used_one(persist):
    vq, generator = VectorQuantizer(4, 2, recent=2), torch.Generator().manual_seed(0)
    vq.codebook.copy_(torch.tensor([[[0.0, 0], [1, 1], [50, 50], [90, 90]]]))
    vq.weight.copy_(vq.codebook)
    vq.count.fill_(1.0)
    used = {"audio": torch.tensor([[[0], [1]]]), "video": torch.tensor([[[1], [0]]])}
    for _ in range(6):
        vq.revive(used, generator, 3, persist)
    assert (vq.codebook[0, 2:].abs() < 1.01).all()
    distance = torch.cdist(vq.codebook[0, 2:], vq.codebook[0, :2]).amin(dim=1)
    assert ((distance > 0) & (distance < 0.01)).all()
    kept = torch.allclose(vq.weight[0] / vq.count[0].unsqueeze(-1), vq.codebook[0])
    assert kept is persist  # as published, the moving averages still hold the old code


def test_the_published_start_throws_unused_codes_out_of_reach_and_ours_does_not():
    z = {"audio": torch.randn(8, 10, 4)}
    published, ours = VectorQuantizer(64, 4), VectorQuantizer(64, 4)
    ours.start(z, torch.Generator().manual_seed(0))
    for vq in (published, ours):
        vq.update(z, {m: vq(x)[1] for m, x in z.items()})
    assert published.codebook.norm(dim=-1).max() > 100 > 10 > ours.codebook.norm(dim=-1).max()


def test_a_first_batch_of_a_single_segment_gives_codes_that_are_numbers():
    vq = VectorQuantizer(5, 3, stages=2)
    vq.start({"audio": torch.randn(1, 1, 3)}, torch.Generator().manual_seed(0))
    assert torch.isfinite(vq.codebook).all()


def test_cmcm_distances_have_a_finite_gradient_where_feature_and_code_coincide():
    vq = VectorQuantizer(5, 3)
    z = vq.codebook[0, :2].clone().unsqueeze(0).requires_grad_()
    vq.distances(z).sum().backward()
    assert torch.isfinite(z.grad).all()


@given(st.lists(st.integers(2, 9), min_size=1, max_size=4))
@settings(max_examples=25)
def test_fsq_reaches_exactly_its_levels_and_names_every_point_once(levels):
    torch.set_default_dtype(torch.float64)
    fsq = FiniteScalarQuantizer(levels, 6)
    channels = torch.linspace(-50, 50, 4001).unsqueeze(-1).expand(-1, len(levels))
    digits = fsq.bound(channels).round()
    for channel, size in enumerate(levels):
        assert len(digits[:, channel].unique()) == size
    every = torch.arange(fsq.codes).unsqueeze(-1)
    assert len(fsq.grid.unique(dim=0)) == fsq.codes
    z, _ = fsq.decode(every), None
    assert z.shape == (fsq.codes, 6)


def test_fsq_decodes_its_own_indices_and_passes_gradient():
    fsq = FiniteScalarQuantizer([8, 5, 5, 2], 6)
    z = (torch.randn(3, 4, 6) * 5).requires_grad_()
    quantized, indices = fsq(z)
    torch.testing.assert_close(fsq.decode(indices), quantized.detach(), check_dtype=False)
    quantized.square().sum().backward()
    assert z.grad.abs().sum() > 0
    assert fsq.distances(z).argmin(-1).shape == indices[..., 0].shape


def test_fsq_levels_multiply_to_the_codebook_size():
    assert default_levels(400) == (5, 5, 4, 4) and former_levels(400) == (8, 5, 5, 2)
    for codes in (12, 100, 200, 300, 600, 800, 4096):
        assert abs(np.prod(default_levels(codes)) - codes) <= 0.05 * codes
        assert min(default_levels(codes)) > 2


def test_a_channel_of_two_levels_starts_on_one_of_them_and_the_default_ones_on_all():
    def reached(levels):
        quantizer, z = FiniteScalarQuantizer(levels, 64), torch.randn(1, 5000, 64)
        codes = torch.unique(quantizer(z)[1])
        digits = codes.unsqueeze(-1) // quantizer.basis % quantizer.sizes
        return [len(column.unique()) for column in digits.T]

    assert reached([8, 5, 5, 2])[-1] == 1
    assert reached(default_levels(400)) == [5, 5, 4, 4]


@pytest.mark.parametrize(
    "name", ["pq", "vq:3", "rvq:x", "rvq:0", "rvq:1000000000", "fsq:1,5", "fsq:a", "fsq:1000,1000,1000,1000"]
)
def test_an_unknown_quantizer_is_refused_in_a_sentence(name):
    with pytest.raises(InputError, match="quantizer") as error:
        quantizer(name, 10)
    assert "invalid literal" not in str(error.value)


def test_nearest_code_is_the_one_of_least_distance():
    z, book = torch.randn(20, 5), torch.randn(9, 5)
    assert torch.equal(nearest(z, book), torch.cdist(z, book).argmin(-1))


def test_alignment_losses_do_not_depend_on_the_order_of_clips():
    z = randoms(4, 5, 6, names=("audio", "video"))
    cpc = CPC(("audio", "video"), dim=6, context=6)
    losses = [
        cpc.score({m: x[list(order)] for m, x in z.items()}, [2])[0].item()
        for order in list(permutations(range(4)))[:4]
    ]
    assert np.ptp(losses) < 1e-12
