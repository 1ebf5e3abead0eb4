"""Scores of the tasks against plain definitions, written out clip by clip, and what chance gets."""

from itertools import product

import numpy as np
import pytest

from hdcid_cli.tasks.annotations import llp
from hdcid_cli.tasks.annotations.clips import segment_labels
from hdcid_cli.tasks.cmg.parsing import parsing_scores
from hdcid_cli.tasks.cmg.protocol import split_clips
from hdcid_cli.tasks.cmg.scores import (
    CLASSIFICATION,
    LOCALIZATION,
    Answers,
    Truth,
    all_scores,
    batched_scores,
    best_cut,
    blind_answers,
    chances,
    clip_f1,
    event_counts,
    segment_counts,
    value,
)
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.metrics import Bootstrap, average_precision


def one_each(labels, classes):
    """The truth about clips of one class each."""
    return Truth(labels, np.ones((len(labels), 1), bool), classes)


def events(labels, valid):
    """The truth about events of segments."""
    return Truth(labels, valid, labels.shape[2] - 1)


def classified(scores, labels):
    """All scores of one class a clip."""
    return all_scores(CLASSIFICATION, Answers(scores, one_each(labels, scores.shape[1]), Bootstrap(range(len(labels)))))


def localized(logits, labels, valid):
    """All scores of events of each segment."""
    return all_scores(LOCALIZATION, Answers(logits, events(labels, valid), Bootstrap(range(len(labels)))))


@pytest.fixture
def several():
    """Random logits and labels of 7 clips, 10 segments, 4 classes and the background; clips of several lengths."""
    random = np.random.default_rng(0)
    labels = (random.random((7, 10, 5)) < 0.25).astype(np.float32)
    labels[..., -1] = labels[..., :-1].max(-1) == 0
    logits = random.normal(size=labels.shape) + labels
    valid = np.arange(10) < np.array([10, 10, 4, 1, 10, 7, 10])[:, None]
    return logits, labels, valid


def values(scores):
    return {score.name: score.value for score in scores}


def test_classified_equal_their_definitions():
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
    found = values(classified(scores, labels))
    assert found["precision"] == pytest.approx(100 * np.mean(predicted == labels))
    assert found["macro_precision"] == pytest.approx(100 * np.mean(precision))
    assert found["macro_recall"] == pytest.approx(100 * np.mean(recall))
    assert found["macro_f1"] == pytest.approx(100 * np.mean(f1))
    assert value(CLASSIFICATION, "precision", Answers(scores, one_each(labels, 5))) == found["precision"]


def test_classification_and_localization_share_no_name(several):
    """`vggsound` has both, and a record is known by its task, direction and metric."""
    names = values(classified(np.eye(3), np.arange(3))).keys()
    assert not names & values(localized(*several)).keys()


def test_interval_of_the_mean_average_precision_resamples_clips(several):
    logits, labels, valid = several
    found = next(score for score in localized(logits, labels, valid) if score.name == "segment_map")
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
    logits, labels, valid = np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), np.ones((2, 2), bool)
    labels[0, :, 0] = 1
    found = next(score for score in localized(logits, labels, valid) if score.name == "segment_map")
    assert found.value == 50 and found.interval == (50, 100)  # half of the segments, or all where clip 0 is drawn twice


def test_localized_count_valid_segments_only(several):
    logits, labels, valid = several
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
    found = values(localized(logits, labels, valid))
    assert found["accuracy"] == pytest.approx(100 * hit / said)
    assert found["recall"] == pytest.approx(100 * hit / actual)
    assert found["f1"] == pytest.approx(100 * 2 * hit / (said + actual))
    assert found["foreground_precision"] == pytest.approx(100 * event_hit / event_said)
    assert found["foreground_recall"] == pytest.approx(100 * event_hit / event_actual)
    assert found["segment_accuracy"] == pytest.approx(100 * right / valid.sum())
    for metric in ("accuracy", "recall", "f1", "segment_accuracy"):
        assert value(LOCALIZATION, metric, Answers(logits, events(labels, valid))) == pytest.approx(
            found[metric], abs=1e-3
        )


