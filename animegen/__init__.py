"""animegen: train, compare, ablate and apply neural networks for anime images and video."""

from typing import Any

__version__ = "0.2.0"

__all__ = ["AnimegenError", "LightningAdapter", "__version__", "load_model"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that ``import animegen`` stays light."""
    if name == "load_model":
        from animegen.engine.checkpoint import load_model

        return load_model
    if name == "LightningAdapter":
        from animegen.engine.lightning import LightningAdapter

        return LightningAdapter
    if name == "AnimegenError":
        from animegen.errors import AnimegenError

        return AnimegenError
    raise AttributeError(f"module 'animegen' has no attribute '{name}'")
