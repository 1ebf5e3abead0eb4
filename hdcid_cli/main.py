"""The `hdcid` command: a group whose commands are imported only when they are called.

`hdcid --help` must answer at once, so the group knows each command's name and one
line of help; the module `hdcid_cli.commands.NAME` (with a click command `command`)
is imported when that command runs. Errors become one sentence and an exit status here.
"""

import errno
import importlib
import os
import sys

import click

from hdcid_cli import __version__
from hdcid_cli.core.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, HdcidError

COMMANDS = {
    "synth": "Make a small audio-visual world to try everything on.",
    "extract": "Media to feature files.",
    "pretrain": "Features to a checkpoint (DCID, H-DCID and the baselines).",
    "toc": "Choose codebook channels without training.",
    "cmg": "Cross-modal generalisation: learn on one modality, test on another.",
    "segment": "Find the pixels that a sound or a sentence names.",
    "retrieve": "Query one modality, rank another.",
    "codes": "What the codes mean, and where they occur in a clip.",
    "encode": "Codes and quantized features of any feature file, to HDF5.",
    "report": "Records to tables and pictures.",
    "convert": "Published features and checkpoints to ours.",
    "info": "What a feature file or checkpoint is, and whether it is sound.",
}


class LazyGroup(click.Group):
    """A click group that imports a command's module only to run it or show its own help."""

    def list_commands(self, context):
        return list(COMMANDS)

    def get_command(self, context, name):
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"hdcid_cli.commands.{name}").command

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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its exit status."""
    state = {"debug": False}
    sys.exit(run(arguments, state))


def run(arguments: list[str] | None, state: dict) -> int:
    """Run one command; print what went wrong as one sentence; return the exit status."""
    try:
        status = cli.main(args=arguments, prog_name="hdcid", obj=state, standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else DONE
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        if state.get("debug"):
            raise
        error.show()
        return BAD_INPUT
    except HdcidError as error:
        if state.get("debug"):
            raise
        click.echo(f"error: {error}", err=True)
        return error.exit_status
    except BrokenPipeError:
        return _end_quietly()
    except OSError as error:
        if error.errno == errno.EPIPE:
            return _end_quietly()
        if state.get("debug"):
            raise
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror or error}", err=True)
        return FAILED
    except Exception as error:
        if state.get("debug"):
            raise
        click.echo(f"error: {type(error).__name__}: {error} (run again with --debug for the traceback)", err=True)
        return FAILED


def _end_quietly() -> int:
    """The reader of our stdout went away (`| head`): nothing is wrong, and nobody wants to hear of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE
