"""Comparison of runs: tables, plots, image strips, pages."""
