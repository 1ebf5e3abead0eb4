"""Figures that matplotlib draws, as files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hdcid_cli.core.errors import HdcidError
from hdcid_cli.core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def figure_file(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """A figure of so many inches to draw in; in the end it is in the file, as png, pdf or svg by the file's ending.

    Args:
        path: as somebody named it: it may be a device, too.

    Raises:
        HdcidError: matplotlib is not installed, has no such format, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HdcidError("Pictures need matplotlib: install it with `pip install hdcid[plot]`.") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    with atomic_path(path, named=True) as temporary:
        try:
            figure.savefig(temporary, format=path.suffix.lstrip(".").lower() or "png", dpi=120)
        except ValueError as error:
            raise HdcidError(
                f"{path}: pictures can be png, pdf or svg ({str(error).split('(')[0].strip()})."
            ) from error
