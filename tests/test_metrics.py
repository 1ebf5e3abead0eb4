"""Scores against plain definitions, written out clip by clip."""

import numpy as np
import pytest

from hdcid_cli.tasks.cmg.llp_scores import event_f1, parsing_scores, segment_f1
from hdcid_cli.tasks.metrics import (
    average_precision,
    batched_scores,
    bootstrapped,
    classification_scores,
    headline,
    localisation_scores,
    median_score,
)


@pytest.fixture
def localised():
    """Random logits and labels of 7 clips, 10 segments, 4 classes and the background; clips of several lengths."""
    random = np.random.default_rng(0)
    labels = (random.random((7, 10, 5)) < 0.25).astype(np.float32)
    labels[..., -1] = labels[..., :-1].max(-1) == 0
    logits = random.normal(size=labels.shape) + labels
    valid = np.arange(10) < np.array([10, 10, 4, 1, 10, 7, 10])[:, None]
    return logits, labels, valid


def values(scores):
    return {score.name: score.value for score in scores}


def test_classification_scores_equal_their_definitions():
    random = np.random.default_rng(1)
    labels = random.integers(0, 4, 30)  # class 4 never occurs
    scores = random.normal(size=(30, 5)) + 1.5 * np.eye(5)[labels]
    predicted = scores.argmax(1)
    precision, recall, f1 = [], [], []
    for c in range(4):
        hit = np.sum((predicted == c) & (labels == c))
        p = hit / np.sum(predicted == c) if (predicted == c).any() else 0.0
        r = hit / np.sum(labels == c)
        precision.append(p), recall.append(r), f1.append(2 * p * r / (p + r) if hit else 0.0)
    found = values(classification_scores(scores, labels))
    assert found["precision"] == pytest.approx(100 * np.mean(predicted == labels))
    assert found["macro_precision"] == pytest.approx(100 * np.mean(precision))
    assert found["macro_recall"] == pytest.approx(100 * np.mean(recall))
    assert found["macro_f1"] == pytest.approx(100 * np.mean(f1))
    assert headline("precision", scores, labels, None) == found["precision"]


def test_average_precision_by_hand():
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    actual = np.array([[1], [0], [1], [0]], bool)
    assert average_precision(scores, actual)[0] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert average_precision(np.zeros((4, 1)), actual)[0] == pytest.approx(0.5)  # equal scores: the rate of positives
    assert np.isnan(average_precision(scores, np.zeros((4, 1), bool))[0])


def test_classification_and_localisation_share_no_name(localised):
    """`vggsound` has both, and a record is known by its task, direction and metric."""
    names = values(classification_scores(np.eye(3), np.arange(3))).keys()
    assert not names & values(localisation_scores(*localised)).keys()


def test_weighted_average_precision_is_that_of_repeated_rows():
    random = np.random.default_rng(2)
    scores, actual = random.integers(0, 6, (20, 3)) / 6, random.random((20, 3)) < 0.3
    weights = random.multinomial(20, np.full(20, 1 / 20), size=5)
    for counts, found in zip(weights, average_precision(scores, actual, weights.T)):
        rows = np.repeat(np.arange(20), counts)
        np.testing.assert_allclose(found, average_precision(scores[rows], actual[rows]))


def test_interval_of_the_mean_average_precision_resamples_clips(localised):
    logits, labels, valid = localised
    found = next(score for score in localisation_scores(logits, labels, valid) if score.name == "segment_map")
    random, values = np.random.default_rng(5), []
    for _ in range(1000):
        drawn = random.integers(7, size=7)
        there = valid[drawn]
        values.append(
            100 * np.nanmean(average_precision(logits[drawn][there][:, :-1], labels[drawn][there][:, :-1] > 0))
        )
    np.testing.assert_allclose(found.interval, np.percentile(values, [2.5, 97.5]), atol=3)
    assert found.interval[0] < found.value < found.interval[1]


def test_resamplings_without_any_event_do_not_count_as_zero():
    logits, labels, valid = np.zeros((5, 2, 2)), np.zeros((5, 2, 2)), np.zeros((5, 2), bool)
    valid[[0, 2]] = True
    labels[0, :, 0] = 1
    found = next(score for score in localisation_scores(logits, labels, valid) if score.name == "segment_map")
    assert found.value == 50 and found.interval == (50, 100)  # half of the segments, or all where clip 0 is drawn twice


def test_interval_of_a_median_holds_the_median_of_most_resamplings():
    values = np.random.default_rng(0).permutation(101)
    score = median_score("median_rank", values)
    assert (
        score.value == 50
        and score.interval[0] == pytest.approx(35, abs=6)
        and score.interval[1] == pytest.approx(65, abs=6)
    )


