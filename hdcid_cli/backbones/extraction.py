"""Clips to a feature file: workers decode, the network takes parts of many clips at once, one writer writes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hdcid_cli.backbones.backbone import Backbone
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureWriter
from hdcid_cli.media.clips import Clip
from hdcid_cli.media.workers import Event, read_clips


def extract(
    clips: Sequence[Clip], backbone: Backbone, writer: FeatureWriter, segments: int, workers: int = 0
) -> Iterator[tuple[Clip, str | None]]:
    """Write the features of clips.

    Args:
        clips: all of them are rows of `writer`.
        segments: T; a shorter clip repeats its last segment (text: zeros).
        workers: decoding processes; 0 decodes in this one.

    Yields:
        (clip, None) once it is written, (clip, reason) if it could not be read.
    """
    events = read_clips(clips, backbone.prepare, workers)
    if backbone.network:
        events = _through_network(events, backbone)
    parts: dict[str, list[np.ndarray]] = {}
    for clip, part, error in events:
        if part is not None:
            parts.setdefault(clip.id, []).append(part)
            continue
        features = parts.pop(clip.id, None)
        if error is None:
            try:
                writer.write(
                    clip.id, *pad(np.concatenate(features)[:segments], segments, zeros=backbone.modality == "text")
                )
            except InputError as problem:
                error = str(problem)
        yield clip, error


def pad(features: np.ndarray, segments: int, zeros: bool) -> tuple[np.ndarray, int]:
    """[t, ...] -> ([segments, ...], t): filled up with zeros or the last segment."""
    valid = len(features)
    widths = [(0, segments - valid)] + [(0, 0)] * (features.ndim - 1)
    return np.pad(features, widths, mode="constant" if zeros else "edge"), valid


def _through_network(events: Iterable[Event], backbone: Backbone) -> Iterator[Event]:
    """The same events with the network's output for each part; one batch computes while the next is read."""
    batch: list[Event] = []
    parts = 0
    with ThreadPoolExecutor(max_workers=1) as thread:
        computing = thread.submit(list)  # the batch before this one; none yet
        for event in events:
            batch.append(event)
            parts += event[1] is not None
            if parts == backbone.batch_size:
                before, computing = computing, thread.submit(_compute, batch, backbone.network)
                yield from before.result()
                batch, parts = [], 0
        yield from computing.result()
        yield from _compute(batch, backbone.network)


def _compute(batch: list[Event], network: Callable) -> list[Event]:
    parts = [part for _, part, _ in batch if part is not None]
    outputs = iter(network(parts) if parts else ())
    return [(clip, None if part is None else next(outputs), error) for clip, part, error in batch]
