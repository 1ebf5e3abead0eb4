"""Scores of classification and localisation, as the papers define them and as they should be.

Every metric is a function of sums over clips, `value(statistics.sum(axis=0))`, so that one
bootstrap serves them all: resampling clips is resampling rows of `statistics`.
All values are percentages.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hdcid_cli.tasks.cmg.llp_scores import event_f1, segment_f1


@dataclass(frozen=True)
class Score:
    """One metric on one set of clips.

    Attributes:
        name: precision, accuracy, f1, map, ...
        value: in percent.
        interval: 95 % bootstrap interval over clips, or None.
        per_class: [classes] in percent, NaN for classes that do not occur, or None.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    per_class: np.ndarray | None = None


def classification_scores(scores: np.ndarray, labels: np.ndarray, seed: int = 0) -> list[Score]:
    """Scores of one class a clip.

    `precision` is the paper's: top-1 accuracy. The macro averages run over the classes that
    occur in `labels`.

    Args:
        scores: [N, C], the larger the likelier.
        labels: [N] class numbers.
    """
    classes = scores.shape[1]
    predicted = scores.argmax(1)
    actual = np.eye(classes, dtype=bool)[labels]
    said = np.eye(classes, dtype=bool)[predicted]
    hit = (predicted == labels)[:, None]
    ones = np.ones_like(hit)
    counts = np.concatenate([said & actual, said, actual], 1)
    precision, recall, f1 = per_class_scores(counts.sum(0))
    return [
        bootstrapped("precision", np.concatenate([hit, ones], 1), _ratio, seed, per_class=100 * recall),
        bootstrapped("macro_precision", counts, lambda sums: _macro(sums, 0), seed, per_class=100 * precision),
        bootstrapped("macro_recall", counts, lambda sums: _macro(sums, 1), seed, per_class=100 * recall),
        bootstrapped("macro_f1", counts, lambda sums: _macro(sums, 2), seed, per_class=100 * f1),
        map_score("map", scores, actual, np.arange(len(scores)), seed),
    ]


def localisation_scores(
    logits: np.ndarray, labels: np.ndarray, valid: np.ndarray, seed: int = 0, batch: int | None = None
) -> list[Score]:
    """Scores of several events at once in every segment.

    `accuracy`, `recall` and `f1` are the released code's: of all entries with sigmoid > 0.5,
    the background's column included, how many are right, and so on. The `foreground_` ones
    leave the background out; `segment_map` averages over classes; `segment_f1` and `event_f1` are
    LLP's official scores of one modality; `segment_accuracy` asks only for the likeliest class.

    Args:
        logits: [N, T, C + 1], the last column the background.
        labels: [N, T, C + 1] of zeros and ones.
        valid: [N, T] bool, the segments that count.
        batch: average `accuracy` and `recall` over batches of so many clips and take `f1` of the
            averages, as the released code does; None pools all segments.
    """
    said = (logits > 0) & valid[..., None]
    actual = (labels > 0) & valid[..., None]
    counts = _counts(said, actual)
    events = _counts(said[..., :-1], actual[..., :-1])
    precision, recall, f1 = per_class_scores(counts.sum(0))
    pooled = [
        bootstrapped(name, _pooled(counts), value, seed) for name, value in zip(("accuracy", "recall", "f1"), _POOLED)
    ]
    if batch is not None:
        pooled = [
            Score(score.name, value, score.interval)
            for score, value in zip(pooled, batched_scores(said, actual, batch))
        ]
    pooled = [
        Score(score.name, score.value, score.interval, 100 * each)
        for score, each in zip(pooled, (precision, recall, f1))
    ]
    right = (logits.argmax(-1) == labels.argmax(-1)) & valid
    return [
        *pooled,
        *(
            bootstrapped(f"foreground_{name}", _pooled(events), value, seed)
            for name, value in zip(("precision", "recall", "f1"), _POOLED)
        ),
        map_score("segment_map", logits[valid][:, :-1], labels[valid][:, :-1] > 0, np.nonzero(valid)[0], seed),
        bootstrapped("segment_accuracy", np.stack([right.sum(1), valid.sum(1)], 1), _ratio, seed),
        mean_score("segment_f1", segment_f1(said[..., :-1], actual[..., :-1]), seed),
        mean_score("event_f1", event_f1(said[..., :-1], actual[..., :-1]), seed),
    ]


