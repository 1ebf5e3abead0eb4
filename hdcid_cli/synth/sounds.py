"""A clip's plan to its sound track.

A voice is a function (random, time, beat) -> wave: `time` [samples] in seconds from
the event's start, `beat` [samples] counts the event's beats, which have the same
tempo in picture and sound. Pitch, loudness and colour differ from event to event.
"""

from collections.abc import Callable

import numpy as np

from hdcid_cli.synth.classes import KINDS
from hdcid_cli.synth.world import SOUND, PlannedClip

SAMPLE_RATE = 16000
# Decibels.
EVENT_LEVEL = (-8, 3)
NOISE_LEVEL = (-22, -8)
BLIP_LEVEL = (-16, -4)
BLIPS = (2, 6)  # how many sounds that belong to no class

Array = np.ndarray


def _sine(frequency: float | Array, time: Array) -> Array:
    """A sine of constant or changing frequency (Hz)."""
    if np.ndim(frequency) == 0:
        return np.sin(2 * np.pi * frequency * time)
    return np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)


def _buzz(frequency: float | Array, time: Array, harmonics: int, tilt: float) -> Array:
    """Harmonics 1..n whose amplitudes fall as n^-tilt."""
    phase = 2 * np.pi * (np.cumsum(frequency) / SAMPLE_RATE if np.ndim(frequency) else frequency * time)
    return sum(np.sin(n * phase) / n**tilt for n in range(1, harmonics + 1))


def _noise(random, count: int, low: float, high: float) -> Array:
    """White noise between two frequencies (Hz), with soft edges, of RMS 1."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / SAMPLE_RATE) + 1e-3
    spectrum *= 1 / np.sqrt((1 + (low / frequency) ** 6) * (1 + (frequency / high) ** 6))
    return _unit(np.fft.irfft(spectrum, count))


def _strike(beat: Array, decay: float) -> Array:
    """1 at every whole beat, decaying (per beat) until the next."""
    return np.exp(-decay * (beat % 1))


def _unit(wave: Array) -> Array:
    return wave / np.sqrt(np.mean(wave**2) + 1e-12)


def _bell(random, time, beat):
    pitch = random.uniform(400, 700)
    partials = ((1, 1.0, 2), (2.0, 0.6, 3), (2.4, 0.5, 4), (3.0, 0.4, 4), (4.5, 0.3, 6))
    return sum(share * _sine(pitch * ratio, time) * _strike(beat, decay) for ratio, share, decay in partials)


def _rotor(random, time, beat):
    return _noise(random, len(time), 60, random.uniform(500, 900)) * _strike(beat * 8, 3)


def _siren(random, time, beat):
    middle = random.uniform(800, 1200)
    return _buzz(middle * 2 ** (0.6 * np.sin(np.pi * beat)), time, 3, 1.2)


def _drum(random, time, beat):
    since = beat * 2 % 1
    pitch = random.uniform(80, 130) * (1 + np.exp(-12 * since))
    return _sine(pitch, time) * np.exp(-5 * since) + 0.3 * _noise(random, len(time), 200, 1500) * np.exp(-25 * since)


def _bird(random, time, beat):
    since = beat * 5 % 1
    pitch = random.uniform(2600, 3600) * (1 + 0.4 * since)
    return _sine(pitch, time) * np.sin(np.pi * since) ** 2 * (beat % 1 < 0.65)


def _engine(random, time, beat):
    pitch = random.uniform(70, 110) * (1 + 0.08 * np.sin(2 * np.pi * beat * 0.5))
    return _buzz(pitch, time, 14, 0.8) + 0.3 * _noise(random, len(time), 50, 800)


def _rain(random, time, beat):
    return _noise(random, len(time), random.uniform(1500, 2500), 7500) * (1 + 0.2 * np.sin(2 * np.pi * beat * 0.6))


def _flute(random, time, beat):
    steps = random.choice([0, 2, 4, 7, 9], size=64)
    note = random.uniform(500, 750) * 2 ** (steps[np.floor(beat).astype(int) % 64] / 12)
    return _buzz(note * (1 + 0.012 * np.sin(2 * np.pi * 5.5 * time)), time, 3, 2.2) + 0.06 * _noise(
        random, len(time), 800, 4000
    )


def _clock(random, time, beat):
    tone = np.where(np.floor(beat * 2) % 2 == 0, random.uniform(1800, 2400), random.uniform(2800, 3400))
    return (_sine(tone, time) + _noise(random, len(time), 1000, 6000)) * np.exp(-40 * (beat * 2 % 1))


def _phone(random, time, beat):
    low = random.uniform(1100, 1500)
    return (_sine(low, time) + _sine(1.33 * low, time)) * (0.5 + 0.5 * np.sign(_sine(22, time))) * (beat % 1 < 0.6)


def _saw(random, time, beat):
    revs = random.uniform(150, 220) * (1 + 0.25 * np.sin(2 * np.pi * beat * 0.9))
    return _buzz(revs, time, 20, 0.4) + 1.5 * _noise(random, len(time), 2500, 5000)


def _fire(random, time, beat):
    sparks = (random.random(len(time)) < 25 / SAMPLE_RATE) * random.exponential(1, len(time))
    crack = np.exp(-np.arange(400) / 60) * _noise(random, 400, 800, 6000)
    return 6 * np.convolve(sparks, crack)[: len(time)] + 0.35 * _noise(random, len(time), 30, 250)


VOICES: dict[str, Callable] = {
    "bell": _bell,
    "rotor": _rotor,
    "siren": _siren,
    "drum": _drum,
    "bird": _bird,
    "engine": _engine,
    "rain": _rain,
    "flute": _flute,
    "clock": _clock,
    "phone": _phone,
    "saw": _saw,
    "fire": _fire,
}


def track(clip: PlannedClip) -> Array:
    """A clip's sound: [seconds * SAMPLE_RATE] float32 in -1..1."""
    random = clip.random(SOUND)
    count = clip.seconds * SAMPLE_RATE
    wave = _level(random, NOISE_LEVEL) * _hum(random, count)
    _add_blips(random, wave)
    for event in clip.events:
        if event.heard:
            start, stop = event.onset * SAMPLE_RATE, event.offset * SAMPLE_RATE
            time = np.arange(stop - start) / SAMPLE_RATE
            voice = VOICES[KINDS[event.kind].name](random, time, time * event.rate + random.uniform())
            wave[start:stop] += event.strength**2 * _level(random, EVENT_LEVEL) * _faded(_unit(voice))
    wave *= 0.16 * 10 ** (random.uniform(-4, 4) / 20)
    return np.tanh(wave).astype(np.float32)


