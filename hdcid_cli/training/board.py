"""Metrics for whom watches a run from elsewhere: TensorBoard, and Weights & Biases; packages that need not be there."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import read_text, reason, write_text

PROJECT = "hdcid"
WANDB_ID = "wandb.txt"


class Writer(Protocol):
    """What takes a record's numbers."""

    def write(self, record: dict) -> None: ...

    def close(self, failed: bool) -> None: ...


class TensorBoard:
    """Event files.

    Args:
        folder: of the run; they go to `tensorboard/` in it.
        last: step after which an earlier run's records do not count.
    """

    def __init__(self, folder: Path, last: int):
        self._writer = require_tensorboard()(folder / "tensorboard", purge_step=last + 1)

    def write(self, record: dict) -> None:
        for name, value in record.items():
            self._writer.add_scalar(name, value, record["step"])

    def close(self, failed: bool) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run at wandb.ai, or in the folder that it uses where `WANDB_MODE=offline`.

    Args:
        folder: of the run, which keeps the name that wandb gave it, so that what is taken up again is the same there.
        last: step that an earlier run had saved; 0 begins a new one.
        name: what it is called there.
        config: what it does.
    """

    def __init__(self, folder: Path, last: int, name: str, config: dict):
        file = folder / WANDB_ID
        known = {"id": read_text(file).strip(), "resume": "allow"} if last and file.exists() else {}
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        try:
            self._run = require_wandb().init(project=project, name=name, config=config, **known)
            self._run.define_metric("*", step_metric="step")
        except Exception as error:  # it has many kinds, of its own and of the network
            raise InputError(
                f"wandb does not begin a run ({reason(error)}): `wandb login`, or WANDB_MODE=offline, or no --wandb."
            ) from error
        write_text(file, f"{self._run.id}\n")

    def write(self, record: dict) -> None:
        self._run.log(record)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class Board(AbstractContextManager):
    """Where every record of a run goes besides its own log; all are closed at the end, however it comes."""

    def __init__(self, *writers: Callable[[], Writer]):
        self._begin = writers
        self._writers: list[Writer] = []
        self._ends = ExitStack()

    def __enter__(self) -> "Board":
        with ExitStack() as ends:  # of those that have begun, should another not
            for begin in self._begin:
                writer = begin()
                self._writers.append(writer)
                ends.push(lambda kind, *_, writer=writer: writer.close(failed=kind is not None))
            self._ends = ends.pop_all()
        return self

    def write(self, record: dict) -> None:
        """Every number of a record by its name, at the record's step."""
        for writer in self._writers:
            writer.write(record)

    def __exit__(self, *problem):
        return self._ends.__exit__(*problem)


def require_tensorboard() -> type:
    """TensorBoard's writer; an InputError if its package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs another package: pip install 'hdcid[tensorboard]'.") from error
    return SummaryWriter


def require_wandb() -> Any:
    """The module `wandb`; an InputError if its package is not installed."""
    try:
        import wandb
    except ImportError as error:
        raise InputError("--wandb needs another package: pip install 'hdcid[wandb]'.") from error
    return wandb
