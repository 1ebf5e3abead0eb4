"""Several processes under `torchrun` that compute what one process with the same global batch would.

Each rank encodes its slice of the global batch; features are then gathered, so that
negatives, code statistics and random draws are those of the global batch on every rank.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from hdcid_cli.core.errors import HdcidError
from hdcid_cli.core.files import reason
from hdcid_cli.core.progress import silenced

# Of one message, where more than that is sent.
MESSAGE_BYTES = 64 << 20
# So long a process may read features before others give it up.
PATIENCE = timedelta(minutes=30)

OneTensor = TypeVar("OneTensor", bound=Tensor)


@dataclass(frozen=True)
class World:
    """This process's place among the others; `size` 1 is a plain run.

    Every method that talks to the others raises HdcidError if one of them is gone.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Only this one writes files and talks."""
        return self.rank == 0

    def gather(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each [B, ...] of every rank -> [size * B, ...] in rank order, all in one message; gradient flows to this
        rank's own part.

        Every rank computes the same loss from the result, so the gradients of the
        encoders, which each rank has for its own clips alone, must be summed.
        """
        if self.size == 1 or not tensors:
            return list(tensors)
        # The widest numbers come first, so that each tensor begins where its kind of numbers may.
        order = sorted(range(len(tensors)), key=lambda number: -tensors[number].element_size())
        parts = [tensors[number].detach().contiguous().flatten().view(torch.uint8) for number in order]
        sizes = [len(part) for part in parts]
        padding = -sum(sizes) % 8
        sent = torch.cat([*parts, parts[0].new_zeros(padding)])
        received = self._all_gather(sent)
        gathered: list[Tensor] = list(tensors)
        for number, part in zip(order, received.split([*sizes, padding], dim=1), strict=False):
            gathered[number] = self._with_own(part, tensors[number])
        return gathered

    def _with_own(self, received: Tensor, own: Tensor) -> Tensor:
        others = received.view(own.dtype).unflatten(1, own.shape)  # [size, B, ...]
        before, after = others[: self.rank].flatten(0, 1), others[self.rank + 1 :].flatten(0, 1)
        return torch.cat([before, own, after])

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Sum each tensor over all ranks, in place."""
        if self.size > 1:
            for part in _messages(tensors):
                self.begin_sum(part)()

    def begin_sum(self, tensors: Sequence[Tensor]) -> Callable[[], None]:
        """The same of tensors of one kind, in one message that is under way now; to be ended by the call that is
        returned.
        """
        flat = _flatten_dense_tensors(tensors)
        wait = self._all_reduce(flat)

        def end() -> None:
            wait()
            for tensor, summed in zip(tensors, _unflatten_dense_tensors(flat, tensors), strict=True):
                tensor.copy_(summed)

        return end

    def _all_gather(self, sent: Tensor) -> Tensor:
        """[n] of every rank -> [size, n]."""
        received = sent.new_empty(self.size, len(sent))
        with _talking():
            dist.all_gather(list(received), sent)
        return received

    def _all_reduce(self, summed: Tensor) -> Callable[[], None]:
        """Begin to sum over the ranks, in place; what is returned waits for the end."""
        with _talking():
            work = dist.all_reduce(summed, async_op=True)

        def wait() -> None:
            with _talking():
                work.wait()

        return wait

    def agree_(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the values that the first one has, in place."""
        if self.size == 1:
            return
        for part in _messages(tensors):
            flat = _flatten_dense_tensors(part).to(_device())
            with _talking():
                dist.broadcast(flat, src=0)
            for tensor, value in zip(part, _unflatten_dense_tensors(flat, part), strict=True):
                tensor.copy_(value)

    def collect(self, value) -> list:
        """`value` of every rank, in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        with _talking():
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            with _talking():
                dist.barrier()

    def any(self, flag: bool) -> bool:
        """True on every rank if it is on one (a signal reaches ranks at different moments)."""
        if self.size == 1:
            return flag
        tensor = torch.tensor(int(flag), device=_device())
        with _talking():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return bool(tensor.item())

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # all of torch's own are that
        raise HdcidError(
            f"Another process of this run has ended or cannot be reached ({reason(error)}): run the same command "
            "again, and it goes on from the last save."
        ) from error


def _device() -> str:
    """Where messages have to lie."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def _messages(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors, several of one kind together, up to `MESSAGE_BYTES`."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        yield from fill(alike, MESSAGE_BYTES)


def fill(tensors: Iterable[OneTensor], size: int) -> list[list[OneTensor]]:
    """Tensors in their order, neighbours of one kind together up to `size` bytes."""
    parts: list[list[OneTensor]] = []
    for tensor in tensors:
        last = parts[-1] if parts else []
        alike = last and (last[0].dtype, last[0].device) == (tensor.dtype, tensor.device)
        if alike and sum(each.nbytes for each in last) + tensor.nbytes <= size:
            last.append(tensor)
        else:
            parts.append([tensor])
    return parts


def in_main_process() -> bool:
    """True but in the ranks 1, 2, ... of `torchrun`; known before the world is joined."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def main_process_talks() -> Iterator[None]:
    """Within, or in a function that it decorates, the ranks 1, 2, ... of `torchrun` say nothing."""
    with silenced(not in_main_process()):
        yield


def join_world(device=None) -> World:
    """The world that `torchrun` describes in the environment; World() without it.

    Args:
        device: torch.device of this rank; CUDA ranks talk through nccl, others through gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        on_gpu = device is not None and device.type == "cuda"
        options: dict[str, Any] = {}
        if on_gpu:
            torch.cuda.set_device(device)
            options["device_id"] = device  # or every rank would hold a context on the first GPU too
        with _talking():
            dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE, **options)
    return World(dist.get_rank(), dist.get_world_size())
