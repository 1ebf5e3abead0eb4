"""Open-set evaluation: a probe knows K classes, and clips of all others should be rejected (MICU, arXiv 2507.14935).

A clip's score says how sure the probe is; what scores below a threshold is rejected as unknown. Held out, the threshold
keeps a share of the known validation clips of the modality learned on, and no unknown clip takes part in choosing it.
Published, it is the best of ten between the lowest and the highest score of the tested clips. Of labels, K is unknown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.progress import counted
from hdcid_cli.tasks.cmg.scores import Answers
from hdcid_cli.tasks.metrics import Bootstrap, Score, percentiles

# [N, K] logits -> [N], the larger the surer.
SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "softmax": lambda logits: 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1),
    "logit": lambda logits: logits.max(1),
    "energy": lambda logits: logits.max(1) + np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)),
}
MEASURES = ("hos", "os_star", "unk", "kept", "closed", "auroc", "oscr", "fpr95")
THRESHOLDS = 10  # of the published search
RECALL = 0.95  # of known clips, at which FPR95 is taken
BINS = 20  # of a histogram of scores
POINTS = 200  # of a curve
# Weights of resampled clips that are in memory at once.
_AT_ONCE = 2_000_000


def known_classes(text: str, classes: Sequence[str]) -> tuple[int, ...]:
    """The classes that `--open-set` names: the first K, or names separated by commas, which may have commas themselves.

    Raises:
        InputError: no such class, one that is named twice, fewer than 2, or no class left to be unknown.
    """
    text = text.strip()
    known = tuple(range(min(int(text), len(classes)))) if text.isdecimal() else _named(text, classes)
    if len(classes) < 3:
        raise InputError(
            f"--open-set needs 3 classes or more, 2 of them known and one that is not; the table has {len(classes)}."
        )
    if not 2 <= len(known) < len(classes):
        most = f"{'from 2 to ' * (len(classes) > 3)}{len(classes) - 1}"
        raise InputError(f"--open-set {text}: {most} of the {len(classes)} classes can be known, so that some are not.")
    return known


def _named(text: str, classes: Sequence[str]) -> tuple[int, ...]:
    numbers = {name: number for number, name in enumerate(classes)}
    parts, found = text.split(","), []
    while parts:
        ends = [end for end in range(len(parts), 0, -1) if ",".join(parts[:end]).strip() in numbers]
        if not ends:
            raise InputError(f"--open-set: there is no class {parts[0].strip()!r}; there are {', '.join(classes)}.")
        found.append(numbers[",".join(parts[: ends[0]]).strip()])
        parts = parts[ends[0] :]
    if len(set(found)) < len(found):
        raise InputError(f"--open-set {text} names a class twice.")
    return tuple(found)


@dataclass(frozen=True)
class OpenAnswers:
    """What was answered of N clips of which some are of no known class.

    Attributes:
        score: [N], the larger the surer.
        right: [N] bool, whether the likeliest class is the clip's own.
        known: [N] bool, whether the clip is of a known class.
    """

    score: np.ndarray
    right: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, answers: Answers, score: str) -> "OpenAnswers":
        """Answers to known classes, logits [N, K] and labels 0..K, by one of SCORES."""
        logits, labels = answers.logits.astype(np.float64), answers.truth.labels
        return cls(SCORES[score](logits), logits.argmax(1) == labels, labels < answers.truth.classes)

    @cached_property
    def levels(self) -> np.ndarray:
        """[V], the scores that occur, ascending."""
        return np.unique(self.score)

    @cached_property
    def order(self) -> np.ndarray:
        """[N], the clips by their scores, ascending."""
        return np.argsort(self.score, kind="stable")

    def at_or_above(self, which: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """[R, N] weights of clips -> [R, V + 1], those of the clips `which` that score at least each level; 0 at V."""
        starts = np.searchsorted(self.score[self.order], self.levels)
        sums = np.add.reduceat((weights * which)[:, self.order], starts, axis=1, dtype=np.float64)
        return np.pad(sums[:, ::-1].cumsum(1)[:, ::-1], ((0, 0), (0, 1)))


def keep_threshold(score: np.ndarray, keep: float) -> float:
    """The largest of the scores that at least the share `keep` of them reach."""
    rank = int(np.ceil(keep * len(score) - 1e-9))
    return float(np.sort(score)[::-1][max(rank, 1) - 1])


def measure(
    answers: OpenAnswers, threshold: float | None, weights: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The measures of R weighings of the clips, in 0..1, and the threshold of each.

    os_star   share of known clips answered right and not rejected
    unk       share of unknown clips rejected
    hos       2 os_star unk / (os_star + unk)
    kept      share of known clips not rejected
    closed    share of known clips answered right, nobody rejected
    auroc     how often a known clip scores above an unknown one, equal scores counting half
    oscr      the same where the known clip is answered right, too: the area under correct classification over false
              positives (Dhamija et al. 2018)
    fpr95     share of unknown clips that reach the largest score which 95 % of the known ones reach

    Args:
        threshold: None for the best of the published ten, looked for in each weighing.
        weights: [R, N], how often each clip counts, known and unknown ones in each row; None: once.

    Returns:
        {measure: [R]}, [R].
    """
    if weights is None:
        weights = np.ones((1, len(answers.score)))
    known, right, unknown = (
        answers.at_or_above(which, weights) for which in (answers.known, answers.known & answers.right, ~answers.known)
    )
    of_known, of_unknown, rows = known[:, :1], unknown[:, :1], np.arange(len(weights))
    tried = np.full((len(weights), 1), threshold) if threshold is not None else _published(answers, known + unknown)
    places = np.searchsorted(answers.levels, tried)
    os_star = np.take_along_axis(right, places, 1) / of_known
    unk = 1 - np.take_along_axis(unknown, places, 1) / of_unknown
    hos = harmonic_mean(os_star, unk)
    best = hos.argmax(1)  # the first of equals
    kept = np.take_along_axis(known, places, 1) / of_known
    below, at = of_unknown - unknown[:, :-1], -np.diff(unknown)
    higher = (below + at / 2) / (of_known * of_unknown)
    reached = (known[:, :-1] >= RECALL * of_known - 1e-9).sum(1) - 1
    found = {
        name: each[rows, best] for name, each in {"hos": hos, "os_star": os_star, "unk": unk, "kept": kept}.items()
    }
    found |= {
        "closed": right[:, 0] / of_known[:, 0],
        "auroc": (-np.diff(known) * higher).sum(1),
        "oscr": (-np.diff(right) * higher).sum(1),
        "fpr95": unknown[rows, reached] / of_unknown[:, 0],
    }
    return found, tried[rows, best]


