"""Reference images that select the style, for models that accept them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from animegen.errors import AnimegenError
from animegen.files import regular_file, user_path
from animegen.media.images import list_images, read_image, to_float
from animegen.tasks.protocols import Styled


def style_files(value: Any) -> list[Path]:
    """Return the stills that ``style=`` names: an image, a folder of images, or a list of both.

    Raises:
        AnimegenError: if one does not exist.
    """
    files: list[Path] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        path = user_path("style", str(item))
        files += list_images(path) if path.is_dir() else [path]
    for file in files:
        regular_file(file)
    if not files:
        raise AnimegenError("style= names no image: give one, a folder, or a list such as [a.jpg,b.jpg].")
    return files


@torch.inference_mode()
def encoded_style(model: Any, files: Sequence[Path], weights: Sequence[float] | None) -> Any:
    """Let a model encode the look of stills; its ``stylize`` takes the result as ``style``.

    Args:
        model: any model that stylises.
        files: the stills.
        weights: weight of each; ``None``: equal weights.

    Raises:
        AnimegenError: if the model takes no stills, or there are not as many weights as stills.
    """
    if not isinstance(model, Styled):
        raise AnimegenError(
            f"{type(model).__name__} has only the style that it was trained on, and takes no stills: leave out style=,"
            " or use a model such as temporal."
        )
    if weights is not None and len(weights) != len(files):
        raise AnimegenError(
            f"style_weights has {len(weights)} numbers for {len(files)} stills: give one for each, in the order of"
            " style=."
        )
    return model.encode_style([to_float(read_image(file)) for file in files], weights)
