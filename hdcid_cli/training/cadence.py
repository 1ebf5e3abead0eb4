"""When a training loop logs, saves and stops."""

import time
from typing import NamedTuple

from hdcid_cli.core.distributed import World


class Moment(NamedTuple):
    """What is to be done after a step."""

    log: bool
    save: bool
    stop: bool


class Cadence:
    """Counts steps and seconds.

    Args:
        save_seconds: least time between two saves.
        save_steps: save after every so many steps instead.
        log_every: steps between two records; there is one at every save too, so that what is not finite is never kept.
        total: the last step, which is always saved; None for a loop that ends otherwise.
        world: its processes decide together, at the logging steps alone (asking costs a message).
    """

    def __init__(
        self,
        save_seconds: float,
        save_steps: int | None = None,
        log_every: int = 1,
        total: int | None = None,
        world: World | None = None,
    ):
        self.save_seconds, self.save_steps, self.log_every, self.total = save_seconds, save_steps, log_every, total
        self.world = world or World()
        self.saved()

    def saved(self) -> None:
        """A save is done: the next one is due after `save_seconds`."""
        self._since = time.monotonic()

    def after(self, step: int, asked: bool) -> Moment:
        """What is due now that so many steps are done.

        Args:
            asked: whether this process was asked to stop.
        """
        regular = step % self.log_every == 0
        stop = late = False
        if self.world.size == 1 or regular:
            stop = self.world.any(asked)
            late = not self.save_steps and self.world.any(time.monotonic() - self._since > self.save_seconds)
        counted = self.save_steps is not None and step % self.save_steps == 0
        save = stop or late or counted or step == self.total
        return Moment(log=save or regular, save=save, stop=stop and step != self.total)
