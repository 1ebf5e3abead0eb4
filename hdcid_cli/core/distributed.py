"""Several processes under `torchrun` that compute what one process with the same global batch would.

Each rank encodes its slice of the global batch; features are then gathered, so that
negatives, code statistics and random draws are those of the global batch on every rank.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


@dataclass(frozen=True)
class World:
    """This process's place among the others; `size` 1 is a plain run."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Only this one writes files and talks."""
        return self.rank == 0

    def gather(self, x):
        """[B, ...] of every rank -> [size * B, ...] in rank order; gradient flows to this rank's own part.

        Every rank computes the same loss from the result, so the gradients of the
        encoders, which each rank has for its own clips alone, must be summed.
        """
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x.detach().contiguous())
        parts[self.rank] = x
        return torch.cat(parts)

    def sum_(self, tensors) -> None:
        """Sum each tensor over all ranks, in place, in one message."""
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = _flatten_dense_tensors(tensors)
        dist.all_reduce(flat)
        for tensor, summed in zip(tensors, _unflatten_dense_tensors(flat, tensors), strict=True):
            tensor.copy_(summed)

    def collect(self, value) -> list:
        """`value` of every rank, in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """True on every rank if it is on one (a signal reaches ranks at different moments)."""
        if self.size == 1:
            return flag
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(int(flag), device=device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return bool(tensor.item())

    def close(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def in_main_process() -> bool:
    """True but in the ranks 1, 2, ... of `torchrun`; known before the world is joined."""
    return os.environ.get("RANK", "0") == "0"


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
        if on_gpu:
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if on_gpu else "gloo")
    return World(dist.get_rank(), dist.get_world_size())
