"""Decoding with PyAV: frames of video by the second, sound at 16 kHz, and lists of clips."""
