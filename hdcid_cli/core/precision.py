"""How exactly matrix products are computed."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

# Precisions of training whose matrix products may round to TF32 on a GPU.
ROUNDED = ("tf32", "bf16")
# CUDA's deterministic matrix products want this, and whether it is set is looked up once, before the first product of
# all. It is what an H100 takes by itself.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def has_bfloat16(device: torch.device) -> bool:
    """Whether it is a GPU that multiplies in bfloat16 by itself, as all do from Ampere on; others emulate it."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def in_float64(x: torch.Tensor) -> torch.Tensor:
    """A tensor in float64; on the CPU where its own device has none, as Apple's."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def set_matmul_precision(precision: str) -> None:
    """TF32 on or off for the whole process, as training in this precision has it."""
    torch.backends.cuda.matmul.allow_tf32 = precision in ROUNDED
    torch.backends.cudnn.allow_tf32 = precision in ROUNDED


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """The same while the block runs; afterwards all is as it was."""
    with _restored():
        set_matmul_precision(precision)
        yield


@contextmanager
def _restored() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def unmixed(device: torch.device) -> AbstractContextManager:
    """No mixed precision while the block runs."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


@contextmanager
def kernels(deterministic: bool) -> Iterator[None]:
    """While the block runs: kernels that give the same bits every time, or the fastest convolutions, found by trying.
    Afterwards all is as it was, and so is the precision of products, whatever the block set.
    """
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic
    torch.use_deterministic_algorithms(deterministic)
    cudnn.benchmark, cudnn.deterministic = not deterministic, deterministic
    try:
        with _restored():
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.benchmark, cudnn.deterministic = before[1:]
