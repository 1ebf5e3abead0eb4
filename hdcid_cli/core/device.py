"""The one place that decides on which device and with how many threads to compute."""

import os

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.progress import counted


def resolve_device(name: str = "auto"):
    """`auto|cpu|cuda[:N]|mps` -> torch.device; an unavailable one is an InputError.

    `auto` is CUDA's GPU or the CPU: what Apple's GPUs make of all this nobody has tried, so they are to be asked for.

    Under `torchrun` plain `cuda` (or `auto`) is the local rank's own GPU. A GPU with a number becomes the one that CUDA
    means where it is not told.
    """
    import torch

    asked = name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"There is no device {name!r}: use auto, cpu, cuda, cuda:N or mps.") from error
    if asked == name and device.type == "cuda" and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise InputError(f"All processes of torchrun would compute on {name}: use --device cuda, a GPU for each.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(f"Device {name} was asked for, but torch sees no GPU: use --device cpu.")
        if (device.index or 0) >= torch.cuda.device_count():
            there = counted(torch.cuda.device_count(), "GPU")
            raise InputError(f"Device {name} was asked for, but torch sees {there}, counted from 0.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("Device mps was asked for, but torch cannot use it here: use --device cpu.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"There is no device {name!r}: use auto, cpu, cuda, cuda:N or mps.")
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def cores() -> int:
    """Cores that this process may use: under `torchrun` its share of the machine's."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
