"""What is known by a name: a dictionary of entries, which cost nothing until they are used.

    ALIGNMENTS = {"cpc": Entry("contrastive predictive coding", "hdcid_cli.training.losses.cpc:CPC"), ...}

Options are checked and explained by the names and summaries alone, without importing what computes.
Whoever adds an entry, from whichever package, has added the method.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Entry:
    """Something that a name stands for.

    Args:
        summary: what it is, in a few words.
        place: where it is, `package.module:name`.
        usage: how it is written where it takes an argument, such as `rvq:N`.
        argument: of a quantizer, what stands for its argument where nobody says it: codebook size -> text.
    """

    summary: str
    place: str
    usage: str = ""
    argument: Callable[[int], str] | None = None

    def load(self):
        """Import the module, and return what has the name there."""
        module, _, name = self.place.partition(":")
        return getattr(import_module(module), name)


def listed(entries: dict[str, Entry], last: str = "or") -> str:
    """How they are written, as a sentence lists them: `vq, rvq:N or fsq[:levels]`."""
    *names, end = [entry.usage or name for name, entry in entries.items()]
    return f"{', '.join(names)} {last} {end}" if names else end
