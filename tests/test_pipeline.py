"""From decoding processes through shared memory and a network, in order, with nobody waiting for nothing."""

import multiprocessing
import os
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest
from media_files import grey, tone, write_media

from hdcid_cli.backbones.backbone import Backbone
from hdcid_cli.backbones.pipeline import Buffers, Clock, through_network
from hdcid_cli.core.errors import InputError
from hdcid_cli.media.arena import SLOTS, SMALLEST, Arena
from hdcid_cli.media.clips import MediaClip
from hdcid_cli.media.video import frame_parts
from hdcid_cli.media.workers import read_clips

# --- shared memory -------------------------------------------------------------------------------


def test_an_array_lies_in_its_slot_until_it_is_taken():
    arena = Arena()
    arrays = [np.full(SMALLEST + 8 * n, n, np.float32) for n in range(SLOTS)]
    places = [arena.put(array, lambda: pytest.fail("there is a free slot")) for array in arrays[:1] * SLOTS]
    assert len({place.slot for place in places}) == SLOTS
    asked = []

    def wait():
        asked.append(places[0].slot)
        return places[0].slot

    place = arena.put(arrays[0] + 5, wait)
    assert asked == [places[0].slot] and (arena.get(place) == 5).all()
    assert (arena.get(places[1]) == 0).all()


def test_a_larger_array_waits_until_all_slots_are_free_and_makes_them_larger():
    arena = Arena()
    small = arena.put(np.zeros(10, np.uint8), lambda: pytest.fail("there is a free slot"))
    kept = arena.get(small)
    taken = iter([small.slot])
    place = arena.put(np.full((50_000, 2), 7, np.int64), lambda: next(taken))
    assert place.slot_bytes >= 800_000 and (arena.get(place) == 7).all() and place.shape == (50_000, 2)
    assert (kept == 0).all()  # its memory is still there


def _fill(pipe, arena, value):
    pipe.send(arena.put(np.full(100_000, value), pipe.recv))
    pipe.recv()


def test_two_processes_see_the_same_memory_and_nothing_of_it_is_left():
    context = multiprocessing.get_context("spawn")
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    ours, theirs = context.Pipe()
    arena = Arena()
    process = context.Process(target=_fill, args=(theirs, arena, 42))
    process.start()
    assert (arena.get(ours.recv()) == 42).all()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    arena.close()
    assert not os.path.isdir("/dev/shm") or not {
        name for name in set(os.listdir("/dev/shm")) - before if "hdcid" in name
    }


# --- workers -------------------------------------------------------------------------------------


