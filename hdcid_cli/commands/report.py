"""`hdcid report`: records to tables and pictures."""

import sys
from pathlib import Path

import click

from hdcid_cli.commands.options import Command
from hdcid_cli.core.errors import DONE, SOME_SKIPPED, InputError
from hdcid_cli.core.files import write_text
from hdcid_cli.core.progress import say, warn
from hdcid_cli.report.formats import FORMATS, SUFFIXES

LAYOUTS = ["table1", "table2", "table3", "table4", "table5"]
NAMED = 10  # complaints printed one by one


@click.command(cls=Command)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default=None, help="By default what OUTPUT's suffix says, or terminal.")
@click.option("--layout", "names", type=click.Choice(LAYOUTS), multiple=True, help="A paper's table; can be given several times.")
@click.option("--metrics", default="paper", show_default=True, help="paper (each task's metric in the papers), all, or names: f1,map.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write there (.md, .tex, .csv, .json) instead of to stdout.")
def command(files, form, names, metrics, output):
    """Records to tables and pictures.

    Reads the records that other commands write, from FILES or from standard
    input, in any order, and makes one table of them; seeds become mean and
    standard deviation.

    \b
      hdcid cmg ave --train v --test a | hdcid report
      cat results/*.jsonl | hdcid report --format latex
    """
    from hdcid_cli.report.results import read_results

    skipped = []
    records = read_results(_sources(files), skipped.append)
    name_skipped(skipped)
    tables = [_layout(name, records) for name in names] if names else [_pivot(records, metrics, skipped)]
    text = FORMATS[form or SUFFIXES.get(output.suffix if output else "", "terminal")](tables)
    if output:
        write_text(output, text + "\n")
    else:
        click.echo(text)
    return SOME_SKIPPED if skipped else DONE


def _layout(name: str, records: list[dict]):
    """A paper's table; what has no place in it is counted on stderr."""
    from hdcid_cli.report.layouts import lay_out

    table, unplaced = lay_out(name, records)
    if unplaced:
        say(f"{unplaced} of {len(records)} results have no place in {name}: other tasks, metrics or settings")
    return table


def _pivot(records: list[dict], metrics: str, skipped: list[str]):
    """All records of the metrics asked for as one table; the other metrics are named on stderr."""
    from hdcid_cli.report.pivot import choose_metrics, pivot

    if skipped and not records:
        raise InputError("Nothing of that is a result that can be reported.")
    if not records:
        raise InputError("There is nothing to report: give files of records, or a pipe as in `hdcid cmg ave --train v --test a | hdcid report`.")
    shown = choose_metrics(records, metrics)
    others = sorted({str(record["metric"]) for record in records} - {str(record["metric"]) for record in shown})
    if not shown:
        raise InputError(f"No record is of {metrics}; there are {', '.join(others)}.")
    if others and metrics == "paper":
        say(f"also measured, shown with --metrics all: {', '.join(others)}")
    return pivot(shown)


def _sources(files: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files given; else standard input, unless a person sits there."""
    if files:
        return files
    return () if sys.stdin.isatty() else (Path("-"),)


def name_skipped(messages: list[str]) -> None:
    """What was left out, on stderr; of very many only the first ones and their number."""
    for message in messages[:NAMED]:
        warn(message)
    if len(messages) > NAMED:
        warn(f"and {len(messages) - NAMED} more lines or results were left out.")
