"""Task benchmarks: each model is scored beside the trivial baselines of its task."""
