"""Reading many clips at once in worker processes.

Each worker has a pipe of its own and one clip in its hands, so that a file that brings the decoder down
costs that clip alone. A pipe holds little, so a worker waits when its parts are not taken: memory stays constant.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from hdcid_cli.core.errors import InputError
from hdcid_cli.media.clips import MediaClip

# What comes back: (clip, part, None) for each part, then (clip, None, why it failed or None).
Event = tuple[MediaClip, Any, str | None]
Prepare = Callable[[MediaClip], Iterator[Any]]


def read_clips(clips: Sequence[MediaClip], prepare: Prepare, workers: int) -> Iterator[Event]:
    """Run `prepare(clip)` for every clip; yield its parts as they come, and its end.

    Args:
        clips: what to read, in this order.
        prepare: gives a clip's parts; can be pickled if there are workers. What it raises fails the clip alone.
        workers: number of processes; 0 reads in this one.
    """
    workers = min(workers, len(clips))
    if workers == 0:
        for clip in clips:
            yield from _read(clip, prepare)
    else:
        yield from _read_in_workers(iter(clips), prepare, workers)


def _read(clip: MediaClip, prepare: Prepare) -> Iterator[Event]:
    try:
        for part in prepare(clip):
            yield clip, part, None
    except InputError as error:
        yield clip, None, str(error)
    except Exception as error:  # whatever else a strange file may bring about, the other clips go on
        yield clip, None, f"{clip.source} cannot be read: {type(error).__name__}: {error}."
    else:
        yield clip, None, None


def _read_in_workers(clips: Iterator[MediaClip], prepare: Prepare, workers: int) -> Iterator[Event]:
    busy: dict[Connection, tuple[MediaClip, Any]] = {}

    def give(pipe, process):
        """The next clip, or the order to end."""
        clip = next(clips, None)
        if clip is None:
            pipe.close()
        else:
            busy[pipe] = clip, process
            pipe.send(clip)

    try:
        for _ in range(workers):
            give(*_start(prepare))
        while busy:
            for pipe in wait(list(busy)):
                clip, process = busy[pipe]
                try:
                    part, ended, error = pipe.recv()
                except (EOFError, OSError):
                    part, ended, error = (
                        None,
                        True,
                        f"{clip.source} brought the decoder down (exit status {_status(process)}).",
                    )
                    del busy[pipe]
                    pipe.close()
                    pipe, process = _start(prepare)
                if not ended:
                    yield clip, part, None
                    continue
                busy.pop(pipe, None)
                give(pipe, process)
                yield clip, None, error
    finally:
        for pipe, (_, process) in busy.items():
            pipe.close()
            process.terminate()


def _start(prepare: Prepare):
    # Spawned, not forked: the parent may hold a GPU and threads. A worker imports numpy and PyAV only.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, prepare), daemon=True)
    resource_tracker.ensure_running()  # which would otherwise undo the next line
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is the parent's to handle
    process.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # else its end would not be noticed
    return ours, process


def _status(process) -> int | None:
    process.join(timeout=10)
    return process.exitcode


def _work(pipe: Connection, prepare: Prepare) -> None:
    """A worker: clips come in, (part, ended, error) go out; ends when the parent closes the pipe or is gone."""
    try:
        while True:
            for _, part, error in _read(pipe.recv(), prepare):
                pipe.send((part, part is None, error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