def test_published_scores_average_over_batches():
    """Two batches, of 2 clips and 1: precision (1/2 * 2 + 0 * 1) / 3, where the last batch answers nothing."""
    said, actual = np.zeros((3, 2, 2), bool), np.zeros((3, 2, 2), bool)
    said[0, 0, :] = actual[0, 0, 0] = actual[1, 1, 1] = actual[2, 0, 0] = True
    precision, recall = (2 * 1 / 2 + 1 * 0) / 3, (2 * 1 / 2 + 1 * 0) / 3
    f1 = 2 * precision * recall / (precision + recall + 1e-6)
    assert batched_scores(np.array([[1, 2, 2], [0, 0, 1]]), np.array([2, 1])) == pytest.approx((precision, recall, f1))
    answers = Answers(np.where(said, 1.0, -1), events(actual.astype(float), np.ones((3, 2), bool)), batch=2)
    found = [value(LOCALIZATION, name, answers) for name in ("accuracy", "recall", "f1")]
    assert found == pytest.approx([100 * precision, 100 * recall, 100 * f1])


def test_intervals_of_averages_over_batches_are_of_that_estimator(several):
    """Resampled clip by clip, cut in batches and averaged, in plain loops."""
    logits, labels, valid = (np.concatenate([part] * 6) for part in several)
    random = np.random.default_rng(5)
    logits = logits + random.normal(size=logits.shape)
    answers = Answers(logits, events(labels, valid), Bootstrap(range(42)), batch=8)
    counts = answers.counts.sum(-1)
    naive = []
    for _ in range(2000):
        drawn = counts[random.integers(42, size=42)]
        batches = [drawn[start : start + 8] for start in range(0, 42, 8)]
        naive.append(100 * sum(len(b) * b[:, 0].sum() / max(b[:, 1].sum(), 1) for b in batches) / 42)
    score = next(score for score in all_scores(LOCALIZATION, answers) if score.name == "accuracy")
    np.testing.assert_allclose(score.interval, np.percentile(naive, [2.5, 97.5]), atol=0.7)
    assert score.interval[0] < score.value < score.interval[1]


# --- chance ---


def test_chance_of_classes_is_the_most_frequent_one():
    learned = one_each(np.array([0, 1, 1, 1, 2]), 4)
    tested = one_each(np.array([1, 1, 0, 3]), 4)
    found = chances(CLASSIFICATION, blind_answers(CLASSIFICATION, learned), tested)
    assert found["precision"] == 50 and found["macro_recall"] == pytest.approx(100 / 3)
    assert found["map"] == pytest.approx(
        100 * (1 / 4 + 2 / 4 + 1 / 4) / 3
    )  # of a constant score: the rate of positives


@pytest.mark.parametrize(
    "metric", ["accuracy", "recall", "f1", "foreground_precision", "foreground_recall", "foreground_f1"]
)
def test_no_blind_answer_gets_more_than_chance(several, metric):
    """Against every set of entries that could be answered all along."""
    learned = events(*several[1:])
    best = max(
        value(LOCALIZATION, metric, Answers(np.broadcast_to(np.where(row, 1.0, -1.0), several[1].shape), learned))
        for row in product([False, True], repeat=5)
    )
    blind = blind_answers(LOCALIZATION, learned)
    assert chances(LOCALIZATION, {metric: blind[metric]}, learned)[metric] == pytest.approx(best)


@pytest.mark.parametrize("metric", ["segment_f1", "event_f1"])
def test_chance_of_official_scores_answers_the_most_frequent_classes(several, metric):
    _, labels, valid = several
    labels = labels * np.array([1, 1, 0, 1, 1])  # class 2 never occurs
    labels[3:5, :, 0] = 1
    learned = events(labels, valid)
    frequency = labels[valid][:, :-1].mean(0)
    tried = []
    for count in range(5):
        row = np.full(5, -1.0)
        row[np.argsort(-frequency, kind="stable")[:count]] = 1
        tried.append(value(LOCALIZATION, metric, Answers(np.broadcast_to(row, labels.shape), learned)))
    blind = blind_answers(LOCALIZATION, learned)
    assert chances(LOCALIZATION, blind, learned)[metric] == pytest.approx(max(tried))
    assert (blind[metric] > 0).sum() == int(np.argmax(tried))


