"""The probe: decoders, losses and training, against plain numpy."""

import numpy as np
import pytest
import torch

from hdcid_cli.tasks.cmg.probe import Samples, fit, new_probe, predict, regularize, standardize
from hdcid_cli.tasks.cmg.protocol import Schedule


def clips(count=40, steps=6, width=5, classes=3, seed=0):
    """Clips whose class shows in one of their segments only; the last two segments of some are not valid."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    inputs = random.normal(size=(count, steps, width)).astype(np.float32)
    inputs[np.arange(count), random.integers(0, steps - 2, count), labels] += 6
    valid = np.ones((count, steps), bool)
    valid[::3, -2:] = False
    return Samples(
        [str(i) for i in range(count)],
        [str(i) for i in range(count)],
        *(torch.from_numpy(part) for part in (inputs, labels, valid)),
    )


def weights(module):
    return {name: value.detach().double().numpy() for name, value in module.named_parameters()}


def test_classifier_is_linear_max_linear_over_valid_segments():
    samples = clips()
    probe, loss = new_probe("classification", 5, 7, 3, seed=0)
    w = weights(probe)
    inputs, labels, valid = samples.inputs.double().numpy(), samples.labels.numpy(), samples.valid.numpy()
    hidden = inputs @ w["linear.weight"].T + w["linear.bias"]
    hidden[~valid] = -np.inf
    expected = hidden.max(1) @ w["event.weight"].T + w["event.bias"]
    np.testing.assert_allclose(predict(probe, samples), expected, atol=1e-5)
    cross_entropy = np.mean(np.log(np.exp(expected).sum(1)) - expected[np.arange(len(labels)), labels])
    assert loss(torch.tensor(expected), samples.labels, samples.valid).item() == pytest.approx(cross_entropy)


def test_mean_classifier_is_a_linear_probe_of_the_mean_over_valid_segments():
    samples = clips()
    probe, _ = new_probe("classification", 5, 7, 3, seed=0, name="mean")
    w = weights(probe)
    inputs, valid = samples.inputs.double().numpy(), samples.valid.numpy()
    mean = np.stack([clip[there].mean(0) for clip, there in zip(inputs, valid, strict=True)])
    expected = (mean @ w["linear.weight"].T + w["linear.bias"]) @ w["event.weight"].T + w["event.bias"]
    np.testing.assert_allclose(predict(probe, samples), expected, atol=1e-5)
    samples.inputs[~samples.valid] = 9
    np.testing.assert_allclose(predict(probe, samples), expected, atol=1e-5)


def test_localisation_loss_is_the_published_one_over_valid_segments():
    random = np.random.default_rng(0)
    logits, valid = random.normal(size=(4, 3, 6)), random.random((4, 3)) < 0.7
    labels = (random.random((4, 3, 6)) < 0.3).astype(float)
    _, loss = new_probe("localization", 5, 5, 5, seed=0)
    loss.alpha.data = torch.tensor(random.random(6))
    alpha = loss.alpha.detach().double().numpy()
    bce, weighted = [], []
    for clip, segment in np.argwhere(valid):
        x, y = logits[clip, segment], labels[clip, segment]
        bce += list(np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0) - x * y)
        weighted.append(np.sum(y * (x - np.log(np.exp(x).sum())) * np.exp(-alpha)))
    found = loss(torch.tensor(logits), torch.tensor(labels), torch.tensor(valid))
    assert found.item() == pytest.approx(np.mean(bce) - np.mean(weighted))


def test_one_step_is_adam_on_the_clipped_gradient():
    samples = clips(count=8)
    probe, loss = new_probe("classification", 5, 5, 3, seed=1)
    before = {name: value.clone() for name, value in probe.state_dict().items()}
    value = loss(probe(samples.inputs, samples.valid), samples.labels, samples.valid)
    gradients = torch.autograd.grad(value, list(probe.parameters()))
    norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
    fit(probe, loss, samples, Schedule(epochs=1, batch_size=8, lr=0.01, clip=0.5), 0, lambda probe: 0.0)
    for (name, old), gradient in zip(before.items(), gradients):
        clipped = gradient * min(1.0, 0.5 / norm.item())
        expected = old - 0.01 * clipped / (clipped.abs() + 1e-8)  # Adam's first step
        torch.testing.assert_close(probe.state_dict()[name], expected, atol=1e-4, rtol=0)


def test_probe_learns_and_keeps_the_best_epoch_the_last_of_equals():
    samples, held_out = clips(), clips(seed=1)
    probe, loss = new_probe("classification", 5, 16, 3, seed=0)
    judged = iter([1.0, 5.0, 2.0, 5.0, 4.0])
    states = []

    def judge(candidate):
        states.append({name: value.clone() for name, value in candidate.state_dict().items()})
        return next(judged)

    best, epoch, judgements = fit(probe, loss, samples, Schedule(epochs=5, batch_size=10), 0, judge)
    assert (epoch, judgements) == (4, [1.0, 5.0, 2.0, 5.0, 4.0])
    for name, value in best.state_dict().items():
        assert torch.equal(value, states[3][name])

    probe, loss = new_probe("classification", 5, 16, 3, seed=0)
    best, *_ = fit(
        probe, loss, samples, Schedule(epochs=60, batch_size=10, lr=0.01, milestones=()), 0, lambda probe: 0.0
    )
    assert (predict(best, held_out).argmax(1) == held_out.labels.numpy()).mean() > 0.9


def test_the_seed_alone_decides():
    def run(seed):
        torch.manual_seed(torch.seed())  # what happened before must not matter
        probe, loss = new_probe("localization", 5, 5, 3, seed)
        samples = clips()
        samples.labels = torch.nn.functional.one_hot(samples.labels, 4).float()[:, None].expand(-1, 6, -1)
        return predict(
            fit(probe, loss, samples, Schedule(epochs=3, batch_size=16), seed, lambda probe: 0.0)[0], samples
        )

    assert np.array_equal(run(3), run(3))
    assert not np.array_equal(run(3), run(4))


def test_supervised_probe_sees_standardized_features():
    samples = clips()
    samples.inputs = samples.inputs * torch.tensor([1.0, 100, 1e-3, 1, 1]) + torch.tensor([0, 1e3, 0, 0, 0])
    samples.inputs[..., 4] = 7  # a channel that never changes
    probe, _ = new_probe("classification", 5, 4, 3, seed=0)
    linear = probe.linear
    standardize(probe, samples)
    valid = samples.valid.numpy()
    segments = samples.inputs.double().numpy()[valid]
    deviation = np.where(segments.std(0) > 1e-6, segments.std(0), 1)
    expected = (segments - segments.mean(0)) / deviation
    found = probe.linear(samples.inputs[samples.valid]).detach().numpy()
    with torch.inference_mode():
        np.testing.assert_allclose(found, linear(torch.tensor(expected, dtype=torch.float32)).numpy(), atol=1e-3)


def test_half_precision_features_are_read_too():
    samples = clips()
    probe, _ = new_probe("classification", 5, 4, 3, seed=0)
    whole = predict(probe, samples)
    samples.inputs = samples.inputs.half()
    np.testing.assert_allclose(predict(probe, samples), whole, atol=0.02)


def test_temporal_localizer_is_three_residual_convolutions_over_valid_segments():
    """Written out segment by segment: the neighbours 1, 2 and 4 segments away, nothing from where a clip has ended."""
    random = np.random.default_rng(0)
    valid = np.arange(12) < np.array([12, 7])[:, None]
    inputs = random.normal(size=(2, 12, 5))
    probe, _ = new_probe("localization", 5, 6, 3, seed=0, name="tcn")
    w = weights(probe)
    hidden = (inputs @ w["linear.weight"].T + w["linear.bias"]) * valid[..., None]
    for layer, step in enumerate((1, 2, 4)):
        padded = np.pad(hidden, ((0, 0), (step, step), (0, 0)))
        told = w[f"context.{layer}.bias"] + sum(
            padded[:, tap * step : tap * step + 12] @ w[f"context.{layer}.weight"][:, :, tap].T for tap in range(3)
        )
        hidden = hidden + np.maximum(told, 0) * valid[..., None]
    expected = hidden @ w["event.weight"].T + w["event.bias"]
    arrays = (torch.from_numpy(part) for part in (inputs.astype(np.float32), np.zeros(2), valid))
    samples = Samples(["0", "1"], ["0", "1"], *arrays)
    np.testing.assert_allclose(predict(probe.eval(), samples)[valid], expected[valid], atol=1e-5)
    samples.inputs[1, 7:] = 9
    np.testing.assert_allclose(predict(probe, samples)[valid], expected[valid], atol=1e-5)


def test_dropout_is_drawn_from_the_seed_alone_and_rests_when_answering():
    samples = clips()
    found = []
    for seed in (1, 1, 2):
        torch.rand(3)  # whatever was drawn before
        probe, loss = new_probe("classification", 5, 7, 3, seed=0)
        regularize(probe, 0.5)
        probe, *_ = fit(probe, loss, samples, Schedule(epochs=2), seed, judge=lambda probe: 0.0)
        found.append(predict(probe, samples))
        np.testing.assert_array_equal(found[-1], predict(probe, samples))
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
