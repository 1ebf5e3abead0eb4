"""Figures as files, for a paper."""

from collections.abc import Sequence
from pathlib import Path

from hdcid_cli.core.files import atomic_path, write_text
from hdcid_cli.core.progress import say
from hdcid_cli.report import svg
from hdcid_cli.report.drawing import Figure

try:
    from hdcid_cli.report import pdf
except ImportError:  # matplotlib is of hdcid[plot]
    pdf = None  # type: ignore[assignment]


def write_figures(figures: Sequence[Figure], folder: Path) -> None:
    """NAME.svg and, where matplotlib is installed, NAME.pdf of each, in a folder that is made; files of these names are
    replaced, others stay.
    """
    taken: dict[str, int] = {}
    for figure in figures:
        number = taken[figure.name] = taken.get(figure.name, 0) + 1
        name = figure.name if number == 1 else f"{figure.name}-{number}"
        write_text(folder / f"{name}.svg", svg.standalone(figure.drawing, figure.caption))
        if pdf:
            with atomic_path(folder / f"{name}.pdf") as temporary:
                temporary.write_bytes(pdf.pdf(figure.drawing, figure.caption))
    if not pdf:
        say("There are no PDF figures without matplotlib: pip install 'hdcid[plot]'.")
