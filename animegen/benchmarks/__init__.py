"""Task benchmarks: models are scored together with the trivial baselines of their task."""
