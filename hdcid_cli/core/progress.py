"""Progress bars and messages. Both go to stderr; stdout is for results."""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator

import click

LONGEST = 900  # characters of a message

_silent = False

# What matters stands first: on a narrow terminal the bar goes, then the end of what the work says of itself.
BAR = "{desc}: {percentage:3.0f}%  {n_fmt}/{total_fmt}  {elapsed}<{remaining}, {rate_fmt}{postfix} {bar}"


# A bar that is done by then was not worth a look.
SECONDS = 0.5


def progress(iterable=None, *, total=None, description="", unit="it", initial=0):
    """A tqdm bar on stderr, shown only when stderr is a terminal, and when the work takes a moment."""
    from hdcid_cli.core.bar import ProgressBar

    return ProgressBar(
        iterable,
        total=total,
        initial=initial,
        desc=description,
        unit=unit,
        file=sys.stderr,
        disable=_silent or not sys.stderr.isatty(),
        dynamic_ncols=True,
        bar_format=BAR if total is not None or hasattr(iterable, "__len__") else None,
        mininterval=0.2,
        delay=SECONDS,
    )


def say(message: str) -> None:
    """One line of information on stderr."""
    if not _silent:
        tell(printable(in_short(message)))


def warn(message: str) -> None:
    """One line on stderr about something that a person should know."""
    if not _silent:
        tell(f"warning: {printable(in_short(message))}")


def makes_no_difference(option: str, why: str) -> None:
    """Say that an option was given and is not used."""
    say(f"{option} makes no difference: {why}.")


def tell(text: str) -> None:
    """Write to stderr, whether or not anybody can read it: talk is no reason to lose work."""
    with contextlib.suppress(OSError, ValueError):
        width = _screen()
        click.echo(wrapped(text, width) if width else text, err=True)


def _screen() -> int:
    """Columns of the terminal that stderr is; 0 if it is none."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(sys.stderr.fileno()).columns
    return 0


def wrapped(text: str, width: int) -> str:
    """Lines of at most `width` columns where words allow it; a command in backquotes is a word."""
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(indent)
        for word in re.findall(r"[^\s`]*`[^`]*`\S*|\S+", line):
            if lines[-1].strip() and len(lines[-1]) + 1 + len(word) > width:
                lines.append(indent)
            lines[-1] += f" {word}" if lines[-1].strip() else word
    return "\n".join(lines)


def counted(number: int, noun: str) -> str:
    """`1 clip`, `2 clips`, `1,200 classes`."""
    several = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else several}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """` Did you mean report?`, where one of the names is near; else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(names), 1)
    return f" Did you mean {near[0]}?" if near else ""


def in_short(text: str) -> str:
    """A message whose middle is left out where a file's name or value has made it too long to be read."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"


def printable(text: str, keep: str = "") -> str:
    """Show what would move a terminal's cursor or turn the text around, as names from files may, as `\\x1b`."""
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in text
    )


@contextlib.contextmanager
def silenced(silent: bool) -> Iterator[None]:
    """Within, no bars, information and warnings from this process if another one says the same."""
    global _silent
    before, _silent = _silent, _silent or silent
    try:
        yield
    finally:
        _silent = before
