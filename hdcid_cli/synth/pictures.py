"""A clip's plan to frames and masks, drawn as signed distances on the grid of pixels.

Coordinates: x to the right and y down, both -1..1 over the picture. A thing of size
s at (cx, cy), turned by an angle, has its own coordinates u, v, about -1..1 over it.
A look is a function (u, v, beat) -> (inside, paint): `inside` is positive within the
outline, in units of u; `paint` 0..1 mixes the thing's two colours. `beat` counts the
event's beats, which have the same tempo in picture and sound. A sway is a function
beat -> (dx, dy, turn, grow): how the thing moves about its path. All arrays are
[frames, height, width] in float32, or [frames, 1, 1] where they are the same for the
whole picture.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hdcid_cli.synth.classes import KINDS
from hdcid_cli.synth.world import PICTURE, PlannedClip, PlannedEvent

TURN = 0.4  # radians that a thing may lean
LIGHT = (0.5, 1.0)  # brightness of light paint
DARK = (0.25, 0.5)  # of dark paint, relative to it
TINT = 0.3  # how far a colour is from grey
BASE = (0.02, 0.15)  # brightness of the background
WAVES = (0.0, 0.03)  # of the waves in it
CLUTTER = (0, 4)  # bars that belong to no class
BARS = (0.05, 0.25)  # their brightness above the background
GRAIN = (0.0, 0.03)  # deviation of the noise
EXTENT = 1.45  # no look reaches further from its middle

Array = np.ndarray


def _square(x: Array) -> Array:
    """A wave between 0 and 1 with period 1 and steep flanks."""
    return np.clip(0.5 - 2 * np.cos(2 * np.pi * x), 0, 1)


def _box(u: Array, v: Array, width: float, height: float) -> Array:
    return np.minimum(width - np.abs(u), height - np.abs(v))


def _bell(u, v, beat):
    body = np.minimum(0.35 + 0.45 * np.maximum(v, 0) ** 2 + 0.1 * v - np.abs(u), np.minimum(v + 0.8, 0.6 - v))
    clapper = 0.2 - np.hypot(u - 0.2 * np.sin(2 * np.pi * beat), v - 0.75)
    return np.maximum(body, clapper), np.broadcast_to(_square(1.5 * v + 0.2), u.shape)


def _rotor(u, v, beat):
    angle = np.arctan2(v, u) + 2 * np.pi * beat * 2.3
    radius = np.hypot(u, v)
    blade = np.minimum(0.95 - radius, (np.cos(3 * angle) - 0.55) * radius)
    return np.maximum(blade, 0.2 - radius), np.clip(1.2 - radius, 0, 1)


def _siren(u, v, beat):
    radius = np.hypot(u, v)
    lamp = np.minimum(0.8 - radius, 0.35 - v)
    foot = _box(u, v - 0.5, 0.9, 0.15)
    flash = _square(beat) * np.exp(-2 * radius**2)
    return np.maximum(lamp, foot), np.where(v > 0.35, 0, np.clip(flash + 0.25, 0, 1))


def _drum(u, v, beat):
    return _box(u, v, 0.8, 0.65), np.broadcast_to(_square(u * 2.5), u.shape)


def _bird(u, v, beat):
    flap = 0.9 * np.sin(2 * np.pi * beat * 2)
    wing = 0.2 - np.abs(v + 0.1 - flap * np.abs(u) * 0.7 + 0.25) * (0.6 + np.abs(u))
    wing = np.minimum(wing, 0.95 - np.abs(u))
    body = 0.28 - np.hypot(u, (v - 0.1) * 0.6)
    return np.maximum(wing, body), np.clip(1 - 2 * np.abs(u), 0, 1)


def _engine(u, v, beat):
    radius = np.hypot(u, v)
    teeth = 0.72 + 0.16 * np.sign(np.cos(8 * np.arctan2(v, u)))
    checks = _square(u * 1.6 + 0.25) * _square(v * 1.6 + 0.25) + (1 - _square(u * 1.6 + 0.25)) * (
        1 - _square(v * 1.6 + 0.25)
    )
    return teeth - radius, checks


def _rain(u, v, beat):
    column = np.floor(u * 3.5)
    fall = (v * 0.9 - beat * 1.5 + 0.37 * column) % 1
    drop = np.minimum(0.09 - np.abs((u * 3.5) % 1 - 0.5) / 3.5, (0.3 - np.abs(fall - 0.5)) * 0.5)
    return np.minimum(drop, 0.95 - np.maximum(np.abs(u), np.abs(v))), fall


def _flute(u, v, beat):
    holes = np.hypot(((u * 3) % 1 - 0.5) / 3, v)
    return _box(u, v, 1.25, 0.2), np.clip((holes - 0.08) * 20, 0, 1)


def _clock(u, v, beat):
    radius = np.hypot(u, v)
    ring = 0.13 - np.abs(radius - 0.75)
    angle = 2 * np.pi * np.floor(beat * 2) / 8
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    hand = np.minimum(0.09 - np.abs(across), np.minimum(along + 0.1, 0.65 - along))
    return np.maximum(ring, hand), np.clip(1.4 - radius, 0, 1)


def _phone(u, v, beat):
    dots = np.hypot((u + v) * 1.6 % 1 - 0.5, (u - v) * 1.6 % 1 - 0.5)
    return 0.95 - np.abs(u) - np.abs(v), np.clip((0.3 - dots) * 8 + 0.5, 0, 1)


def _saw(u, v, beat):
    teeth = 0.3 * np.abs(((u * 2 + beat * 2) % 1) * 2 - 1)
    return np.minimum(0.2 + teeth - np.abs(v), 1.1 - np.abs(u)), np.broadcast_to(_square((u - v) * 2), u.shape)


def _fire(u, v, beat):
    edge = 0.75 * np.clip(0.8 - v, 0, None) ** 0.3 * np.clip(v + 0.95, 0, None) * 0.55
    lick = 0.16 * np.sin(5 * v + 2 * np.pi * beat * 3) + 0.1 * np.sin(9 * v - 2 * np.pi * beat * 5)
    return np.minimum(edge - np.abs(u + lick), 0.8 - v), np.clip(0.5 + v - 1.5 * np.abs(u + lick), 0, 1)


def _still(beat):
    return 0, 0, 0, 0


def _swing(beat):
    return 0.1 * np.sin(2 * np.pi * beat), 0, 0.5 * np.sin(2 * np.pi * beat), 0


def _pulse(beat):
    return 0, 0, 0, 0.25 * np.exp(-4 * (beat * 2 % 1))


def _flutter(beat):
    return (
        0.08 * np.sin(2 * np.pi * beat * 0.7),
        0.1 * np.sin(2 * np.pi * beat * 1.3),
        0.2 * np.sin(2 * np.pi * beat * 0.4),
        0,
    )


def _shake(beat):
    return 0.04 * np.sin(2 * np.pi * beat * 3.1), 0.04 * np.sin(2 * np.pi * beat * 3.7), 0, 0


def _glide(beat):
    return (
        0.2 * np.sin(2 * np.pi * beat * 0.3),
        0.05 * np.sin(2 * np.pi * beat * 0.5),
        0.15 * np.sin(2 * np.pi * beat * 0.5),
        0,
    )


def _jitter(beat):
    on = (beat % 1) < 0.6
    return 0.07 * on * np.sin(2 * np.pi * beat * 4.3), 0, 0.2 * on * np.sin(2 * np.pi * beat * 4.3), 0


def _cut(beat):
    return 0.12 * np.sin(2 * np.pi * beat * 0.9), 0, 0, 0


class Appearance(NamedTuple):
    draw: Callable
    sway: Callable


LOOKS = {
    "bell": Appearance(_bell, _swing),
    "rotor": Appearance(_rotor, _still),
    "siren": Appearance(_siren, _still),
    "drum": Appearance(_drum, _pulse),
    "bird": Appearance(_bird, _flutter),
    "engine": Appearance(_engine, _shake),
    "rain": Appearance(_rain, _still),
    "flute": Appearance(_flute, _glide),
    "clock": Appearance(_clock, _still),
    "phone": Appearance(_phone, _jitter),
    "saw": Appearance(_saw, _cut),
    "fire": Appearance(_fire, _still),
}


def frames(clip: PlannedClip, rate: float, size: int) -> tuple[Array, Array]:
    """Draw a clip at `rate` frames a second.

    Returns:
        pictures [frames, size, size, 3] uint8 RGB, and the primary event's visible
        pixels [frames, size, size] bool.
    """
    random = clip.random(PICTURE)
    times = ((np.arange(round(clip.seconds * rate)) + 0.5) / rate).astype(np.float32)[:, None, None]
    pictures = _background(random, times, size)
    truth = np.zeros(pictures.shape[:3], bool)
    for event in reversed([event for event in clip.events if event.seen]):
        shown = slice(round(event.onset * rate), round(event.offset * rate))
        rows, columns, cover, colour = _thing(random, event, times[shown], size)
        _paint(pictures[shown, rows, columns], cover, colour)
        if event is clip.events[0]:  # the last one drawn, in front of the others
            truth[shown, rows, columns] = cover >= 0.5
    pictures += (random.uniform(*GRAIN) * random.standard_normal(pictures.shape[:3], dtype=np.float32))[..., None]
    return (np.clip(pictures, 0, 1) * 255 + 0.5).astype(np.uint8), truth


def _background(random, times: Array, size: int) -> Array:
    """Slow waves of colour that drift, and clutter: bars and spots that belong to no class."""
    base = random.uniform(*BASE) * random.uniform(1 - TINT, 1 + TINT, 3)
    x, y = _axes(size)
    light = np.zeros((len(times), size, size), np.float32)
    for _ in range(4):
        fx, fy, drift, phase = (
            random.normal(0, 1.5),
            random.normal(0, 1.5),
            random.uniform(-0.4, 0.4),
            random.uniform(0, 6.3),
        )
        light += random.uniform(*WAVES) * np.sin(fx * x + fy * y + (drift * times + phase))
    pictures = light[..., None] + base.astype(np.float32)
    for _ in range(random.integers(*CLUTTER, endpoint=True)):
        cx, cy = (random.uniform(-1, 1) + random.uniform(-0.1, 0.1) * times for _ in range(2))
        length, width = random.uniform(0.05, 0.5), random.uniform(0.03, 0.1)
        angle = np.full_like(times, random.uniform(0, np.pi))
        rows, columns, u, v = _own_coordinates(size, cx, cy, angle, 1.0, length + width)
        colour = np.clip(base + random.uniform(*BARS) * random.uniform(1 - TINT, 1 + TINT, 3), 0, 1)
        _paint(pictures[:, rows, columns], _cover(_box(u, v, length, width), size), colour.astype(np.float32))
    return pictures


def _thing(random, event: PlannedEvent, times: Array, size: int) -> tuple[slice, slice, Array, Array]:
    """One event's window of the picture: rows, columns, cover [frames, h, w] and colour [frames, h, w, 3] in it."""
    look = LOOKS[KINDS[event.kind].name]
    beat = times * event.rate + random.uniform()
    dx, dy, turn, grow = look.sway(beat)
    scale = event.size * (1 + grow)
    since = times - times[0]
    cx = event.place[0] + random.uniform(-0.03, 0.03) * since + dx
    cy = event.place[1] + random.uniform(-0.05, 0.05) * since + dy
    angle = random.uniform(-TURN, TURN) + turn + np.zeros_like(times)
    rows, columns, u, v = _own_coordinates(size, cx, cy, angle, scale, EXTENT * np.max(scale))
    inside, paint = look.draw(u, v, beat)
    dark, light = _colours(random, event.strength)
    return rows, columns, _cover(inside * scale, size), dark + paint[..., None] * (light - dark)


