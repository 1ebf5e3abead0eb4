"""Reading many clips at once in worker processes.

Each worker has a pipe of its own and one clip in its hands, so that a file that brings the decoder down
costs that clip alone. Large arrays lie in memory that it shares with its parent (`arena.py`); it holds a few of them,
and a worker waits when they are not taken: memory stays constant.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.media.arena import SMALLEST, Arena, ArenaPlace
from hdcid_cli.media.clips import MediaClip

# What comes back: (clip, part, None) for each part, then (clip, None, why it failed or None).
Event = tuple[MediaClip, Any, str | None]
Prepare = Callable[[MediaClip], Iterator[Any]]


def read_clips(clips: Sequence[MediaClip], prepare: Prepare, workers: int) -> Iterator[Event]:
    """Run `prepare(clip)` for every clip; yield its parts as they come, and its end.

    An array is what it is until the next event is taken: who keeps it makes a copy.

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


@dataclass
class _Worker:
    """One process, its pipe, the memory shared with it, and the clip in its hands."""

    process: Any
    pipe: Connection
    arena: Arena
    clip: MediaClip

    def close(self) -> None:
        self.pipe.close()
        self.arena.close()


def _read_in_workers(clips: Iterator[MediaClip], prepare: Prepare, workers: int) -> Iterator[Event]:
    busy: dict[Connection, _Worker] = {}

    def give(start: Callable[[MediaClip], _Worker]) -> None:
        """A worker's next clip, if there is one."""
        if (clip := next(clips, None)) is not None:
            worker = start(clip)
            busy[worker.pipe] = worker
            worker.pipe.send(clip)

    try:
        for _ in range(workers):
            give(partial(_start, prepare))
        while busy:
            for pipe in wait(list(busy)):
                worker = busy[cast(Connection, pipe)]
                try:
                    part, ended, error = worker.pipe.recv()
                except (EOFError, OSError):
                    del busy[worker.pipe]
                    status = _status(worker.process)
                    worker.close()
                    give(partial(_start, prepare))
                    yield worker.clip, None, f"{worker.clip.source} brought the decoder down (exit status {status})."
                    continue
                if not ended:
                    yield from _taken(worker, part)
                    continue
                clip = worker.clip
                del busy[worker.pipe]
                give(partial(_go_on, worker))
                if worker.pipe not in busy:
                    worker.close()  # which tells the process to end
                yield clip, None, error
    finally:
        for worker in busy.values():
            worker.process.terminate()
            worker.close()


def _taken(worker: _Worker, part: Any) -> Iterator[Event]:
    """Yield a part where it lies, then give its slot back."""
    if not isinstance(part, ArenaPlace):
        yield worker.clip, part, None
        return
    yield worker.clip, worker.arena.get(part), None
    with contextlib.suppress(OSError):  # the worker is gone: the next look at its pipe says so
        worker.pipe.send(part.slot)


def _start(prepare: Prepare, clip: MediaClip) -> _Worker:
    # Spawned, not forked: the parent may hold a GPU and threads. A worker imports numpy and PyAV only.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arena = Arena()
    process = context.Process(target=_work, args=(theirs, arena, prepare), daemon=True)
    resource_tracker.ensure_running()  # which would otherwise undo the next line
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: Ctrl-C is the parent's to handle
    process.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # else its end would not be noticed
    return _Worker(process, ours, arena, clip)


def _go_on(worker: _Worker, clip: MediaClip) -> _Worker:
    return replace(worker, clip=clip)


def _status(process) -> int | None:
    process.join(timeout=10)
    return process.exitcode


def _work(pipe: Connection, arena: Arena, prepare: Prepare) -> None:
    """A worker: clips and numbers of slots come in, (part, ended, error) go out.

    It ends when the parent closes the pipe or is gone.
    """
    try:
        while True:
            message = pipe.recv()
            if isinstance(message, int):
                arena.taken(message)
                continue
            for _, part, error in _read(message, prepare):
                if isinstance(part, np.ndarray) and part.nbytes >= SMALLEST:
                    pipe.send((arena.put(part, pipe.recv), False, None))
                else:
                    pipe.send((part, part is None, error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
