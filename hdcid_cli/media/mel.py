"""Short-time spectra and the mel scale, as VGGish defines them (Hershey et al., ICASSP 2017)."""

import functools

import numpy as np


def frame_magnitudes(wave: np.ndarray, window: int, hop: int, fft: int) -> np.ndarray:
    """Magnitudes of the short-time Fourier transform, [frames, fft // 2 + 1], with a periodic Hann window.

    Only whole windows count: frames = 1 + (len(wave) - window) // hop.
    """
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi / window * np.arange(window))
    return np.abs(np.fft.rfft(frames * hann.astype(wave.dtype), fft))


@functools.cache
def mel_filterbank(bands: int, fft: int, rate: float, low: float, high: float) -> np.ndarray:
    """Weights [fft // 2 + 1, bands] of filters whose edges are triangles on the mel scale (not in Hz)."""
    spectrum = hertz_to_mel(np.linspace(0.0, rate / 2, fft // 2 + 1))[:, None]
    edges = np.linspace(hertz_to_mel(low), hertz_to_mel(high), bands + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0.0, np.minimum((spectrum - left) / (centre - left), (right - spectrum) / (right - centre)))
    weights[0] = 0.0  # the constant part of a wave is not sound
    return weights


def hertz_to_mel(frequency):
    """HTK's mel scale."""
    return 1127.0 * np.log1p(np.asarray(frequency) / 700.0)
