"""Cross-modal retrieval (Liu et al. 2021, https://arxiv.org/abs/2106.05438): rank the clips of one modality for a query
in another.

A clip is described by its summary vector (mean over time of its quantized features, compared
by cosine) or by its histogram of codes (compared as in cross-modal code matching); `both`
adds the two similarities, each divided by its deviation over pairs. Every similarity is one
inner product of long vectors, so that any number of clips is ranked block by block.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hdcid_cli.codes.checkpoint import Checkpoint
from hdcid_cli.codes.encode import Codes, encode
from hdcid_cli.codes.toc import Selection, resolve_toc
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.core.modalities import letter
from hdcid_cli.core.names import recording
from hdcid_cli.core.progress import say
from hdcid_cli.core.records import result
from hdcid_cli.tasks.annotations import identity
from hdcid_cli.tasks.metrics import Bootstrap, Score, mean_score, median_score

KINDS = ("summary", "codes", "both")
RANKS = (1, 5, 10)
# Similarities of queries x gallery that are in memory at once: 64 MiB in float32.
BLOCK = (2048, 8192)
# Clips whose features are in memory at once.
SLAB = 4096
_TINY = 1e-10  # under the logarithm, as in training

Read = Callable[[slice], np.ndarray]


@dataclass
class Vectors:
    """Two sides of an inner product: similarity[i, j] = query[i] . gallery[j]."""

    query: np.ndarray
    gallery: np.ndarray

    def scaled(self, factor: float) -> "Vectors":
        return Vectors(self.query * np.float32(factor), self.gallery)


def retrieve(
    checkpoint: Checkpoint,
    query: FeatureFile,
    gallery: FeatureFile,
    by: str = "all",
    clips: str = "heldout",
    toc: str = "stored",
    limit: int | None = None,
) -> Iterator[dict]:
    """Yield the records of one pair of modalities.

    Args:
        by: "summary", "codes", "both" or "all".
        clips: "heldout" ranks the clips that the model was not pretrained on, "all" ranks all.
        limit: rank so many of them at most, evenly spaced.
        toc: see `resolve_toc`.
    """
    selection = resolve_toc(toc, checkpoint, "retrieve", query.modality)
    ids, protocol = _ranked(checkpoint, query, gallery, clips)
    if limit and limit < len(ids):
        ids = [ids[place] for place in np.linspace(0, len(ids) - 1, limit).astype(int)]
    seen = {recording(name) for name in checkpoint.clips}
    fields = checkpoint.describe() | {
        "task": "retrieve",
        "train": letter(query.modality),
        "test": letter(gallery.modality),
        "n": len(ids),
        "protocol": protocol,
        "n_pretrained": sum(recording(name) in seen for name in ids),
        "data": identity.of_clips(ids),
        "data_digest": hashlib.sha256("\n".join(ids).encode("utf-8", "surrogatepass")).hexdigest()[:16],
        "features_digest": gallery.digest,
        "backbone": gallery.backbone,
        "seed": 0,
        "toc": selection.label if selection else "none",
    }
    sides = []
    for file in (query, gallery):
        rows, codes = np.array(file.rows(ids)), encode(checkpoint, file)
        length, indices = codes.length[rows], codes.indices[rows, :, :, 0]
        sides.append(((_reader(codes, rows, selection), length), (indices, length)))
    vectors = {}
    if by != "codes":
        vectors["summary"] = summary_vectors(sides[0][0], sides[1][0])
    if by != "summary":
        vectors["codes"] = code_vectors(sides[0][1], sides[1][1], checkpoint.codebooks)
    if by in ("both", "all"):
        vectors["both"] = both_vectors(vectors["summary"], vectors["codes"])
    bootstrap = Bootstrap([recording(name) for name in ids])
    for kind in KINDS if by == "all" else (by,):
        for score, chance in retrieval_scores(vectors[kind], bootstrap=bootstrap):
            yield result(
                **fields, metric=f"{kind} {score.name}", value=score.value, interval=score.interval, chance=chance
            )


def _ranked(checkpoint: Checkpoint, query: FeatureFile, gallery: FeatureFile, clips: str) -> tuple[list[str], str]:
    """The clips that are ranked, and the protocol that this is."""
    ids = [name for name in query.ids if name in gallery.index]
    if not ids:
        raise InputError(f"{query.name} and {gallery.name} have no clip in common.")
    if clips == "all":
        return ids, "all"
    unseen = [name for name in ids if name not in checkpoint.clips]
    if unseen:
        return unseen, "heldout"
    say(f"{checkpoint.path} was pretrained on all {len(ids)} clips, so none is held out and all are ranked.")
    return ids, "all"


def _reader(codes: Codes, rows: np.ndarray, selection: Selection | None) -> Read:
    return lambda places: codes.read(rows[places], selection)


def summary_vectors(query: tuple[Read, np.ndarray], gallery: tuple[Read, np.ndarray]) -> Vectors:
    """Cosine similarity of mean features.

    Args:
        query, gallery: (what gives some of the features [N, T, C], length [N]).
    """

    def unit(read: Read, length: np.ndarray) -> np.ndarray:
        mean = _time_mean(read, length)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)

    return Vectors(unit(*query), unit(*gallery))


def code_vectors(
    query: tuple[np.ndarray, np.ndarray], gallery: tuple[np.ndarray, np.ndarray], codebooks: list[np.ndarray]
) -> Vectors:
    """Cross-modal code matching, p . log q + q . log p, summed over layers.

    Args:
        query, gallery: (codes [N, T, K], length [N]).
        codebooks: one [L, D] a layer.
    """
    ps: list[np.ndarray] = []
    qs: list[np.ndarray] = []
    for layer, codebook in enumerate(codebooks):
        soft = soft_codes(codebook)
        for (codes, length), means in ((query, ps), (gallery, qs)):
            means.append(_time_mean(_looked_up(soft, codes[:, :, layer]), length))
    log = [[np.log(np.maximum(part, _TINY)) for part in parts] for parts in (ps, qs)]
    return Vectors(np.concatenate([*ps, *log[0]], 1), np.concatenate([*log[1], *qs], 1))


def _looked_up(table: np.ndarray, codes: np.ndarray) -> Read:
    return lambda places: table[codes[places]]


def soft_codes(codebook: np.ndarray) -> np.ndarray:
    """What each code says of all codes, softmax over -distance (eq. 14's p of a quantized feature): [L, D] -> float32
    [L, L].
    """
    codebook = np.asarray(codebook, np.float64)
    squares = (codebook**2).sum(1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * codebook @ codebook.T, 0))
    np.fill_diagonal(distance, 0)
    soft = np.exp(-distance)
    return (soft / soft.sum(1, keepdims=True)).astype(np.float32)


def both_vectors(summary: Vectors, codes: Vectors) -> Vectors:
    """The two similarities added, each in units of its deviation over pairs."""
    parts = [vectors.scaled(1 / max(_deviation(vectors), 1e-12)) for vectors in (summary, codes)]
    return Vectors(
        np.concatenate([part.query for part in parts], 1), np.concatenate([part.gallery for part in parts], 1)
    )


def retrieval_scores(
    vectors: Vectors, ranks: tuple[int, ...] = RANKS, bootstrap: Bootstrap | None = None
) -> list[tuple[Score, float]]:
    """R@k and median rank where query i's own clip is gallery's i-th, each with what guessing gives.

    Args:
        bootstrap: of the queries, for intervals.
    """
    better, tied = rank_counts(vectors)
    clips = len(better)
    found = []
    for k in ranks:
        # Of equal similarities any order is as good as another: the chance that one's own is among the first k.
        hit = np.clip((k - better) / (tied + 1), 0, 1)
        found.append((mean_score(f"r@{k}", hit, bootstrap), 100 * min(1, k / clips)))
    return [*found, (median_score("median_rank", 1 + better + tied / 2, bootstrap), (clips + 1) / 2)]


def rank_counts(vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """How many clips of the gallery are more similar to each query than its own, and how many others equally."""
    own = np.einsum("ij,ij->i", vectors.query, vectors.gallery, dtype=np.float64)
    tolerance = 1e-5 * np.abs(own).mean()  # float32's rounding must not decide a tie
    better, equal = np.zeros(len(own), int), np.zeros(len(own), int)
    for rows, similarity in _blocks(vectors):
        difference = similarity - own[rows, None]
        better[rows] += (difference > tolerance).sum(1)
        equal[rows] += (np.abs(difference) <= tolerance).sum(1)
    return better, equal - 1


def _blocks(vectors: Vectors) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, similarities of these rows to one chunk of the gallery), chunk after chunk."""
    for start in range(0, len(vectors.query), BLOCK[0]):
        rows = slice(start, start + BLOCK[0])
        for chunk in range(0, len(vectors.gallery), BLOCK[1]):
            yield rows, vectors.query[rows] @ vectors.gallery[chunk : chunk + BLOCK[1]].T


def _deviation(vectors: Vectors, pairs: int = 1000) -> float:
    """Standard deviation of the similarity, over the pairs of at most 1,000 clips evenly drawn."""
    some = np.linspace(0, len(vectors.query) - 1, min(pairs, len(vectors.query))).astype(int)
    return float((vectors.query[some] @ vectors.gallery[some].T).std())


def _time_mean(read: Read, length: np.ndarray) -> np.ndarray:
    """Features [N, T, C] that `read` gives some at a time, [N] -> float32 [N, C]: mean over the valid segments."""
    means = []
    for start in range(0, max(1, len(length)), SLAB):
        places = slice(start, start + SLAB)
        values, valid = read(places), np.asarray(length[places])[:, None]
        weight = (np.arange(values.shape[1]) < valid) / valid
        means.append(np.einsum("ntc,nt->nc", values, weight.astype(np.float32), optimize=True))
    return np.concatenate(means)
