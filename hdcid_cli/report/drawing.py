"""Drawings as data: lines, marks, texts and pictures on a sheet, drawn as SVG (`svg.py`) or PDF (`pdf.py`).

A drawing is `WIDTH` units wide, about the width of a phone, so that its text can be
read there; on a wider screen several stand side by side. Colours are named by what
they stand for; what each looks like on light and on dark paper stands in `COLOURS`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hdcid_cli.core.files import safe_name

WIDTH = 380
FONT = 12

# The colours of Okabe and Ito, which people who are colour-blind can tell apart; (on light, on dark) paper.
SERIES = ("blue", "vermilion", "green", "purple", "ink", "orange", "sky")
COLOURS = {
    "blue": ("#0072b2", "#0072b2"),
    "vermilion": ("#d55e00", "#d55e00"),
    "green": ("#009e73", "#009e73"),
    "purple": ("#cc79a7", "#cc79a7"),
    "orange": ("#e69f00", "#e69f00"),
    "sky": ("#56b4e9", "#56b4e9"),
    "ink": ("#1d2430", "#e8ebf0"),
    "quiet": ("#5c6675", "#a3adbb"),
    "axis": ("#8a929e", "#737d8b"),
    "grid": ("#e6e9ee", "#2c333d"),
    "paper": ("#ffffff", "#14181f"),
}
DASHES = ((), (6, 3), (2, 2), (8, 3, 2, 3))
MARKS = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Path:
    """Straight lines from point to point.

    Attributes:
        dash: lengths of stroke and gap; none for a whole line.
        fill: opacity of the inside; 0 for none.
    """

    points: Sequence[tuple[float, float]]
    colour: str
    width: float = 1.0
    dash: tuple[float, ...] = ()
    fill: float = 0.0


@dataclass(frozen=True)
class Dot:
    """A point of a curve: one of MARKS, filled or as a ring."""

    x: float
    y: float
    colour: str
    shape: str = "circle"
    size: float = 3.0
    hollow: bool = False

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Of a mark that is no circle."""
        s = self.size
        offsets = {
            "square": ((-s, -s), (s, -s), (s, s), (-s, s)),
            "triangle": ((0, -1.3 * s), (1.2 * s, s), (-1.2 * s, s)),
            "diamond": ((0, -1.4 * s), (1.4 * s, 0), (0, 1.4 * s), (-1.4 * s, 0)),
        }[self.shape]
        return [(round(self.x + x, 2), round(self.y + y, 2)) for x, y in offsets]


@dataclass(frozen=True)
class Box:
    """A filled rectangle; `hint` is shown to who points at it."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    hint: str = ""


@dataclass(frozen=True)
class Label:
    """A line of text; `anchor` says which of its ends (start, middle, end) stands at x."""

    x: float
    y: float
    text: str
    anchor: str = "start"


@dataclass(frozen=True)
class Picture:
    """Pixels.

    Attributes:
        png: the bytes of a PNG file.
        pixelated: pixels stay squares.
    """

    x: float
    y: float
    width: float
    height: float
    png: bytes
    pixelated: bool = False


Shape = Path | Dot | Box | Label | Picture


@dataclass(frozen=True)
class Drawing:
    """A sheet with shapes on it, the first ones below."""

    height: float
    shapes: Sequence[Shape]
    width: float = WIDTH


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption.

    Attributes:
        kind: "chart", "heat" or "overlay".
        short: what its file is called after, if not its caption.
    """

    caption: str
    drawing: Drawing
    kind: str = "chart"
    short: str = ""

    @property
    def name(self) -> str:
        """For a file, without an ending."""
        plain = (self.short or self.caption).replace("→", "-to-")
        words = re.sub(r"[\s/\\:;,()\[\]{}%&?*'\"<>|=+]+", "-", plain).strip("-.").lower()
        return safe_name(re.sub("-+", "-", words)[:120] or "figure")
