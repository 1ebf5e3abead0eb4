"""A model's weights on disk: written, and read no sooner than it is known that they fit and how much they are."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_file
from torch import nn

from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.files import open_regular, reason

FLOATS = ("F16", "BF16", "F32", "F64")

Module = TypeVar("Module", bound=nn.Module)


def write_model(file: Path, model: nn.Module) -> None:
    """A model's weights, as `model.safetensors` has them; equal ones give equal bytes.

    A tensor that modules share is kept once, by its first name: safetensors' own way of saying which names share it
    comes in another order every time.
    """
    state, kept = model.state_dict(), {}
    for name, tensor in sorted(state.items()):
        kept.setdefault((tensor.data_ptr(), tensor.shape) if tensor.numel() else (name,), name)
    save_file({name: state[name].contiguous() for name in kept.values()}, str(file), {"format": "pt"})


class Stored(NamedTuple):
    """A tensor in a file, by its header alone."""

    shape: tuple[int, ...]
    is_float: bool


def stored_tensors(file: Path) -> dict[str, Stored]:
    """Tensors in a safetensors file by their names; a file that is missing, or no such file, is an InputError."""
    open_regular(file).close()
    try:
        with safe_open(file, "pt") as stored:
            parts = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118 (it is no mapping)
            return {name: Stored(tuple(part.get_shape()), part.get_dtype() in FLOATS) for name, part in parts.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is not a sound file of weights ({reason(error)}).") from error


def read_model(file: Path, build: Callable[[], Module], described_by: Path) -> Module:
    """The module that `build` makes, with the weights of a safetensors file.

    Args:
        build: takes no memory for tensors on the meta device.
        described_by: the file that says what to build.

    Raises:
        InputError: the file is not sound, or has other weights than the module.
    """
    stored = stored_tensors(file)
    try:
        with torch.device("meta"):
            plan = build()
    except HdcidError as error:
        raise InputError(f"{described_by}: {error}") from error
    except Exception as error:  # torch and transformers have many kinds for sizes that cannot be
        raise InputError(f"{described_by} describes no model that can be made ({reason(error)}).") from error
    if problem := _misfit(plan, stored):
        raise InputError(f"{file} does not fit {described_by}: {problem}.")
    model = build()
    try:
        load_model(model, file)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"{file} does not fit {described_by} ({reason(error)}).") from error
    return model


def _misfit(plan: nn.Module, stored: dict[str, Stored]) -> str | None:
    """How the stored tensors differ from a module's; one that it holds under two names is stored once."""
    wanted = plan.state_dict(keep_vars=True)
    for name, tensor in stored.items():
        if name not in wanted:
            return f"the model has no {name}"
        if tuple(wanted[name].shape) != tensor.shape:
            return f"{name} is {list(tensor.shape)} there, and {list(wanted[name].shape)} in the model"
        if wanted[name].is_floating_point() != tensor.is_float:
            return f"{name} holds numbers of another kind than the model's"
    there = {id(wanted[name]) for name in stored}
    lacking = next((name for name, tensor in wanted.items() if id(tensor) not in there), None)
    return f"{lacking} is missing" if lacking else None


def not_finite(model: nn.Module) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    return [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]
