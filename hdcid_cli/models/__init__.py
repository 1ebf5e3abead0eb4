"""Quantizers, encoders and decoders, and the model that puts them together."""
