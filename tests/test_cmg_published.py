"""The published protocol on fixed codes, against the same in plain numpy."""

import numpy as np
import pytest
import torch
from cmg_world import headline, run, world

from hdcid_cli.tasks.cmg.probe import new_probe
from hdcid_cli.tasks.cmg.protocol import ProbeSettings, schedule_for
from hdcid_cli.tasks.cmg.reading import Reading
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.cmg.trial import Trial


def adam(weights, gradients, state, rate):
    state["t"] = state.get("t", 0) + 1
    for name, gradient in gradients.items():
        m = state["m" + name] = 0.9 * state.get("m" + name, 0) + 0.1 * gradient
        v = state["v" + name] = 0.999 * state.get("v" + name, 0) + 0.001 * gradient**2
        weights[name] -= rate * (m / (1 - 0.9 ** state["t"])) / (np.sqrt(v / (1 - 0.999 ** state["t"])) + 1e-8)


def decode(weights, inputs, classify):
    """[B, T, C] -> logits, and what their gradients need."""
    hidden = inputs @ weights["linear.weight"].T + weights["linear.bias"]
    pooled = hidden.max(1) if classify else hidden
    return pooled @ weights["event.weight"].T + weights["event.bias"], hidden, pooled


def gradients_of(weights, inputs, labels, classify):
    """Gradients of the published losses, by hand."""
    logits, hidden, pooled = decode(weights, inputs, classify)
    softmax = np.exp(logits - logits.max(-1, keepdims=True))
    softmax /= softmax.sum(-1, keepdims=True)
    found = {}
    if classify:
        error = (softmax - np.eye(logits.shape[1])[labels]) / len(logits)
    else:
        segments = logits.shape[0] * logits.shape[1]
        weighted = labels * np.exp(-weights["alpha"])
        error = (1 / (1 + np.exp(-logits)) - labels) / logits.size + (
            softmax * weighted.sum(-1, keepdims=True) - weighted
        ) / segments
        found["alpha"] = (weighted * np.log(softmax)).sum((0, 1)) / segments
    flat = error.reshape(-1, error.shape[-1])
    found["event.weight"], found["event.bias"] = flat.T @ pooled.reshape(-1, pooled.shape[-1]), flat.sum(0)
    back = error @ weights["event.weight"]
    if classify:  # only the step with the maximum learns
        spread = np.zeros_like(hidden)
        np.put_along_axis(spread, hidden.argmax(1, keepdims=True), back[:, None], 1)
        back = spread
    flat = back.reshape(-1, back.shape[-1])
    found["linear.weight"], found["linear.bias"] = flat.T @ inputs.reshape(-1, inputs.shape[-1]), flat.sum(0)
    norm = np.sqrt(sum((gradient**2).sum() for name, gradient in found.items() if name != "alpha"))
    return {
        name: gradient if name == "alpha" else gradient * min(1, 0.5 / (norm + 1e-6))
        for name, gradient in found.items()
    }


def released_score(logits, labels, classify, batch=80):
    """As the released loops over batches: accuracy of clips, or precision of sigmoid > 0.5, weighted by the batch's
    size.
    """
    total = 0.0
    for start in range(0, len(logits), batch):
        part, truth = logits[start : start + batch], labels[start : start + batch]
        if classify:
            total += len(part) * 100 * np.mean(part.argmax(-1) == truth)
        else:
            said = 1 / (1 + np.exp(-part)) > 0.5
            total += len(part) * 100 * ((said * truth).sum() / said.sum() if said.sum() else 0)
    return total / len(logits)


@pytest.mark.parametrize("task", ["ave", "avvp"])
def test_published_protocol_equals_a_plain_numpy_version(task):
    classify = task == "ave"
    annotations, video, audio = world(clips=200)
    seed, epochs = 43, 12
    trial, _, scores = run(task, annotations, video, audio, seed=seed, protocol="published", epochs=epochs)

    clips = [clip for clip in annotations.clips if not classify or clip.split == "train"]
    rows = [int(clip.id.removeprefix("clip")) for clip in clips]
    labels = np.array([clip.label for clip in clips])
    if not classify:
        labels = np.zeros((len(clips), 5, 4))
        for row, clip in enumerate(clips):
            for event in clip.events:
                labels[row, int(event.onset) : int(event.offset), event.label] = 1
        labels[..., -1] = 1 - labels[..., :-1].max(-1)
    probe, loss = new_probe(TASKS[task][0].kind, 8, 8, 3, seed)
    weights = {
        name: value.detach().double().numpy().copy()
        for name, value in [*probe.named_parameters(), *loss.named_parameters()]
    }
    shuffle, state, best = torch.Generator().manual_seed(seed), {}, -1.0
    learned, tested = video.read(rows).astype(float), audio.read(rows).astype(float)
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(len(rows), generator=shuffle).split(80):
            batch = batch.numpy()
            adam(
                weights,
                gradients_of(weights, learned[batch], labels[batch], classify),
                state,
                4e-4 if epoch <= 10 else 2e-4,
            )
        value = released_score(decode(weights, tested, classify)[0], labels, classify)
        best = max(best, value)
    assert scores[headline(task)].value == pytest.approx(best, abs=0.02)
    assert len(trial.tested) == len(rows)


def test_published_probe_learns_from_other_codes_in_every_epoch():
    """The encoder is in training mode while the probe learns: dropout draws anew, by the seed alone."""
    annotations, video, audio = world()
    drawn = []

    def noisy(rows, seed):
        drawn.append(seed)
        return video.read(rows) + np.random.default_rng(seed).normal(size=(len(rows), 5, 8)).astype(np.float32)

    video.read_noisy, reading = noisy, Reading(video, audio, dropout=0.1)
    task = TASKS["ave"][0]

    def probe(seed=3, **given):
        drawn.clear()
        trial = Trial(task, annotations, annotations, reading, ProbeSettings(epochs=4, **given), "cpu")
        return trial.probe(seed).answers.logits, list(drawn), trial.noisy

    first, seeds, noisy_one = probe(protocol="published")
    again, same, _ = probe(protocol="published")
    assert len(set(seeds)) == 4 and seeds == same and noisy_one and np.array_equal(first, again)
    assert not set(probe(4, protocol="published")[1]) & set(seeds)
    still, none, noisy_other = probe(protocol="published", encoder_dropout=False)
    assert none == [] and not noisy_other and not np.array_equal(first, still)
    assert probe()[1] == [] and len(probe(encoder_dropout=True)[1]) == 4  # held out only where it is asked for


def test_released_epochs_count_from_the_imported_checkpoints_own():
    ave, ucf, avvp = (TASKS[name][0] for name in ("ave", "ucf2vgg", "avvp"))
    published = ProbeSettings(protocol="published")
    assert [schedule_for(task, published, 3339).epochs for task in (ave, ucf, avvp)] == [50, 100, 100]
    assert schedule_for(ave, published, 3339, start=6).epochs == 44
    assert schedule_for(ave, ProbeSettings(protocol="published", epochs=7), 3339, start=6).epochs == 7
    assert schedule_for(ave, ProbeSettings(), 3339, start=6).epochs == 50
    assert [schedule_for(task, published, 3339).lr for task in (ave, ucf, avvp)] == [4e-4] * 3
    assert schedule_for(ave, published, 3339, supervised=True).lr == schedule_for(ave, ProbeSettings(), 3339).lr == 2e-3
    assert schedule_for(ave, ProbeSettings(protocol="published", lr=0.1), 3339).lr == 0.1
