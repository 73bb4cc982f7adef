"""Tiled inference that equals inference on the whole image."""
