"""Configuration: composition with Hydra, instantiation, ablations, error messages."""
