"""Training of White-box cartoonization: separate losses for surface, structure and texture."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.nn.colour import apply_colour_map
from animegen.nn.filters import guided_filter, l0_smooth
from animegen.tasks.adversarial import MakeImages, joint_logits
from animegen.tasks.stylize import StyliseModule

_SURFACE_RADIUS, _SURFACE_EPS = 5, 0.2
_GRAY = (0.299, 0.587, 0.114)


class WhiteBox(StyliseModule):
    """White-box cartoonization (Wang and Yu, CVPR 2020).

    Three representations of an image: its *surface* (smoothed by a guided filter) and its *texture* (a random
    grayscale conversion) have a discriminator each; its *structure* (flat regions) is the target of the image itself in
    a feature loss.

    Phase 0, for ``pretrain_steps``: the generator learns to reproduce the photo. Phase 1: per step one update of each
    discriminator, then one of the generator, all with the same generated images.

    Context entries that loss terms may read (all images in [-1,1]):

    =====================  ===============================================================
    ``photo``, ``anime``   the batch
    ``fake``               generator(photo)
    ``fake_regions``       ``fake`` made piecewise constant, without gradient
    ``surface_logits``     surface discriminator on smoothed ``fake`` (generator only)
    ``texture_logits``     texture discriminator on grayscale ``fake`` (generator only)
    ``real_logits``        either discriminator on anime, smoothed or grayscale
    ``fake_logits``        either discriminator on ``fake``, smoothed or grayscale
    =====================  ===============================================================

    The weights of the grayscale conversion are random in each step, within ``gray_spread`` of those of luma, and the
    same for real and generated images. Regions are made by L0 smoothing on the device; the released code uses
    superpixels on the CPU.

    Args:
        generator: maps photos to anime.
        discriminator_surface: discriminator of surfaces.
        discriminator_texture: discriminator of textures.
        pretrain_steps: length of phase 0 in train steps.
        gray_spread: largest change of a grayscale weight, 0.1 as published.
        region_strength: strength of L0 smoothing, see :func:`~animegen.nn.filters.l0_smooth`.
        **settings: see :class:`~animegen.engine.module.AnimeModule`.
    """

    trains = {"pretrain": "generator"}  # noqa: RUF012 - read-only by contract

    def __init__(
        self,
        generator: nn.Module,
        discriminator_surface: nn.Module,
        discriminator_texture: nn.Module,
        pretrain_steps: int = 0,
        gray_spread: float = 0.1,
        region_strength: float = 0.02,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.generator = generator
        self.discriminator_surface = discriminator_surface
        self.discriminator_texture = discriminator_texture
        self.pretrain_steps = pretrain_steps
        self.gray_spread, self.region_strength = gray_spread, region_strength

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the pre-training update, or both discriminators and the generator."""
        photo, anime = batch["photo"], batch["anime"]
        fake = self.generator(photo)
        shared = {"photo": photo, "anime": anime, "fake": fake}
        if self.train_step < self.pretrain_steps:
            yield "pretrain", self.objectives["pretrain"](**shared)
            return
        weights = random_gray_weights(self.gray_spread)
        for name, network, representation in (
            ("discriminator_surface", self.discriminator_surface, surface),
            ("discriminator_texture", self.discriminator_texture, functools.partial(texture, weights=weights)),
        ):
            images: dict[str, MakeImages] = {
                "real_logits": functools.partial(representation, anime),
                "fake_logits": functools.partial(representation, fake.detach()),
            }
            objective = self.objectives[name]
            yield name, objective(**joint_logits(objective, network, images))
        yield (
            "generator",
            self.objectives["generator"](
                **shared,
                fake_regions=lambda: l0_smooth(fake, self.region_strength),
                surface_logits=lambda: self.discriminator_surface(surface(fake)),
                texture_logits=lambda: self.discriminator_texture(texture(fake, weights)),
            ),
        )


def surface(images: Tensor) -> Tensor:
    """Remove the texture of images (B,3,H,W) in [-1,1] by a self-guided filter, radius 5, epsilon 0.2 as published."""
    return guided_filter(images, images, _SURFACE_RADIUS, _SURFACE_EPS)


def random_gray_weights(spread: float) -> Tensor:
    """Return random weights (3,) of red, green and blue within ``spread`` of those of luma; their sum is 1."""
    weights = torch.tensor(_GRAY) + spread * (2 * torch.rand(3) - 1)
    return weights / weights.sum()


def texture(images: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of the channels of images (B,3,H,W) in three equal channels."""
    return apply_colour_map(images, weights[None]).expand(-1, 3, -1, -1)