def _axes(size: int) -> tuple[Array, Array]:
    """Coordinates of the pixels' middles: x [1, 1, size] and y [1, size, 1]."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    return axis[None, None, :], axis[None, :, None]


def _own_coordinates(
    size: int, cx: Array, cy: Array, angle: Array, scale, extent: float
) -> tuple[slice, slice, Array, Array]:
    """The window of the picture that a thing may reach (`extent` from its middle), and u, v in it."""
    x, y = _axes(size)
    columns, rows = (
        slice(
            *np.clip(
                [(middle.min() - extent + 1) / 2 * size, (middle.max() + extent + 1) / 2 * size + 1], 0, size
            ).astype(int)
        )
        for middle in (cx, cy)
    )
    x, y = x[:, :, columns] - cx, y[:, rows] - cy
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    return rows, columns, x * cos + y * sin, y * cos - x * sin


def _paint(window: Array, cover: Array, colour: Array) -> None:
    """Lay a colour over a window of the pictures, in place."""
    window += cover[..., None] * (colour - window)


def _colours(random, strength: float) -> tuple[Array, Array]:
    """The two colours [3] of a thing: dark paint and light paint."""
    light = strength * random.uniform(*LIGHT)
    grey = np.array([[light * random.uniform(*DARK)], [light]])
    return tuple(np.clip(grey * random.uniform(1 - TINT, 1 + TINT, (2, 3)), 0, 1).astype(np.float32))


def _cover(inside: Array, size: int) -> Array:
    """Signed distance to a share of each pixel, with an edge about a pixel wide."""
    return np.clip(inside * (size / 2) + 0.5, 0, 1)
