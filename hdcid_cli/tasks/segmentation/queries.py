"""What is asked for in a clip: its codes, or those of its category's prompt, one vector a frame."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hdcid_cli.codes.checkpoint import Checkpoint
from hdcid_cli.codes.encode import SLAB, encode
from hdcid_cli.codes.toc import Selection
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import open_features
from hdcid_cli.core.progress import counted
from hdcid_cli.tasks.segmentation.avsbench import FRAMES, Clip


def to_frames(steps: np.ndarray, length: np.ndarray, frames: int = FRAMES) -> np.ndarray:
    """Map each clip's valid steps to a fixed number of frames by adaptive means.

    Of L valid steps frame i takes the mean of steps floor(i L / frames) to ceil((i + 1) L / frames) - 1:
    pairs if L is 10, one each if it is 5; fewer steps than frames are repeated.

    Args:
        steps: [N, T, C].
        length: [N], valid steps, 1..T.

    Returns:
        [N, frames, C]
    """
    mapped = np.empty((len(steps), frames, steps.shape[2]), steps.dtype)
    for clip, valid in enumerate(np.asarray(length, int)):
        for frame in range(frames):
            start, stop = frame * valid // frames, -(-(frame + 1) * valid // frames)
            mapped[clip, frame] = steps[clip, start:stop].mean(0)
    return mapped


def read_queries(
    checkpoint: Checkpoint, features: Path, modality: str, selection: Selection | None
) -> tuple[dict[str, np.ndarray], dict]:
    """Queries of all that a feature file holds: ({id: float32 [5, Q]}, what the features are).

    A query has the channels that TOC selected in every layer, side by side. The second value
    says what made the features, so that `predict` can do likewise.
    """
    with open_features(features, modality) as file:
        codes = encode(checkpoint, file)
        made_by = {"backbone": file.backbone, "weights": file.weights, "segments": file.shape[0]}
    vectors = []
    for rows in np.split(np.arange(len(codes.ids)), range(SLAB, len(codes.ids), SLAB)):
        vectors += list(to_frames(codes.read(rows, selection), codes.length[rows]))
    return dict(zip(codes.ids, vectors)), made_by


def query_name(clip: Clip, modality: str, known: dict) -> str | None:
    """Under which name a clip's query is filed: its own, or, for text, that of its category."""
    names = (clip.name, clip.category) if modality == "text" else (clip.name,)
    return next((name for name in names if name in known), None)


def match(
    clips: Sequence[Clip], queries: dict[str, dict[str, np.ndarray]], prompts: dict[str, str]
) -> tuple[list[Clip], dict[str, np.ndarray], dict[str, str]]:
    """The clips that have all their files and a query in every modality.

    Args:
        queries: {modality: {id: [5, Q]}}.
        prompts: {category: prompt}, for what is said of a category that has no query.

    Returns:
        (clips, {modality: [len(clips), 5, Q]}, {name of a clip left out: why})
    """
    kept, left_out = [], {}
    for clip in clips:
        problem = _problem(clip, queries, prompts)
        if problem:
            left_out[clip.name] = problem
        else:
            kept.append(clip)
    vectors = {
        modality: np.stack([known[query_name(clip, modality, known)] for clip in kept])
        if kept
        else np.zeros((0, FRAMES, 0), np.float32)
        for modality, known in queries.items()
    }
    return kept, vectors, left_out


def _problem(clip: Clip, queries: dict[str, dict[str, np.ndarray]], prompts: dict[str, str]) -> str | None:
    missing = clip.missing()
    if missing is not None:
        return f"there is no {missing}"
    for modality, known in queries.items():
        if query_name(clip, modality, known) is None:
            if modality == "text" and clip.category not in prompts:
                return f"its category {clip.category!r} has no prompt"
            return f"it has no {modality} features (`hdcid segment --help` says how to extract them)"
    return None


def require_some(kept: Sequence[Clip], left_out: dict[str, str], split: str) -> None:
    """Raise InputError if a split has no clip left, with the first reason."""
    if kept:
        return
    if not left_out:
        raise InputError(f"The data set has no clips in its {split} split.")
    name, reason = next(iter(left_out.items()))
    raise InputError(
        f"Of {counted(len(left_out), 'clip')} of the {split} split none can be used; the first, {name}: {reason}."
    )