def test_localisation_scores_count_valid_segments_only(localised):
    logits, labels, valid = localised
    hit = said = actual = event_hit = event_said = event_actual = right = 0
    for clip in range(7):
        for segment in np.flatnonzero(valid[clip]):
            for c in range(5):
                answer, truth = logits[clip, segment, c] > 0, labels[clip, segment, c] > 0
                hit, said, actual = hit + (answer and truth), said + answer, actual + truth
                if c < 4:
                    event_hit, event_said, event_actual = (
                        event_hit + (answer and truth),
                        event_said + answer,
                        event_actual + truth,
                    )
            right += logits[clip, segment].argmax() == labels[clip, segment].argmax()
    found = values(localisation_scores(logits, labels, valid))
    assert found["accuracy"] == pytest.approx(100 * hit / said)
    assert found["recall"] == pytest.approx(100 * hit / actual)
    assert found["f1"] == pytest.approx(100 * 2 * hit / (said + actual))
    assert found["foreground_precision"] == pytest.approx(100 * event_hit / event_said)
    assert found["foreground_recall"] == pytest.approx(100 * event_hit / event_actual)
    assert found["segment_accuracy"] == pytest.approx(100 * right / valid.sum())
    for metric in ("accuracy", "recall", "f1", "segment_accuracy"):
        assert headline(metric, logits, labels, valid) == pytest.approx(found[metric], abs=1e-3)


def test_published_scores_average_over_batches():
    """Two batches, of 2 clips and 1: precision (1/2 * 2 + 0 * 1) / 3, where the last batch answers nothing."""
    said, actual = np.zeros((3, 2, 2), bool), np.zeros((3, 2, 2), bool)
    said[0, 0, :] = actual[0, 0, 0] = actual[1, 1, 1] = actual[2, 0, 0] = True
    precision, recall = (2 * 1 / 2 + 1 * 0) / 3, (2 * 1 / 2 + 1 * 0) / 3
    f1 = 2 * precision * recall / (precision + recall + 1e-6)
    assert batched_scores(said, actual, 2) == pytest.approx((100 * precision, 100 * recall, 100 * f1))


def test_intervals_shrink_with_clips_and_hold_the_value():
    def interval(clips):
        correct = np.random.default_rng(2).random(clips) < 0.7
        score = bootstrapped("x", np.stack([correct, np.ones(clips)], 1), lambda sums: sums[..., 0] / sums[..., 1])
        assert score.interval[0] <= score.value <= score.interval[1]
        return score.interval[1] - score.interval[0]

    # A proportion's standard error is sqrt(p (1 - p) / n); its 95 % interval is about 3.92 of it wide.
    assert interval(2000) == pytest.approx(100 * 3.92 * np.sqrt(0.21 / 2000), rel=0.15)
    assert interval(50) > 4 * interval(2000)


def test_no_clip_answered_and_one_clip_alone_give_numbers(localised):
    logits, labels, valid = localised
    nothing = values(localisation_scores(np.full_like(logits, -1), labels, valid))
    assert nothing["accuracy"] == nothing["recall"] == nothing["f1"] == 0
    one = localisation_scores(logits[:1], labels[:1], valid[:1])
    assert all(np.isfinite(score.value) for score in one)
    assert classification_scores(np.array([[1.0]]), np.array([0]))[0].interval == (100, 100)


def test_event_scores_by_hand():
    """True events 0-4 and 6-8. Answers 0-2 (half of its union with the first: right) and 5-9 (2 of 4
    seconds: right).
    """
    actual = np.zeros((1, 10, 1), bool)
    actual[0, 0:4] = actual[0, 6:8] = True
    said = np.zeros_like(actual)
    said[0, 0:2] = said[0, 5:9] = True
    assert event_f1(said, actual)[0] == 1
    assert segment_f1(said, actual)[0] == pytest.approx(2 * 4 / (2 * 4 + 2 + 2))
    said[0, 1] = False  # one second of four: not the same event any more
    assert event_f1(said, actual)[0] == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert event_f1(np.zeros_like(said), np.zeros_like(actual))[0] == 1  # nothing there, nothing said


def test_llp_scores_equal_the_official_ones(shared):
    reference = np.load(shared / "reference" / "avvp_metrics.npz")
    of = {
        name: reference[f"in/{name}"].transpose(0, 2, 1) > 0
        for name in ("pred_audio", "true_audio", "pred_visual", "true_visual")
    }
    found = parsing_scores((of["pred_audio"], of["true_audio"]), (of["pred_visual"], of["true_visual"]))
    for level in ("segment", "event"):
        official = reference[f"out/{level}_level"]  # a, v, event, av, as the official code returns them
        for column, name in enumerate(("a", "v", "event", "av")):
            np.testing.assert_allclose(found[f"{level}_{name}"], official[:, column], rtol=1e-12)
        np.testing.assert_allclose(found[f"{level}_type"], official[:, [0, 1, 3]].mean(1), rtol=1e-12)
