"""What a report shows beside its tables, from records, checkpoints, timelines, open sets and overlay pictures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hdcid_cli.codes.checkpoint import METRICS, open_checkpoint
from hdcid_cli.core.json_lines import Skip
from hdcid_cli.core.progress import counted
from hdcid_cli.core.records import OpenSet, Timeline
from hdcid_cli.report import over, pictures
from hdcid_cli.report.drawing import Figure
from hdcid_cli.report.glossary import glossary
from hdcid_cli.report.html import Figures, Folded, Section, Sign, Terms, Words, grid, page
from hdcid_cli.report.layouts import lay_out, layouts
from hdcid_cli.report.pivot import GROUND_NOTES, TITLES
from hdcid_cli.report.results import Measured
from hdcid_cli.report.tables import MEASURED, PLAIN, Look, Table


@dataclass(frozen=True)
class Sources:
    """What pictures are made of.

    Attributes:
        records: results.
        checkpoints: directories whose training and codebooks are shown.
        timelines: events of clips.
        open_sets: scores of known and unknown clips.
        overlays: folders of pictures.
        fields: numbers of the records that results are drawn over.
        examples: how many clips to show of each task, direction and probe, and of each folder.
    """

    records: Sequence[Measured] = ()
    checkpoints: Sequence[Path] = ()
    timelines: Sequence[Timeline] = ()
    open_sets: Sequence[OpenSet] = ()
    overlays: Sequence[Path] = ()
    fields: Sequence[str] = ()
    examples: int = 8


@dataclass
class Illustrations:
    """The pictures of a report, in sections of its page."""

    sections: list[Section] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        """All of them, folded or not."""
        return [figure for section in self.sections for figure in _figures_in(section.parts)]


def _figures_in(parts: Iterable[Any]) -> Iterable[Figure]:
    for part in parts:
        if isinstance(part, Figures):
            yield from part.figures
        elif isinstance(part, Folded):
            yield from _figures_in(part.parts)


def draw(sources: Sources, skip: Skip) -> Illustrations:
    """All pictures of the sources; what cannot be shown is handed to `skip`.

    Raises:
        InputError: a checkpoint or a folder is none, or there is nothing to draw over a field.
    """
    training, codebooks = Section("Training"), Section("Codebooks and TOC")
    for path in sources.checkpoints:
        _add_checkpoint(path, training, codebooks)
    overlays = [pictures.overlays(folder, sources.examples, skip) for folder in sources.overlays]
    drawn = [
        *(Section(f"Results over {name}", _grid(over.over(sources.records, name))) for name in sources.fields),
        Section("Size of the codebook", _codebook(sources)),
        Section("Open sets", _grid(list(pictures.open_sets(sources.open_sets, sources.examples)))),
        training,
        codebooks,
        _timelines(sources.timelines, sources.examples),
        Section("Segmentation", [part for found in overlays for part in _grid(found)]),
    ]
    return Illustrations([section for section in drawn if section.parts])


def compose(tables: Sequence[Table], records: Sequence[Measured], drawn: Illustrations, look: Look = PLAIN) -> str:
    """The page as text.

    Args:
        tables: the tables to show; the papers' other tables follow where something was measured for them.
        records: results, for what the page says of them.
        drawn: its pictures.
        look: of the tables that follow.
    """
    words = glossary({(record.task, record.metric) for record in records})
    results = [grid(table, heading=table.title != TITLES[None]) for table in tables]
    alerts = [GROUND_NOTES[ground] for ground in TITLES if ground and any(each.ground == ground for each in records)]
    sections = [
        Section("Results", [*results, *([Folded("What the words mean", [Terms(words)])] if records else [])]),
        Section("Beside the paper", _beside_the_paper(records, {table.title for table in tables}, look)),
        *drawn.sections,
    ]
    if not results:
        sections = sections[1:]
    return page("hdcid report", _lead(records), alerts, sections)


def _beside_the_paper(records: Sequence[Measured], shown: set[str], look: Look) -> list[Any]:
    """The layouts that are not shown yet and have cells measured on the papers' data, the fullest open and the others
    folded.
    """
    tables = [lay_out(name, records, look)[0][0] for name, layout in layouts().items() if layout["title"] not in shown]
    filled = {
        table.title: sum(cell is not None for row in table.rows if row.kind == MEASURED for cell in row.cells)
        for table in tables
    }
    ordered = sorted((table for table in tables if filled[table.title]), key=lambda table: -filled[table.title])
    opened = ordered[:1] if shown <= set(TITLES.values()) else []
    return [grid(table) if table in opened else Folded(table.title, [grid(table, heading=False)]) for table in ordered]


def _lead(records: Sequence[Measured]) -> list[str]:
    """How many results, and of which versions."""
    if not records:
        return []
    versions = sorted({f"{name} {version}" for record in records for name, version in (record.versions or {}).items()})
    results = f"{counted(len(records), 'result')}."
    return [f"{results} Made with {', '.join(versions)}." if versions else results]


def _grid(figures: Sequence[Figure]) -> list[Any]:
    return [Figures(figures)] if figures else []


def _codebook(sources: Sources) -> list[Any]:
    return [] if over.CODEBOOK in sources.fields else _grid(over.codebook_curves(sources.records))


def _add_checkpoint(path: Path, training: Section, codebooks: Section) -> None:
    checkpoint = open_checkpoint(path, device="cpu")
    model = checkpoint.describe()
    heading = Words("heading", checkpoint.name)
    facts = (
        f"{over.count_layers(model['layers'])}, aligned by {model['method'] or 'nothing'}, "
        f"{model['quantizer']}, {model['codebook']} codes a layer"
    )
    charts = pictures.training_curves(checkpoint.path / METRICS, checkpoint.name)
    if charts:
        terms = [chart for chart in charts if chart.caption.startswith(pictures.LOSS_TERM)]
        training.parts += [heading, Words("quiet", facts), *_grid([chart for chart in charts if chart not in terms])]
        if terms:
            training.parts.append(Folded("Terms of the loss", _grid(terms)))
    toc = checkpoint.toc
    codebooks.parts.append(heading)
    for number, codebook in enumerate(checkpoint.codebooks, 1):
        channels = toc.channels[number - 1] if toc else None
        text = f"Layer {number}: cosine similarity of every pair of codes"
        of = f"{checkpoint.name}, layer {number}"
        codebooks.parts += [Words("quiet", text), *_grid(list(pictures.heat_maps(codebook, channels, of)))]
    codebooks.parts.append(Sign("scale"))
    if toc is None:
        codebooks.parts.append(Words("note", "Channels were not selected yet: run `hdcid toc`."))


def _timelines(records: Sequence[Timeline], examples: int) -> Section:
    figures = list(pictures.timelines(records, examples))
    count = Words("quiet", f"{len(figures)} of {counted(len(records), 'timeline')}.")
    return Section("Events in clips", [Sign("key"), count, Figures(figures)] if figures else [])
