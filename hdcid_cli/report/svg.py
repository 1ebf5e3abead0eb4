"""Drawings as SVG: within a page, in the page's own colours, or as files of their own."""

import base64
from collections.abc import Sequence

from markupsafe import Markup

from hdcid_cli.report.drawing import COLOURS, FONT, Box, Dot, Drawing, Label, Path, Picture, Shape
from hdcid_cli.report.tables import one_line

SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif'


def inline(drawing: Drawing, title: str) -> Markup:
    """An <svg> for a page whose style says what each colour is, by classes `stroke-NAME` and `fill-NAME`."""
    body = Markup("\n").join(_shape(shape, in_page=True) for shape in drawing.shapes)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">\n{}\n</svg>').format(
        _number(drawing.width), _number(drawing.height), one_line(title), body
    )


def standalone(drawing: Drawing, title: str) -> str:
    """The text of an SVG file, on white paper."""
    width, height = _number(drawing.width), _number(drawing.height)
    body = Markup("\n").join(_shape(shape, in_page=False) for shape in drawing.shapes)
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" font-family="{2}" '
            'font-size="{3}">\n<title>{4}</title>\n<rect width="{0}" height="{1}" fill="#ffffff"/>\n{5}\n</svg>\n'
        ).format(width, height, SANS, FONT, one_line(title), body)
    )


def _ink(kind: str, colour: str, in_page: bool) -> Markup:
    """`class="stroke-blue"` in a page, `stroke="#0072b2"` in a file."""
    if in_page:
        return Markup('class="{}-{}"').format(kind, colour)
    return Markup('{}="{}"').format(kind, COLOURS[colour][0])


def _shape(shape: Shape, in_page: bool) -> Markup:
    match shape:
        case Path():
            return _path(shape, in_page)
        case Dot():
            return _mark(shape, in_page)
        case Box():
            place = _attributes(x=shape.x, y=shape.y, width=shape.width, height=shape.height)
            hint = Markup("<title>{}</title>").format(one_line(shape.hint)) if shape.hint else Markup("")
            return Markup('<rect {} {} rx="2">{}</rect>').format(place, _ink("fill", shape.colour, in_page), hint)
        case Label():
            ink = Markup("") if in_page else Markup(" ") + _ink("fill", "quiet", in_page)
            place = _attributes(x=shape.x, y=shape.y)
            text = one_line(shape.text)
            return Markup('<text {} text-anchor="{}"{}>{}</text>').format(place, shape.anchor, ink, text)
        case Picture():
            place = _attributes(x=shape.x, y=shape.y, width=shape.width, height=shape.height)
            style = Markup(' image-rendering="pixelated"') if shape.pixelated else Markup("")
            content = base64.b64encode(shape.png).decode()
            return Markup(
                '<image {} preserveAspectRatio="none"{} href="data:image/png;base64,{}"/>'
            ).format(place, style, content)  # fmt: skip


def _path(path: Path, in_page: bool) -> Markup:
    dash = Markup(' stroke-dasharray="{}"').format(" ".join(map(_number, path.dash))) if path.dash else Markup("")
    ink = _ink("stroke", path.colour, in_page)
    if path.fill:
        # The inside is a shape of its own: a page's classes say either stroke or fill.
        inside = Markup('<polygon points="{}" {} fill-opacity="{}"/>\n').format(
            _points(path.points), _ink("fill", path.colour, in_page), path.fill
        )
    else:
        inside = Markup("")
    line = Markup('<polyline points="{}" fill="none" {} stroke-width="{}"{}/>')
    return inside + line.format(_points(path.points), ink, _number(path.width), dash)


def _mark(mark: Dot, in_page: bool) -> Markup:
    ink = _ink("stroke" if mark.hollow else "fill", mark.colour, in_page)
    style = Markup(' fill="none" stroke-width="1.8"') if mark.hollow else Markup("")
    if mark.shape == "circle":
        return Markup("<circle {} {}{}/>").format(_attributes(cx=mark.x, cy=mark.y, r=mark.size), ink, style)
    return Markup('<polygon points="{}" {}{}/>').format(_points(mark.corners), ink, style)


def _attributes(**values: float) -> Markup:
    return Markup(" ").join(Markup('{}="{}"').format(name, _number(value)) for name, value in values.items())


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    return f"{round(value, 2):g}"
