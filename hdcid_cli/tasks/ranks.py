"""Ranks in a gallery: which items are more similar to a query than its own ones, counted block by block on any device.

Codes tie often, and of equally similar items every order is as good as another: what depends on the order is its
expectation over all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from hdcid_cli.core.precision import matmul_precision
from hdcid_cli.core.progress import progress
from hdcid_cli.tasks.metrics import Bootstrap, Score, mean_score, median_score, medians, ratio

# Similarities of queries x gallery that are in memory at once: 64 MiB in float32.
BLOCK = (2048, 8192)
RANKS = (1, 5, 10)
CAPTION_RANKS = (1, 5, 10, 50)
DEPTH = 10  # of mean average precision


@dataclass
class Vectors:
    """Two sides of an inner product: similarity[i, j] = query[i] . gallery[j]."""

    query: np.ndarray
    gallery: np.ndarray


@dataclass(frozen=True)
class Owned:
    """Which items of the gallery are each query's own, one at least.

    Those of query i are items[starts[i]:starts[i + 1]].

    Attributes:
        starts: [Q + 1].
        items: [P], positions in the gallery; a place in it is called a pair.
        gallery: how many items the gallery has.
    """

    starts: np.ndarray
    items: np.ndarray
    gallery: int

    @classmethod
    def one_each(cls, items: Sequence[int] | np.ndarray, gallery: int) -> "Owned":
        """Each query has one own item."""
        return cls(np.arange(len(items) + 1), np.asarray(items), gallery)

    @property
    def count(self) -> np.ndarray:
        """[Q], how many items each query has."""
        return np.diff(self.starts)

    @cached_property
    def query(self) -> np.ndarray:
        """[P], the query of each pair."""
        return np.repeat(np.arange(len(self.starts) - 1), self.count)


@dataclass(frozen=True)
class Counts:
    """How the items of a gallery compare with each query's own ones, [P] each.

    Attributes:
        owned: whose own items they are.
        best: [Q], the pair of each query's most similar own item.
        above, tied: items of other queries that are more similar, or as similar, as the pair's. Of pairs but the best,
            numbers from DEPTH on may be too small.
        own_above, own_tied: the same of the query's other own items.
    """

    owned: Owned
    best: np.ndarray
    above: np.ndarray
    tied: np.ndarray
    own_above: np.ndarray
    own_tied: np.ndarray


@matmul_precision("float32")  # as exactly as a query's own items, whatever was computed before
def count_ranks(
    parts: Sequence[Vectors], mixtures: Sequence[Sequence[float]], owned: Owned, device: torch.device | str = "cpu"
) -> list[Counts]:
    """Compare every query's own items with the whole gallery.

    Args:
        parts: similarities that are computed once.
        mixtures: for each result the weights of the parts, none below 0, whose sum is the similarity.
    """
    pairs = np.stack([_pair_similarity(part, owned) for part in parts])
    compared = [_Compared(np.tensordot(np.asarray(weights), pairs, 1), owned, device) for weights in mixtures]
    queries = [torch.from_numpy(part.query) for part in parts]
    galleries = [torch.from_numpy(part.gallery).to(device) for part in parts]
    size = len(owned.starts) - 1
    with progress(total=size, description="ranking", unit="query") as bar:
        for start in range(0, size, BLOCK[0]):
            block = slice(start, min(start + BLOCK[0], size))
            sides = [query[block].to(device) for query in queries]
            own = slice(*owned.starts[[block.start, block.stop]])
            rows, items = (torch.from_numpy(each[own]).to(device) for each in (owned.query - start, owned.items))
            for chunk in range(0, owned.gallery, BLOCK[1]):
                similar = [side @ gallery[chunk : chunk + BLOCK[1]].T for side, gallery in zip(sides, galleries)]
                here = (items >= chunk) & (items < chunk + BLOCK[1])
                for part in similar:
                    part[rows[here], items[here] - chunk] = -torch.inf  # own items are compared apart
                for each, weights in zip(compared, mixtures):
                    each.compare(_mix(similar, weights), block, own)
            bar.update(block.stop - block.start)
    return [each.counts() for each in compared]


def _pair_similarity(vectors: Vectors, owned: Owned) -> np.ndarray:
    """[P], the similarity of each query and its own items, summed in float64."""
    parts = []
    for start in range(0, len(owned.items), BLOCK[1]):
        pair = slice(start, start + BLOCK[1])
        sides = vectors.query[owned.query[pair]], vectors.gallery[owned.items[pair]]
        parts.append(np.einsum("ij,ij->i", *sides, dtype=np.float64))
    return np.concatenate(parts)


def _mix(similar: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum."""
    used = [(each, weight) for each, weight in zip(similar, weights) if weight]
    mixed, first = used[0]
    if first != 1 or len(used) > 1:
        mixed = mixed * first
    for each, weight in used[1:]:
        mixed.add_(each, alpha=weight)
    return mixed


