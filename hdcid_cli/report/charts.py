"""Curves, histograms and timelines as drawings."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hdcid_cli.report.drawing import DASHES, MARKS, SERIES, WIDTH, Box, Dot, Drawing, Label, Path, Shape

LEFT, RIGHT, TOP, BOTTOM = 46, 18, 10, 36
HEIGHT = 210

Place = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Points of one curve.

    Args:
        points: (x, y, deviation or None), in the order of x.
        number: which series of the chart it is; the colour, the mark and, where colours run out, the dash follow.
        dash: number of one of DASHES.
        hollow: unconnected rings instead of a line (the papers' points beside measured curves).
        marked: a mark on every point of the line.
        grey: what frames the measured curves.
    """

    name: str
    points: Sequence[tuple[float, float, float | None]]
    number: int = 0
    dash: int = 0
    hollow: bool = False
    marked: bool = False
    grey: bool = False

    @property
    def colour(self) -> str:
        return "axis" if self.grey else SERIES[self.number % len(SERIES)]

    @property
    def strokes(self) -> tuple[float, ...]:
        return DASHES[(self.dash + self.number // len(SERIES)) % len(DASHES)]

    @property
    def mark(self) -> str:
        return MARKS[self.number % len(MARKS)]


@dataclass(frozen=True)
class Axis:
    """One axis: what it shows, and how.

    Attributes:
        low, high: its ends.
        ticks: where numbers stand.
        logarithmic: equal ratios take equal room.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the ends, 0 to 1."""
        if self.logarithmic:
            low = math.log(self.low)
            return (math.log(value) - low) / (math.log(self.high) - low)
        return (value - self.low) / (self.high - self.low)

    @classmethod
    def over(cls, label: str, values: Sequence[float], margin: float = 0.0, count: int = 4) -> "Axis":
        """An axis that all values find room on, with round ticks."""
        low, high = _padded(min(values), max(values), margin)
        return cls(label, low, high, ticks(low, high, count))

    @classmethod
    def of_settings(cls, label: str, values: Sequence[float]) -> "Axis":
        """An axis of a few values that were chosen: a tick at each, logarithmic where they span a decade or so."""
        chosen = sorted(set(values))
        if chosen[0] <= 0 or chosen[-1] < 6 * chosen[0] or len(chosen) < 3:
            axis = cls.over(label, chosen, count=5)
            return cls(label, axis.low, axis.high, chosen) if _have_room(chosen, axis) else axis
        axis = cls(label, chosen[0], chosen[-1], chosen, logarithmic=True)
        if _have_room(chosen, axis):
            return axis
        powers = range(math.ceil(math.log10(chosen[0])), math.floor(math.log10(chosen[-1])) + 1)
        return cls(label, chosen[0], chosen[-1], [10.0**power for power in powers] or chosen[:1], logarithmic=True)


def _have_room(values: Sequence[float], axis: Axis) -> bool:
    """Whether the numbers of all values can stand beside each other."""
    width = WIDTH - LEFT - RIGHT
    places = [axis.share(value) * width for value in values]
    widths = [7 * len(number(value)) for value in values]
    pairs = zip(zip(places, widths), zip(places[1:], widths[1:]))
    return all(after - before > (one + other) / 2 + 4 for (before, one), (after, other) in pairs)


def line_chart(x: Axis, y: Axis, series: Sequence[Series], height: int = HEIGHT) -> Drawing:
    """Curves over common axes, with a legend below."""
    place = _placing(x, y, height)
    shapes = [*_axes(x, y, place, height)]
    for one in series:
        shapes += _curve(one, place)
    legend, below = _legend(series, height + 16)
    return Drawing(below if legend else height, [*shapes, *legend])


def curves(x_label: str, series: Sequence[Series], settings: bool = False) -> Drawing:
    """Curves over what they need of both axes.

    Args:
        settings: the values of x were chosen, and each has a tick.
    """
    xs = [x for one in series for x, _, _ in one.points]
    ys = [y + sign * (deviation or 0) for one in series for _, y, deviation in one.points for sign in (-1, 1)]
    x = Axis.of_settings(x_label, xs) if settings else Axis.over(x_label, xs, count=5)
    return line_chart(x, Axis.over("", ys, 0.06, count=5), series)


def _placing(x: Axis, y: Axis, height: int) -> Place:
    top = TOP + 16 * bool(y.label)

    def place(across: float, up: float) -> tuple[float, float]:
        return (
            round(LEFT + x.share(across) * (WIDTH - LEFT - RIGHT), 1),
            round(height - BOTTOM - y.share(up) * (height - top - BOTTOM), 1),
        )

    return place


def _axes(x: Axis, y: Axis, place: Place, height: int) -> Iterator[Shape]:
    for tick in y.ticks:
        _, up = place(x.low, tick)
        yield Path([(LEFT, up), (WIDTH - RIGHT, up)], "grid")
        yield Label(LEFT - 5, up + 4, number(tick), "end")
    for tick in x.ticks:
        across, _ = place(tick, y.low)
        yield Label(across, height - BOTTOM + 15, number(tick), "middle")
    yield Path([(LEFT, height - BOTTOM), (WIDTH - RIGHT, height - BOTTOM)], "axis")
    yield Label((LEFT + WIDTH - RIGHT) / 2, height - 4, x.label, "middle")
    if y.label:
        yield Label(LEFT - 5, TOP + 4, y.label)


def _curve(series: Series, place: Place) -> Iterable[Shape]:
    spots = [place(x, y) for x, y, _ in series.points]
    if not series.hollow and len(spots) > 1:
        yield Path(spots, series.colour, 1.8, series.strokes)
    for (x, y), (value_x, value_y, deviation) in zip(spots, series.points):
        if deviation:
            ends = [place(value_x, value_y + sign * deviation) for sign in (-1, 1)]
            yield Path(ends, series.colour)
        if series.hollow:
            yield Dot(x, y, series.colour, size=4.5, hollow=True)
        elif series.marked or len(spots) == 1:
            yield Dot(x, y, series.colour, series.mark)


def _legend(series: Sequence[Series], top: float) -> tuple[list[Shape], float]:
    """Names of the series in as many lines as they need, and where the drawing ends below them; rings of one name stand
    once.
    """
    if len(series) == 1:
        return [], top
    shapes: list[Shape] = []
    x, y = float(LEFT), top
    for name, one in {one.name: one for one in series}.items():
        for shown in _lines(name, int((WIDTH - LEFT - 24) / 6.6)):
            first = shown is not None and name.startswith(shown)
            room = 24 + 6.6 * len(shown) + 12
            if x > LEFT and (x + room > WIDTH or not first):
                x, y = float(LEFT), y + 17
            if first and one.hollow:
                shapes.append(Dot(x + 8, y - 4, "quiet", size=4.5, hollow=True))
            elif first:
                shapes.append(
                    Path([(x, y - 4), (x + 17, y - 4)], one.colour, 3 if not one.marked else 1.8, one.strokes)
                )
                if one.marked:
                    shapes.append(Dot(x + 8.5, y - 4, one.colour, one.mark))
            shapes.append(Label(x + 22, y, shown))
            x += room
    return shapes, y + 8


def _lines(text: str, length: int) -> list[str]:
    """A name in lines of at most so many characters, broken after commas and spaces where it can be."""
    lines = [""]
    for word in text.replace(", ", ",\n").replace(" ", "\n").split("\n"):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > length:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return [line if len(line) <= length else line[: length - 1] + "…" for line in lines]


@dataclass(frozen=True)
class Histogram:
    """How many of a kind lie between the edges.

    Attributes:
        counts: one fewer than edges.
    """

    name: str
    edges: Sequence[float]
    counts: Sequence[float]
    number: int


def histogram_chart(x_label: str, kinds: Sequence[Histogram], threshold: float | None, height: int = HEIGHT) -> Drawing:
    """Shares of each kind by value, one over the other, and a dashed line at the threshold."""
    shares = [[count / max(1e-12, sum(kind.counts)) * 100 for count in kind.counts] for kind in kinds]
    xs = [edge for kind in kinds for edge in kind.edges] + ([] if threshold is None else [threshold])
    low, high = _padded(min(xs), max(xs), 0.0)
    x = Axis(x_label, low, high, ticks(low, high, 5))
    top = 1.08 * max(max(each) for each in shares) or 1.0
    y = Axis("% of each", 0.0, top, ticks(0.0, top))
    place = _placing(x, y, height)
    shapes = [*_axes(x, y, place, height)]
    series = []
    for kind, share in zip(kinds, shares):
        one = Series(kind.name, [], kind.number, dash=kind.number)
        corners = [(kind.edges[0], 0.0)]
        for left, right, value in zip(kind.edges, kind.edges[1:], share):
            corners += [(left, value), (right, value)]
        corners.append((kind.edges[-1], 0.0))
        shapes.append(Path([place(*corner) for corner in corners], one.colour, 1.6, one.strokes, fill=0.22))
        series.append(one)
    if threshold is not None:
        shapes.append(Path([place(threshold, 0.0), place(threshold, top)], "ink", 1.2, (3, 3)))
        (across, _), word = place(threshold, 0.0), "rejected below"
        left = LEFT + 7 * len(y.label)  # of what stands behind the axis's own label
        fits = across - 7 * len(word) > left
        shapes.append(Label(across - 4 if fits else max(across + 4, left), TOP + 4, word, "end" if fits else "start"))
    legend, below = _legend(series, height + 16)
    return Drawing(below, [*shapes, *legend])


@dataclass(frozen=True)
class Bar:
    """An interval of a timeline, in seconds, in a row."""

    row: str
    start: float
    end: float
    predicted: bool


def timeline_chart(bars: Sequence[Bar], seconds: float) -> Drawing:
    """Intervals over the seconds of a clip: per row what is true (dark) above what was predicted (light)."""
    left, right, row_height = 118, 10, 30
    rows = list(dict.fromkeys(bar.row for bar in sorted(bars, key=lambda bar: (bar.predicted, bar.start))))
    bottom = row_height * max(1, len(rows)) + 6

    def across(second: float) -> float:
        return round(left + second / seconds * (WIDTH - left - right), 1)

    shapes: list[Shape] = []
    for tick in ticks(0, seconds):
        shapes.append(Path([(across(tick), 4), (across(tick), bottom)], "grid"))
        shapes.append(Label(across(tick), bottom + 14, number(tick), "middle"))
    for i, row in enumerate(rows):
        shapes.append(Label(left - 6, row_height * i + 24, row if len(row) <= 16 else row[:15] + "…", "end"))
    for bar in bars:
        y = row_height * rows.index(bar.row) + (20 if bar.predicted else 8)
        hint = f"{bar.row}, {'predicted' if bar.predicted else 'true'}, {number(bar.start)} to {number(bar.end)} s"
        width = round(across(bar.end) - across(bar.start), 1)
        shapes.append(Box(across(bar.start), y, width, 11, "sky" if bar.predicted else "ink", hint))
    return Drawing(bottom + 20, shapes)


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
