"""One decoded stream of a media file, frame by frame, with times counted from the clip's start.

Both `video` and `audio` read through here, so that missing streams, odd timestamps, seeking
and damage are handled once. Nothing is kept: memory does not grow with the clip's length.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.stream import Disposition

from hdcid_cli.core.errors import InputError

# Sound codecs need some packets before the wanted moment to come to their true output.
PREROLL_SECONDS = 0.5
# A stream that is shorter than its file says by more than this was cut off, by a full disk or a broken download.
TRUNCATED_SECONDS = 1.0
# Formats that store no duration: what FFmpeg says then is guessed, from the rate of the first packets or from the
# last time in the file.
GUESSED_DURATION = frozenset(["aac", "ac3", "eac3", "h264", "hevc", "m4v", "mpeg", "mpegts", "mpegvideo"])
# Pictures beyond this are not decoded: a file of a few hundred kilobytes may unpack to gigabytes.
MOST_PIXELS = 100_000_000
MP3_HEADERS = (b"Xing", b"Info", b"VBRI")  # with one of these, within the first frame, an mp3 does store it


def decode(path: Path | str, kind: str, start: float = 0.0) -> Iterator[tuple[float, float, Any]]:
    """Decode the best stream of a kind.

    Args:
        path: any file that FFmpeg reads.
        kind: "video" or "audio".
        start: where the clip begins in the file, in seconds.

    Yields:
        (time, duration, frame): seconds from `start` at which the PyAV frame begins (negative for what lies
        before it) and how long it lasts (0 if nothing tells).

    Raises:
        InputError: the file cannot be opened, has no such stream, ends in the middle, or decodes to nothing.
    """
    av.logging.set_level(av.logging.PANIC)  # what matters is raised, and said in our words
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would keep us waiting for ever
            raise InputError(f"{path} is not a file.")
        container = av.open(str(path), options={"max_pixels": str(MOST_PIXELS)})
    except (FFmpegError, OSError) as error:
        raise InputError(f"{path} cannot be opened: {_reason(error)}.") from error
    with container:
        stream = _best(container, kind)
        if stream is None:
            raise InputError(f"{path} has no {kind}.")
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        stream.thread_count = 1  # the worker processes are the parallelism
        origin = (container.start_time or 0) / av.time_base + start
        if start > 0:
            with contextlib.suppress(FFmpegError):  # a file without an index is read from its beginning
                container.seek(int(max(0.0, origin - PREROLL_SECONDS) * av.time_base))
        end, found, damaged = 0.0, False, None
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except FFmpegError as error:
                    damaged = error  # one bad packet does not spoil the rest
                    continue
                for frame in frames:
                    duration = _duration(frame, stream)
                    time = end if frame.pts is None else float(frame.pts * frame.time_base) - origin
                    end = time + duration
                    found |= end > 0 or time >= 0
                    yield time, duration, frame
        except FFmpegError as error:
            raise InputError(f"{path} is damaged after {end:.1f} s of {kind}: {_reason(error)}.") from error
        if not found and damaged:
            raise InputError(f"{path} has no {kind} that can be decoded: {_reason(damaged)}.")
        if not found:
            raise InputError(f"{path} has no {kind}" + (f" after {start:g} s." if start else " in it."))
        if end < (promised := _seconds(path, container, stream) - start) - TRUNCATED_SECONDS:
            raise InputError(f"{path} ends after {end:.1f} of {promised:.1f} s of {kind}: it is cut off or damaged.")


def _best(container, kind: str):
    """The stream that FFmpeg would choose, if it is not a cover picture."""
    stream = container.streams.best(kind)
    if stream is not None and kind == "video" and stream.disposition & Disposition.attached_pic:
        return None
    return stream


def _seconds(path: Path | str, container, stream) -> float:
    """How long the stream is by what the file says; 0 if it does not."""
    if container.format.name in GUESSED_DURATION or (container.format.name == "mp3" and not _says_duration(path)):
        return 0.0
    said = [float(stream.duration * stream.time_base)] if stream.duration else []
    if clock := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):  # Matroska's way
        hours, minutes, seconds = map(float, clock.groups())
        said.append(3600 * hours + 60 * minutes + seconds)
    if said and container.duration:
        said.append(container.duration / 1_000_000)
    if "matroska" in container.format.name:  # there, and in webm, durations are times of the end
        said = [seconds - (container.start_time or 0) / 1_000_000 for seconds in said]
    return min(said, default=0.0)


def _says_duration(path: Path | str) -> bool:
    """Whether an mp3 file holds the number of its frames; where a large tag comes first, this is not looked for."""
    with open(path, "rb") as file:
        beginning = file.read(1 << 16)
    return any(header in beginning for header in MP3_HEADERS)


def _duration(frame, stream) -> float:
    """In seconds; by the stream's rate if the frame does not say, 0 if nothing does."""
    if getattr(frame, "samples", 0):
        return frame.samples / frame.sample_rate
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return float(1 / stream.average_rate) if stream.average_rate else 0.0


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
