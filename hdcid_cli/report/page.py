"""One self-contained HTML page: tables and pictures, no scripts, nothing loaded from elsewhere.

Readable on a phone: text keeps its size, charts stand below each other, and wide
tables scroll inside their own boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from hdcid_cli.report.formats import heading_levels, starts_frame
from hdcid_cli.report.tables import Row, Table

THIN = "\u2009±\u2009"

STYLE = """
:root { color-scheme: light; --ink: #1d2430; --quiet: #5c6675; --line: #d9dee5; --tint: #eef5fb; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
"DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.6rem; margin: .3em 0 0; }
h2 { font-size: 1.25rem; margin: 2em 0 .6em; padding-bottom: .2em; border-bottom: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.4em 0 .4em; }
p { margin: .4em 0; overflow-wrap: anywhere; }
nav a { margin-right: 1em; }
a { color: #0b5a9d; }
.quiet, .note { color: var(--quiet); font-size: .9rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .3em .55em; text-align: left; white-space: nowrap; }
th { font-weight: 600; background: #f6f8fa; }
td.number, th.number { text-align: right; }
th.group { text-align: center; border-bottom: 1px solid var(--line); }
tbody tr { border-top: 1px solid var(--line); }
tr.paper td { color: var(--quiet); }
tr.measured td { background: var(--tint); }
tr.frame td, tr.frame th { border-top: 2px solid var(--quiet); }
.joined { display: none; }
@media (max-width: 700px) {
  .label { display: none; }
  .joined { display: table-cell; position: sticky; left: 0; min-width: 42vw; max-width: 48vw; white-space: normal;
  background: #f6f8fa; border-right: 1px solid var(--line); }
  .joined small { display: block; font-weight: 400; color: var(--quiet); }
}
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 14px; align-items:
start; }
figure { margin: 0; padding: 8px; border: 1px solid var(--line); border-radius: 6px; min-width: 0; }
figcaption { font-size: .88rem; font-weight: 600; overflow-wrap: anywhere; margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--quiet); }
svg .grid { stroke: #e6e9ee; }
svg .axis { stroke: #8a929e; }
svg .true { fill: #1d2430; }
svg .predicted { fill: #56b4e9; }
img { display: block; width: 100%; height: auto; }
.heat img { image-rendering: pixelated; aspect-ratio: 1; }
.scale { height: 12px; border-radius: 6px; background: linear-gradient(to right, #004488, #fff, #aa1e1e); max-width:
330px; border: 1px solid var(--line); }
.ends { display: flex; justify-content: space-between; max-width: 330px; }
.key { display: inline-block; width: 1.6em; height: .7em; border-radius: 2px; margin: 0 .3em 0 .8em; }
summary { cursor: pointer; font-weight: 600; margin: .6em 0; }
"""


@dataclass
class Section:
    """A part of the page: a title and the HTML below it."""

    title: str
    parts: list[str] = field(default_factory=list)


def page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole document; sections without content are left out."""
    filled = [section for section in sections if section.parts]
    links = "".join(f'<a href="#part{i}">{escape(section.title)}</a> ' for i, section in enumerate(filled))
    bodies = [
        f'<section id="part{i}">\n<h2>{escape(section.title)}</h2>\n' + "\n".join(section.parts) + "\n</section>"
        for i, section in enumerate(filled)
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{escape(title)}</h1>",
            *(f'<p class="quiet">{escape(line)}</p>' for line in lead),
            f"<nav>{links}</nav>" if len(filled) > 1 else "",
            *bodies,
            "</main>",
            "</body>",
            "</html>",
        ]
    )


def grid(figures: Sequence[str]) -> str:
    """Figures side by side where there is room."""
    return '<div class="grid">\n' + "\n".join(figures) + "\n</div>"


def folded(summary: str, content: str) -> str:
    """Content that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def html_table(table: Table, heading: bool = True) -> str:
    """A table in a box of its own that scrolls."""
    table = table.for_readers()
    *groups, leaves = heading_levels(table)
    head = []
    for level in groups:
        cells = "".join(f'<th class="group" colspan="{span}">{escape(name)}</th>' for name, span in level)
        head.append(
            f'<tr><th class="label" colspan="{len(table.label_names)}"></th><th class="joined"></th>{cells}</tr>'
        )
    names = "".join(f'<th class="label">{escape(name)}</th>' for name in table.label_names)
    numbers = "".join(f'<th class="number">{escape(name)}</th>' for name, _ in leaves)
    head.append(f'<tr>{names}<th class="joined"></th>{numbers}</tr>')
    body = []
    for number, row in enumerate(table.rows):
        labels = "".join(f'<td class="label">{escape(label)}</td>' for label in row.labels)
        best = table.best(number)
        cells = "".join(
            f'<td class="number">{f"<strong>{text}</strong>" if i in best else text}</td>'
            for i, text in enumerate(table.texts(THIN)[number])
        )
        style = row.kind + (" frame" if starts_frame(table, number) else "")
        body.append(f'<tr class="{style}">{labels}{_joined(table, row)}{cells}</tr>')
    said = f'<p class="quiet">{escape(", ".join(table.said))}</p>' if table.said else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    title = f"<h3>{escape(table.title)}</h3>\n" if heading else ""
    return (
        f'{title}{said}<div class="scroll"><table>\n<thead>{"".join(head)}</thead>\n<tbody>\n'
        + "\n".join(body)
        + f"\n</tbody></table></div>\n{notes}"
    )


def _joined(table: Table, row: Row) -> str:
    """All labels of a row in one cell, which a phone shows instead of theirs and keeps in sight while the numbers
    scroll.
    """
    first, *others = zip(table.label_names, row.labels)
    rest = " · ".join(f"{name} {value}" for name, value in others if value)
    return f'<th class="joined">{escape(first[1])}<small>{escape(rest)}</small></th>'
