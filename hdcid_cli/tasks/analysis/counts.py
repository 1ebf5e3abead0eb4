"""How often codes meet labels, and what that says: purity, mutual information, codes that modalities share.

Everything is counted over annotated segments. A segment with several events counts as a
fraction for each of them; one without is background, which is a label like the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 100


@dataclass(frozen=True)
class CodeCounts:
    """How often each code met each label, in one layer and modality.

    Attributes:
        table: [L, labels].
        permuted: the same of codes that met the labels of another clip, several times over: [R, L, labels].
        block: of a layer's codes, with `pq:N`, counted from 1; 0 where a layer has no blocks.
    """

    layer: int
    modality: str
    table: np.ndarray
    permuted: np.ndarray
    block: int = 0

    @property
    def place(self) -> str:
        """`layer 1`, or `layer 1 block 2`."""
        return f"layer {self.layer}" + (f" block {self.block}" if self.block else "")

    @property
    def used(self) -> int:
        """How many codes occur at all."""
        return int((self.table.sum(1) > 0).sum())

    @property
    def given_code(self) -> np.ndarray:
        """P(label | code): [L, labels], rows of unused codes are 0."""
        total = self.table.sum(1, keepdims=True)
        return np.divide(self.table, total, out=np.zeros_like(self.table), where=total > 0)

    def measures(self) -> dict[str, tuple[float, float | None]]:
        """{measure: (value, chance)}, both in 0..1: `purity`, `nmi` and `ami`.

        Chance is the mean over the permutations, None of a single clip. Codes that occur seldom are pure by
        themselves, so it is far above what the commonest label alone would get.
        """
        found = {name: (function(self.table), _mean(function, self.permuted)) for name, function in MEASURES.items()}
        expected = _mean(mutual_information, self.permuted)
        ami = adjusted_mutual_information(self.table, expected or 0.0)
        return found | {"ami": (ami, None if expected is None else 0.0)}


def count(codes: np.ndarray, labels: np.ndarray, valid: np.ndarray, size: int) -> np.ndarray:
    """Codes against labels.

    Args:
        codes: [N, T] code numbers.
        labels: [N, T, labels] zeros and ones, at least one 1 in each segment.
        valid: [N, T] bool.
        size: number of codes L.

    Returns:
        float64 [L, labels]
    """
    return next(_tables(codes, labels, valid, size, [np.arange(len(codes))]))


def count_permuted(
    codes: np.ndarray, labels: np.ndarray, valid: np.ndarray, size: int, permutations: int = PERMUTATIONS, seed: int = 0
) -> np.ndarray:
    """As `count`, but every clip's codes meet the labels of a clip drawn without putting back, several times over.

    Whole clips change places, as the segments of one are no independent evidence. Segments that only one of the two
    clips has do not count.

    Returns:
        float64 [R, L, labels]; R is 0 of a single clip.
    """
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(codes)) for _ in range(permutations if len(codes) > 1 else 0)]
    found = [table for table in _tables(codes, labels, valid, size, orders) if table.any()]
    return np.stack(found) if found else np.zeros((0, size, labels.shape[2]))


def _tables(
    codes: np.ndarray, labels: np.ndarray, valid: np.ndarray, size: int, orders: Sequence[np.ndarray]
) -> Iterator[np.ndarray]:
    """A table for each order: the labels of clip i meet the codes of clip order[i]."""
    clip, step, label = np.nonzero(labels * valid[..., None])
    share = 1 / labels.sum(-1)[clip, step]
    for order in orders:
        other = order[clip]
        cell = codes[other, step].astype(np.int64) * labels.shape[2] + label
        met = np.bincount(cell, share * valid[other, step], minlength=size * labels.shape[2])
        yield met.reshape(size, labels.shape[2])


def purity(table: np.ndarray) -> float:
    """Share of segments whose label is the commonest of their code; [L, labels] -> 0..1."""
    return float(table.max(1).sum() / table.sum())


def mutual_information(table: np.ndarray) -> float:
    """Mutual information of code and label in nats; [L, labels]."""
    joint = table / table.sum()
    return _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint.ravel())


def normalized_mutual_information(table: np.ndarray) -> float:
    """Mutual information over the mean of the two entropies; [L, labels] -> 0..1."""
    mean = _mean_entropy(table)
    return mutual_information(table) / mean if mean > 0 else 0.0


def adjusted_mutual_information(table: np.ndarray, expected: float) -> float:
    """(I - E[I]) / (mean entropy - E[I]) (Vinh et al. 2010): 0 for codes that say nothing, 1 for names of the labels.

    Args:
        expected: E[I], the mean mutual information of permuted labels.
    """
    room = _mean_entropy(table) - expected
    return (mutual_information(table) - expected) / room if room > 1e-12 else 0.0


MEASURES = {"purity": purity, "nmi": normalized_mutual_information}


def shared_codes(first: np.ndarray, second: np.ndarray, least: float = 2.0) -> list[list[int]]:
    """For each label the codes that stand for it in both modalities, the commonest first.

    A code stands for its most probable label where it occurs in at least `least` segments.

    Args:
        first, second: [L, labels] counts of the two modalities.
    """
    there = (first.sum(1) >= least) & (second.sum(1) >= least)
    same = there & (first.argmax(1) == second.argmax(1))
    together = (first + second).sum(1)
    return [
        sorted(np.flatnonzero(same & (first.argmax(1) == label)).tolist(), key=lambda code: -together[code])
        for label in range(first.shape[1])
    ]


def rows_of(counts: Sequence[CodeCounts], labels: Sequence[str]) -> Iterator[dict]:
    """P(label | code) as one row a layer (and block), modality, code and label that met."""
    for each in counts:
        probability = each.given_code
        for code, label in np.argwhere(each.table > 0):
            yield {
                "layer": each.layer,
                **({"block": each.block} if each.block else {}),
                "modality": each.modality,
                "code": int(code),
                "segments": round(float(each.table[code].sum()), 3),
                "label": labels[label],
                "probability": round(float(probability[code, label]), 6),
            }


def _mean(measure, tables: np.ndarray) -> float | None:
    return float(np.mean([measure(table) for table in tables])) if len(tables) else None


def _mean_entropy(table: np.ndarray) -> float:
    joint = table / table.sum()
    return (_entropy(joint.sum(1)) + _entropy(joint.sum(0))) / 2


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
