"""What processes tell each other: threads stand for them here, which see each other's messages."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_processes import Table, Threads
from torch import nn

from hdcid_cli.core import distributed
from hdcid_cli.core.device import resolve_device
from hdcid_cli.core.distributed import World, fill
from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.training.gradients import GradientSum


def everywhere(size, work):
    """What `work(world)` returns in each of so many processes."""
    table = Table(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, [Threads(rank, size, table) for rank in range(size)]))


def test_tensors_of_every_kind_are_gathered_in_one_message():
    generator = torch.Generator().manual_seed(0)
    whole = [
        torch.rand(6, 2, 3, generator=generator),
        torch.rand(6, generator=generator) < 0.5,
        torch.randint(99, (6, 5), generator=generator),
        torch.rand(6, 1, dtype=torch.float64, generator=generator),
        torch.rand(6, 3, generator=generator).bfloat16(),
        torch.rand(2, 6, 4, generator=generator).transpose(0, 1),  # not in one piece
    ]
    messages = []

    class Counted(Threads):
        def _all_gather(self, sent):
            messages.append(len(sent))
            return super()._all_gather(sent)

    table = Table(3)

    def work(rank):
        return Counted(rank, 3, table).gather([x[2 * rank : 2 * rank + 2] for x in whole])

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(work, range(3)):
            assert all(torch.equal(one, other) for one, other in zip(found, whole, strict=True))
    assert len(messages) == 3 and len(set(messages)) == 1


def test_gradient_of_what_was_gathered_flows_to_the_own_part():
    def work(world):
        x = torch.full((2, 3), float(world.rank), requires_grad=True)
        [together] = world.gather([x])
        (together * torch.arange(18.0).reshape(6, 3)).sum().backward()
        return x.grad

    for rank, gradient in enumerate(everywhere(3, work)):
        assert torch.equal(gradient, torch.arange(18.0).reshape(6, 3)[2 * rank : 2 * rank + 2])


def two_paths():
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(4, 4) for _ in range(5)])


@pytest.mark.parametrize("bucket_bytes", [1, 100, 10_000])
def test_gradients_are_summed_whatever_takes_part_in_a_step(bucket_bytes):
    """Layers come and go between steps, as they do when they join late; one layer is shared by the ranks."""
    taking_part = [(0, 1, 4), (0, 1, 4), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4), (1, 4), (1, 4), (0, 3, 4)]

    built = {place: two_paths() for place in ((1, 0), (3, 0), (3, 1), (3, 2))}

    def gradients(world):
        layers = built[world.size, world.rank]
        sums = GradientSum(layers[:4].parameters(), layers[4].parameters(), world, bucket_bytes)
        found = []
        for step, members in enumerate(taking_part):
            layers.zero_grad()
            x = torch.rand(6, 4, generator=torch.Generator().manual_seed(step))
            mine = x[6 * world.rank // world.size : 6 * (world.rank + 1) // world.size]
            for number in members[:-1]:
                mine = layers[number](mine).tanh()
            logged = mine.sum().detach()
            [everyone] = world.gather([mine])
            layers[4](everyone).pow(2).sum().backward()
            sums.finish([logged])
            found.append([None if p.grad is None else p.grad.clone() for p in layers.parameters()] + [logged])
        return found

    expected = gradients(World())
    for found in everywhere(3, gradients):
        for one, other in zip(expected, found, strict=True):
            for a, b in zip(one, other, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)


def test_full_buckets_are_on_their_way_before_backward_ends():
    events = []

    class Watched(Threads):
        def _all_reduce(self, summed):
            events.append(f"send {summed.numel()}")
            return super()._all_reduce(summed)

    layers = two_paths()
    sums = GradientSum(layers.parameters(), [], Watched(0, 2, Alone()), bucket_bytes=80)  # a layer's 20 numbers each
    for _ in range(2):
        events.clear()
        x = torch.ones(3, 4)
        for number, layer in enumerate(layers):
            x = layer(x)
            x.register_hook(lambda gradient, number=number: events.append(f"layer {number}"))
        x.sum().backward()
        events.append("finish")
        sums.finish()
    assert events[:3] == ["layer 4", "send 20", "layer 3"] and events[-2:] == ["send 20", "finish"]


class Alone:
    """A table at which one process sits, whose partner says what it says."""

    def exchange(self, rank, value):
        return [value, value]


def test_buckets_hold_neighbours_of_one_kind():
    parameters = [
        nn.Parameter(torch.zeros(size, dtype=dtype))
        for size, dtype in ((2, torch.float32), (3, torch.float32), (1, torch.float64), (9, torch.float32))
    ]
    assert [[len(each) for each in bucket] for bucket in fill(parameters, 20)] == [[2, 3], [1], [9]]


def test_a_lost_process_is_one_sentence(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5512\nmore")

    monkeypatch.setattr(distributed.dist, "all_reduce", broken)
    with pytest.raises(
        HdcidError, match=r"Another process of this run has ended .*: run the same command again"
    ) as told:
        World(0, 2).sum_([torch.ones(1)])
    assert "\n" not in str(told.value)


def test_one_gpu_for_all_processes_is_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="All processes of torchrun would compute on cuda:0: use --device cuda"):
        resolve_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert resolve_device("cuda") == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert resolve_device("cuda:0") == torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"cuda:1 was asked for, but torch sees 1 GPU, counted from 0\."):
        resolve_device("cuda:1")


def test_the_gpu_that_is_asked_for_is_the_one_of_all_that_names_none(monkeypatch):
    meant = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", meant.append)
    for name in ("cuda:2", "cuda", "auto", "cpu"):
        resolve_device(name)
    assert meant == [torch.device("cuda:2")]
