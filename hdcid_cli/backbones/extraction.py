"""Clips to a feature file: workers decode, the network takes parts of many clips at once, one writer writes."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from hdcid_cli.backbones import Options, load_backbone
from hdcid_cli.backbones.backbone import Backbone
from hdcid_cli.backbones.pipeline import Clock, through_network
from hdcid_cli.core.device import cores
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureWriter, shard_path
from hdcid_cli.core.progress import counted, progress, say, warn
from hdcid_cli.media.clips import MediaClip, find_clips
from hdcid_cli.media.wave import Wave
from hdcid_cli.media.workers import Event, read_clips


@dataclass(frozen=True)
class Extracted:
    """What an extraction came to.

    Attributes:
        path: the feature file.
        clips: names of the clips that were asked for and are in it now.
        shape: of one clip, (T, ...).
        skipped: why, by name, for the clips that could not be read.
        computed: how many clips were not in the file before.
        clock: how long that took, and what was waited for.
        unit: what a segment is.
    """

    path: Path
    clips: list[str]
    shape: tuple[int, ...]
    skipped: dict[str, str]
    computed: int
    clock: Clock
    unit: str

    @property
    def speed(self) -> str:
        """`2.5 clips and 25 s of media a second, limited by decoding`."""
        return f"{self.computed / self.clock.seconds:.3g} clips and {self.clock.describe(self.unit)}"


@dataclass(frozen=True)
class ExtractionSettings:
    """How clips are gone through, which changes no feature.

    Attributes:
        overwrite: start anew, whatever the file holds.
        on_error: "skip" names a clip that cannot be read on stderr and goes on, "fail" makes an InputError of it.
        workers: decoding processes; 0 decodes in this one, None takes one a core.
        shard: (I, N): only part I of N, counted from 1; by default what torchrun says.
    """

    overwrite: bool = False
    on_error: str = "skip"
    workers: int | None = None
    shard: tuple[int, int] | None = None


def extract(
    paths: Sequence[str] | Mapping[str, Wave],
    modality: str,
    output: Path,
    backbone: str | None = None,
    options: Options | None = None,
    settings: ExtractionSettings | None = None,
) -> Extracted:
    """Features of media or texts to a feature file; run again, it does only what is missing.

    Args:
        paths: what `find_clips` takes, or sounds in memory by the names of their clips.
        modality: video, audio or text.
        output: the feature file; a shard's name is made of it.
        backbone: by name; the papers' one if not given.
        options: what is chosen about the backbone.
        settings: how to go through the clips.

    Raises:
        InputError: nothing to read, nothing that could be read, or a file that was made in another way.
    """
    options, settings = options or Options(), settings or ExtractionSettings()
    workers = cores() if settings.workers is None else settings.workers
    if isinstance(paths, Mapping):
        found = [MediaClip(name, wave) for name, wave in paths.items()]
        workers = 0  # nothing to decode
    else:
        found = find_clips(paths, modality)
    clips, output = _take_shard(found, Path(output), settings.shard)
    clips, skipped = _without_unnameable(clips, settings.on_error)
    model = load_backbone(modality, backbone, options)
    shape = (options.seconds, *model.shape)
    attributes = {
        "modality": modality,
        "backbone": model.name,
        "weights": model.weights,
        "segment_seconds": 1.0,
        "revision": model.revision,
    }
    if modality == "text":
        workers = 0  # nothing to decode
    with FeatureWriter(
        output, [clip.id for clip in clips], shape, attributes, model.dtype, settings.overwrite
    ) as writer:
        missing = set(writer.pending)
        todo = [clip for clip in clips if clip.id in missing]
        clock, unit = Clock(), "words" if modality == "text" else "s of media"
        with progress(total=len(clips), initial=len(clips) - len(todo), description=output.stem, unit="clip") as bar:
            try:
                for clip, error in extract_clips(todo, model, writer, options.seconds, workers, clock):
                    bar.set_postfix_str(clock.describe(unit), refresh=False)
                    bar.update()
                    if error:
                        bar.clear()
                        _skip(clip, error, skipped, settings.on_error)
            except KeyboardInterrupt:
                bar.clear()
                if writer.written:
                    say(
                        f"{writer.target} holds {counted(writer.written, 'clip')}; the same command goes on from there."
                    )
                raise
        if not writer.written:
            raise InputError(f"Of {counted(len(skipped), 'clip')} none could be read, so {output} is not written.")
        writer.finish()
    there = [clip.id for clip in clips if clip.id not in skipped]
    clock.stop()
    return Extracted(output, there, shape, skipped, sum(clip.id not in skipped for clip in todo), clock, unit)


def _skip(clip: MediaClip, error: str, skipped: dict[str, str], on_error: str) -> None:
    if on_error == "fail":
        raise InputError(f"Clip {clip.id!r}: {error}")
    skipped[clip.id] = error
    warn(f"skipped {clip.id!r}: {error}")


def _without_unnameable(clips: list[MediaClip], on_error: str) -> tuple[list[MediaClip], dict[str, str]]:
    """The clips that a feature file can name, and what is said of the others: names of files may be any bytes."""
    skipped: dict[str, str] = {}
    for clip in clips:
        try:
            clip.id.encode()
        except UnicodeEncodeError:
            _skip(clip, f"the name of {clip.source} is not UTF-8: rename the file.", skipped, on_error)
    if len(skipped) == len(clips):
        raise InputError(f"Of {counted(len(clips), 'clip')} none has a name in UTF-8: rename the files.")
    return [clip for clip in clips if clip.id not in skipped], skipped


def _take_shard(clips: list[MediaClip], path: Path, shard: tuple[int, int] | None) -> tuple[list[MediaClip], Path]:
    """The clips and the file of this shard (or of this rank of torchrun)."""
    number, shards = shard or (int(os.environ.get("RANK", "0")) + 1, int(os.environ.get("WORLD_SIZE", "1")))
    if shards == 1:
        return clips, path
    if path.exists():
        raise InputError(
            f"{path} is there already, and readers would take it instead of its shards: remove it or choose "
            "another --output."
        )
    if len(clips) < shards:
        raise InputError(f"For {shards} shards there should be as many clips or more, not {len(clips)}.")
    return clips[number - 1 :: shards], shard_path(path, number, shards)


def extract_clips(
    clips: Sequence[MediaClip],
    backbone: Backbone,
    writer: FeatureWriter,
    segments: int,
    workers: int = 0,
    clock: Clock | None = None,
) -> Iterator[tuple[MediaClip, str | None]]:
    """Write the features of clips.

    Args:
        clips: all of them are rows of `writer`.
        segments: T; a shorter clip repeats its last segment (text: zeros).
        workers: decoding processes; 0 decodes in this one.
        clock: is told what was waited for.

    Yields:
        (clip, None) once it is written, (clip, reason) if it could not be read.
    """
    clock = clock or Clock()
    events: Iterable[Event] = read_clips(clips, backbone.prepare, workers)
    events = through_network(events, backbone, clock) if backbone.network else clock.waits("decoding", events)
    parts: dict[str, list[np.ndarray]] = {}
    for clip, part, error in events:
        if part is not None:
            # A network's output is its own; what a decoder gives is not ours to keep.
            parts.setdefault(clip.id, []).append(part if backbone.network else np.array(part))
            continue
        features = np.concatenate(parts.pop(clip.id))[:segments] if error is None else None
        parts.pop(clip.id, None)
        if features is not None:
            began = perf_counter()
            try:
                writer.write(clip.id, *pad(features, segments, zeros=backbone.modality == "text"))
                clock.segments += len(features)
            except InputError as problem:
                error = str(problem)
            clock.add("writing", began)
        yield clip, error


def pad(features: np.ndarray, segments: int, zeros: bool) -> tuple[np.ndarray, int]:
    """[t, ...] -> ([segments, ...], t): filled up with zeros or the last segment."""
    valid = len(features)
    widths = [(0, segments - valid)] + [(0, 0)] * (features.ndim - 1)
    return np.pad(features, widths, mode="constant" if zeros else "edge"), valid
