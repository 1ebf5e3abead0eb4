"""`hdcid report`: records to tables and pictures."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hdcid_cli.commands import options
from hdcid_cli.commands.options import Command
from hdcid_cli.core.errors import DONE, SOME_SKIPPED, InputError
from hdcid_cli.core.files import write_text
from hdcid_cli.core.progress import counted, say, warn

FORMATS = ["terminal", "markdown", "latex", "csv", "json", "html"]
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json", ".html": "html", ".htm": "html"}
LAYOUTS = ["table1", "table2", "table3", "table4", "table5", "openset"]
# What is drawn besides what the records alone make, by the names of the values.
PICTURED = ("fields", "checkpoints", "curves", "timelines", "overlays")
NAMED = 10  # complaints, and metrics, printed one by one


class Skipped:
    """Says on stderr what is left out; of very much only the first messages, and then how many more."""

    def __init__(self):
        self.count = 0

    def __call__(self, message: str) -> None:
        self.count += 1
        if self.count <= NAMED:
            warn(message)

    def tell_rest(self) -> None:
        if self.count > NAMED:
            warn(f"in all {self.count} lines or results were left out.")


@click.command(cls=Command)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="By default what the suffix of OUTPUT says, or terminal."
)
@click.option(
    "--layout", "names", type=click.Choice(LAYOUTS), multiple=True, help="A paper's table; can be given several times."
)
@click.option(
    "--metrics",
    default="headline",
    show_default=True,
    help="headline (one a task, the papers' where they have the task), all, or names: f1,map. A layout has its own.",
)
@click.option(
    "--spread",
    type=click.Choice(["deviation", "interval", "none"]),
    default="deviation",
    show_default=True,
    help="What stands beside a mean: deviation over seeds, 95 % interval over recordings, or nothing.",
)
@click.option(
    "--explain", is_flag=True, help="Say what the metrics of FILES mean (without FILES: all), and show no table."
)
@click.option("--best", is_flag=True, help="The best number of each column in bold.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write there (.md, .tex, .csv, .json, .html) instead of to stdout.",
)
@click.option(
    "--over",
    "fields",
    metavar="FIELD",
    multiple=True,
    help="Draw results over a number in their records: codebook, pretrain_clips, or one of your own (html, --figures).",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Show its training, codebooks and TOC (html, --figures).",
)
@click.option(
    "--curves",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Scores of known and unknown clips, written by `cmg --open-set K --curves FILE` (html, --figures).",
)
@click.option(
    "--timelines",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Events of clips, written by `cmg --timelines FILE` (html, --figures).",
)
@click.option(
    "--overlay",
    "overlays",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Pictures written by `segment --overlay DIR` (html, --figures).",
)
@click.option(
    "--examples",
    type=options.whole(),
    default=8,
    show_default=True,
    help="Clips shown of each task, direction and probe (html, --figures).",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write every picture there for a paper: NAME.svg, and NAME.pdf with matplotlib.",
)
def command(files, form, names, metrics, spread, explain, best, output, figures, **drawn):
    """Records to tables and pictures.

    Reads the records that other commands write, from FILES or from standard
    input, in any order, and makes tables of them; seeds become mean and
    standard deviation. Results on synthetic or on one's own clips are tables
    of their own. A layout is a table of the papers, with their numbers beside
    the measured ones, or alone where there are no records.

    \b
      hdcid cmg ave --train v --test a | hdcid report
      cat results/*.jsonl | hdcid report --format latex --best
      hdcid report --layout table1 results/*.jsonl
      hdcid report results/*.jsonl --checkpoint checkpoints/latest -o report.html
      hdcid report results/*.jsonl --over pretrain_clips --figures figures
    """
    from hdcid_cli.report.formats import RENDERERS
    from hdcid_cli.report.results import read_results
    from hdcid_cli.report.tables import Look

    form = form or SUFFIXES.get(output.suffix.lower() if output else "", "terminal")
    pictured = any(drawn[name] for name in PICTURED)
    if pictured and form != "html" and not figures:
        raise InputError(
            "--over, --checkpoint, --curves, --timelines and --overlay make pictures: add -o report.html or --figures "
            "DIR."
        )
    if form == "html" and not output and sys.stdout.isatty():
        raise InputError("An HTML page is not for a terminal: add -o report.html.")
    skipped = Skipped()
    records = read_results(_sources(files), skipped)
    _tell_idle(form, names, drawn, explain)
    if explain:
        explained = _explained(records)
        write_text(output, explained + "\n", named=True) if output else click.echo(explained)
        return _status(skipped)
    if not records and not names and not pictured:
        skipped.tell_rest()
        raise InputError(_nothing(skipped, files))
    look = Look(spread, best)
    tables = [table for name in names for table in _layout(name, records, look)]
    if records and (form == "html" or not names):
        tables = [*_pivots(records, metrics, look), *tables]
    if names and not tables:  # of a paper's table there are the paper's rows
        raise InputError("No record is of an open set, so there is no table openset: `cmg --open-set K` makes some.")
    pictures: Any = _pictures(records, drawn, skipped) if form == "html" or figures else None
    if figures:
        _write_figures(pictures, figures)
    if form == "html":
        from hdcid_cli.report.compose import compose

        text = compose(tables, records, pictures, look)
    else:
        text = RENDERERS[form](tables)
    if output:
        write_text(output, text + "\n", named=True)
    elif text:
        click.echo(text)
    return _status(skipped)


def _tell_idle(form: str, names: Sequence[str], drawn: dict, explain: bool) -> None:
    """Say which options were given and make no difference."""
    if explain:
        shown = ("form", "names", "metrics", "spread", "best", "examples", "figures")
        options.tell_idle("with --explain there are words alone", *shown, *PICTURED)
        return
    if names and form != "html":
        options.tell_idle("a layout has its own", "metrics")
    if form == "json":
        options.tell_idle("JSON has deviations and intervals both", "spread")
    if form in ("csv", "json"):
        options.tell_idle(f"nothing is bold in {form.upper()}", "best")
    if not any(drawn[name] for name in ("curves", "timelines", "overlays")):
        options.tell_idle("there are no clips to show without --curves, --timelines or --overlay", "examples")


def _pictures(records: list, drawn: dict, skipped: Skipped) -> Any:
    """All pictures that were asked for, and those that the records make by themselves."""
    from hdcid_cli.report.compose import Sources, draw
    from hdcid_cli.report.results import read_curves, read_timelines

    timelines = read_timelines(drawn.pop("timelines"), skipped)
    open_sets = read_curves(drawn.pop("curves"), skipped)
    return draw(Sources(records=records, timelines=timelines, open_sets=open_sets, **drawn), skipped)


def _write_figures(pictures, folder: Path) -> None:
    from hdcid_cli.report.figures import write_figures

    figures = pictures.figures()
    write_figures(figures, folder)
    count = counted(len(figures), "figure") if figures else "no figure (add --over FIELD)"
    say(f"{count} in {folder}")


def _status(skipped: Skipped) -> int:
    skipped.tell_rest()
    return SOME_SKIPPED if skipped.count else DONE


def _explained(records: list) -> str:
    """The glossary, for a terminal."""
    from hdcid_cli.core.terminal import paragraph, screen
    from hdcid_cli.report.glossary import glossary

    width = screen() or 80
    parts = []
    for title, entries in glossary({(record.task, record.metric) for record in records}):
        lines = [paragraph([entry.replace("`", "")], width - 2).replace("\n", "\n    ") for entry in entries]
        parts.append("\n".join([title, *(f"  {line}" for line in lines)]))
    return "\n\n".join(parts)


def _sources(files: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files given; else standard input, unless a person sits there."""
    if files:
        return files
    return () if sys.stdin.isatty() else (Path("-"),)


def _nothing(skipped: Skipped, files: Sequence[Path]) -> str:
    if skipped.count:
        return "Nothing of that is a result that can be reported."
    if files:
        return f"There is not one record in {', '.join(map(str, files))}: give files that other commands wrote."
    return (
        "There is nothing to report: give files of records, or a pipe as in `hdcid cmg ave --train v --test a | "
        "hdcid report`."
    )


def _layout(name: str, records: list, look) -> list:
    """A paper's table; how many results have no place in it is said on stderr."""
    from hdcid_cli.report.layouts import lay_out

    tables, unplaced = lay_out(name, records, look)
    if unplaced:
        say(f"{counted(unplaced, 'result')} without a place in {name}: other tasks or settings")
    return tables


def _pivots(records: list, metrics: str, look) -> list:
    """All records of the metrics asked for as tables; the others are named on stderr, or counted."""
    from hdcid_cli.report.pivot import choose_metrics, pivots

    shown = choose_metrics(records, metrics)
    others = sorted({record.metric for record in records} - {record.metric for record in shown})
    if others and metrics in ("headline", "paper"):
        count = f" ({len(others)} more; --explain says what they are)"
        named = f": {', '.join(others)}" if len(others) <= NAMED else count
        say(f"also measured, shown with --metrics all{named}")
    return pivots(shown, look)
