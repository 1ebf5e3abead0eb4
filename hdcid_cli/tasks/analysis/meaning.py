"""Which labels the codes stand for in each modality, and which codes two modalities share for a label."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from hdcid_cli.codes.checkpoint import Checkpoint
from hdcid_cli.codes.encode import encode
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.core.files import atomic_path
from hdcid_cli.core.modalities import letter
from hdcid_cli.core.names import count_of_recordings
from hdcid_cli.core.records import result
from hdcid_cli.tasks.analysis.counts import CodeCounts, count, count_permuted, rows_of, shared_codes
from hdcid_cli.tasks.annotations import identity
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, AnnotatedEvent, Annotations, segment_labels
from hdcid_cli.tasks.cmg.inputs import Inputs
from hdcid_cli.tasks.cmg.scores import LOCALIZATION
from hdcid_cli.tasks.cmg.tasks import TASKS


def read_labels(task: str, data: Path, modality: str) -> Annotations:
    """The events of each clip in one modality; of words, and where nobody says when, the clip's class holds all along.

    Raises:
        InputError: the task's files are missing or broken, or say when, and words have no seconds.
    """
    words = modality == "text"
    if words and TASKS[task][0].kind == LOCALIZATION:
        raise InputError(f"{task} tells what happens in each second, and words have no seconds: use v or a.")
    annotations = TASKS[task][0].read(data, modality, modality)[1]
    if annotations.timed.clips and not words:
        return annotations.timed
    clips = [
        replace(clip, events=[AnnotatedEvent(clip.label, 0.0, np.inf)])
        for clip in annotations.clips
        if clip.label is not None
    ]
    return annotations.part(clips)


def analyze(
    checkpoint: Checkpoint,
    features: Sequence[FeatureFile],
    annotations: Mapping[str, Annotations],
    split: str = "test",
    output: Path | None = None,
    task: str = "",
) -> Iterator[dict]:
    """Yield, for each layer (with `pq:N`: each block), purity, mutual information and used codes of each modality, and
    the codes that two share.

    Args:
        features: one file a modality.
        annotations: {modality: whose events label the segments}.
        split: train, val, test or all.
        output: write P(label | code) there as CSV.
        task: whose annotations they are, for the records.
    """
    counts: list[CodeCounts] = []
    common: dict[str, dict] = {}
    clips: dict[str, int] = {}
    labels: tuple[str, ...] = ()
    for file in features:
        whole = annotations[file.modality]
        chosen = _of_split(whole, split)
        found, of_file = _count(checkpoint, file, chosen)
        counts += of_file
        labels, clips[file.modality] = (*whole.classes, "background"), len(found)
        common[file.modality] = {
            "task": "codes",
            "annotations": task,
            "protocol": split,
            "data": identity.data_set(whole),
            "data_digest": whole.digest,
            "features_digest": file.digest,
            "backbone": file.backbone,
            "n_pretrained": count_of_recordings((clip.id for clip in found), checkpoint.clips),
            "seed": 0,
            **checkpoint.describe(),
        }
    if output:
        _write_table(output, list(rows_of(counts, labels)))
    for each in counts:
        fields = common[each.modality] | _place(each, each) | {"n": clips[each.modality]}
        for name, (value, chance) in each.measures().items():
            chance = None if chance is None else 100 * chance
            yield result(**fields, metric=f"{each.place} {name}", value=100 * value, chance=chance)
        yield result(**fields, metric=f"{each.place} used", value=each.used)
    for first, second in combinations(counts, 2):
        if first.place == second.place:
            shared = shared_codes(first.table, second.table)
            yield result(
                **common[second.modality],
                **_place(first, second),
                n=clips[second.modality],
                metric=f"{first.place} shared",
                value=sum(map(len, shared)),
                shared={label: codes for label, codes in zip(labels, shared) if codes},
            )


def _place(first: CodeCounts, second: CodeCounts) -> dict:
    return {"train": letter(first.modality), "test": letter(second.modality), "layer": first.layer}


def _count(
    checkpoint: Checkpoint, file: FeatureFile, annotations: Annotations
) -> tuple[list[AnnotatedClip], list[CodeCounts]]:
    """The annotated clips that have features, and what their codes met, layer by layer."""
    codes = encode(checkpoint, file)
    steps = codes.indices.shape[1]
    inputs = Inputs(
        file.name,
        file.modality,
        codes.ids,
        codes.length,
        file.segment_seconds,
        codes.indices.shape[1:3],
        codes.indices.__getitem__,
    )
    found, rows, _ = inputs.match(annotations.clips, annotations.classes)
    if not found:
        raise InputError(f"{file.name} has no clip of {annotations.source}, of {len(annotations.clips)} there.")
    truth = segment_labels(found, len(annotations.classes), steps, file.segment_seconds)
    valid = np.arange(steps) < codes.length[rows][:, None]
    counts = []
    for number, book in enumerate(checkpoint.books):
        met = codes.by_book[rows, :, number], truth, valid, len(book.rows)
        counts.append(CodeCounts(book.layer, file.modality, count(*met), count_permuted(*met), book.block))
    return found, counts


def _of_split(annotations: Annotations, split: str) -> Annotations:
    if split == "all" or all(clip.split is None for clip in annotations.clips):
        return annotations
    clips = [clip for clip in annotations.clips if clip.split == split]
    if not clips:
        raise InputError(f"{annotations.source} has no clips in split {split}: use --split all.")
    return annotations.part(clips)


def _write_table(path: Path, rows: list[dict]) -> None:
    with atomic_path(path, named=True) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
