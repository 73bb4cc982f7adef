"""Base module of the task *stylise*: application, previews and validation of image stylization models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.engine.module import AnimeModule
from animegen.errors import AnimegenError
from animegen.metrics.image import edge_f_score, flatness, psnr, ssim


class StyliseModule(AnimeModule):
    """A model of the task *stylise*: its network ``generator`` maps photos to anime images, both in [-1,1].

    A subclass sets ``self.generator`` and defines ``updates``. This class implements
    :class:`~animegen.tasks.protocols.Stylizer`, previews and validation.

    Optional attributes of the generator:

    - ``size_divisor``: height and width of its input must be multiples of this number (1).
    - ``tileable``: whether large images can be processed in tiles (``True``).
    - ``exported``: names of its submodules and parameters that exported files need (all).
    - ``optimises_images``: whether it computes gradients in application, and so cannot be exported (``False``).
    """

    generator: nn.Module

    @property
    def size_divisor(self) -> int:
        """Height and width of the generator's input must be multiples of this number."""
        return getattr(self.generator, "size_divisor", 1)

    @property
    def tileable(self) -> bool:
        """Whether large images can be processed in tiles; ``False`` for a generator with global attention."""
        return getattr(self.generator, "tileable", True)

    def stylize(self, frames: Tensor, state: Any = None, style: Tensor | None = None) -> tuple[Tensor, Any]:
        """Stylise images of any size.

        Args:
            frames: ``(B,3,H,W)`` in [-1,1].
            state: returned unchanged, since these models have no memory.
            style: ignored; see models with a style input.

        Returns:
            images of the same shape and range, and the state.
        """
        return pad_and_crop(self.generator, frames, self.size_divisor).clamp(-1, 1), state

    def exported_weights(self) -> list[str]:
        """Return the names of all modules and parameters that :meth:`stylize` of a single image reads.

        Raises:
            AnimegenError: if the model cannot be exported.
        """
        if getattr(self.generator, "optimises_images", False):
            raise AnimegenError(
                f"{type(self).__name__} cannot be exported, since it computes gradients for each image: apply it with"
                " animegen stylize."
            )
        names = getattr(self.generator, "exported", None)
        return ["generator"] if names is None else [f"generator.{name}" for name in names]

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the output for each photo of a batch independently, (B,3,H,W) in [-1,1]."""
        return self.stylize(batch["photo"])[0]

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return photo, output, and the ground truth if the batch has one."""
        images = {"photo": batch["photo"], "output": self.predict(batch)}
        return {**images, "truth": batch["anime"]} if "anime" in batch else images

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return scores of the output against the ground truth; none if the batch has no ground truth."""
        if "photo" not in batch or "anime" not in batch:
            return {}
        output, truth = self.predict(batch).float(), batch["anime"].float()
        # SSIM subtracts nearly equal numbers, which half precision cannot represent.
        with torch.autocast(output.device.type, enabled=False):
            return {
                "psnr": psnr(output, truth),
                "ssim": ssim(output, truth),
                "edge_f": edge_f_score(output, truth),
                "flatness_gap": (flatness(output) - flatness(truth)).abs(),
            }


def padding(height: int, width: int, divisor: int) -> tuple[int, int, str]:
    """Return how to pad an image for a network that needs sides divisible by ``divisor``, and at least twice it.

    Returns:
        pixels on the right, pixels at the bottom, and the mode of ``F.pad``: ``reflect``, or ``replicate`` for images
        that are too small to reflect.
    """
    right, bottom = (max(-side % divisor, 2 * divisor - side) if divisor > 1 else 0 for side in (width, height))
    return right, bottom, "reflect" if right < width and bottom < height else "replicate"


def pad_and_crop(network: Callable[[Tensor], Tensor], images: Tensor, divisor: int) -> Tensor:
    """Run a network on images of any size: pad them (:func:`padding`), and crop the output. Nothing is scaled."""
    height, width = images.shape[-2:]
    right, bottom, mode = padding(height, width, divisor)
    if right == 0 and bottom == 0:
        return network(images)
    return network(F.pad(images, (0, right, 0, bottom), mode=mode))[..., :height, :width]


def split_batches(images: dict[str, Tensor]) -> tuple[Tensor, dict[str, slice]]:
    """Concatenate named batches for one forward pass; return the result and the slice of each name."""
    slices, start = {}, 0
    for name, value in images.items():
        slices[name] = slice(start, start + len(value))
        start += len(value)
    return torch.cat(list(images.values())), slices
