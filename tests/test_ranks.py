"""Ranks in a gallery against plain formulas: every query's own items, ties, and what guessing gets."""

from itertools import permutations

import numpy as np
import pytest
from tf32 import RoundedProducts

from hdcid_cli.core.precision import matmul_precision
from hdcid_cli.tasks import ranks
from hdcid_cli.tasks.metrics import Bootstrap
from hdcid_cli.tasks.ranks import (
    Owned,
    Vectors,
    average_precision,
    caption_scores,
    count_ranks,
    first_ranks,
    hits,
    median_chance,
    retrieval_scores,
)


def owned_of(counts, items=None):
    starts = np.append(0, np.cumsum(counts))
    return Owned(starts, np.arange(starts[-1]) if items is None else items, int(starts[-1]))


def counted(similarity, owned):
    """Counts of a given matrix of similarities."""
    parts = [Vectors(np.eye(len(similarity), dtype=np.float32), np.ascontiguousarray(similarity.T, np.float32))]
    return count_ranks(parts, [(1.0,)], owned)[0]


def in_every_order(similarity, owned, measure):
    """The mean of a measure over all orders that similarity allows; measure: own items in ranked order, [C] bool."""
    found = []
    for query, row in enumerate(similarity):
        own = set(owned.items[owned.starts[query] : owned.starts[query + 1]].tolist())
        orders = [order for order in permutations(range(len(row))) if (np.diff(row[list(order)]) <= 0).all()]
        found.append(np.mean([measure(np.array([item in own for item in order])) for order in orders]))
    return np.array(found)


def precision_at_ranks(own):
    """mAP@10 of one query: precision at each own item among the first ten."""
    first = [(own[: rank + 1].sum()) / (rank + 1) for rank in np.flatnonzero(own[:10])]
    return sum(first) / min(own.sum(), 10)


def test_what_depends_on_the_order_of_equals_is_its_mean_over_all_orders():
    random = np.random.default_rng(0)
    owned = owned_of([2, 1, 3])
    for _ in range(4):
        similarity = random.integers(0, 3, (3, 6)).astype(float)
        counts = counted(similarity, owned)
        np.testing.assert_allclose(
            average_precision(counts), in_every_order(similarity, owned, precision_at_ranks), atol=1e-12
        )
        for k in (1, 2, 4):
            np.testing.assert_allclose(
                hits(counts, k), in_every_order(similarity, owned, lambda own, k=k: float(own[:k].any())), atol=1e-12
            )
        np.testing.assert_allclose(
            first_ranks(counts), in_every_order(similarity, owned, lambda own: 1 + own.argmax()), atol=1e-12
        )


def test_the_median_rank_is_that_of_all_orders_of_equals():
    """Every query counts as much, in each of its orders as much."""
    random = np.random.default_rng(5)
    for sizes in ([2, 1, 3], [1, 1, 1, 1, 1], [2, 2, 2]):
        owned = owned_of(sizes)
        similarity = random.integers(0, 2, (len(sizes), owned.gallery)).astype(float)
        share = [
            in_every_order(similarity, owned, lambda own, k=k: float(own[:k].any())).mean()
            for k in range(1, owned.gallery + 1)
        ]
        expected = np.mean([1 + np.argmax(np.array(share) >= half) for half in (0.5 - 1e-9, 0.5 + 1e-9)])
        found = {score.name: score.value for score, _ in retrieval_scores(counted(similarity, owned))}
        assert found["median_rank"] == expected


def test_chance_is_what_a_gallery_of_equals_gets():
    for owned in (owned_of([1, 2, 5, 12] * 3), owned_of([2] * 13), Owned.one_each(np.repeat(np.arange(9), 3), 9)):
        for score, chance in caption_scores(counted(np.ones((len(owned.count), owned.gallery)), owned)):
            assert score.value == pytest.approx(chance, rel=1e-12), score.name


def test_average_precision_stops_at_the_tenth_rank():
    random = np.random.default_rng(1)
    owned = owned_of([14, 3, 9])
    similarity = random.normal(size=(3, 26))
    expected = []
    for query, row in enumerate(similarity):
        own = np.zeros(26, bool)
        own[owned.starts[query] : owned.starts[query + 1]] = True
        expected.append(precision_at_ranks(own[np.argsort(-row)]))
    np.testing.assert_allclose(average_precision(counted(similarity, owned)), expected)