def _published(answers: OpenAnswers, reaching: np.ndarray) -> np.ndarray:
    """[R, 10] thresholds between the lowest and the highest score of the clips that count; reaching: [R, V + 1]."""
    there = -np.diff(reaching) > 0
    low = answers.levels[there.argmax(1)]
    high = answers.levels[there.shape[1] - 1 - there[:, ::-1].argmax(1)]
    return np.linspace(low, high, THRESHOLDS, axis=1)


def harmonic_mean(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """2 x y / (x + y), 0 where both are 0."""
    total = one + other
    return np.divide(2 * one * other, total, out=np.zeros_like(total), where=total > 0)


@dataclass(frozen=True)
class OpenScores:
    """Scores of an open set, the threshold that they are at, and what guessing gets."""

    scores: list[Score]
    chances: Mapping[str, float]
    threshold: float


def open_scores(
    answers: OpenAnswers, threshold: float | None, bootstrap: Bootstrap, closed_chance: float
) -> OpenScores:
    """All measures with intervals, every resampling of recordings giving one value of each.

    Args:
        threshold: None for the published search, which each resampling repeats.
        closed_chance: share of known clips that one class for all of them gets.

    Raises:
        InputError: all of the clips, or none, are known.
    """
    if answers.known.all() or not answers.known.any():
        missing = "an unknown" if answers.known.all() else "a known"
        raise InputError(f"Of {counted(len(answers.known), 'tested clip')} none is of {missing} class.")
    values, at = measure(answers, threshold)
    intervals: dict[str, tuple[float, float] | None] = dict.fromkeys(MEASURES)
    if bootstrap.groups > 1:
        drawn = bootstrap.drawn_with(answers.known, ~answers.known)
        rows = max(1, _AT_ONCE // len(answers.score))
        parts = [
            measure(answers, threshold, drawn[start : start + rows, bootstrap.group])[0]
            for start in range(0, len(drawn), rows)
        ]
        intervals |= {name: percentiles(100 * np.concatenate([part[name] for part in parts])) for name in MEASURES}
    scores = [Score(name, 100 * float(values[name][0]), intervals[name]) for name in MEASURES]
    return OpenScores(scores, chances(float(values["closed"][0]), closed_chance), float(at[0]))


def chances(closed: float, closed_chance: float) -> dict[str, float]:
    """{measure: what a score that says nothing gets, in percent}, where it is known.

    Of `hos`, at its best threshold and with the closed accuracy c: 2 c / (1 + sqrt c)^2, where a share of sqrt c /
    (1 + sqrt c) is rejected.
    """
    hos = 2 * closed / (1 + np.sqrt(closed)) ** 2
    found = {"hos": hos, "closed": closed_chance, "auroc": 0.5, "oscr": closed / 2, "fpr95": RECALL}
    return {name: 100 * float(value) for name, value in found.items()}


def curves(answers: OpenAnswers) -> dict[str, dict[str, list[float]]]:
    """What a picture of an open set takes: `histogram` (edges of scores, known and unknown clips between them) and
    `oscr` (false-positive and correct-classification rate of falling thresholds, from 0 to all), rates in 0..1.
    """
    ones = np.ones((1, len(answers.score)))
    right, unknown = (
        answers.at_or_above(which, ones)[0][::-1] for which in (answers.known & answers.right, ~answers.known)
    )
    some = np.unique(np.linspace(0, len(right) - 1, POINTS).round().astype(int))
    edges = np.histogram_bin_edges(answers.score, BINS)
    known, others = (np.histogram(answers.score[which], edges)[0] for which in (answers.known, ~answers.known))
    return {
        "histogram": {"edges": edges.tolist(), "known": known.tolist(), "unknown": others.tolist()},
        "oscr": {
            "fpr": (unknown[some] / max(1, unknown[-1])).tolist(),
            "ccr": (right[some] / max(1, answers.known.sum())).tolist(),
        },
    }
