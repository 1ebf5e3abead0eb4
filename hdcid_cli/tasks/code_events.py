"""From files to records of code analysis: opens annotations, features and checkpoint."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.features import open_features
from hdcid_cli.core.files import atomic_path
from hdcid_cli.core.modalities import letter
from hdcid_cli.core.records import result
from hdcid_cli.tasks import code_analysis as analysis
from hdcid_cli.tasks.annotations.clips import Annotations, segment_labels
from hdcid_cli.tasks.cmg.inputs import Inputs
from hdcid_cli.tasks.cmg.tasks import LOCALISATION, TASKS


def analyse(
    task: str,
    data: Path,
    features: Path,
    modalities: Sequence[str] | None = None,
    split: str = "test",
    output: Path | None = None,
    checkpoint: Path | None = None,
    checkpoints: Path = Path("checkpoints"),
    device: str = "auto",
) -> Iterator[dict]:
    """Yield, for each layer, purity, mutual information and used codes of each modality, and the codes that two share.

    Args:
        task: whose annotations label the segments.
        modalities: of the model's if not given; text has no segments in time and is left out.
        split: train, val, test or all.
        output: write P(label | code) there as CSV.
    """
    from hdcid_cli.codes.checkpoint import open_checkpoint
    from hdcid_cli.codes.encode import encode

    opened = open_checkpoint(checkpoint, checkpoints, device)
    wanted = [name for name in modalities or opened.config["model"]["inputs"] if name != "text"]
    if not wanted:
        raise InputError("Codes are counted second by second, and words have no seconds: use v or a.")
    counts, labels, clips = [], (), {}
    for name in wanted:
        annotations = _of_split(_annotations(task, data, name), split)
        file = open_features(features, name)
        codes = encode(opened, file)
        inputs = Inputs(
            file.name,
            name,
            codes.ids,
            codes.length,
            file.segment_seconds,
            codes.indices.shape[1:3],
            codes.indices.__getitem__,
        )
        found, rows, _ = inputs.match(annotations.clips, annotations.classes)
        if not found:
            raise InputError(
                f"{file.name} has none of the {len(annotations.clips)} clips of {annotations.source} in split {split}."
            )
        labels, clips[name] = (*annotations.classes, "background"), len(found)
        truth = segment_labels(found, len(annotations.classes), codes.indices.shape[1], file.segment_seconds)
        valid = np.arange(codes.indices.shape[1]) < codes.length[rows][:, None]
        counts += [
            analysis.Counts(
                layer + 1, name, analysis.count(codes.indices[rows, :, layer, 0], truth, valid, len(codebook))
            )
            for layer, codebook in enumerate(opened.codebooks)
        ]
    if output:
        _write_table(output, list(analysis.rows_of(counts, labels)))
    common = {"task": "codes", "annotations": task, "protocol": split, "seed": 0, **opened.describe()}
    for each in counts:
        fields = common | {
            "train": letter(each.modality),
            "test": letter(each.modality),
            "layer": each.layer,
            "n": clips[each.modality],
        }
        chance = 100 * float(each.table.sum(0).max() / each.table.sum())
        yield result(
            **fields, metric=f"layer {each.layer} purity", value=100 * analysis.purity(each.table), chance=chance
        )
        yield result(
            **fields,
            metric=f"layer {each.layer} nmi",
            value=100 * analysis.normalised_mutual_information(each.table),
            chance=0.0,
        )
        yield result(**fields, metric=f"layer {each.layer} used", value=float(each.used))
    for first, second in combinations(counts, 2):
        if first.layer == second.layer:
            shared = analysis.shared_codes(first.table, second.table)
            fields = common | {
                "train": letter(first.modality),
                "test": letter(second.modality),
                "layer": first.layer,
                "n": clips[second.modality],
            }
            by_label = {label: codes for label, codes in zip(labels, shared) if codes}
            yield result(
                **fields, metric=f"layer {first.layer} shared", value=float(sum(map(len, shared))), shared=by_label
            )


def locate(
    clip: str,
    query: str,
    target: str,
    features: Path,
    plot: Path | None = None,
    checkpoint: Path | None = None,
    checkpoints: Path = Path("checkpoints"),
    device: str = "auto",
) -> Iterator[dict]:
    """Where in a clip `target` uses the codes that `query` uses: yield one row a segment of `target`; draw the map to
    `plot`.
    """
    from hdcid_cli.codes.checkpoint import open_checkpoint
    from hdcid_cli.codes.encode import encode

    opened = open_checkpoint(checkpoint, checkpoints, device)
    sides, seconds = [], []
    for name in (query, target):
        file = open_features(features, name)
        [row] = file.rows([clip])
        codes = encode(opened, file)
        sides.append(codes.indices[row, : codes.length[row], :, 0])
        seconds.append(file.segment_seconds)
    agreement = analysis.agreement_map(*sides, opened.codebooks)
    if plot:
        draw_map(agreement, clip, (query, target), seconds, plot)
    for step, column in enumerate(agreement.T):
        yield {
            "clip": clip,
            "second": step * seconds[1],
            "agreement": round(float(column.max()), 4),
            f"{query} second": int(column.argmax()) * seconds[0],
            f"codes of {target}": sides[1][step].tolist(),
            f"codes of {query}": sides[0][int(column.argmax())].tolist(),
        }


def draw_map(agreement: np.ndarray, clip: str, names: tuple[str, str], seconds: Sequence[float], path: Path) -> None:
    """Draw [T, T'] to `path` (png, pdf or svg by its ending): the first modality down, the second across."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HdcidError("Pictures need matplotlib: install it with `pip install hdcid[plot]`.") from error

    figure = Figure(figsize=(6, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    height, width = agreement.shape[0] * seconds[0], agreement.shape[1] * seconds[1]
    image = axis.imshow(
        agreement, vmin=0, vmax=1, cmap="viridis", interpolation="nearest", extent=(0, width, height, 0), aspect="auto"
    )
    axis.set_title(f"{clip}: where {names[1]} uses the codes of {names[0]}", fontsize=10)
    axis.set_xlabel(f"{names[1]} (s)")
    axis.set_ylabel(f"{names[0]} (s)")
    figure.colorbar(image, ax=axis, label="agreement of codes")
    with atomic_path(path) as temporary:
        try:
            figure.savefig(temporary, format=path.suffix.lstrip(".").lower() or "png", dpi=120)
        except ValueError as error:
            raise HdcidError(
                f"{path}: pictures can be png, pdf or svg ({str(error).split('(')[0].strip()})."
            ) from error


def _annotations(task: str, data: Path, modality: str) -> Annotations:
    """What happens when in one modality, from the task that says so."""
    for each in TASKS[task]:
        annotations = each.read(data, modality, modality)[1].timed
        if annotations.clips and (each.kind == LOCALISATION or any(clip.events for clip in annotations.clips)):
            return annotations
    raise InputError(
        f"The annotations of {task} give no times of events, so that it is not known what a code occurs with."
    )


def _of_split(annotations: Annotations, split: str) -> Annotations:
    if split == "all" or all(clip.split is None for clip in annotations.clips):
        return annotations
    clips = [clip for clip in annotations.clips if clip.split == split]
    if not clips:
        raise InputError(f"{annotations.source} has no clips in split {split}: use --split all.")
    return replace(annotations, clips=clips)


def _write_table(path: Path, rows: list[dict]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
