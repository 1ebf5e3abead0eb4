"""mIoU and F-score against a plain numpy version of AVSBench's definitions, and against masks made by hand."""

import numpy as np
import pytest
import torch

from hdcid_cli.tasks.segmentation.evaluation import ClipScores
from hdcid_cli.tasks.segmentation.metrics import f_curve, f_score, iou


def plain_iou(probability: np.ndarray, truth: np.ndarray) -> float:
    found = probability > 0.5
    if not truth.any():
        return (~found).sum() / found.size
    return (found & truth).sum() / (found | truth).sum()


def plain_f(probability: np.ndarray, truth: np.ndarray) -> float:
    """Of one clip [T, H, W]: threshold after threshold, frame after frame."""
    curves = []
    for p, t in zip(probability, truth):
        if not t.any():
            continue
        curve = []
        for threshold in np.linspace(0, 1 - 1e-10, 255, dtype=np.float32):
            found = p >= threshold
            hits = (found & t).sum()
            precision, recall = hits / max(found.sum(), 1e-20), hits / t.sum()
            curve.append(1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0)
        curves.append(curve)
    return np.mean(curves, axis=0).max() if curves else 0.0


@pytest.fixture
def clips():
    """Logits and masks of four clips; some frames, and all of the last clip, have no object."""
    random = np.random.default_rng(0)
    logits = torch.from_numpy(random.normal(size=(4, 5, 12, 16)).astype(np.float32))
    truth = torch.from_numpy(random.random((4, 5, 12, 16)) < 0.3)
    truth[1, 2:4] = False
    truth[3] = False
    logits[2, 0] = -50.0  # nothing found
    logits[2, 1] = 50.0  # everything found
    return logits + truth.float(), truth


def test_iou_equals_the_plain_version(clips):
    for logits, truth in zip(*clips):
        expected = [plain_iou(p, t) for p, t in zip(logits.sigmoid().numpy(), truth.numpy())]
        np.testing.assert_allclose(iou(logits, truth).numpy(), expected, rtol=1e-6)


def test_f_score_equals_the_plain_version(clips):
    for logits, truth in zip(*clips):
        found = f_score(f_curve(logits, truth), truth)
        assert float(found) == pytest.approx(plain_f(logits.sigmoid().numpy(), truth.numpy()), rel=1e-6)


def test_hand_made_masks():
    truth = torch.zeros(1, 4, 4, dtype=torch.bool)
    truth[0, :2, :2] = True  # four pixels
    half = torch.full((1, 4, 4), -9.0)
    half[0, :1, :2] = 9.0  # two of them
    assert float(iou(half, truth)) == pytest.approx(0.5)
    # precision 1, recall 1/2: 1.3 * 0.5 / (0.3 + 0.5)
    assert float(f_score(f_curve(half, truth), truth)) == pytest.approx(1.3 * 0.5 / 0.8, rel=1e-6)
    everything = torch.full((1, 4, 4), 9.0)
    assert float(iou(everything, truth)) == pytest.approx(0.25)
    assert float(f_score(f_curve(everything, truth), truth)) == pytest.approx(1.3 * 0.25 / (0.3 * 0.25 + 1), rel=1e-6)


def test_empty_frames_count_the_background():
    nothing, truth = torch.full((1, 4, 4), -9.0), torch.zeros(1, 4, 4, dtype=torch.bool)
    assert float(iou(nothing, truth)) == pytest.approx(1.0)
    nothing[0, 0] = 9.0
    assert float(iou(nothing, truth)) == pytest.approx(0.75)
    assert float(f_score(f_curve(nothing, truth), truth)) == 0.0


def test_scores_of_a_data_set_average_over_clips(clips):
    scores = ClipScores()
    for logits, truth in zip(*clips):
        scores.add(logits, truth)
    found = {score.name: score for score in scores.scores()}
    probability, truth = clips[0].sigmoid().numpy(), clips[1].numpy()
    assert found["miou"].value == pytest.approx(
        100 * np.mean([plain_iou(p, t) for c in range(4) for p, t in zip(probability[c], truth[c])]), rel=1e-5
    )
    assert found["fscore"].value == pytest.approx(
        100 * np.mean([plain_f(p, t) for p, t in zip(probability, truth)]), rel=1e-5
    )
    frames = [(p, t) for c in range(4) for p, t in zip(probability[c], truth[c]) if t.any()]
    shared = plain_f(np.stack([p for p, _ in frames]), np.stack([t for _, t in frames]))
    assert found["fscore_shared"].value == pytest.approx(100 * shared, rel=1e-5)
    assert found["miou"].interval[0] < found["miou"].value < found["miou"].interval[1]
