"""What the models of one task have in common: how they are applied, shown and validated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.engine.module import AnimeModule
from animegen.metrics.image import edge_f_score, flatness, psnr, ssim


class StyliseModule(AnimeModule):
    """A model of the task *stylise*: its network ``generator`` maps photo to anime, both in [-1,1].

    A subclass sets ``self.generator`` and writes ``updates``; this class makes it a
    :class:`~animegen.tasks.protocols.Stylizer` and gives it previews and validation.
    """

    generator: nn.Module

    @property
    def factor(self) -> int:
        """By what the sides of the generator's input must be divisible."""
        return getattr(self.generator, "factor", 1)

    @property
    def tileable(self) -> bool:
        """Whether large pictures may be tried in tiles; a generator that attends to the whole picture says no."""
        return getattr(self.generator, "tileable", True)

    def stylize(self, frames: Tensor, state: Any = None, style: Tensor | None = None) -> tuple[Tensor, Any]:
        """Stylise pictures of any size.

        Args:
            frames: ``(B,3,H,W)`` in [-1,1].
            state: what the last call returned; these models have no memory and return it unchanged.
            style: reference stills, for models that take any; ignored here.

        Returns:
            Pictures of the same shape and range, and the state.
        """
        return pad_and_crop(self.generator, frames, self.factor).clamp(-1, 1), state

    def drawn(self, batch: dict[str, Tensor]) -> Tensor:
        """Return what the model makes of the photos of a batch, each by itself; (B,3,H,W) in [-1,1]."""
        return self.stylize(batch["photo"])[0]

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Show photo, output, and the truth where the data have one."""
        shown = {"photo": batch["photo"], "output": self.drawn(batch)}
        return {**shown, "truth": batch["anime"]} if "anime" in batch else shown

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Score the output against the truth; empty for data without one."""
        if "photo" not in batch or "anime" not in batch:
            return {}
        output, truth = self.drawn(batch).float(), batch["anime"].float()
        # SSIM subtracts almost equal numbers: in half precision it would be another number.
        with torch.autocast(output.device.type, enabled=False):
            return {
                "psnr": psnr(output, truth),
                "ssim": ssim(output, truth),
                "edge_f": edge_f_score(output, truth),
                "flatness_gap": (flatness(output) - flatness(truth)).abs(),
            }


def pad_and_crop(network: Callable[[Tensor], Tensor], images: Tensor, factor: int) -> Tensor:
    """Run a network that needs sides divisible by ``factor`` (and twice that long) on images of any size.

    The images are reflected at the right and bottom edge (repeated where they are too small to
    reflect), so nothing is scaled and the result has the size of the input.
    """
    height, width = images.shape[-2:]
    right, bottom = (max(-side % factor, 2 * factor - side) if factor > 1 else 0 for side in (width, height))
    if right == 0 and bottom == 0:
        return network(images)
    mode = "reflect" if right < width and bottom < height else "replicate"
    return network(F.pad(images, (0, right, 0, bottom), mode=mode))[..., :height, :width]


def split_batches(images: dict[str, Tensor]) -> tuple[Tensor, dict[str, slice]]:
    """Concatenate named batches for one forward pass; return them with the slice of each name."""
    slices, start = {}, 0
    for name, value in images.items():
        slices[name] = slice(start, start + len(value))
        start += len(value)
    return torch.cat(list(images.values())), slices