class _Compared:
    """Counts of one similarity, as its blocks come.

    Args:
        own: [P], the similarity of each pair.
    """

    def __init__(self, own: np.ndarray, owned: Owned, device: torch.device | str):
        self.owned = owned
        tolerance = 1e-5 * np.abs(own).mean()  # float32's rounding must not decide a tie
        self.best = _first_of_each(owned.query, own)
        self.own_above, self.own_tied = _among_own(own, owned, tolerance)
        self.low, self.high = (
            torch.from_numpy((own + shift).astype(np.float32)).to(device) for shift in (-tolerance, tolerance)
        )
        self.above = torch.zeros(len(own), dtype=torch.int64, device=device)
        self.reached = torch.zeros_like(self.above)
        self.others = np.ones(len(own), bool)
        self.others[self.best] = False

    def compare(self, similar: Tensor, queries: slice, pairs: slice) -> None:
        """Count in one block, similarities [B, M] of some queries to a part of the gallery, own items at -inf."""
        self._count(similar, torch.from_numpy(self.best[queries]))
        others = np.flatnonzero(self.others[pairs]) + pairs.start
        if len(others):
            others = others[(self.above[others] < DEPTH).cpu().numpy()]
        for start in range(0, len(others), BLOCK[0]):
            some = others[start : start + BLOCK[0]]
            rows = torch.from_numpy(self.owned.query[some] - queries.start).to(similar.device)
            self._count(similar[rows], torch.from_numpy(some))

    def _count(self, similar: Tensor, pairs: Tensor) -> None:
        """Add what row i of the similarities has above and at the similarity of pair i."""
        pairs = pairs.to(similar.device)
        self.above[pairs] += _ones(similar > self.high[pairs, None])
        self.reached[pairs] += _ones(similar >= self.low[pairs, None])

    def counts(self) -> Counts:
        above, reached = self.above.cpu().numpy(), self.reached.cpu().numpy()
        return Counts(self.owned, self.best, above, reached - above, self.own_above, self.own_tied)


def _ones(mask: Tensor) -> Tensor:
    """How many entries of each row are true."""
    if mask.device.type == "cpu":  # where torch takes eight times as long
        return torch.from_numpy(np.count_nonzero(mask.numpy(), axis=1))
    return mask.sum(1)


def _first_of_each(query: np.ndarray, own: np.ndarray) -> np.ndarray:
    """[Q], the pair with the largest similarity of each query."""
    order = np.lexsort((-own, query))
    return order[np.unique(query[order], return_index=True)[1]]


