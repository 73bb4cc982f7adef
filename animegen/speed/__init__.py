"""Measurements behind ``animegen bench``."""
