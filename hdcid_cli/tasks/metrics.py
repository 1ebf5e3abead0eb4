"""What all tasks measure with: scores with intervals, and average precision.

A metric is a function of sums over clips, `value(statistics.sum(axis=0))`, wherever that is possible: resampling
clips is then weighing rows of `statistics`. Values are percentages unless a metric has a unit of its own.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)
# Numbers that a resampling may hold in memory at once.
_AT_ONCE = 10_000_000
# Up to so many groups the numbers drawn are those of earlier versions.
_FEW_GROUPS = 50_000
# Of a half: rounding must not decide on which side of it a sum lies.
_TIE = 1e-9

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Score:
    """One metric on one set of clips.

    Attributes:
        name: precision, accuracy, f1, map, ...
        value: in percent.
        interval: 95 % bootstrap interval over recordings, or None.
        per_class: [classes] in percent, NaN for classes that do not occur, or None.
    """

    name: str
    value: float
    interval: Interval = None
    per_class: np.ndarray | None = None


class Bootstrap:
    """Percentile intervals from resampled recordings; all metrics of one set of clips see the same resamplings.

    Clips of one recording are no independent evidence, so a group of them is drawn, or not, as a whole; and of a single
    recording there is nothing to say, so its intervals are None.

    Args:
        groups: [N] the group of each clip.
        resamples: R.
    """

    def __init__(self, groups: Sequence[Hashable], seed: int = 0, resamples: int = RESAMPLES):
        numbers: dict[Hashable, int] = {}
        self.group = np.array([numbers.setdefault(name, len(numbers)) for name in groups], np.int64)
        self.groups, self.seed, self.resamples = len(numbers), seed, resamples

    @cached_property
    def drawn(self) -> np.ndarray:
        """How often each group is drawn in each resampling, [R, G]; no group of more than 255 comes so often."""
        random = np.random.default_rng(self.seed)
        drawn = np.empty((self.resamples, self.groups), np.uint8)
        for row in drawn:
            if self.groups <= _FEW_GROUPS:
                row[:] = random.multinomial(self.groups, np.full(self.groups, 1 / self.groups))
            else:  # one by one, which is seven times as fast
                row[:] = np.bincount(random.integers(self.groups, size=self.groups), minlength=self.groups)
        return drawn

    def drawn_with(self, *kinds: np.ndarray) -> np.ndarray:
        """As `drawn`; a resampling without a clip of one of the kinds, [N] bool each, is drawn again."""
        drawn = self.drawn.copy()
        random, even = np.random.default_rng(self.seed + 2), np.full(self.groups, 1 / self.groups)
        has = np.stack([np.bincount(self.group, kind, self.groups) > 0 for kind in kinds], 1)
        while lacking := np.flatnonzero(~((drawn > 0) @ has).all(1)).tolist():
            drawn[lacking] = random.multinomial(self.groups, even, size=len(lacking))
        return drawn

    def of_sums(self, statistics: np.ndarray, value: Callable[[np.ndarray], np.ndarray]) -> Interval:
        """Interval of `value` of the sums over clips.

        Args:
            statistics: [N, S], one row a clip.
            value: [..., S] sums -> [...].
        """
        if self.groups < 2:
            return None
        totals = np.zeros((self.groups, statistics.shape[1]))
        np.add.at(totals, self.group, statistics)
        rows = max(1, _AT_ONCE // self.groups)
        starts = range(0, self.resamples, rows)
        return percentiles(np.concatenate([value(self.drawn[start : start + rows] @ totals) for start in starts]))

    def of_batches(
        self, statistics: np.ndarray, value: Callable[[np.ndarray, np.ndarray], float], batch: int
    ) -> Interval:
        """Interval of a value of the sums over consecutive batches of clips, which each resampling cuts anew, in a
        random order.

        Args:
            statistics: [N, S], one row a clip.
            value: (sums of batches [B, S], clips of batches [B]) -> number.
        """
        if self.groups < 2:
            return None
        random = np.random.default_rng(self.seed + 1)
        members = np.argsort(self.group, kind="stable")
        sizes = np.bincount(self.group, minlength=self.groups)
        starts = np.cumsum(sizes) - sizes
        found = []
        for times in self.drawn:
            chosen = random.permutation(np.repeat(np.arange(self.groups), times))
            within = np.arange(sizes[chosen].sum()) - np.repeat(np.cumsum(sizes[chosen]) - sizes[chosen], sizes[chosen])
            clips = members[np.repeat(starts[chosen], sizes[chosen]) + within]
            found.append(value(*batch_sums(statistics[clips], batch)))
        return percentiles(np.array(found))

    def of_median(self, up_to: Callable[[int], np.ndarray], most: int) -> Interval:
        """Interval of the median of one whole number a clip; see `medians`."""
        if self.groups < 2:
            return None

        def of_groups(number: int) -> np.ndarray:
            return np.bincount(self.group, up_to(number), self.groups)

        sizes = np.bincount(self.group, minlength=self.groups)
        return percentiles(medians(of_groups, most, self.drawn, sizes))


def medians(up_to: Callable[[int], np.ndarray], most: int, weights: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Medians of whole numbers from 1 to `most`, halfway between two where the half falls between them: [R].

    Args:
        up_to: number -> how many of each of G groups are at most that, [G]; none at 0, all at `most`.
        weights: of the groups, [R, G].
        sizes: of the groups, [G].
    """
    total = _weighed(weights, sizes)
    first = _least(up_to, most, weights, (0.5 - _TIE) * total)
    second = first.copy()  # where the half falls between two, the next one that occurs
    open_ = np.flatnonzero(_reached(up_to, first, weights) < (0.5 + _TIE) * total)
    second[open_] = _least(up_to, most, weights[open_], (0.5 + _TIE) * total[open_])
    return (first + second) / 2