def _numbered(clip: MediaClip):
    """Arrays of growing size, more than there are slots, each of which says whose it is."""
    for number in range(2 * SLOTS):
        yield np.full((number + 1, SMALLEST // 4), float(clip.source) + number, np.float32)
    if clip.id == "broken":
        raise InputError("it broke")
    yield np.full(3, 9.0)


def test_large_parts_come_whole_and_in_order_from_several_workers():
    clips = [MediaClip("broken" if n == 2 else str(n), str(100 * n)) for n in range(5)]
    found: dict[str, list] = {clip.id: [] for clip in clips}
    for clip, part, error in read_clips(clips, _numbered, 2):
        found[clip.id].append(error if part is None else (part.shape, float(part.min()), float(part.max())))
    for clip in clips:
        shapes = [(n + 1, SMALLEST // 4) for n in range(2 * SLOTS)]
        expected = [(shape, float(clip.source) + n, float(clip.source) + n) for n, shape in enumerate(shapes)]
        assert found[clip.id] == expected + (["it broke"] if clip.id == "broken" else [((3,), 9.0, 9.0), None])


def test_frames_of_any_size_come_as_they_would_without_workers(tmp_path):
    generator = np.random.default_rng(0)
    clips = []
    for name, size in (("a", 200), ("b", 330), ("c", 64)):
        pictures = [grey(0, size) + generator.integers(0, 255, (size, size, 1), np.uint8) for _ in range(12)]
        clips.append(MediaClip(name, str(write_media(tmp_path / f"{name}.mp4", pictures, fps=8, sound=tone(440, 1)))))
    prepare = partial(frame_parts, seconds=2, fps=8, edge=300)

    def read(workers):
        events = read_clips(clips, prepare, workers)
        return {(clip.id, n): part.copy() for n, (clip, part, _) in enumerate(events) if part is not None}

    alone = {}
    for (name, _), part in read(0).items():
        alone.setdefault(name, []).append(part)
    together = {}
    for (name, _), part in read(2).items():
        together.setdefault(name, []).append(part)
    assert {name: [part.shape for part in parts] for name, parts in alone.items()} == {
        "a": [(1, 8, 200, 200, 3)] * 2, "b": [(1, 8, 300, 300, 3)] * 2, "c": [(1, 8, 64, 64, 3)] * 2,
    }  # fmt: skip
    assert all(np.array_equal(a, b) for name in alone for a, b in zip(alone[name], together[name], strict=True))


# --- batches -------------------------------------------------------------------------------------


def backbone_of(network, batch_size=1) -> Backbone:
    return Backbone("test", "audio", (1,), iter, network, batch_size)


def events_of(count: int, read: list | None = None):
    """One clip of so many parts, each in one array that is used again for the next."""
    clip, array = MediaClip("a", "a"), np.empty((1, 1), np.float32)
    for number in range(count):
        array[:] = number
        if read is not None:
            read.append(number)
        yield clip, array, None
    yield clip, None, None


def test_reading_goes_on_while_two_batches_compute():
    read: list[int] = []
    third = threading.Event()

    def network(parts):
        if parts[0][0, 0] == 0:
            assert third.wait(10), "the network would wait for the reader, and the reader for the network"
        return [part + 100 for part in parts]

    def watched():
        for event in events_of(6, read):
            if len(read) == 3:
                third.set()
            yield event

    found = [part for _, part, _ in through_network(watched(), backbone_of(network), Clock())]
    assert [None if part is None else part.item() for part in found] == [100, 101, 102, 103, 104, 105, None]


def test_features_that_are_there_are_handed_on_at_once():
    """A clip is written when it is done, not when two more batches have been read."""
    computed = threading.Event()

    def network(parts):
        outputs = [part + 1 for part in parts]
        computed.set()
        return outputs

    def slow():
        for number, event in enumerate(events_of(3)):
            if number == 1:
                computed.wait(10)
                time.sleep(0.05)
            yield event

    events = through_network(slow(), backbone_of(network), Clock())
    assert next(events)[1].item() == 1
    assert [part.item() for _, part, _ in events if part is not None] == [2, 3]


def test_memory_is_asked_for_once_and_used_again():
    asked = []

    class Doubling:
        def __call__(self, parts):
            assert parts
            return [2 * part for part in parts]

        def empty(self, size):
            asked.append(size)
            return np.empty(size, np.uint8)

    found = list(through_network(events_of(100), backbone_of(Doubling(), batch_size=3), Clock()))
    assert [part.item() for _, part, _ in found if part is not None] == [2 * number for number in range(100)]
    assert len(asked) <= 3 * 4  # two batches that compute, one that is being read, one that is handed on


def test_a_buffer_that_is_too_small_gives_way():
    asked = []
    buffers = Buffers(lambda size: asked.append(size) or np.empty(size, np.uint8))
    for size in (10, 5, 20, 20, 3):
        part, buffer = buffers.copy(np.full((size, 2), size, np.int16))
        assert part.shape == (size, 2) and (part == size).all() and part.dtype == np.int16
        buffers.give_back([buffer])
    assert asked == [40, 80]


def test_a_network_that_fails_is_heard():
    def network(parts):
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        list(through_network(events_of(5), backbone_of(network), Clock()))


@pytest.mark.parametrize(("reading", "computing", "said"), [(3, 2, "decoding"), (1, 2, "the network")])
def test_the_stage_that_is_waited_for_is_named(monkeypatch, reading, computing, said):
    now = [0.0]
    monkeypatch.setattr("hdcid_cli.backbones.pipeline.perf_counter", lambda: now[0])

    def events():
        for event in events_of(4):
            now[0] += reading
            yield event

    clock = Clock(began=0.0)
    for _ in clock.waits("decoding", events()):
        began = now[0]
        now[0] += computing
        clock.add("the network", began)
        clock.segments += 10
    clock.stop()
    assert clock.spent == {"decoding": 5 * reading, "the network": 5 * computing, "writing": 0}
    assert clock.describe("s of media") == f"{10 / (reading + computing):.3g} s of media a second, limited by {said}"


def test_waiting_is_told_of_each_stage():
    told = []

    class Telling(Clock):
        def add(self, stage, since):
            told.append(stage)

    list(through_network(events_of(3), backbone_of(lambda parts: [part + 1 for part in parts]), Telling()))
    assert told.count("decoding") == 5  # three parts, the end of the clip, the end of all
    assert told.count("the network") == 3
