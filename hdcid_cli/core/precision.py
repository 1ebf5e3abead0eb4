"""How exactly matrix products are computed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Precisions of training whose matrix products may round to TF32 on a GPU.
ROUNDED = ("tf32", "bf16")


def set_matmul_precision(precision: str) -> None:
    """TF32 on or off for the whole process, as training in this precision has it."""
    torch.backends.cuda.matmul.allow_tf32 = precision in ROUNDED
    torch.backends.cudnn.allow_tf32 = precision in ROUNDED


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """The same while the block runs; afterwards all is as it was."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    set_matmul_precision(precision)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