def headline(metric: str, logits: np.ndarray, labels: np.ndarray, valid: np.ndarray, batch: int | None = None) -> float:
    """One of the papers' metrics alone, without interval: what an epoch is chosen by.

    Args:
        metric: `precision` (logits [N, C], labels [N]); `accuracy`, `recall`, `f1` or `segment_accuracy` (both [N, T, C
            + 1]).
    """
    if metric == "precision":
        return 100 * float((logits.argmax(-1) == labels).mean())
    if metric == "segment_accuracy":
        return 100 * float((logits.argmax(-1) == labels.argmax(-1))[valid].mean())
    values = batched_scores((logits > 0) & valid[..., None], (labels > 0) & valid[..., None], batch or len(logits))
    return dict(zip(("accuracy", "recall", "f1"), values))[metric]


def batched_scores(said: np.ndarray, actual: np.ndarray, batch: int) -> tuple[float, float, float]:
    """Precision, recall and F1 in percent as the released loop over batches computes them.

    Precision and recall are averaged over batches, weighted by their clips; a batch without
    a single positive answer counts 0 for both; 1e-6 in F1's denominator.
    """
    starts = range(0, len(said), batch)
    clips = np.array([len(said[start : start + batch]) for start in starts])
    hit, said_sum, actual_sum = (
        np.array([float(part[start : start + batch].sum()) for start in starts])
        for part in (said & actual, said, actual)
    )
    answered = said_sum > 0
    precision = np.average(np.where(answered, hit / np.maximum(said_sum, 1), 0), weights=clips)
    recall = np.average(np.where(answered, hit / np.maximum(actual_sum, 1), 0), weights=clips)
    return 100 * precision, 100 * recall, 100 * 2 * precision * recall / (precision + recall + 1e-6)


