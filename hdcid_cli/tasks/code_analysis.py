"""What codes mean (Liu et al. 2021, section 4.4): which labels a code stands for in each modality, and where it occurs.

Everything is counted over annotated segments. A segment with several events counts as a
fraction for each of them; one without is background, which is a label like the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hdcid_cli.tasks.retrieval import soft_codes


@dataclass
class Counts:
    """How often each code met each label, in one layer and modality: [L, labels]."""

    layer: int
    modality: str
    table: np.ndarray

    @property
    def used(self) -> int:
        """How many codes occur at all."""
        return int((self.table.sum(1) > 0).sum())

    @property
    def given_code(self) -> np.ndarray:
        """P(label | code): [L, labels], rows of unused codes are 0."""
        total = self.table.sum(1, keepdims=True)
        return np.divide(self.table, total, out=np.zeros_like(self.table), where=total > 0)


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
    shares = labels[valid].astype(np.float64)
    shares /= shares.sum(1, keepdims=True)
    table = np.zeros((size, labels.shape[2]))
    np.add.at(table, codes[valid], shares)
    return table


def purity(table: np.ndarray) -> float:
    """Share of segments whose label is the commonest of their code; [L, labels] -> 0..1."""
    return float(table.max(1).sum() / table.sum())


def normalised_mutual_information(table: np.ndarray) -> float:
    """Mutual information of code and label over the mean of their entropies; [L, labels] -> 0..1."""
    joint = table / table.sum()
    code, label = joint.sum(1), joint.sum(0)
    mean_entropy = (_entropy(code) + _entropy(label)) / 2
    if mean_entropy == 0:
        return 0.0
    return float((_entropy(code) + _entropy(label) - _entropy(joint.ravel())) / mean_entropy)


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


def agreement_map(first: np.ndarray, second: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """How alike the codes of every two segments of one clip are: [T, K], [T', K] -> [T, T'] in 0..1.

    Mean over layers of the overlap sum_l sqrt(p_l q_l) of what the two codes say of all codes; 1 for the same code.
    """
    maps = []
    for layer, codebook in enumerate(codebooks):
        root = np.sqrt(soft_codes(codebook))
        maps.append(root[first[:, layer]] @ root[second[:, layer]].T)
    return np.mean(maps, axis=0)


def rows_of(counts: Sequence[Counts], labels: Sequence[str]) -> Iterator[dict]:
    """P(label | code) as one row a layer, modality, code and label that met."""
    for each in counts:
        probability = each.given_code
        for code, label in np.argwhere(each.table > 0):
            yield {
                "layer": each.layer,
                "modality": each.modality,
                "code": int(code),
                "segments": round(float(each.table[code].sum()), 3),
                "label": labels[label],
                "probability": round(float(probability[code, label]), 6),
            }


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())