def _level(random, decibels: tuple[float, float]) -> float:
    return 10 ** (random.uniform(*decibels) / 20)


def _hum(random, count: int) -> Array:
    """Background noise whose spectrum falls by a random slope, of RMS 1."""
    spectrum = np.fft.rfft(random.standard_normal(count))
    spectrum *= (np.arange(len(spectrum)) + 20.0) ** -random.uniform(0, 0.8)
    return _unit(np.fft.irfft(spectrum, count))


def _add_blips(random, wave: Array) -> None:
    """Short tones and puffs of noise that belong to no class."""
    for _ in range(random.integers(*BLIPS, endpoint=True)):
        count = int(random.uniform(0.1, 0.6) * SAMPLE_RATE)
        start = int(random.integers(0, len(wave) - count))
        pitch = float(np.exp(random.uniform(np.log(150), np.log(5000))))
        blip = (
            _sine(pitch, np.arange(count) / SAMPLE_RATE)
            if random.random() < 0.5
            else _noise(random, count, pitch, 1.5 * pitch)
        )
        wave[start : start + count] += _level(random, BLIP_LEVEL) * _unit(blip * np.hanning(count))


def _faded(wave: Array) -> Array:
    """Ten milliseconds in and out, so that an event's edges do not click."""
    ramp = np.linspace(0, 1, SAMPLE_RATE // 100)
    wave = wave.copy()
    wave[: len(ramp)] *= ramp
    wave[-len(ramp) :] *= ramp[::-1]
    return wave
