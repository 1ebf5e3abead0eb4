"""The `hdcid` command: a group whose commands are imported only when they are called.

`hdcid --help` must answer at once, so the group knows each command's name and one
line of help; the module `hdcid_cli.commands.NAME` (with a click command `command`)
is imported when that command runs. Errors become one sentence and an exit status here.
"""

import contextlib
import errno
import importlib
import io
import os
import sys

import click

from hdcid_cli import __version__
from hdcid_cli.core import interruption
from hdcid_cli.core.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, HdcidError
from hdcid_cli.core.progress import did_you_mean, in_short, printable, tell

COMMANDS = {
    "synth": "Make a small audio-visual world to try everything on.",
    "extract": "Media to feature files.",
    "pretrain": "Features to a checkpoint (DCID, H-DCID and the baselines).",
    "recipe": "Named settings of `hdcid pretrain`: the papers' rows, and ours.",
    "toc": "Choose codebook channels without training.",
    "cmg": "Cross-modal generalisation: learn on one modality, test on another.",
    "segment": "Find the pixels that a sound or a sentence names.",
    "retrieve": "Query one modality, rank another.",
    "codes": "What the codes mean, and where they occur in a clip.",
    "encode": "Codes and quantized features of any feature file, to HDF5 or numpy.",
    "report": "Records to tables and pictures.",
    "convert": "Published features and checkpoints, and folders of clips, to our files.",
    "info": "What a feature file, a checkpoint or a folder of annotations is, and whether it is sound.",
}
# What click raises to show the help of a group that was called without a command; of old it just showed it.
HELP = getattr(click.exceptions, "NoArgsIsHelpError", ())


class LazyGroup(click.Group):
    """A click group that imports a command's module only to run it or show its own help."""

    def list_commands(self, context):
        return list(COMMANDS)

    def get_command(self, context, name):
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"hdcid_cli.commands.{name}").command

    def resolve_command(self, context, arguments):
        try:
            return super().resolve_command(context, arguments)
        except click.UsageError as error:
            raise click.UsageError(error.message + did_you_mean(arguments[0], COMMANDS), context) from error

    def format_commands(self, context, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hdcid")
def cli():
    """Unified discrete representations of video, audio and text.

    Without options every command works in the current directory: videos/,
    features/, checkpoints/ and data/. `hdcid COMMAND --help` explains one.
    """


def run(arguments: list[str], state: dict) -> int:
    """Run one command; print what went wrong as one sentence; return the exit status.

    Args:
        state: for `--debug`, which sets `debug` in it: errors are then raised.
    """
    interruption.forget()
    try:
        status = _call(arguments, state)
        sys.stdout.flush()
        return status if isinstance(status, int) else DONE
    except BrokenPipeError:  # the reader of our stdout went away (`| head`): nothing is wrong
        _give_up_output()
        return DONE
    except (KeyboardInterrupt, click.Abort):
        tell("interrupted")
        return INTERRUPTED
    except Exception as error:
        if interruption.came():
            tell("interrupted")
            return INTERRUPTED
        if state.get("debug"):
            raise
        return _explain(error)


def _call(arguments: list[str], state: dict) -> int | None:
    """What click's own `main` does, but that Ctrl-C, a broken pipe and the end of a file come as what they are."""
    completing = os.environ.get("_HDCID_COMPLETE")
    if completing:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "hdcid", "_HDCID_COMPLETE", completing)
    try:
        with cli.make_context("hdcid", list(arguments), obj=state) as context:
            return cli.invoke(context)
    except click.exceptions.Exit as error:
        return error.exit_code


def _explain(error: Exception) -> int:
    """Say in a sentence what went wrong; return the exit status."""
    match error:
        case click.ClickException():
            shown = io.StringIO()
            error.show(shown)
            words = shown.getvalue().rstrip().replace("\n\t", " ")  # click lists what an argument can be, a line each
            if isinstance(error, HELP):
                with contextlib.suppress(OSError, ValueError):
                    click.echo(words, err=True)  # whole, and as wide as it was made
            else:
                tell(printable(in_short(words), keep="\n"))
            return BAD_INPUT
        case HdcidError():
            tell(f"error: {printable(in_short(str(error)))}")
            return error.exit_status
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            tell(f"error: {printable(in_short(f'{where}{error.strerror or error}'))}.")
            if error.errno == errno.ENAMETOOLONG:  # what was asked is wrong, and not this machine
                return BAD_INPUT
        case _:
            words = printable(in_short(f"{type(error).__name__}: {error}"))
            tell(f"error: {words} (run again with --debug for the traceback)")
    try:
        sys.stdout.flush()
    except OSError:  # it was standard output that could not be written
        _give_up_output()
    return FAILED


def _give_up_output() -> None:
    """Throw away what still waits to be written to standard output, so that nobody complains of it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
