"""One decoded stream of a media file, frame by frame, with times counted from the clip's start.

Both `video` and `audio` read through here, so that missing streams, odd timestamps, seeking
and damage are handled once. Nothing is kept: memory does not grow with the clip's length.
"""

from collections.abc import Iterator
from pathlib import Path

from hdcid_cli.core.errors import InputError

# Sound codecs need some packets before the wanted moment to come to their true output.
PREROLL_SECONDS = 0.5


def decode(path: Path | str, kind: str, start: float = 0.0) -> Iterator[tuple[float, float, object]]:
    """Decode the best stream of a kind.

    Args:
        path: any file that FFmpeg reads.
        kind: "video" or "audio".
        start: where the clip begins in the file, in seconds.

    Yields:
        (time, duration, frame): seconds from `start` at which the PyAV frame begins (negative for what lies
        before it) and how long it lasts (0 where the file does not say).

    Raises:
        InputError: the file cannot be opened, has no such stream, ends in the middle, or decodes to nothing.
    """
    import av
    from av.error import FFmpegError

    av.logging.set_level(av.logging.PANIC)  # what matters is raised, and said in our words
    try:
        container = av.open(str(path))
    except (FFmpegError, OSError) as error:
        raise InputError(f"{path} cannot be opened: {_reason(error)}.") from error
    with container:
        stream = _best(container, kind)
        if stream is None:
            raise InputError(f"{path} has no {kind}.")
        stream.thread_count = 1  # the worker processes are the parallelism
        origin = (container.start_time or 0) / av.time_base + start
        if start > 0:
            container.seek(int(max(0.0, origin - PREROLL_SECONDS) * av.time_base))
        end, decoded, damaged = 0.0, 0, None
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except FFmpegError as error:
                    damaged = error  # one bad packet does not spoil the rest
                    continue
                for frame in frames:
                    duration = _duration(frame)
                    time = end if frame.pts is None else float(frame.pts * frame.time_base) - origin
                    end = time + duration
                    decoded += 1
                    yield time, duration, frame
        except FFmpegError as error:
            raise InputError(f"{path} is damaged after {end:.1f} s of {kind}: {_reason(error)}.") from error
        if not decoded and damaged:
            raise InputError(f"{path} has no {kind} that can be decoded: {_reason(damaged)}.")
        if end <= 0:
            raise InputError(f"{path} has no {kind}" + (f" after {start:g} s." if start else " in it."))


def _best(container, kind: str):
    """The stream that FFmpeg would choose, if it is not a cover picture."""
    stream = container.streams.best(kind)
    if stream is not None and kind == "video" and "attached_pic" in _flags(stream.disposition):
        return None
    return stream


def _flags(disposition) -> list[str]:
    return [flag.name for flag in disposition if flag.name]


def _duration(frame) -> float:
    if getattr(frame, "samples", 0):
        return frame.samples / frame.sample_rate
    return float((frame.duration or 0) * frame.time_base) if frame.time_base else 0.0


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
