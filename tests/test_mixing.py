"""Clips that exchange seconds while a model learns."""

import numpy as np
import torch

from hdcid_cli.training.mixing import draw_exchange, exchange


def drawn(clips=6, steps=5, most=0.5, seed=0):
    return draw_exchange(clips, steps, most, torch.Generator().manual_seed(seed))


def test_neighbours_exchange_the_same_segments_and_every_second_stays_there_once():
    places = drawn()
    assert places.any() and not places.all()
    assert torch.equal(places[0::2], places[1::2])
    audio = torch.arange(6 * 5).view(6, 5, 1).float()
    mixed = exchange({"audio": audio}, places)["audio"]
    assert not torch.equal(mixed, audio)
    assert torch.equal(mixed.sort(dim=0).values, audio)  # each second of each clip, at its own time, once
    for clip, partner in ((0, 1), (1, 0), (4, 5)):
        expected = np.where(places[clip], audio[partner, :, 0], audio[clip, :, 0])
        assert np.array_equal(mixed[clip, :, 0], expected)


def test_pictures_and_sounds_go_together_and_text_stays():
    places = drawn()
    number = torch.arange(6.0)
    audio, video = number.view(6, 1, 1).expand(6, 5, 2), number.view(6, 1, 1, 1, 1).expand(6, 10, 2, 2, 3)
    text = number.view(6, 1, 1).expand(6, 7, 4)
    mixed = exchange({"audio": audio, "video": video, "text": text}, places)
    assert torch.equal(mixed["text"], text)
    # Twice as many segments of video: those of the same relative time.
    assert torch.equal(mixed["video"][:, ::2, 0, 0, 0], mixed["audio"][..., 0])
    assert torch.equal(mixed["video"][:, 1::2, 0, 0, 0], mixed["audio"][..., 0])


def test_the_share_of_exchanged_seconds_has_its_bound():
    shares = torch.stack([drawn(2, 4000, 0.3, seed)[0].float().mean() for seed in range(40)])
    assert shares.max() < 0.33 and shares.min() < 0.05 and abs(shares.mean() - 0.15) < 0.05


def test_a_clip_without_neighbour_and_segments_that_do_not_count_stay():
    places = torch.ones(5, 4, dtype=torch.bool)
    audio = torch.arange(5.0).view(5, 1, 1).expand(5, 4, 1)
    mixed = exchange({"audio": audio}, places)["audio"][..., 0]
    assert mixed[:, 0].tolist() == [1, 0, 3, 2, 4]
    lengths = {"audio": torch.tensor([4, 2, 1, 3, 4])}
    mixed = exchange({"audio": audio}, places, lengths)["audio"][..., 0]
    assert mixed[0].tolist() == [1, 1, 0, 0] and mixed[1].tolist() == [0, 0, 1, 1]
    assert mixed[2].tolist() == [3, 2, 2, 2] and mixed[3].tolist() == [2, 3, 3, 3]
