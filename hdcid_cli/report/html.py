"""One self-contained HTML page: tables and pictures, nothing loaded from elsewhere.

Readable on a phone (text keeps its size, charts stand below each other, and wide
tables scroll inside their own boxes), by day and by night, and on paper. The one
script is ours, by its digest: it sorts tables and unfolds what is to be printed.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from hdcid_cli.core.progress import printable
from hdcid_cli.report import svg
from hdcid_cli.report.drawing import COLOURS, Figure
from hdcid_cli.report.formats import heading_levels, starts_frame
from hdcid_cli.report.tables import CHANCE, SUPERVISED, Row, Table

THIN = "\u2009±\u2009"
KEPT = "\u2009\n"  # of what cannot be seen, this alone is meant


@dataclass(frozen=True)
class Words:
    """A line of text; `kind` is "heading", "quiet" or "note". What stands in backquotes is code."""

    kind: str
    text: str


@dataclass(frozen=True)
class Sign:
    """What pictures above or below mean: `kind` is "scale" (of a heat map) or "key" (of timelines)."""

    kind: str


@dataclass(frozen=True)
class Terms:
    """A glossary: (title, entries) of each section."""

    sections: Sequence[tuple[str, Sequence[str]]]
    kind: str = "terms"


@dataclass(frozen=True)
class Figures:
    """Pictures side by side where there is room."""

    figures: Sequence[Figure]
    kind: str = "figures"


@dataclass(frozen=True)
class Folded:
    """Parts that open on a click."""

    summary: str
    parts: Sequence[Any]
    kind: str = "folded"


@dataclass
class Section:
    """A part of the page: a title and what stands below it."""

    title: str
    parts: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Grid:
    """A table, as the template takes it."""

    table: Table
    groups: Sequence[Sequence[tuple[str, int]]]
    names: Sequence[str]
    rows: Sequence[dict]
    heading: bool
    kind: str = "table"


def grid(table: Table, heading: bool = True) -> Grid:
    """A table for the page."""
    table = table.for_readers()
    *groups, leaves = heading_levels(table)
    return Grid(table, groups, [name for name, _ in leaves], list(_rows(table)), heading)


def _rows(table: Table) -> Iterator[dict]:
    texts = table.texts(THIN)
    for number, row in enumerate(table.rows):
        best = table.best(number)
        classes = [row.kind, *(["framing"] if row.kind in (SUPERVISED, CHANCE) else [])]
        yield {
            "classes": " ".join([*classes, *(["frame"] if starts_frame(table, number) else [])]),
            "labels": row.labels,
            "rest": _rest(table, row),
            "cells": [
                {"text": text, "value": "" if cell is None else repr(cell.mean), "best": i in best}
                for i, (cell, text) in enumerate(zip(row.cells, texts[number]))
            ],
        }


def _rest(table: Table, row: Row) -> str:
    """All labels of a row but the first in one cell, which a phone shows instead of theirs and keeps in sight while the
    numbers scroll.
    """
    return " · ".join(f"{name} {value}" for name, value in list(zip(table.label_names, row.labels))[1:] if value)


def page(title: str, lead: Sequence[str], alerts: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole document; sections without content are left out."""
    environment = _environment()
    light, dark = ({name: pair[i] for name, pair in COLOURS.items()} for i in (0, 1))
    style = environment.get_template("page.css").render(light=light, dark=dark)
    script = environment.get_template("page.js").render()
    return environment.get_template("page.html").render(
        title=title,
        lead=lead,
        alerts=alerts,
        sections=[section for section in sections if section.parts],
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}",
        inline=svg.inline,
        coded=coded,
    )


@cache
def _environment() -> jinja2.Environment:
    """Templates that escape whatever is put into them, and refuse what is not there."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("hdcid_cli.report", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value, keep=KEPT) if type(value) is str else value,
    )


def _digest(content: str) -> str:
    """What a browser is told to accept."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def coded(text: str) -> Markup:
    """Text, with what stands in backquotes as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))
