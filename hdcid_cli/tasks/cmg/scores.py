"""Metrics of classification and localisation, as the papers define them and as they should be, and what chance gets.

Each metric is two functions: its score, and the best *blind* answer to it, one that does not look at its input and is
the same for every clip and segment. Chance is what a metric's own blind answer, chosen on the clips that the probe
learned on, gets on the tested ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby

import numpy as np

from hdcid_cli.tasks.metrics import Bootstrap, Score, batch_sums, map_score, mean_score, ratio, sums_score

CLASSIFICATION, LOCALIZATION = "classification", "localization"


@dataclass(frozen=True)
class Truth:
    """What is so of N clips.

    Attributes:
        labels: [N] class numbers, C for none of the classes; or [N, T, C + 1] of zeros and ones, the last column the
            background.
        valid: [N, T] bool, the segments that count.
        classes: C.
    """

    labels: np.ndarray
    valid: np.ndarray
    classes: int

    @cached_property
    def actual(self) -> np.ndarray:
        """The labels as bool, [N, C], or [N, T, C + 1] without the segments that do not count."""
        if self.labels.ndim == 1:
            return np.eye(self.classes + 1, self.classes, dtype=bool)[self.labels]
        return (self.labels > 0) & self.valid[..., None]


@dataclass(frozen=True)
class Answers:
    """What was answered of N clips.

    Attributes:
        logits: [N, C], the larger the likelier; or [N, T, C + 1], answered where > cut.
        truth: of the same clips.
        bootstrap: of the clips; None for scores without intervals.
        batch: average `accuracy` and `recall` over batches of so many clips and take `f1` of the averages, as the
            released code does; None pools all segments.
        cut: above which logit an entry of a segment is answered; 0 is a probability of one half.
    """

    logits: np.ndarray
    truth: Truth
    bootstrap: Bootstrap | None = None
    batch: int | None = None
    cut: float = 0.0

    @cached_property
    def said(self) -> np.ndarray:
        """The answers in the form of `Truth.actual`: the likeliest class, or all entries above the cut."""
        if self.logits.ndim == 2:
            return np.eye(self.truth.classes, dtype=bool)[self.logits.argmax(1)]
        return (self.logits > self.cut) & self.truth.valid[..., None]

    @cached_property
    def counts(self) -> np.ndarray:
        """Hits, answers and truths of every clip and class, [N, 3, C] or [N, 3, C + 1]."""
        actual = self.truth.actual
        parts = (self.said & actual, self.said, actual)
        return np.stack([part if part.ndim == 2 else part.sum(1) for part in parts], 1).astype(np.int64)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        score: (its name, answers) -> its score.
        blind: truth about what was learned on -> the answer to every clip or segment that gets most by it, a row of
            logits [C] or [C + 1].
    """

    score: Callable[[str, Answers], Score]
    blind: Callable[[Truth], np.ndarray]


def all_scores(kind: str, answers: Answers) -> list[Score]:
    """Every metric of a kind of task."""
    return [metric.score(name, answers) for name, metric in METRICS[kind].items()]


def value(kind: str, metric: str, answers: Answers) -> float:
    """One metric in percent: what an epoch is chosen by."""
    return METRICS[kind][metric].score(metric, answers).value


def blind_answers(kind: str, learned: Truth) -> dict[str, np.ndarray]:
    """{metric: the best blind answer to it}, chosen by the labels of what was learned on."""
    return {name: metric.blind(learned) for name, metric in METRICS[kind].items()}


def chances(kind: str, blind: Mapping[str, np.ndarray], tested: Truth, batch: int | None = None) -> dict[str, float]:
    """{metric: what its blind answer gets on the tested clips, in percent}."""
    places = tested.labels.shape[:2] if tested.labels.ndim == 3 else tested.labels.shape
    return {
        name: value(kind, name, Answers(np.broadcast_to(row, (*places, len(row))), tested, batch=batch))
        for name, row in blind.items()
    }


# --- one class a clip ---


def _top1(name: str, answers: Answers) -> Score:
    hit = (answers.said & answers.truth.actual).any(1)
    statistics = np.stack([hit, np.ones_like(hit)], 1)
    recall = per_class_scores(answers.counts.sum(0))[1]
    return sums_score(name, statistics, ratio, answers.bootstrap, 100 * recall)


def _macro(name: str, answers: Answers, which: int) -> Score:
    """Mean over the classes that occur of precision (0), recall (1) or F1 (2)."""

    def mean(sums: np.ndarray) -> np.ndarray:
        each = per_class_scores(sums.reshape(*sums.shape[:-1], 3, -1))[which]
        there = np.isfinite(each)
        return np.where(there, each, 0).sum(-1) / np.maximum(there.sum(-1), 1)

    each = per_class_scores(answers.counts.sum(0))[which]
    return sums_score(name, answers.counts.reshape(len(answers.counts), -1), mean, answers.bootstrap, 100 * each)


def _map(name: str, answers: Answers) -> Score:
    return map_score(name, answers.logits, answers.truth.actual, np.arange(len(answers.logits)), answers.bootstrap)


