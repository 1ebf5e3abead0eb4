"""Progress bars and messages. Both go to stderr; stdout is for results."""

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
        click.echo(message, err=True)


def warn(message: str) -> None:
    """One line on stderr about something that a person should know."""
    if not _silent:
        click.echo(f"warning: {message}", err=True)


def silence() -> None:
    """No more bars, information and warnings from this process: another one says the same."""
    global _silent
    _silent = True