def test_counts_do_not_depend_on_the_blocks(monkeypatch):
    random = np.random.default_rng(2)
    sizes = random.integers(1, 6, 40)
    owned = owned_of(sizes, random.permutation(sizes.sum()))
    parts = [Vectors(*(random.integers(-2, 3, (n, 5)).astype(np.float32) for n in (40, sizes.sum()))) for _ in range(2)]
    whole = count_ranks(parts, [(1, 0), (0.5, 2)], owned)
    monkeypatch.setattr(ranks, "BLOCK", (7, 11))
    for one, other, weights in zip(whole, count_ranks(parts, [(1, 0), (0.5, 2)], owned), [(1, 0), (0.5, 2)]):
        similarity = sum(w * part.query @ part.gallery.T for w, part in zip(weights, parts))
        foreign = np.ones(similarity.shape, bool)
        foreign[owned.query, owned.items] = False
        pair = similarity[owned.query, owned.items]
        above = ((similarity[owned.query] > pair[:, None]) & foreign[owned.query]).sum(1)
        tied = ((similarity[owned.query] == pair[:, None]) & foreign[owned.query]).sum(1)
        for counts in (one, other):
            exact = (counts.above < ranks.DEPTH) | np.isin(np.arange(len(pair)), counts.best)
            assert (counts.above[exact] == above[exact]).all() and (counts.tied[exact] == tied[exact]).all()
            assert (above[~exact] >= ranks.DEPTH).all() and exact.sum() < len(pair)
            np.testing.assert_allclose(average_precision(one), average_precision(other))


def test_ranks_and_scores_equal_the_published_ones(shared):
    stored = np.load(shared / "reference" / "retrieval_captions.npz")
    clips, captions = (
        stored[f"in/{name}"] / np.linalg.norm(stored[f"in/{name}"], axis=1, keepdims=True)
        for name in ("clips", "captions")
    )
    clips, captions = clips.astype(np.float32), captions.astype(np.float32)
    sizes = stored["in/counts"]
    to_text = count_ranks([Vectors(clips, captions)], [(1.0,)], owned_of(sizes))[0]
    of_clip = Owned.one_each(np.repeat(np.arange(len(sizes)), sizes), len(sizes))
    to_clip = count_ranks([Vectors(captions, clips)], [(1.0,)], of_clip)[0]
    for counts, name in ((to_text, "a2t"), (to_clip, "t2a")):
        np.testing.assert_array_equal(first_ranks(counts) - 1, stored[f"out/{name}_ranks"])
        found = {score.name: score.value for score, _ in caption_scores(counts)}
        names = ("r@1", "r@5", "r@10", "r@50", "median_rank", "mean_rank")
        np.testing.assert_allclose([found[each] for each in names], stored[f"out/{name}_scores"], rtol=1e-10)


def test_chance_is_what_random_similarities_get():
    random = np.random.default_rng(3)
    sizes = np.tile([1, 2, 5, 12], 150)
    owned = owned_of(sizes)
    counts = counted(random.random((len(sizes), owned.gallery)), owned)
    for score, chance in caption_scores(counts):
        spread = 0.1 * chance if "rank" in score.name else 3
        assert score.value == pytest.approx(chance, abs=spread), score.name
    even = Owned.one_each(np.arange(4), 4)
    assert median_chance(even.count, 4) == 2.5 and median_chance(even.count, 5) == 3
    blind = counted(np.ones((4, 4)), even)
    assert [(score.value, chance) for score, chance in retrieval_scores(blind)] == [
        (25, 25), (100, 100), (100, 100), (2.5, 2.5),
    ]  # fmt: skip


def test_intervals_draw_clips_with_their_captions():
    random = np.random.default_rng(4)
    clip = np.repeat(np.arange(30), 4)
    counts = counted(random.random((120, 30)), Owned.one_each(clip, 30))
    one, several = (Bootstrap(groups) for groups in (range(120), clip))
    for (alone, _), (together, _) in zip(caption_scores(counts, one), caption_scores(counts, several)):
        assert alone.value == together.value
        assert together.interval[0] <= together.value <= together.interval[1]
    mean = first_ranks(counts).reshape(30, 4).sum(1)
    drawn = several.drawn @ mean / (several.drawn.sum(1) * 4)
    found = {score.name: score.interval for score, _ in caption_scores(counts, several)}
    np.testing.assert_allclose(found["mean_rank"], np.percentile(drawn, (2.5, 97.5)))


def test_what_was_computed_before_in_fewer_digits_does_not_change_ranks():
    random = np.random.default_rng(0)
    gallery = random.standard_normal((40, 16)).astype(np.float32)
    gallery[20:] = gallery[:20]  # every item has an equal
    query, owned = (gallery + 0.3 * random.standard_normal(gallery.shape)).astype(np.float32), np.arange(40)
    exact = count_ranks([Vectors(query, gallery)], [(1.0,)], Owned.one_each(owned, 40))[0]
    with RoundedProducts(asked=True), matmul_precision("tf32"):
        found = count_ranks([Vectors(query, gallery)], [(1.0,)], Owned.one_each(owned, 40))[0]
    assert np.array_equal(found.above, exact.above) and np.array_equal(found.tied, exact.tied)
    assert (exact.tied == 1).all()
