"""Many runs: studies, sweeps, repeated runs, and the processes that they start."""
