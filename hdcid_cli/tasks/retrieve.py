"""From files to records of retrieval: opens features and checkpoint, and ranks the clips that both modalities have."""

from collections.abc import Iterator
from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import open_features
from hdcid_cli.core.modalities import letter
from hdcid_cli.core.progress import say
from hdcid_cli.core.records import result
from hdcid_cli.tasks.retrieval import KINDS, both_vectors, code_vectors, retrieval_scores, summary_vectors


def retrieve(
    query: str,
    gallery: str,
    features: Path,
    gallery_features: Path | None = None,
    checkpoint: Path | None = None,
    checkpoints: Path = Path("checkpoints"),
    by: str = "all",
    clips: str = "heldout",
    toc: str = "stored",
    device: str = "auto",
) -> Iterator[dict]:
    """Yield the records of one pair of modalities; args are those of `hdcid retrieve`."""
    from hdcid_cli.models.checkpoint import open_checkpoint
    from hdcid_cli.models.codes import encode
    from hdcid_cli.models.toc import apply_toc, resolve_toc

    opened = open_checkpoint(checkpoint, checkpoints, device)
    selection = resolve_toc(toc, opened, "retrieve", query)
    files = [open_features(features, query), open_features(gallery_features or features, gallery)]
    ids = [name for name in files[0].ids if name in files[1].index]
    if not ids:
        raise InputError(f"{files[0].name} and {files[1].name} have no clip in common.")
    protocol = clips
    unseen = [name for name in ids if name not in opened.clips]
    if clips == "heldout" and unseen:
        ids = unseen
    elif clips == "heldout":
        say(f"{opened.path} was pretrained on all {len(ids)} clips, so none is held out and all are ranked.")
        protocol = "all"
    sides = []
    for file in files:
        rows = file.rows(ids)
        codes = encode(opened, file)
        sides.append((apply_toc(codes.quantized[rows], selection), codes.indices[rows, :, :, 0], codes.length[rows]))
    vectors = {}
    if by != "codes":
        vectors["summary"] = summary_vectors(*((quantized, length) for quantized, _, length in sides))
    if by != "summary":
        vectors["codes"] = code_vectors(*((indices, length) for _, indices, length in sides), opened.codebooks)
    if by in ("both", "all"):
        vectors["both"] = both_vectors(vectors["summary"], vectors["codes"])
    model = opened.describe() | {"toc": selection.label if selection else "none"}
    for kind in KINDS if by == "all" else (by,):
        for score, chance in retrieval_scores(vectors[kind]):
            yield result(
                task="retrieve",
                train=letter(query),
                test=letter(gallery),
                metric=f"{kind} {score.name}",
                value=score.value,
                interval=score.interval,
                n=len(ids),
                chance=chance,
                protocol=protocol,
                seed=0,
                **model,
            )
