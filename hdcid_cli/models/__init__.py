"""Encoders, quantizers, losses, and the model that puts them together."""
