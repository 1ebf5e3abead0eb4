"""Intervals and average precision against plain definitions and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from hdcid_cli.tasks import metrics
from hdcid_cli.tasks.metrics import Bootstrap, average_precision, mean_score, median_score, ratio, sums_score


def test_average_precision_by_hand():
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    actual = np.array([[1], [0], [1], [0]], bool)
    assert average_precision(scores, actual)[0] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert average_precision(np.zeros((4, 1)), actual)[0] == pytest.approx(0.5)  # equal scores: the rate of positives
    assert np.isnan(average_precision(scores, np.zeros((4, 1), bool))[0])


def test_weighted_average_precision_is_that_of_repeated_rows():
    random = np.random.default_rng(2)
    scores, actual = random.integers(0, 6, (20, 3)) / 6, random.random((20, 3)) < 0.3
    weights = random.multinomial(20, np.full(20, 1 / 20), size=5)
    for counts, found in zip(weights, average_precision(scores, actual, weights.T)):
        rows = np.repeat(np.arange(20), counts)
        np.testing.assert_allclose(found, average_precision(scores[rows], actual[rows]))


def test_interval_of_a_median_holds_the_median_of_most_resamplings():
    values = 1 + np.random.default_rng(0).permutation(101)
    score = median_score("median_rank", lambda number: values <= number, 101, Bootstrap(range(101)))
    assert (
        score.value == 51
        and score.interval[0] == pytest.approx(36, abs=6)
        and score.interval[1] == pytest.approx(66, abs=6)
    )


def test_intervals_shrink_with_clips_and_hold_the_value():
    def interval(clips):
        correct = np.random.default_rng(2).random(clips) < 0.7
        score = sums_score("x", np.stack([correct, np.ones(clips)], 1), ratio, Bootstrap(range(clips)))
        assert score.interval[0] <= score.value <= score.interval[1]
        return score.interval[1] - score.interval[0]

    # A proportion's standard error is sqrt(p (1 - p) / n); its 95 % interval is about 3.92 of it wide.
    assert interval(2000) == pytest.approx(100 * 3.92 * np.sqrt(0.21 / 2000), rel=0.15)
    assert interval(50) > 4 * interval(2000)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 5))
def test_average_precision_is_scikit_learns(seed, rows, thresholds):
    random = np.random.default_rng(seed)
    scores, actual = random.integers(0, thresholds + 1, (rows, 3)) / 7, random.random((rows, 3)) < 0.4
    actual[0] = True
    found = average_precision(scores, actual)
    np.testing.assert_allclose(found, [average_precision_score(actual[:, c], scores[:, c]) for c in range(3)])


def test_clips_of_one_recording_are_drawn_together():
    """40 recordings of 5 equal clips each are worth 40 clips, not 200."""
    random = np.random.default_rng(0)
    of_recording = (random.random(40) < 0.7).astype(float)
    values, groups = np.repeat(of_recording, 5), np.repeat(np.arange(40), 5)
    alone = mean_score("x", of_recording, Bootstrap(range(40)))
    together = mean_score("x", values, Bootstrap(groups))
    apart = mean_score("x", values, Bootstrap(range(200)))
    assert together.value == alone.value and together.interval == alone.interval
    assert together.interval[1] - together.interval[0] > 1.8 * (apart.interval[1] - apart.interval[0])


def test_the_order_of_clips_and_the_names_of_groups_do_not_matter():
    random = np.random.default_rng(1)
    values, groups = random.random(30), random.integers(0, 12, 30)
    one, other = (
        mean_score("x", values, Bootstrap(groups)),
        mean_score("x", values, Bootstrap([f"r{g}" for g in groups])),
    )
    assert one == other
    statistics = np.stack([values, np.ones(30)], 1)
    naive = []
    drawn = Bootstrap(groups).drawn
    names = list(dict.fromkeys(groups.tolist()))
    for times in drawn[:20]:
        rows = [
            row for name, count in zip(names, times) for _ in range(count) for row in np.flatnonzero(groups == name)
        ]
        naive.append(statistics[rows].sum(0))
    short = Bootstrap(groups, resamples=20)
    found = short.of_sums(statistics, ratio)
    np.testing.assert_allclose(found, np.percentile([ratio(sums) for sums in naive], [2.5, 97.5]))


def test_interval_of_a_median_is_that_of_repeated_clips():
    random = np.random.default_rng(2)
    for clips in (30, 31):
        values, groups = random.integers(1, 9, clips), np.arange(clips) // 2
        bootstrap = Bootstrap(groups, resamples=50)
        naive = [np.median(np.repeat(values, times[groups])) for times in bootstrap.drawn]
        score = median_score("x", lambda number, values=values: values <= number, 8, bootstrap)
        assert score.value == np.median(values)
        np.testing.assert_allclose(score.interval, np.percentile(naive, [2.5, 97.5]))


def test_interval_of_batches_resamples_the_same_estimator():
    """With one clip a batch it is the mean of ratios; with all in one batch the ratio of sums."""
    random = np.random.default_rng(3)
    statistics = np.stack([random.integers(0, 5, 60), random.integers(5, 9, 60)], 1).astype(float)

    def mean_of_ratios(sums, clips):
        return np.average(sums[:, 0] / sums[:, 1], weights=clips)

    bootstrap = Bootstrap(range(60))
    single = bootstrap.of_batches(statistics, mean_of_ratios, 1)
    np.testing.assert_allclose(
        single, mean_score("x", statistics[:, 0] / statistics[:, 1], bootstrap).interval / np.array(100)
    )
    whole = bootstrap.of_batches(statistics, mean_of_ratios, 60)
    np.testing.assert_allclose(whole, np.array(sums_score("x", statistics, ratio, bootstrap).interval) / 100)
    assert single != whole


def test_a_single_recording_has_no_interval():
    bootstrap = Bootstrap(["one"] * 5)
    assert mean_score("x", np.ones(5), bootstrap).interval is None
    assert median_score("x", lambda number: np.arange(5) < number, 5, bootstrap).interval is None


def test_resamplings_are_those_of_earlier_versions_and_many_groups_are_drawn_in_little_memory(monkeypatch):
    before = np.random.default_rng(3).multinomial(300, np.full(300, 1 / 300), size=50)
    assert np.array_equal(Bootstrap(range(300), seed=3, resamples=50).drawn, before)
    monkeypatch.setattr(metrics, "_FEW_GROUPS", 200)
    drawn = Bootstrap(range(300), seed=3, resamples=4000).drawn
    assert drawn.dtype == np.uint8 and (drawn.sum(1) == 300).all()
    assert drawn.mean(0) == pytest.approx(1, abs=0.1)
    assert drawn.var() == pytest.approx(1 - 1 / 300, rel=0.01)  # as of the multinomial distribution
