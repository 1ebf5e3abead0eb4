"""What goes onto the HTML page, from records, checkpoints, timelines and overlay pictures."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from hdcid_cli.core.json_lines import Skip
from hdcid_cli.core.records import Timeline
from hdcid_cli.report import pictures
from hdcid_cli.report.layouts import lay_out, layouts
from hdcid_cli.report.page import Section, folded, grid, html_table, page
from hdcid_cli.report.pivot import TITLES
from hdcid_cli.report.results import Measured
from hdcid_cli.report.tables import Table


def compose(
    tables: Sequence[Table],
    records: Sequence[Measured],
    checkpoints: Sequence[Path],
    timelines: Sequence[Timeline],
    overlays: Sequence[Path],
    examples: int,
    skip: Skip,
) -> str:
    """The page as text.

    Args:
        tables: the tables to show; the papers' other tables follow where something was measured for them.
        records: results, for the curves over codebook sizes.
        checkpoints: directories whose training and codebooks are shown.
        timelines: records of the schema hdcid.timeline/1.
        overlays: folders of pictures.
        examples: how many clips to show of each task and direction, and of each folder.
        skip: is told what could not be shown.
    """
    training, codebooks = Section("Training"), Section("Codebooks and TOC")
    for path in checkpoints:
        _add_checkpoint(path, training, codebooks)
    sections = [
        Section("Results", [html_table(table, heading=table.title != "Results") for table in tables]),
        Section("Beside the paper", _beside_the_paper(records, {table.title for table in tables})),
        Section("Size of the codebook", _grid(pictures.codebook_curves(records, layouts()["table1"]))),
        training,
        codebooks,
        _timelines(timelines, examples),
        Section(
            "Segmentation", [part for folder in overlays for part in _grid(pictures.overlays(folder, examples, skip))]
        ),
    ]
    return page("hdcid report", _lead(records), sections)


def _beside_the_paper(records: Sequence[Measured], shown: set[str]) -> list[str]:
    """The layouts that are not shown yet and have measured cells, the fullest open and the others folded."""
    tables = [lay_out(name, records)[0][0] for name, layout in layouts().items() if layout["title"] not in shown]
    filled = {
        table.title: sum(cell is not None for row in table.rows if row.kind == "measured" for cell in row.cells)
        for table in tables
    }
    ordered = sorted((table for table in tables if filled[table.title]), key=lambda table: -filled[table.title])
    opened = ordered[:1] if shown <= set(TITLES.values()) else []
    return [
        html_table(table) if table in opened else folded(table.title, html_table(table, heading=False))
        for table in ordered
    ]


def _lead(records: Sequence[Measured]) -> list[str]:
    """How many results, and of which versions."""
    if not records:
        return []
    versions = sorted({f"{name} {version}" for record in records for name, version in (record.versions or {}).items()})
    return [f"{len(records)} results. Made with {', '.join(versions)}." if versions else f"{len(records)} results."]


def _grid(figures: Sequence[str]) -> list[str]:
    return [grid(figures)] if figures else []


def _add_checkpoint(path: Path, training: Section, codebooks: Section) -> None:
    from hdcid_cli.codes.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(path, device="cpu")
    model = checkpoint.describe()
    heading = f"<h3>{escape(checkpoint.name)}</h3>"
    facts = (
        f"{pictures.count_layers(model['layers'])}, aligned by {model['method'] or 'nothing'}, "
        f"{model['quantizer']}, {model['codebook']} codes a layer"
    )
    charts = pictures.training_curves(checkpoint.path / "metrics.jsonl")
    if charts:
        terms = [chart for title, chart in charts.items() if title.startswith("Loss:")]
        training.parts += [
            heading,
            f'<p class="quiet">{escape(facts)}</p>',
            grid([chart for chart in charts.values() if chart not in terms]),
        ]
        training.parts.append(folded("Terms of the loss", grid(terms)))
    toc = checkpoint.toc
    codebooks.parts.append(heading)
    for number, codebook in enumerate(checkpoint.codebooks, 1):
        channels = toc.channels[number - 1] if toc else None
        title = f"<p>Layer {number}: cosine similarity of every pair of its {len(codebook)} codes</p>"
        codebooks.parts += [title, grid(pictures.heat_maps(codebook, channels))]
    codebooks.parts.append(
        '<div class="scale"></div><p class="quiet ends"><span>−1</span><span>0</span><span>1</span></p>'
    )
    if toc is None:
        codebooks.parts.append('<p class="note">Channels were not selected yet: run <code>hdcid toc</code>.</p>')


def _timelines(records: Sequence[Timeline], examples: int) -> Section:
    figures = pictures.timelines(records, examples)
    key = (
        '<p class="quiet"><span class="key" style="background:#1d2430"></span>true<span class="key" '
        'style="background:#56b4e9"></span>predicted; seconds of the clip</p>'
    )
    count = f'<p class="quiet">{len(figures)} of {len(records)} clips.</p>'
    return Section("Events in clips", [key, count, grid(figures)] if figures else [])