def per_class_scores(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[..., 3 C] of hits, answers and truths -> precision, recall and F1, each [..., C].

    NaN where a class does not occur; 0 where it occurs and is never answered.
    """
    hit, said, actual = np.split(np.asarray(sums, float), 3, axis=-1)
    nowhere = np.where(actual > 0, 0.0, np.nan)
    precision = np.where((said > 0) & (actual > 0), hit / np.maximum(said, 1), nowhere)
    recall = np.where(actual > 0, hit / np.maximum(actual, 1), np.nan)
    f1 = np.where(actual > 0, 2 * hit / np.maximum(said + actual, 1), np.nan)
    return precision, recall, f1


def average_precision(scores: np.ndarray, actual: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the precision-recall steps of every class; equal scores are one threshold.

    Args:
        scores: [M, C].
        actual: [M, C] bool.
        weights: [M, R], how often each row counts, in R resamplings.

    Returns:
        [C] in 0..1, NaN where a class has no positive; [R, C] if there are weights.
    """
    counts = np.ones((len(scores), 1)) if weights is None else weights
    result = np.full((counts.shape[1], scores.shape[1]), np.nan)
    for column in np.flatnonzero(actual.any(0)):
        order = np.argsort(-scores[:, column], kind="stable")
        last = np.flatnonzero(np.append(np.diff(scores[order, column]) != 0, True))  # the last rank of every threshold
        positives = np.flatnonzero(actual[order, column])
        # Area comes from the thresholds alone at which a positive is found: few of all, where there are many classes.
        thresholds, first = np.unique(np.searchsorted(last, positives), return_index=True)
        ends = last[thresholds]
        answers = np.add.reduceat(counts[order[: ends[-1] + 1]], np.append(0, ends[:-1] + 1), axis=0).cumsum(0)
        gained = np.add.reduceat(counts[order[positives]], first, axis=0)
        hits = gained.cumsum(0)
        area = (gained * hits / np.maximum(answers, 1)).sum(0)
        result[:, column] = np.where(hits[-1] > 0, area / np.maximum(hits[-1], 1), np.nan)
    return result[0] if weights is None else result


def map_score(name: str, scores: np.ndarray, actual: np.ndarray, clip: np.ndarray, seed: int = 0) -> Score:
    """Mean average precision over the classes that occur.

    Args:
        scores, actual: as of `average_precision`.
        clip: [M], which clip a row belongs to: clips are resampled, not rows.
    """
    each = average_precision(scores, actual)
    if not np.isfinite(each).any():
        return Score(name, float("nan"), per_class=each)
    clip = np.unique(clip, return_inverse=True)[1]  # clips without a row are not drawn
    # Every resampling walks through all scores: fewer of them where the scores are millions.
    resamples = int(np.clip(5e7 // max(1, scores.size), 100, 1000))
    weights = clip_weights(int(clip.max()) + 1, resamples, seed).T.astype(np.float32)[clip]
    parts = np.array_split(weights, max(1, weights.size // 10**7), axis=1)
    found = np.concatenate([average_precision(scores, actual, part) for part in parts])
    means = [100 * row[np.isfinite(row)].mean() for row in found if np.isfinite(row).any()]
    low, high = np.percentile(means, [2.5, 97.5])
    return Score(name, 100 * float(np.nanmean(each)), (float(low), float(high)), 100 * each)


def median_score(name: str, values: np.ndarray, seed: int = 0, resamples: int = 1000) -> Score:
    """The median of one number a clip, [N], in its own unit."""
    random = np.random.default_rng(seed)
    medians = [np.median(values[random.integers(len(values), size=len(values))]) for _ in range(resamples)]
    low, high = np.percentile(medians, [2.5, 97.5])
    return Score(name, float(np.median(values)), (float(low), float(high)))


def clip_weights(clips: int, resamples: int, seed: int) -> np.ndarray:
    """How often each clip is drawn in each of the bootstrap's resamplings, [R, N]."""
    return np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=resamples)


def bootstrapped(
    name: str,
    statistics: np.ndarray,
    value: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    resamples: int = 1000,
    per_class: np.ndarray | None = None,
) -> Score:
    """A score with its 95 % percentile interval over resampled clips.

    Args:
        statistics: [N, S], one row a clip.
        value: [..., S] sums -> [...] in 0..1.
    """
    statistics = np.asarray(statistics, np.float64)
    weights = clip_weights(len(statistics), resamples, seed)
    low, high = np.nanpercentile(100 * value(weights @ statistics), [2.5, 97.5])
    return Score(name, 100 * float(value(statistics.sum(0))), (float(low), float(high)), per_class)


def mean_score(name: str, values: np.ndarray, seed: int = 0) -> Score:
    """The mean of one number a clip, [N] in 0..1."""
    return bootstrapped(name, np.stack([values, np.ones(len(values))], 1), _ratio, seed)


def _counts(said: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """[N, T, C] twice -> [N, 3 C]: hits, answers and truths of every clip and class."""
    return np.concatenate([(said & actual).sum(1), said.sum(1), actual.sum(1)], 1)


def _pooled(counts: np.ndarray) -> np.ndarray:
    """[N, 3 C] -> [N, 3]: summed over classes."""
    return counts.reshape(len(counts), 3, -1).sum(-1)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.maximum(sums[..., 1], 1)


# Of [..., 3] hits, answers and truths: precision, recall, F1.
_POOLED = (
    lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1),
    lambda sums: sums[..., 0] / np.maximum(sums[..., 2], 1),
    lambda sums: 2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1),
)


def _macro(sums: np.ndarray, which: int) -> np.ndarray:
    """Mean over the classes that occur of precision (0), recall (1) or F1 (2)."""
    each = per_class_scores(sums)[which]
    there = np.isfinite(each)
    return np.where(there, each, 0).sum(-1) / np.maximum(there.sum(-1), 1)
