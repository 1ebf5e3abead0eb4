"""Contrast of seconds."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hdcid_cli.core.errors import InputError
from hdcid_cli.training.losses.seconds import Seconds
from hdcid_cli.training.settings import ObjectiveSettings


def output(valid=None, **general):
    return SimpleNamespace(general=general, valid=valid)


def by_the_formula(x, y):
    """Half of both directions' mean -log softmax of cosines / 0.1, one row after the other."""
    x, y = (z / np.linalg.norm(z, axis=-1, keepdims=True) for z in (x, y))

    def one_way(a, b):
        losses = []
        for place, row in enumerate(a):
            scores = [float(row @ other) / 0.1 for other in b]
            losses.append(np.log(np.exp(scores).sum()) - scores[place])
        return np.mean(losses)

    return 0.5 * (one_way(x, y) + one_way(y, x))


def test_it_is_infonce_among_all_seconds_of_all_clips():
    random = np.random.default_rng(0)
    video, audio, text = (torch.from_numpy(random.normal(size=(3, 4, 5))) for _ in range(3))
    loss, metrics = Seconds()(output(video=video, audio=audio, text=text), None, torch.Generator())
    assert loss.item() == pytest.approx(by_the_formula(video.reshape(12, 5).numpy(), audio.reshape(12, 5).numpy()))
    assert 0 <= metrics["seconds_accuracy"] <= 1
    _, same = Seconds()(output(video=video, audio=2 * video), None, torch.Generator())
    assert same["seconds_accuracy"] == 1


def test_seconds_that_do_not_count_are_no_question_and_no_answer():
    random = np.random.default_rng(0)
    video, audio = (torch.from_numpy(random.normal(size=(3, 4, 5))) for _ in range(2))
    valid = {name: torch.arange(4) < torch.tensor(lengths)[:, None] for name, lengths in VALID.items()}
    loss, _ = Seconds()(output(valid, video=video, audio=audio), None, torch.Generator())
    kept = (valid["video"] & valid["audio"]).numpy()
    assert loss.item() == pytest.approx(by_the_formula(video.numpy()[kept], audio.numpy()[kept]))


VALID = {"video": [4, 2, 3], "audio": [3, 4, 3]}


def test_half_seconds_of_sound_meet_the_second_that_they_are_in():
    random = np.random.default_rng(0)
    video, audio = (torch.from_numpy(random.normal(size=(2, steps, 5))) for steps in (3, 6))
    loss, _ = Seconds()(output(video=video, audio=audio), None, torch.Generator())
    twice = video.repeat_interleave(2, dim=1).reshape(12, 5).numpy()
    assert loss.item() == pytest.approx(by_the_formula(twice, audio.reshape(12, 5).numpy()))


def test_without_sound_or_picture_it_says_so():
    layer = SimpleNamespace(config=SimpleNamespace(modalities=("audio", "text")))
    with pytest.raises(InputError, match="video is not among the modalities"):
        Seconds.of(ObjectiveSettings(), layer)
