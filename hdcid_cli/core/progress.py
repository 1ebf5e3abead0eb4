"""Progress bars and messages. Both go to stderr; stdout is for results."""

import contextlib
import sys

import click

_silent = False


def progress(iterable=None, *, total=None, description="", unit="it", initial=0):
    """A tqdm bar on stderr, shown only when stderr is a terminal."""
    from tqdm import tqdm

    return tqdm(
        iterable,
        total=total,
        initial=initial,
        desc=description,
        unit=unit,
        file=sys.stderr,
        disable=_silent or not sys.stderr.isatty(),
        dynamic_ncols=True,
        mininterval=0.2,
    )


def say(message: str) -> None:
    """One line of information on stderr."""
    if not _silent:
        tell(printable(message))


def warn(message: str) -> None:
    """One line on stderr about something that a person should know."""
    if not _silent:
        tell(f"warning: {printable(message)}")


def tell(text: str) -> None:
    """Write to stderr, whether or not anybody can read it: talk is no reason to lose work."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(text, err=True)


def printable(text: str, keep: str = "") -> str:
    """Show what would move a terminal's cursor or turn the text around, as names from files may, as `\\x1b`."""
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in text
    )


def silence() -> None:
    """No more bars, information and warnings from this process: another one says the same."""
    global _silent
    _silent = True
