"""Metrics on tensors: images, pairs of images, sets of images, and clips."""