def _reached(up_to: Callable[[int], np.ndarray], numbers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How many are at most the number of each weighing, [R]."""
    reached = np.empty(len(weights))
    for number in np.unique(numbers).tolist():
        rows = np.flatnonzero(numbers == number)
        reached[rows] = _weighed(weights[rows], up_to(number))
    return reached


def _weighed(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[R, G] small whole numbers times [G], some rows at a time, as they become numbers of eight times their size."""
    parts = np.array_split(weights, max(1, weights.size // _AT_ONCE))
    return np.concatenate([part @ counts for part in parts])


def _least(up_to: Callable[[int], np.ndarray], most: int, weights: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """The least number up to which each weighing, [R, G], has enough, [R].

    All are bisected together. Groups that lie wholly on one side of what is left to search, which soon are nearly all,
    are counted once.
    """
    low, high = np.ones(len(weights), np.int64), np.full(len(weights), most)
    groups, passed, width = np.arange(weights.shape[1]), np.zeros(len(weights)), most
    while (searching := low < high).any():
        halfway = (low + high) // 2
        for number in np.unique(halfway[searching]).tolist():
            rows = np.flatnonzero(searching & (halfway == number))
            there = passed[rows] + _weighed(weights[rows], up_to(number)[groups]) >= enough[rows]
            high[rows[there]], low[rows[~there]] = number, number + 1
        if high.max() - low.min() <= width // 2:
            width = high.max() - low.min()
            before, after = (up_to(bound)[groups] for bound in (low.min() - 1, high.max()))
            some = before != after
            passed += _weighed(weights[:, ~some], before[~some])
            weights, groups = weights[:, some], groups[some]
    return low


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The bounds within which 95 % of the resampled values lie; what is NaN does not count."""
    low, high = np.nanpercentile(values, PERCENTILES)
    return float(low), float(high)


def sums_score(
    name: str,
    statistics: np.ndarray,
    value: Callable[[np.ndarray], np.ndarray],
    bootstrap: Bootstrap | None = None,
    per_class: np.ndarray | None = None,
) -> Score:
    """A metric that is a function of sums over clips.

    Args:
        statistics: [N, S], one row a clip.
        value: [..., S] sums -> [...] in 0..1.
        bootstrap: of the clips; None for no interval.
    """
    statistics = np.asarray(statistics, np.float64)
    interval = bootstrap.of_sums(statistics, lambda sums: 100 * value(sums)) if bootstrap else None
    return Score(name, 100 * float(value(statistics.sum(0))), interval, per_class)


def mean_score(name: str, values: np.ndarray, bootstrap: Bootstrap | None = None) -> Score:
    """The mean of one number a clip, [N] in 0..1."""
    return sums_score(name, np.stack([values, np.ones(len(values))], 1), ratio, bootstrap)


def median_score(name: str, up_to: Callable[[int], np.ndarray], most: int, bootstrap: Bootstrap | None = None) -> Score:
    """The median of one whole number a clip, from 1 to `most`, in its own unit.

    Args:
        up_to: number -> [N] in 0..1, whether a clip's is at most that; the chance of it, where it is left to chance.
    """
    each = np.ones(len(up_to(most)))
    [value] = medians(up_to, most, each[None], each)
    return Score(name, float(value), bootstrap.of_median(up_to, most) if bootstrap else None)


def map_score(
    name: str, scores: np.ndarray, actual: np.ndarray, clip: np.ndarray, bootstrap: Bootstrap | None = None
) -> Score:
    """Mean average precision over the classes that occur.

    Args:
        scores, actual: as of `average_precision`.
        clip: [M], the position of the clip that a row belongs to: clips are resampled, not rows.
    """
    each = average_precision(scores, actual)
    value = 100 * float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")
    if bootstrap is None or bootstrap.groups < 2 or not np.isfinite(value):
        return Score(name, value, None, 100 * each)
    # Every resampling walks through all scores: fewer of them where the scores are millions.
    resamples = int(np.clip(5e7 // max(1, scores.size), 100, bootstrap.resamples))
    means = []
    for part in np.array_split(bootstrap.drawn[:resamples], max(1, resamples * len(scores) // _AT_ONCE)):
        weights = part[:, bootstrap.group[clip]].T.astype(np.float32)
        found = average_precision(scores, actual, weights)
        means += [100 * row[np.isfinite(row)].mean() for row in found if np.isfinite(row).any()]
    return Score(name, value, percentiles(np.array(means)), 100 * each)


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


def ratio(sums: np.ndarray) -> np.ndarray:
    """[..., 2] -> the first over the second, 0 where the second is 0."""
    return sums[..., 0] / np.maximum(sums[..., 1], 1)


def batch_sums(statistics: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """[N, S] -> sums over consecutive batches of clips [B, S], and how many clips each has [B]."""
    starts = np.arange(0, len(statistics), batch)
    return np.add.reduceat(statistics, starts, axis=0), np.diff(np.append(starts, len(statistics)))
