"""Cross-modal retrieval (Liu et al. 2021, https://arxiv.org/abs/2106.05438): rank the clips of one modality for a query
in another.

A clip is described by its summary vector (mean over time of its quantized features, compared
by cosine) or by its histogram of codes (compared as in cross-modal code matching); `both`
adds the two similarities, each divided by its deviation over pairs. Every similarity is one
inner product of long vectors, so that any number of clips is ranked block by block.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdcid_cli.codes.checkpoint import Checkpoint
from hdcid_cli.codes.encode import Codes, check_encoding, encode
from hdcid_cli.codes.toc import Selection, resolve_toc
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.core.modalities import letter
from hdcid_cli.core.names import count_of_recordings, recording
from hdcid_cli.core.progress import counted, makes_no_difference, say, warn
from hdcid_cli.core.records import result
from hdcid_cli.tasks.annotations import identity
from hdcid_cli.tasks.annotations.captions import read_captions
from hdcid_cli.tasks.metrics import Bootstrap
from hdcid_cli.tasks.ranks import Owned, Vectors, caption_scores, count_ranks, retrieval_scores

KINDS = ("summary", "codes", "both")
# Clips whose features are in memory at once.
SLAB = 4096
_TINY = 1e-10  # under the logarithm, as in training

Read = Callable[[slice], np.ndarray]


@dataclass(frozen=True)
class Ranking:
    """Who asks and who is ranked.

    Attributes:
        queries, gallery: names, as the feature files have them.
        owned: which of the gallery belong to each query.
        clips: [Q], the clip that each query is, or is a text of.
        protocol: "heldout" of clips that the model was not pretrained on, or "all".
    """

    queries: list[str]
    gallery: list[str]
    owned: Owned
    clips: list[str]
    protocol: str


@dataclass(frozen=True)
class RetrievalSettings:
    """What is ranked, and by what.

    Attributes:
        by: "summary", "codes", "both" or "all".
        clips: "heldout" ranks the clips that the model was not pretrained on, "all" ranks all.
        toc: see `resolve_toc`.
        limit: rank so many of them at most, evenly spaced.
        captions: a table of several texts a clip; None: a clip's text has its name.
        codes: what has a code of its own, one of ENCODINGS; None: the model's first.
    """

    by: str = "all"
    clips: str = "heldout"
    toc: str = "stored"
    limit: int | None = None
    captions: Path | None = None
    codes: str | None = None


DEFAULTS = RetrievalSettings()


def retrieve(
    checkpoint: Checkpoint, query: FeatureFile, gallery: FeatureFile, settings: RetrievalSettings = DEFAULTS
) -> Iterator[dict]:
    """Yield the records of one pair of modalities."""
    by, captions, codes = settings.by, settings.captions, settings.codes or next(iter(checkpoint.model.encodings))
    check_encoding(checkpoint, codes)
    selection = None
    if by != "codes":
        selection = resolve_toc(settings.toc, checkpoint, "retrieve", query.modality)
    elif settings.toc not in (DEFAULTS.toc, "none"):
        makes_no_difference("--toc", "codes are compared, and not channels of features (--by codes)")
    if captions is None:
        ranking = _of_one_name(checkpoint, query, gallery, settings)
    else:
        ranking = _of_captions(checkpoint, query, gallery, settings, read_captions(captions))
    fields = _fields(checkpoint, query, gallery, ranking)
    if len(checkpoint.model.encodings) > 1:
        fields["codes"] = codes
    sides = _sides((query, gallery), ranking, lambda file: encode(checkpoint, file, each=codes), selection)
    parts = _parts(sides, by, [book.rows for book in checkpoint.books])
    kinds = KINDS if by == "all" else (by,)
    device = next(checkpoint.model.parameters()).device
    bootstrap = Bootstrap([recording(name) for name in ranking.clips])
    counts = count_ranks(list(parts.values()), [weights(kind, parts) for kind in kinds], ranking.owned, device)
    for kind, ranks in zip(kinds, counts):
        fields["toc"] = selection.label if selection and kind != "codes" else "none"
        scores = (retrieval_scores if captions is None else caption_scores)(ranks, bootstrap=bootstrap)
        for score, chance in scores:
            yield result(
                **fields, metric=f"{kind} {score.name}", value=score.value, interval=score.interval, chance=chance
            )


def _fields(checkpoint: Checkpoint, query: FeatureFile, gallery: FeatureFile, ranking: Ranking) -> dict:
    """What all records have in common."""
    clips = list(dict.fromkeys(ranking.clips))
    names = clips if ranking.queries == ranking.gallery else [*ranking.queries, "", *ranking.gallery]
    found = checkpoint.describe() | {
        "task": "retrieve",
        "train": letter(query.modality),
        "test": letter(gallery.modality),
        "n": len(clips),
        "protocol": ranking.protocol,
        "n_pretrained": count_of_recordings(clips, checkpoint.clips),
        "data": identity.of_clips(clips),
        "data_digest": hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:16],
        "features_digest": gallery.digest,
        "backbone": gallery.backbone,
        "seed": 0,
    }
    if ranking.queries != ranking.gallery:
        found |= {"queries": len(ranking.queries), "gallery": len(ranking.gallery)}
    return found


@dataclass(frozen=True)
class _Side:
    """Of the clips that ask, or that are ranked: what gives some of their features, their codes [N, T, books], and how
    many of the T count [N].
    """

    read: Read
    indices: np.ndarray
    length: np.ndarray


def _sides(
    files: tuple[FeatureFile, FeatureFile],
    ranking: Ranking,
    encoded: Callable[[FeatureFile], Codes],
    selection: Selection | None,
) -> list[_Side]:
    found = []
    for file, names in zip(files, (ranking.queries, ranking.gallery)):
        rows, codes = np.array(file.rows(names)), encoded(file)
        found.append(_Side(_reader(codes, rows, selection), codes.by_book[rows], codes.length[rows]))
    return found


def _parts(sides: Sequence[_Side], by: str, books: list[np.ndarray]) -> dict[str, Vectors]:
    """The similarities that are needed: `summary`, `codes` or both."""
    query, gallery = sides
    parts = {}
    if by != "codes":
        parts["summary"] = summary_vectors((query.read, query.length), (gallery.read, gallery.length))
    if by != "summary":
        parts["codes"] = code_vectors((query.indices, query.length), (gallery.indices, gallery.length), books)
    return parts


def _of_one_name(
    checkpoint: Checkpoint, query: FeatureFile, gallery: FeatureFile, settings: RetrievalSettings
) -> Ranking:
    """Every clip of the one file asks for itself in the other."""
    ids = [name for name in query.ids if name in gallery.index]
    if not ids:
        raise InputError(f"{query.name} and {gallery.name} have no clip in common.")
    if query.modality == gallery.modality and query.digest == gallery.digest:
        warn(
            f"{query.name} is asked and ranked alike: every clip finds itself, which says nothing of the model; take "
            "another modality, or other features of it with --gallery-features."
        )
    ids, protocol = _ranked(checkpoint, ids, settings)
    return Ranking(ids, ids, Owned.one_each(np.arange(len(ids)), len(ids)), ids, protocol)


def _of_captions(
    checkpoint: Checkpoint,
    query: FeatureFile,
    gallery: FeatureFile,
    settings: RetrievalSettings,
    captions: Mapping[str, str],
) -> Ranking:
    """Clips ask for their texts, or texts for their clips."""
    if (query.modality == "text") == (gallery.modality == "text"):
        raise InputError("--captions says which texts belong to a clip: either --query or --gallery is t.")
    texts, others = (query, gallery) if query.modality == "text" else (gallery, query)
    of_clip: dict[str, list[str]] = {}
    for text, clip in captions.items():
        if text in texts.index and clip in others.index:
            of_clip.setdefault(clip, []).append(text)
    left = len(captions) - sum(map(len, of_clip.values()))
    if not of_clip:
        raise InputError(f"No text of the captions is in {texts.name} with its clip in {others.name}.")
    if left:
        of = f"{left} of {counted(len(captions), 'caption')}"
        warn(f"{of} left out, which {texts.name} or {others.name} has no features for.")
    ids, protocol = _ranked(checkpoint, list(of_clip), settings)
    names = [text for clip in ids for text in of_clip[clip]]
    sizes = [len(of_clip[clip]) for clip in ids]
    if texts is gallery:
        owned = Owned(np.append(0, np.cumsum(sizes)), np.arange(len(names)), len(names))
        return Ranking(ids, names, owned, ids, protocol)
    owned = Owned.one_each(np.repeat(np.arange(len(ids)), sizes), len(ids))
    return Ranking(names, ids, owned, [clip for clip in ids for _ in of_clip[clip]], protocol)


def _ranked(checkpoint: Checkpoint, ids: list[str], settings: RetrievalSettings) -> tuple[list[str], str]:
    """The clips that are ranked, and the protocol that this is."""
    seen, protocol, limit = {recording(name) for name in checkpoint.clips}, settings.clips, settings.limit
    if protocol == "heldout":
        unseen = [name for name in ids if recording(name) not in seen]
        if not unseen:
            say(f"{checkpoint.path} was pretrained on every clip, so none is held out and all are ranked.")
        ids, protocol = (unseen, "heldout") if unseen else (ids, "all")
    if limit and limit < len(ids):
        ids = [ids[place] for place in np.linspace(0, len(ids) - 1, limit).astype(int)]
    return ids, protocol


def weights(kind: str, parts: Mapping[str, Vectors]) -> Sequence[float]:
    """What the parts weigh in a similarity: one alone, or `both`, each in units of its deviation over pairs."""
    if kind == "both":
        return [1 / max(_deviation(part), 1e-12) for part in parts.values()]
    return [float(name == kind) for name in parts]


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
    query: tuple[np.ndarray, np.ndarray], gallery: tuple[np.ndarray, np.ndarray], books: list[np.ndarray]
) -> Vectors:
    """Cross-modal code matching, p . log q + q . log p, summed over layers and blocks.

    Args:
        query, gallery: (codes [N, T, books], length [N]).
        books: one [L, C] a layer, or a block of one.
    """
    ps: list[np.ndarray] = []
    qs: list[np.ndarray] = []
    for number, rows in enumerate(books):
        soft = soft_codes(rows)
        for (codes, length), means in ((query, ps), (gallery, qs)):
            means.append(_time_mean(_looked_up(soft, codes[:, :, number]), length))
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


def _deviation(vectors: Vectors, pairs: int = 1000) -> float:
    """Standard deviation of the similarity, over the pairs of at most 1,000 of each side evenly drawn."""
    query, gallery = (
        side[np.linspace(0, len(side) - 1, min(pairs, len(side))).astype(int)]
        for side in (vectors.query, vectors.gallery)
    )
    return float((query @ gallery.T).std())


def _time_mean(read: Read, length: np.ndarray) -> np.ndarray:
    """Features [N, T, C] that `read` gives some at a time, [N] -> float32 [N, C]: mean over the valid segments."""
    means = []
    for start in range(0, max(1, len(length)), SLAB):
        places = slice(start, start + SLAB)
        values, valid = read(places), np.asarray(length[places])[:, None]
        weight = (np.arange(values.shape[1]) < valid) / valid
        means.append(np.einsum("ntc,nt->nc", values, weight.astype(np.float32), optimize=True))
    return np.concatenate(means)
