#!/usr/bin/env python3
"""Write the manual: a page a command from the program itself, the others from Markdown.

    python man/generate.py        writes man/hdcid.1, man/hdcid-COMMAND.1 and what is made of man/*.md
    man -l man/hdcid-pretrain.1   shows one

The commands' examples and files come from man/commands.md. `hdcid-NAME.5.md` and `hdcid-NAME.7.md`
are pages of sections 5 and 7; their first line is `# hdcid-NAME(5): what it is about`.

tests/test_manual.py fails when a page is not what this script would write.
"""

import inspect
import re
from pathlib import Path

import click
from roff import marked, plain, roff, sections

from hdcid_cli import __version__
from hdcid_cli.main import COMMANDS, cli

FOLDER = Path(__file__).parent
TOPICS = sorted(path.stem for path in FOLDER.glob("hdcid-*.[57].md"))

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
    (
        "OMP_NUM_THREADS",
        "Threads of each process: 1 where several runs share a machine's cores, or threads that wait for each other "
        "slow all of them down many times.",
    ),
)


def pages() -> dict[str, str]:
    """{file name: its text in the man macros}."""
    context = _context(cli, "hdcid")
    more = sections((FOLDER / "commands.md").read_text(encoding="utf-8"))
    made = {"hdcid.1": _overview(context, more["hdcid"])}
    for name in COMMANDS:
        made[f"hdcid-{name}.1"] = _page(_context(cli.get_command(context, name), name, context), more[name])
    for path in sorted(FOLDER.glob("hdcid-*.[57].md")):
        made[path.stem] = _topic(path.stem, path.read_text(encoding="utf-8"))
    return made


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return command.make_context(name, [], parent, resilient_parsing=True)


def _overview(context: click.Context, more: str) -> str:
    listed = [(f"hdcid {name}", text) for name, text in COMMANDS.items()]
    return "\n".join(
        [
            *_head("hdcid", "unified discrete representations of video, audio and text"),
            *_synopsis(context),
            *_section("DESCRIPTION", _description(context.command)),
            *_section("COMMANDS", _definitions(listed)),
            *_section("OPTIONS", _options(context)),
            *roff(more, top=3),
            *_tail([*(f"hdcid-{name}(1)" for name in COMMANDS), *map(_reference, TOPICS)]),
        ]
    )


def _page(context: click.Context, more: str) -> str:
    command = context.command
    title, *_ = _help(command).splitlines()
    lines = [*_head(f"hdcid-{context.info_name}", title.rstrip(".")), *_synopsis(context)]
    lines += [*_section("DESCRIPTION", _description(command)), *_section("OPTIONS", _options(context))]
    for name, inner in _subcommands(context).items():
        below = _context(inner, name, context)
        usage = " ".join(inner.collect_usage_pieces(below))
        lines += [
            f'.SH "{name.upper()}"',
            f".B {plain(below.command_path)}",
            plain(usage),
            *_description(inner),
            *_options(below),
        ]
    return "\n".join([*lines, *roff(more, top=3), *_tail(["hdcid(1)", *map(_reference, TOPICS)])])


def _topic(name: str, text: str) -> str:
    """A page of section 5 or 7 from its Markdown."""
    heading, _, body = text.partition("\n")
    match = re.fullmatch(r"# (\S+)\((\d)\): (.+)", heading)
    if match is None or _reference(name) != f"{match[1]}({match[2]})":
        raise ValueError(f"{name}.md begins with {heading!r}, not with `# {_reference(name)}: what it is about`")
    related = ["hdcid(1)", *(_reference(other) for other in TOPICS if other != name)]
    return "\n".join([*_head(match[1], match[3], match[2]), *roff(body), *_see_also(related)])


def _reference(name: str) -> str:
    """`hdcid-files.5` -> `hdcid-files(5)`."""
    return re.sub(r"\.(\d)$", r"(\1)", name)


def _subcommands(context: click.Context) -> dict[str, click.Command]:
    group = context.command
    if not isinstance(group, click.Group):
        return {}
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def _head(name: str, title: str, section: str = "1") -> list[str]:
    return [
        "'\\\" t",  # tables
        '.\\" Written by man/generate.py: do not edit.',
        f'.TH "{plain(name.upper())}" {section} "" "hdcid {__version__}" "hdcid manual"',
        ".nh",  # no hyphenation: half of the words are names
        ".ad l",
        *_section("NAME", [f"{plain(name)} \\- {plain(title[0].lower() + title[1:])}"]),
    ]


def _synopsis(context: click.Context) -> list[str]:
    pieces = context.command.collect_usage_pieces(context)
    return _section("SYNOPSIS", [f".B {plain(context.command_path)}", plain(" ".join(pieces))])


def _description(command: click.Command) -> list[str]:
    """A help text's paragraphs; those marked with click's \\b keep their lines."""
    lines = []
    for paragraph in _help(command).split("\n\n"):
        lines.append(".PP")
        if paragraph.startswith("\b"):
            lines += [".nf", *map(plain, paragraph.splitlines()[1:]), ".fi"]
        else:
            lines.append(marked(" ".join(paragraph.split())))
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
        *_see_also(related),
    ]


def _see_also(related: list[str]) -> list[str]:
    pages = (re.fullmatch(r"(.+)(\(\d\))", page) for page in related)
    return [*_section("SEE ALSO", [", ".join(f"\\fB{plain(page[1])}\\fR{page[2]}" for page in pages if page)]), ""]


def _section(title: str, lines: list[str]) -> list[str]:
    return [f".SH {title}", *lines]


def _definitions(pairs) -> list[str]:
    return [line for term, text in pairs for line in (".TP", f".B {plain(term)}", marked(" ".join(text.split())))]


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "")


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
