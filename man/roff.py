"""Markdown to the man macros: what the manual's sources use of it, and nothing else.

Headings become sections, `code` is bold, *words* are italic, "- `term`: meaning" is a definition, tables go
through tbl(1).
"""

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

WIDTH = 68  # columns that a table may take on a terminal of 80
_PARSER = MarkdownIt("commonmark").enable("table")


def parse(text: str) -> list[Token]:
    """The block tokens of a Markdown text."""
    return _PARSER.parse(text)


def code_blocks(text: str) -> Iterator[tuple[str, str]]:
    """(what is said after the fence, the code) of every block of code; indented ones are shell, `sh`."""
    for token in parse(text):
        if token.type in ("fence", "code_block"):
            yield token.info.strip() or ("text" if token.type == "fence" else "sh"), token.content


def sections(text: str) -> dict[str, str]:
    """{heading: the Markdown below it} of the headings of the second level."""
    lines, found = (
        text.splitlines(),
        [
            (token.map[0], title.content)
            for token, title in zip(parse(text), parse(text)[1:])
            if token.type == "heading_open" and token.tag == "h2" and token.map
        ],
    )
    ends = [start for start, _ in found[1:]] + [len(lines)]
    return {title: "\n".join(lines[start + 1 : end]) for (start, title), end in zip(found, ends, strict=True)}


def roff(text: str, top: int = 2) -> list[str]:
    """Lines of roff; a heading of level `top` is a section, a deeper one a subsection."""
    lines: list[str] = []
    tokens = iter(parse(text))
    for token in tokens:
        match token.type:
            case "heading_open":
                title = _inline(next(tokens))
                lines.append(f".SH {title.upper()}" if int(token.tag[1]) <= top else f".SS {title}")
            case "paragraph_open":
                text = next(tokens)
                if lines[-1:] != [_ITEM]:
                    lines += [".PP", _line(_inline(text))]
                elif (term := _TERM.match(text.content)) is None:
                    lines.append(_line(_inline(text)))
                else:
                    lines[-1:] = [".TP", _line(_of(term[1])), _line(_of(text.content[term.end() :]))]
            case "fence" | "code_block":
                lines += [".PP", ".RS 4", ".nf", *map(plain, token.content.rstrip("\n").split("\n")), ".fi", ".RE"]
            case "list_item_open":
                lines.append(_ITEM)
            case "table_open":
                lines += _table(list(_rows(tokens)))
            case "html_block" | "paragraph_close" | "heading_close" | "list_item_close" | "bullet_list_close":
                pass
            case "bullet_list_open":
                pass
            case _:
                raise ValueError(f"the manual's sources have no {token.type}: {token.content[:60]!r}")
    return lines


_ITEM = ".IP \\(bu 2"
_TERM = re.compile(r"(`[^`]+`(?:(?:, | or )`[^`]+`)*): ")  # "- `features/`: what is in it"
_TROFF = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}


def plain(text: str) -> str:
    """Text in which nothing is a macro, a hyphen is a hyphen and a quote a quote."""
    return _line("".join(_TROFF.get(letter, letter) for letter in text))


def marked(text: str) -> str:
    """Plain text in which `names` are bold, as they are in Markdown."""
    parts = re.split(r"`([^`]+)`", text)
    return _line("".join(f"\\fB{_escape(part)}\\fR" if at % 2 else _escape(part) for at, part in enumerate(parts)))


def _escape(text: str) -> str:
    return "".join(_TROFF.get(letter, letter) for letter in text)


def _line(text: str) -> str:
    return "\\&" + text if text.startswith((".", "'")) else text


def _of(text: str) -> str:
    return _inline(_PARSER.parseInline(text)[0])


def _inline(token: Token) -> str:
    """One paragraph's or cell's text on one line."""
    made = []
    for child in token.children or ():
        match child.type:
            case "text":
                made.append(_escape(child.content))
            case "code_inline" | "strong_open":
                made.append("\\fB" + (_escape(child.content) + "\\fR" if child.type == "code_inline" else ""))
            case "em_open":
                made.append("\\fI")
            case "strong_close" | "em_close":
                made.append("\\fR")
            case "softbreak":
                made.append(" ")
            case _:
                raise ValueError(f"the manual's sources have no {child.type}: {token.content[:60]!r}")
    return "".join(made)


def _rows(tokens: Iterator[Token]) -> Iterator[list[tuple[str, str]]]:
    """The rows of a table, header first: (text as written, roff) of every cell."""
    row: list[tuple[str, str]] = []
    for token in tokens:
        if token.type == "table_close":
            return
        if token.type == "inline":
            row.append((token.content, _inline(token)))
        elif token.type == "tr_close":
            yield row
            row = []


def _table(rows: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """A table for tbl(1); columns that are too wide for a terminal are broken at words."""
    widths = _widths([[written for written, _ in row] for row in rows])
    columns = " ".join(f"lw({width}n)" for width in widths)
    # A cell that is taller than what is left of the page where the table begins would make tbl(1) complain.
    lines = [".PP", ".ne 12", ".TS", "tab(\t);", " ".join(["lb"] * len(widths)), f"{columns}."]
    for number, row in enumerate(rows):
        cells = [_line(made) or "\\&" for _, made in row]
        lines.append("\t".join(cells if number == 0 else [f"T{{\n.ad l\n{cell}\nT}}" for cell in cells]))
    return [*lines, ".TE"]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Width of each column: its longest cell, or its share of what the narrow columns leave, but whole words."""
    words = [max(len(word) for cell in column for word in cell.split() or [""]) for column in zip(*rows, strict=True)]
    cells = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room, widths = WIDTH - 3 * (len(cells) - 1), list(words)
    narrow = sorted(range(len(cells)), key=lambda column: cells[column] - words[column])
    spare = room - sum(words)
    for left, column in zip(range(len(cells), 0, -1), narrow, strict=True):
        more = max(0, min(cells[column] - words[column], spare // left))
        widths[column] += more
        spare -= more
    return widths
