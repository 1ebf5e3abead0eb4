"""Drawings as PDF files, by matplotlib, which this module needs."""

import io
import textwrap
import warnings

import matplotlib
from matplotlib import image, patches
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure as Sheet

from hdcid_cli.report.drawing import COLOURS, FONT, Box, Dot, Drawing, Label, Path, Picture
from hdcid_cli.report.tables import one_line

POINTS = 0.75  # of a unit: a drawing is as wide as a column of a paper, its text 9 points high


def pdf(drawing: Drawing, title: str) -> bytes:
    """The bytes of a PDF file of one page; the same drawing gives the same bytes."""
    with matplotlib.rc_context({"pdf.fonttype": 42, "font.family": "sans-serif", "lines.scale_dashes": False}):
        figure = Sheet(figsize=(drawing.width * POINTS / 72, drawing.height * POINTS / 72))
        canvas = FigureCanvasPdf(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, drawing.width)
        axes.set_ylim(drawing.height, 0)
        axes.set_axis_off()
        for layer, shape in enumerate(drawing.shapes, 1):
            _draw(axes, shape, layer)
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for it
            canvas.print_pdf(stream, metadata={"Title": textwrap.shorten(title, 200), "CreationDate": None})
    return stream.getvalue()


def _draw(axes, shape, layer: int) -> None:
    def colour(name: str) -> str:
        return COLOURS[name][0]

    match shape:
        case Path():
            xs, ys = zip(*shape.points)
            dash = (0, tuple(length * POINTS for length in shape.dash)) if shape.dash else "-"
            if shape.fill:
                axes.fill(xs, ys, color=colour(shape.colour), alpha=shape.fill, linewidth=0, zorder=layer)
            width = shape.width * POINTS
            axes.plot(xs, ys, color=colour(shape.colour), linewidth=width, linestyle=dash, zorder=layer, clip_on=False)
        case Dot():
            circle = shape.shape == "circle"
            mark = patches.Circle((shape.x, shape.y), shape.size) if circle else patches.Polygon(shape.corners)
            mark.set(fill=not shape.hollow, color=colour(shape.colour), zorder=layer)
            mark.set_linewidth(1.8 * POINTS if shape.hollow else 0)
            axes.add_patch(mark)
        case Box():
            place = (shape.x, shape.y), shape.width, shape.height
            axes.add_patch(patches.Rectangle(*place, color=colour(shape.colour), linewidth=0, zorder=layer))
        case Label():
            align = {"start": "left", "middle": "center", "end": "right"}[shape.anchor]
            text = one_line(shape.text).replace("$", r"\$")  # no mathematics
            size, ink = FONT * POINTS, colour("quiet")
            axes.text(shape.x, shape.y, text, ha=align, va="baseline", fontsize=size, color=ink, zorder=layer)
        case Picture():
            pixels = image.imread(io.BytesIO(shape.png), format="png")
            extent = (shape.x, shape.x + shape.width, shape.y + shape.height, shape.y)
            how = "nearest" if shape.pixelated else "antialiased"
            axes.imshow(pixels, extent=extent, interpolation=how, aspect="auto", zorder=layer)
