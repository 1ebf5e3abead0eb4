"""Drawings as inline SVG: curves and timelines that need no library and stay sharp at any size.

A drawing is `WIDTH` units wide, about the width of a phone, so that its text can be
read there; on a wider screen several stand side by side.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 380

# Okabe and Ito's colours, which people who are colour-blind can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a8a00")

DASHES = ("none", "6 3", "2 2")


@dataclass(frozen=True)
class Series:
    """Points of one curve.

    Args:
        points: (x, y, deviation or None), in the order of x.
        colour: number of one of COLOURS.
        dash: number of one of DASHES.
        hollow: unconnected rings instead of a line (the papers' points beside measured curves).
        marked: a dot on every point of the line.
    """

    name: str
    points: Sequence[tuple[float, float, float | None]]
    colour: int
    dash: int = 0
    hollow: bool = False
    marked: bool = False


def line_chart(title: str, x_label: str, series: Sequence[Series], height: int = 210) -> str:
    """Curves over a common x axis, with a legend below."""
    left, right, top, bottom = 46, 18, 10, 36
    xs = [x for one in series for x, _, _ in one.points]
    ys = [y + sign * (deviation or 0) for one in series for _, y, deviation in one.points for sign in (-1, 1)]
    x_low, x_high = _padded(min(xs), max(xs), 0.0)
    y_low, y_high = _padded(min(ys), max(ys), 0.06)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (WIDTH - left - right)
        up = (y - y_low) / (y_high - y_low) * (height - top - bottom)
        return round(left + across, 1), round(height - bottom - up, 1)

    parts = []
    for tick in ticks(y_low, y_high):
        _, y = place(x_low, tick)
        parts.append(f'<line class="grid" x1="{left}" y1="{y}" x2="{WIDTH - right}" y2="{y}"/>')
        parts.append(_text(left - 5, y + 4, number(tick), "end"))
    for tick in ticks(x_low, x_high, 5):
        x, _ = place(tick, y_low)
        parts.append(_text(x, height - bottom + 15, number(tick), "middle"))
    parts.append(f'<line class="axis" x1="{left}" y1="{height - bottom}" x2="{WIDTH - right}" y2="{height - bottom}"/>')
    parts.append(_text((left + WIDTH - right) / 2, height - 4, x_label, "middle"))
    for one in series:
        parts += _curve(one, place)
    legend, below = _legend(series, left, height + 16)
    return _drawing(title, [*parts, *legend], below if legend else height)


def _curve(series: Series, place) -> Iterable[str]:
    colour = COLOURS[series.colour % len(COLOURS)]
    spots = [place(x, y) for x, y, _ in series.points]
    if not series.hollow and len(spots) > 1:
        path = " ".join(f"{x},{y}" for x, y in spots)
        dash = DASHES[series.dash % len(DASHES)]
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dash}"/>'
    for (x, y), (value_x, value_y, deviation) in zip(spots, series.points):
        if deviation:
            _, low = place(value_x, value_y - deviation)
            _, high = place(value_x, value_y + deviation)
            yield f'<line x1="{x}" y1="{low}" x2="{x}" y2="{high}" stroke="{colour}"/>'
        if series.hollow:
            yield f'<circle cx="{x}" cy="{y}" r="4.5" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        elif series.marked or len(spots) == 1:
            yield f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'


def _legend(series: Sequence[Series], left: float, top: float) -> tuple[list[str], float]:
    """Names of the series in as many lines as they need, and where the drawing ends below them; rings of one name stand
    once.
    """
    if len(series) == 1:
        return [], top
    parts, x, y = [], left, top
    for name, one in {one.name: one for one in series}.items():
        width = 24 + 6.6 * len(name) + 12
        if x > left and x + width > WIDTH:
            x, y = left, y + 17
        if one.hollow:
            parts.append(f'<circle cx="{x + 8}" cy="{y - 4}" r="4.5" fill="none" stroke="#5c6675" stroke-width="1.8"/>')
        else:
            colour, dash = COLOURS[one.colour % len(COLOURS)], DASHES[one.dash % len(DASHES)]
            parts.append(
                f'<line x1="{x}" y1="{y - 4}" x2="{x + 17}" y2="{y - 4}" stroke="{colour}" stroke-width="3" '
                f'stroke-dasharray="{dash}"/>'
            )
        parts.append(_text(x + 22, y, name))
        x += width
    return parts, y + 8


@dataclass(frozen=True)
class Bar:
    """An interval of a timeline, in seconds, in a row."""

    row: str
    start: float
    end: float
    predicted: bool


def timeline_chart(title: str, bars: Sequence[Bar], seconds: float) -> str:
    """Intervals over the seconds of a clip: per row what is true (dark) above what was predicted (light)."""
    left, right, row_height = 118, 10, 30
    rows = list(dict.fromkeys(bar.row for bar in sorted(bars, key=lambda bar: (bar.predicted, bar.start))))
    bottom = row_height * max(1, len(rows)) + 6

    def across(second: float) -> float:
        return round(left + second / seconds * (WIDTH - left - right), 1)

    parts = []
    for tick in ticks(0, seconds):
        parts.append(f'<line class="grid" x1="{across(tick)}" y1="4" x2="{across(tick)}" y2="{bottom}"/>')
        parts.append(_text(across(tick), bottom + 14, number(tick), "middle"))
    for i, row in enumerate(rows):
        parts.append(_text(left - 6, row_height * i + 24, row if len(row) <= 16 else row[:15] + "…", "end"))
    for bar in bars:
        y = row_height * rows.index(bar.row) + (20 if bar.predicted else 8)
        width = round(across(bar.end) - across(bar.start), 1)
        style = "predicted" if bar.predicted else "true"
        parts.append(
            f'<rect class="{style}" x="{across(bar.start)}" y="{y}" width="{width}" height="11" '
            f'rx="2"><title>{escape(bar.row)}, {style}, {number(bar.start)} to {number(bar.end)} s</title></rect>'
        )
    return _drawing(title, parts, bottom + 20)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= count)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick's label, short."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _padded(low: float, high: float, margin: float) -> tuple[float, float]:
    """The range with some room; a range of nothing becomes one around its value."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1.0):
        room = abs(low) * 0.1 or 1.0
        return low - room, high + room
    return low - margin * (high - low), high + margin * (high - low)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{round(x, 1)}" y="{round(y, 1)}" text-anchor="{anchor}">{escape(text)}</text>'


def _drawing(title: str, parts: Sequence[str], height: float) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {round(height)}" role="img" aria-label="{escape(title)}">\n{body}\n</svg>'