def _among_own(own: np.ndarray, owned: Owned, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """How many other own items of a pair's query are more similar than it, and how many equally: [P] each."""
    above, tied = np.zeros(len(own), np.int64), np.zeros(len(own), np.int64)
    for query in np.flatnonzero(owned.count > 1):
        pairs = slice(*owned.starts[[query, query + 1]])
        difference = own[pairs] - own[pairs, None]
        above[pairs] = (difference > tolerance).sum(1)
        tied[pairs] = (np.abs(difference) <= tolerance).sum(1) - 1
    return above, tied


# --- what the counts come to ---


def hits(counts: Counts, k: int) -> np.ndarray:
    """[Q], the expectation of any own item being among the first k."""
    tied, own = counts.tied[counts.best], counts.own_tied[counts.best] + 1
    return 1 - _none_drawn(tied, own, k - counts.above[counts.best])


def first_ranks(counts: Counts) -> np.ndarray:
    """[Q], the expected rank of the first own item, from 1; own items never push one another down."""
    return 1 + counts.above[counts.best] + counts.tied[counts.best] / (counts.own_tied[counts.best] + 2)


def average_precision(counts: Counts) -> np.ndarray:
    """[Q], the expected average precision over the first DEPTH ranks: the sum over own items at rank r <= DEPTH of
    (own items among the first r) / r, over min(own items, DEPTH).
    """
    before = counts.above + counts.own_above
    own, level = counts.own_tied + 1, counts.own_tied + 1 + counts.tied
    gained = np.zeros(len(before))
    for place in range(1, DEPTH + 1):  # of an own item within its level of equals
        rank = before + place
        among = counts.own_above + 1 + (place - 1) * (own - 1) / np.maximum(level - 1, 1)
        gained += np.where((place <= level) & (rank <= DEPTH), among / rank / level, 0)
    owned = counts.owned
    return np.add.reduceat(gained, owned.starts[:-1]) / np.minimum(owned.count, DEPTH)


def _none_drawn(others: np.ndarray, own: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The chance that of `others + own` items, `draws` of them drawn without putting back, no own one is drawn: all own
    ones are among those that are left, C(left, own) / C(others + own, own).
    """
    every, none = others + own, np.ones(len(others))
    left = every - np.maximum(draws, 0)
    for placed in range(int(own.max(initial=0))):
        some = own > placed
        none[some] *= np.maximum(left[some] - placed, 0) / (every[some] - placed)
    return none


def retrieval_scores(
    counts: Counts, ranks: Sequence[int] = RANKS, bootstrap: Bootstrap | None = None
) -> list[tuple[Score, float]]:
    """R@k and the median rank, each with what guessing gets.

    Args:
        bootstrap: of the queries, for intervals.
    """
    own, gallery = counts.owned.count, counts.owned.gallery
    found = []
    for k in ranks:
        chance = 1 - _none_drawn(gallery - own, own, np.full(len(own), min(k, gallery)))
        found.append((mean_score(f"r@{k}", hits(counts, k), bootstrap), 100 * float(chance.mean())))
    # Over all orders of equals, as chance is over those of the gallery.
    median = median_score("median_rank", partial(hits, counts), gallery, bootstrap)
    return [*found, (median, median_chance(own, gallery))]


def caption_scores(counts: Counts, bootstrap: Bootstrap | None = None) -> list[tuple[Score, float]]:
    """R@1, 5, 10 and 50, median and mean rank and mAP@10, each with what guessing gets."""
    own, gallery, ranks = counts.owned.count, counts.owned.gallery, first_ranks(counts)
    statistics = np.stack([ranks, np.ones(len(ranks))], 1)
    mean = Score("mean_rank", float(ranks.mean()), bootstrap.of_sums(statistics, ratio) if bootstrap else None)
    # Guessing is a gallery in which all is alike.
    blank = Counts(
        counts.owned,
        counts.best,
        *(np.zeros_like(counts.above), gallery - own[counts.owned.query]),
        *(np.zeros_like(counts.above), own[counts.owned.query] - 1),
    )
    return [
        *retrieval_scores(counts, CAPTION_RANKS, bootstrap),
        (mean, float(((gallery + 1) / (own + 1)).mean())),
        (
            mean_score(f"map@{DEPTH}", average_precision(counts), bootstrap),
            100 * float(average_precision(blank).mean()),
        ),
    ]


def median_chance(own: np.ndarray, gallery: int) -> float:
    """The median rank of the first of `own` items in a gallery in random order, over all queries; [Q] -> number."""
    several, times = np.unique(own, return_counts=True)

    def found(rank: int) -> np.ndarray:
        return 1 - _none_drawn(gallery - several, several, np.full(len(several), rank))

    [value] = medians(found, gallery, times[None], np.ones(len(several)))
    return float(value)