def _most_frequent_class(learned: Truth) -> np.ndarray:
    return np.bincount(learned.labels, minlength=learned.classes) / len(learned.labels)


# --- all events of each segment ---


def _pooled(name: str, answers: Answers, which: int, foreground: bool = False) -> Score:
    """Precision (0), recall (1) or F1 (2) of all entries, or of those but the background's."""
    counts = answers.counts[..., :-1] if foreground else answers.counts
    each = None if foreground else 100 * per_class_scores(counts.sum(0))[which]
    pooled = counts.sum(-1).astype(np.float64)
    if foreground or answers.batch is None:
        return sums_score(name, pooled, lambda sums: _rates(*np.moveaxis(sums, -1, 0))[which], answers.bootstrap, each)

    def batched(sums: np.ndarray, clips: np.ndarray) -> float:
        return 100 * batched_scores(sums, clips)[which]

    interval = answers.bootstrap.of_batches(pooled, batched, answers.batch) if answers.bootstrap else None
    return Score(name, batched(*batch_sums(pooled, answers.batch)), interval, each)


def _rates(hit: np.ndarray, said: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of hits, answers and truths."""
    return hit / np.maximum(said, 1), hit / np.maximum(actual, 1), 2 * hit / np.maximum(said + actual, 1)


def batched_scores(sums: np.ndarray, clips: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 as the released loop over batches computes them, in 0..1.

    Precision and recall are averaged over batches, weighted by their clips; a batch without
    a single positive answer counts 0 for both; 1e-6 stands in F1's denominator.

    Args:
        sums: [B, 3], hits, answers and truths of every batch.
        clips: [B], how many clips it has.
    """
    hit, said, actual = sums.T
    precision, recall = (
        float(np.average(np.where(said > 0, hit / np.maximum(of, 1), 0), weights=clips)) for of in (said, actual)
    )
    return precision, recall, 2 * precision * recall / (precision + recall + 1e-6)


def best_cut(answers: Answers) -> float:
    """The logit above which answering gets the largest F1 of all entries, midway to the next one below it."""
    logits = answers.logits[answers.truth.valid].ravel()
    order = np.argsort(-logits, kind="stable")
    hit, said = answers.truth.actual[answers.truth.valid].ravel()[order].cumsum(), np.arange(1, len(order) + 1)
    ends = np.flatnonzero(np.append(np.diff(logits[order]) != 0, True))  # equal logits are answered together
    best = ends[(hit / (said + hit[-1]))[ends].argmax()]
    lowest = logits[order[best]]
    return float((lowest + logits[order[best + 1]]) / 2) if best + 1 < len(order) else float(lowest) - 1


def _segment_map(name: str, answers: Answers) -> Score:
    valid = answers.truth.valid
    return map_score(
        name,
        answers.logits[valid][:, :-1],
        answers.truth.actual[valid][:, :-1],
        np.nonzero(valid)[0],
        answers.bootstrap,
    )


def _segment_accuracy(name: str, answers: Answers) -> Score:
    right = (answers.logits.argmax(-1) == answers.truth.labels.argmax(-1)) & answers.truth.valid
    return sums_score(name, np.stack([right.sum(1), answers.truth.valid.sum(1)], 1), ratio, answers.bootstrap)


def _official(name: str, answers: Answers, counts: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Score:
    """LLP's score of one modality, of segments or of events."""
    return mean_score(name, clip_f1(counts(answers.said[..., :-1], answers.truth.actual[..., :-1])), answers.bootstrap)


def _frequencies(learned: Truth) -> np.ndarray:
    """[C + 1], the share of segments in which each entry is true."""
    return learned.actual[learned.valid].mean(0)


def _answering(columns: np.ndarray, entries: int) -> np.ndarray:
    row = np.full(entries, -1.0)
    row[columns] = 1
    return row


def _blind_pooled(learned: Truth, which: int, foreground: bool = False) -> np.ndarray:
    """The k most frequent entries: no other k entries get as many hits."""
    frequency = _frequencies(learned)[: learned.classes if foreground else None]
    order = np.argsort(-frequency, kind="stable")
    hit, said = frequency[order].cumsum(), np.arange(1, len(order) + 1)
    gained = (hit / said, hit, 2 * hit / (said + frequency.sum()))[which]
    return _answering(order[: gained.argmax() + 1], learned.classes + 1)


def _blind_segment(learned: Truth) -> np.ndarray:
    """The commonest of the entries that come first in their segment."""
    first = learned.labels.argmax(-1)[learned.valid]
    commonest = np.bincount(first, minlength=learned.classes + 1).argmax()
    return _answering(np.array([commonest]), learned.classes + 1)


def _blind_official(learned: Truth, counts: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """The k most frequent classes all along, k = 0 to C, whichever gets most."""
    actual = learned.actual[..., :-1]
    everything = np.broadcast_to(learned.valid[..., None], actual.shape)
    order = np.argsort(-_frequencies(learned)[:-1], kind="stable")
    answered, silent = (counts(said, actual)[..., order] for said in (everything, np.zeros_like(actual)))
    # A class counts alike whichever others are answered: sums over the first k of one kind and the rest of the other.
    f1 = 2 * answered[0] / np.maximum(answered[0] + answered.sum(0), 1)
    gained = np.pad(f1.cumsum(1), ((0, 0), (1, 0)))
    first, rest = (answered.sum(0) > 0).cumsum(1), (silent.sum(0) > 0)[:, ::-1].cumsum(1)[:, ::-1]
    occurring = np.pad(first, ((0, 0), (1, 0))) + np.pad(rest, ((0, 0), (0, 1)))
    score = np.where(occurring > 0, gained / np.maximum(occurring, 1), 1).mean(0)
    return _answering(order[: score.argmax()], learned.classes + 1)


def per_class_scores(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[..., 3, C] of hits, answers and truths -> precision, recall and F1, each [..., C].

    NaN where a class does not occur; 0 where it occurs and is never answered.
    """
    hit, said, actual = np.moveaxis(np.asarray(sums, float), -2, 0)
    occurs = actual > 0
    precision, recall, f1 = (np.where(occurs, each, np.nan) for each in _rates(hit, said, actual))
    return precision, recall, f1


# --- LLP's official scores (Tian et al. 2020, section 6.1) ---


def segment_counts(said: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """True positives, false positives and false negatives: [3, N, C] segments."""
    return np.stack([(said & actual).sum(1), (said & ~actual).sum(1), (~said & actual).sum(1)])


def event_counts(said: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """True positives, false positives and false negatives: [3, N, C] events.

    Two events fit if they share at least half of their union. As in the official code an answer is right if it fits
    any true event, and a true event is missed if no answer fits it, so that two answers may fit the same event.
    """
    answered, true = _starts(said), _starts(actual)
    counts = np.stack([np.zeros_like(true), answered, true])
    for clip, label in np.argwhere((answered > 0) & (true > 0)):
        answers, truths = runs(said[clip, :, label]), runs(actual[clip, :, label])
        right = sum(any(_fits(answer, truth) for truth in truths) for answer in answers)
        missed = sum(not any(_fits(truth, answer) for answer in answers) for truth in truths)
        counts[:, clip, label] = right, len(answers) - right, missed
    return counts


def _starts(active: np.ndarray) -> np.ndarray:
    """[N, T, C] bool -> how many events begin, [N, C]."""
    return active[:, 0] + (active[:, 1:] & ~active[:, :-1]).sum(1)


def runs(active: np.ndarray) -> list[tuple[int, int]]:
    """[T] bool -> [(start, end)] of every stretch of ones."""
    runs, start = [], 0
    for value, stretch in groupby(active.tolist()):
        end = start + len(list(stretch))
        if value:
            runs.append((start, end))
        start = end
    return runs


def _fits(one: tuple[int, int], other: tuple[int, int]) -> bool:
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared >= 0.5 * (one[1] - one[0] + other[1] - other[0] - shared)


def clip_f1(counts: np.ndarray) -> np.ndarray:
    """[3, N, C] -> [N] in 0..1: mean F over the classes that occur in truth or answer, 1 if there is none."""
    hit, wrong, missed = counts
    total = 2 * hit + wrong + missed
    occurs = hit + wrong + missed > 0
    f1 = 2 * hit / np.maximum(total, 1)
    return np.where(occurs.any(1), (f1 * occurs).sum(1) / np.maximum(occurs.sum(1), 1), 1.0)


METRICS: dict[str, dict[str, Metric]] = {
    # `precision` is the papers' name for top-1 accuracy; the macro averages run over the classes that occur.
    CLASSIFICATION: {
        "precision": Metric(_top1, _most_frequent_class),
        "macro_precision": Metric(partial(_macro, which=0), _most_frequent_class),
        "macro_recall": Metric(partial(_macro, which=1), _most_frequent_class),
        "macro_f1": Metric(partial(_macro, which=2), _most_frequent_class),
        "map": Metric(_map, _most_frequent_class),
    },
    # `accuracy`, `recall` and `f1` are the released code's: of all entries with sigmoid > 0.5, the background's
    # included, how many are right, and so on. `segment_f1` and `event_f1` are LLP's of one modality;
    # `segment_accuracy` asks only for the likeliest entry.
    LOCALIZATION: {
        "accuracy": Metric(partial(_pooled, which=0), partial(_blind_pooled, which=0)),
        "recall": Metric(partial(_pooled, which=1), partial(_blind_pooled, which=1)),
        "f1": Metric(partial(_pooled, which=2), partial(_blind_pooled, which=2)),
        **{
            f"foreground_{name}": Metric(
                partial(_pooled, which=which, foreground=True), partial(_blind_pooled, which=which, foreground=True)
            )
            for which, name in enumerate(("precision", "recall", "f1"))
        },
        "segment_map": Metric(_segment_map, _frequencies),
        "segment_accuracy": Metric(_segment_accuracy, _blind_segment),
        "segment_f1": Metric(
            partial(_official, counts=segment_counts), partial(_blind_official, counts=segment_counts)
        ),
        "event_f1": Metric(partial(_official, counts=event_counts), partial(_blind_official, counts=event_counts)),
    },
}
