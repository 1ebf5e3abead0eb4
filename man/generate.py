#!/usr/bin/env python3
"""Write the manual, one page a command, from the program itself.

    python man/generate.py        writes man/hdcid.1 and man/hdcid-COMMAND.1
    man -l man/hdcid-pretrain.1   shows one

tests/test_manual.py fails when a page is not what this script would write.
"""

import inspect
from pathlib import Path

import click

from hdcid_cli import __version__
from hdcid_cli.main import COMMANDS, cli

FOLDER = Path(__file__).parent

EXIT_STATUS = (
    ("0", "Done."),
    ("1", "Failed."),
    ("2", "Wrong usage or bad input."),
    ("3", "Done, but some inputs were skipped; each is named on standard error."),
    ("130", "Interrupted; most commands go on where they stopped when run again."),
)
ENVIRONMENT = (
    ("HDCID_FEATURES", "Folder of feature files, instead of features/."),
    ("HDCID_CHECKPOINTS", "Folder of checkpoints, instead of checkpoints/."),
    ("HDCID_DATA", "Folder of annotations, instead of data/."),
    ("HDCID_HOME", "Cache of downloaded weights, instead of ~/.cache/hdcid."),
)


def pages() -> dict[str, str]:
    """{file name: its text in the man macros}."""
    context = _context(cli, "hdcid")
    made = {"hdcid.1": _overview(context)}
    for name in COMMANDS:
        made[f"hdcid-{name}.1"] = _page(_context(cli.get_command(context, name), name, context))
    return made


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return command.make_context(name, [], parent, resilient_parsing=True)


def _overview(context: click.Context) -> str:
    listed = [(f"hdcid {name}", text) for name, text in COMMANDS.items()]
    return "\n".join(
        [
            *_head("hdcid", "unified discrete representations of video, audio and text"),
            *_synopsis(context),
            *_section("DESCRIPTION", _description(context.command)),
            *_section("COMMANDS", _definitions(listed)),
            *_section("OPTIONS", _options(context)),
            *_tail([f"hdcid-{name}" for name in COMMANDS]),
        ]
    )


def _page(context: click.Context) -> str:
    command = context.command
    title, *_ = _help(command).splitlines()
    lines = [*_head(f"hdcid-{context.info_name}", title.rstrip(".")), *_synopsis(context)]
    lines += [*_section("DESCRIPTION", _description(command)), *_section("OPTIONS", _options(context))]
    for name, inner in _subcommands(context).items():
        below = _context(inner, name, context)
        usage = " ".join(inner.collect_usage_pieces(below))
        lines += [
            f'.SH "{name.upper()}"',
            f".B {_plain(below.command_path)}",
            _plain(usage),
            *_description(inner),
            *_options(below),
        ]
    return "\n".join([*lines, *_tail(["hdcid"])])


def _subcommands(context: click.Context) -> dict[str, click.Command]:
    group = context.command
    if not isinstance(group, click.Group):
        return {}
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def _head(name: str, title: str) -> list[str]:
    return [
        '.\\" Written by man/generate.py from the program: do not edit.',
        f'.TH "{_plain(name.upper())}" 1 "" "hdcid {__version__}" "hdcid manual"',
        *_section("NAME", [f"{_plain(name)} \\- {_plain(title[0].lower() + title[1:])}"]),
    ]


def _synopsis(context: click.Context) -> list[str]:
    pieces = context.command.collect_usage_pieces(context)
    return _section("SYNOPSIS", [f".B {_plain(context.command_path)}", _plain(" ".join(pieces))])


def _description(command: click.Command) -> list[str]:
    """A help text's paragraphs; those marked with click's \\b keep their lines."""
    lines = []
    for paragraph in _help(command).split("\n\n"):
        lines.append(".PP")
        if paragraph.startswith("\b"):
            lines += [".nf", *map(_plain, paragraph.splitlines()[1:]), ".fi"]
        else:
            lines.append(_plain(" ".join(paragraph.split())))
    return lines


def _options(context: click.Context) -> list[str]:
    parameters = context.command.get_params(context)
    return _definitions([_option(parameter) for parameter in parameters if isinstance(parameter, click.Option)])


def _option(option: click.Option) -> tuple[str, str]:
    """How an option is written, and its help with bounds and default; said here so that it does not change
    with click.
    """
    kind = option.type
    names = ", ".join([*option.opts, *option.secondary_opts])
    notes = []
    if not (option.is_flag or option.count):
        value = option.metavar or (
            "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else kind.name.split()[0].upper()
        )
        names = f"{names} {value}"
        bounds = ((getattr(kind, "min", None), "at least"), (getattr(kind, "max", None), "at most"))
        notes += [f"{words} {bound}" for bound, words in bounds if bound is not None]
        if option.show_default and isinstance(option.default, (str, int, float, Path)):
            notes.append(f"default: {option.default}")
    if option.required:
        notes.append("required")
    return names, " ".join([option.help or "", *([f"[{', '.join(notes)}]"] if notes else [])])


def _tail(related: list[str]) -> list[str]:
    return [
        *_section("EXIT STATUS", _definitions(EXIT_STATUS)),
        *_section("ENVIRONMENT", _definitions(ENVIRONMENT)),
        *_section("SEE ALSO", [", ".join(f"\\fB{_plain(name)}\\fR(1)" for name in related)]),
        "",
    ]


def _section(title: str, lines: list[str]) -> list[str]:
    return [f".SH {title}", *lines]


def _definitions(pairs) -> list[str]:
    return [line for term, text in pairs for line in (".TP", f".B {_plain(term)}", _plain(" ".join(text.split())))]


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "")


def _plain(text: str) -> str:
    """Text in which nothing is a macro and a hyphen is a hyphen."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
