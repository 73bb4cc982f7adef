"""Measures of pictures and of sets of pictures, trivial baselines, and the benchmarks that put them in one table."""
