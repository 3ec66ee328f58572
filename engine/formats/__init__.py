"""Adapter files and the texts beside them: what other programs read, byte for byte. Knows no trainer and no models."""