def test_chance_of_segment_accuracy_is_the_commonest_entry(several):
    _, labels, valid = several
    first = labels[valid].argmax(-1)
    blind = blind_answers(LOCALIZATION, events(*several[1:]))
    found = chances(LOCALIZATION, blind, events(*several[1:]))["segment_accuracy"]
    assert found == pytest.approx(100 * np.bincount(first).max() / len(first))


def test_chance_on_the_real_annotations_of_llp(shared):
    """The blind answer to `accuracy` gets 4.2 by F1, the one that is chosen for F1 18.8; in plain numpy."""
    task, annotations = TASKS["avvp"][0], {name: llp.read(shared / "annotations", name) for name in ("audio", "video")}
    parts = split_clips(task, "heldout", annotations["video"], annotations["audio"])
    labels = [segment_labels(clips, 25, 10) for clips in (parts.fit, parts.test)]
    learned, tested = (events(each, np.ones(each.shape[:2], bool)) for each in labels)
    blind = blind_answers(LOCALIZATION, learned)

    fit, test = (each.reshape(-1, 26) for each in labels)
    order = np.argsort(-fit.sum(0), kind="stable")
    tuned = [2 * fit[:, order[:k]].sum() / (k * len(fit) + fit.sum()) for k in range(1, 27)]
    for metric, columns, expected in (("accuracy", order[:1], 4.2), ("f1", order[: np.argmax(tuned) + 1], 18.8)):
        f1 = 100 * 2 * test[:, columns].sum() / (len(columns) * len(test) + test.sum())
        assert chances(LOCALIZATION, {"f1": blind[metric]}, tested)["f1"] == pytest.approx(f1, rel=1e-6)
        assert f1 == pytest.approx(expected, abs=0.05)


def test_no_clip_answered_and_one_clip_alone_give_numbers(several):
    logits, labels, valid = several
    nothing = values(localized(np.full_like(logits, -1), labels, valid))
    assert nothing["accuracy"] == nothing["recall"] == nothing["f1"] == 0
    one = localized(logits[:1], labels[:1], valid[:1])
    assert all(np.isfinite(score.value) for score in one)
    assert all(score.interval is None for score in one)
    assert classified(np.array([[1.0]]), np.array([0]))[0].interval is None


def test_event_scores_by_hand():
    """True events 0-4 and 6-8. Answers 0-2 (half of its union with the first: right) and 5-9 (2 of 4
    seconds: right).
    """
    actual = np.zeros((1, 10, 1), bool)
    actual[0, 0:4] = actual[0, 6:8] = True
    said = np.zeros_like(actual)
    said[0, 0:2] = said[0, 5:9] = True
    assert clip_f1(event_counts(said, actual))[0] == 1
    assert clip_f1(segment_counts(said, actual))[0] == pytest.approx(2 * 4 / (2 * 4 + 2 + 2))
    said[0, 1] = False  # one second of four: not the same event any more
    assert clip_f1(event_counts(said, actual))[0] == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert clip_f1(event_counts(np.zeros_like(said), np.zeros_like(actual)))[0] == 1  # nothing there, nothing said


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


def test_chosen_cut_gets_the_largest_f1_of_all_cuts(several):
    logits, labels, valid = several
    for spread in (logits, logits.round(1), np.zeros_like(logits), logits + 100):
        truth = events(labels, valid)
        found = best_cut(Answers(spread, truth))
        tried = {cut: value(LOCALIZATION, "f1", Answers(spread, truth, cut=cut)) for cut in np.unique(spread) - 1e-6}
        assert value(LOCALIZATION, "f1", Answers(spread, truth, cut=found)) == pytest.approx(max(tried.values()))
    assert best_cut(Answers(np.where(labels > 0, 3.0, 1.0), truth)) == 2  # midway
