"""Features on their way from files to the device: the right clips, wherever they are kept, however late copies are."""

import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from worlds import write_features

from hdcid_cli.core import loading
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import open_features
from hdcid_cli.core.loading import (
    ClipReader,
    CudaTransfer,
    Mark,
    Transfer,
    Waits,
    batches_on,
    carry,
    choose_cache,
    prefetch,
)


@pytest.fixture
def files(tmp_path):
    _, ids = write_features(tmp_path, clips=30, dtype="float16")
    opened = {name: open_features(tmp_path, name) for name in ("audio", "video")}
    yield ids, opened
    for file in opened.values():
        file.close()


def expected(ids, opened, positions):
    return {name: file.read(file.rows([ids[place] for place in positions])) for name, file in opened.items()}


@pytest.mark.parametrize("cache", ["none", "ram", "device", "auto"])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64])
def test_every_batch_holds_the_clips_that_were_asked_for(files, cache, dtype, monkeypatch):
    ids, opened = files
    monkeypatch.setattr(loading, "SLAB_BYTES", 5000)  # so that what is kept is read in many parts
    ids = ids[::-1]
    reader = ClipReader(opened, ids, cache, "cpu")
    assert reader.kept == ("ram" if cache == "auto" else cache)
    batches = np.random.default_rng(0).integers(0, 30, (12, 4))
    kept = []  # all of them, so that a batch whose memory is used again would be seen
    for positions, tensors in batches_on("cpu", reader, batches, dtype):
        kept.append((positions, tensors))
    assert [positions.tolist() for positions, _ in kept] == batches.tolist()
    for positions, tensors in kept:
        for name, value in expected(ids, opened, positions).items():
            assert tensors[name].dtype == (dtype or torch.float16)
            assert np.array_equal(tensors[name].numpy(), value.astype(tensors[name].numpy().dtype))


def test_batches_of_other_sizes_follow_each_other(files):
    ids, opened = files
    reader = ClipReader(opened, ids, "none")
    for positions, tensors in batches_on("cpu", reader, [np.arange(3), np.arange(9), np.arange(20, 22)]):
        assert np.array_equal(tensors["audio"], expected(ids, opened, positions)["audio"])


class LateMark(Mark):
    def __init__(self, device, place):
        self.device, self.place = device, place

    def wait(self):
        while len(self.device.copies) and self.device.done < self.place:
            self.device.copies.pop(0)()
            self.device.done += 1

    def order(self):
        self.wait()


class LateDevice(Transfer):
    """Copies as a GPU may: as late as it can, when somebody waits for them."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.copies, self.asked, self.done = [], 0, 0

    def beside(self):
        return nullcontext()

    def copy(self, x, dtype):
        target = torch.full_like(x, -1, dtype=dtype or x.dtype)
        self.copies.append(lambda: target.copy_(x))
        self.asked += 1
        return target

    def copied(self):
        return LateMark(self, self.asked)


def test_memory_is_not_filled_again_before_it_was_copied(files):
    ids, opened = files
    device = LateDevice()
    reader = ClipReader(opened, ids, "none")
    batches = np.arange(30).reshape(10, 3)
    found = list(carry(reader, batches, device, torch.float32))
    assert device.done < device.asked  # the last ones nobody has waited for
    for positions, tensors, copied in found:
        copied.order()
        for name, value in expected(ids, opened, positions).items():
            assert np.array_equal(tensors[name].numpy(), value.astype(np.float32)), name


def test_the_loop_is_few_batches_ahead_of_the_device(files, monkeypatch):
    """After batch n it waits until the device is done with batch n - 2."""
    ids, opened = files
    used = []

    class Counted(Transfer):
        def used(self):
            mark = Mark()
            number = len(used)
            used.append(False)
            mark.wait = lambda: used.__setitem__(number, True)
            return mark

    monkeypatch.setattr(loading, "Transfer", Counted)
    for number, _ in enumerate(batches_on("cpu", ClipReader(opened, ids, "none"), np.arange(30).reshape(10, 3))):
        assert used == [True] * max(0, number - loading.AHEAD + 1) + [False] * min(number, loading.AHEAD - 1)


def test_the_gpu_that_computes_is_the_one_that_waits_for_its_copies(monkeypatch):
    done = []

    class Stream:
        def __init__(self, device):
            self.device = device

        def wait_stream(self, other):
            done.append((self.device, other.device))

        def record_event(self):
            return SimpleNamespace(wait=lambda stream: done.append((stream.device, self.device)))

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(f"beside {device}"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream(device and str(device)))
    transfer = CudaTransfer(torch.device("cuda:1"))
    transfer.copied().order()
    transfer.used().order()
    assert done == [("beside cuda:1", "cuda:1"), ("cuda:1", "beside cuda:1"), ("cuda:1", "cuda:1")]


def test_waiting_for_data_is_measured(files, monkeypatch):
    ids, opened = files
    reader = ClipReader(opened, ids, "none")
    slow = reader.read
    monkeypatch.setattr(reader, "read", lambda *arguments: time.sleep(0.02) or slow(*arguments))
    waits = Waits()
    for _ in batches_on("cpu", reader, np.arange(30).reshape(10, 3), waits=waits):
        pass
    assert waits.data > 0.15 and waits.device < 0.1


@pytest.mark.parametrize(
    ("asked", "gpu", "memory", "ranks", "kept"),
    [
        ("auto", 200, 100, 1, "device"),
        ("auto", 190, 100, 1, "none"),  # more than half of the GPU's memory, more than 0.4 of the machine's
        ("auto", 190, 1000, 1, "ram"),
        ("auto", 190, 1000, 4, "ram"),  # 250 each
        ("auto", 190, 1000, 5, "none"),  # 200 each
        ("auto", None, 1000, 1, "ram"),
        ("auto", None, 200, 1, "none"),
        ("device", 130, 10, 1, "device"),
        ("ram", 200, 10, 8, "ram"),
        ("none", 200, 1000, 1, "none"),
    ],
)
def test_features_are_kept_where_they_fit(monkeypatch, asked, gpu, memory, ranks, kept):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu, 10 * gpu))
    monkeypatch.setattr(loading.psutil, "virtual_memory", lambda: type("Memory", (), {"available": memory}))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert choose_cache(asked, 100, torch.device("cpu" if gpu is None else "cuda")) == kept


def test_a_gpu_that_is_too_small_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 << 30, 80 << 30))
    with pytest.raises(InputError, match=r"take 8.0 GiB, and cuda:1 has 9.0 GiB free: use --cache ram"):
        choose_cache("device", 8 << 30, torch.device("cuda:1"))


def test_prefetch_gives_what_it_was_given_and_raises_what_was_raised():
    assert list(prefetch(iter([1, None, 3]))) == [1, None, 3]

    def broken():
        yield 1
        raise InputError("No more.")

    found = []
    with pytest.raises(InputError, match="No more"):
        for item in prefetch(broken()):
            found.append(item)
    assert found == [1]


def test_prefetch_ends_its_thread_when_nobody_wants_more():
    before = threading.active_count()
    for _ in prefetch(iter(range(1000))):
        break
    assert threading.active_count() == before
