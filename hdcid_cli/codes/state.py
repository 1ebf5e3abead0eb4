"""`state.pt`: all that a run needs to go on where it was stopped."""

import math
from pathlib import Path
from typing import Any, Protocol

import torch

from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.files import reason
from hdcid_cli.core.saved import read_saved

STATE = "state.pt"
# Numbers of a run that a state may hold; each counts something.
COUNTS = ("step", "started", "validated")


class Resumable(Protocol):
    """What trains: its state is tensors, numbers, texts, lists and mappings."""

    def load_state_dict(self, state: dict, /) -> None: ...


def write_state(file: Path, state: dict) -> None:
    """A training state, as `state.pt` has it."""
    torch.save(state, file)


def load_state(path: Path) -> dict:
    """The training state in a run's folder, without unpickling anything but tensors and plain values."""
    return read_saved(path / STATE, "a training state")


def take_up(path: Path, trainer: Resumable) -> None:
    """Give a trainer the state in a run's folder; one that is damaged, or of another run, is an InputError."""
    state = load_state(path)
    optimizers = {
        name: (value, _settings(value))
        for name, value in vars(trainer).items()
        if isinstance(value, torch.optim.Optimizer)
    }
    try:
        for name in COUNTS:
            if name in state and not (type(state[name]) is int and state[name] >= 0):
                raise ValueError(f"its {name} is no count")
        trainer.load_state_dict(state)
        for name, (optimizer, before) in optimizers.items():
            _check(optimizer, before, name)
    except HdcidError:
        raise
    except Exception as error:  # torch has many kinds for a state that does not fit
        match error:
            case KeyError():
                why = f"it has no {error}"
            case TypeError() | AttributeError():  # which say it in Python's names
                why = "a part of it is of another kind"
            case _:
                why = reason(error)
        raise InputError(f"{path / STATE} is not the state of this run ({why}): remove it to start again.") from error


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def _check(optimizer: torch.optim.Optimizer, before: list[dict[str, Any]], name: str) -> None:
    """Raise ValueError if an optimizer has taken up what it could not work with: it looks no further than its keys."""
    for old, new in zip(before, _settings(optimizer), strict=True):
        for key in (*old, *new):
            if key not in new or key not in old or not _alike(old[key], new[key]):
                raise ValueError(f"{key} of its {name} is not as it has to be")
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if not isinstance(value, torch.Tensor) or value.shape not in (parameter.shape, torch.Size()):
                raise ValueError(f"{key} of its {name} does not fit a parameter of {list(parameter.shape)}")


def _alike(old: Any, new: Any) -> bool:
    """Whether a value is of the other's kind: whatever its size, as a rate may change."""
    if isinstance(old, (list, tuple)):
        return isinstance(new, (list, tuple)) and len(old) == len(new) and all(map(_alike, old, new))
    if isinstance(old, float):
        return isinstance(new, (int, float)) and math.isfinite(new)
    return type(old) is type(new)
