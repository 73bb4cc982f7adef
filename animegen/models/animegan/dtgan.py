"""Training of AnimeGANv3, the double-tail generative adversarial network (DTGAN)."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.models.animegan.adversarial import smooth_of
from animegen.models.animegan.networks.v3 import AnimeGANv3DoubleTail
from animegen.nn.colour import gray
from animegen.nn.filters import l0_smooth, self_guided
from animegen.tasks.adversarial import MakeImages, joint_logits
from animegen.tasks.stylize import StyliseModule, pad_and_crop

#: Epsilon of the filter before L0 smoothing. It removes differences below about 8 of 255 levels, as the non-local means
#: of the released code do.
_DENOISE_EPS = 1e-3


class DTGAN(StyliseModule):
    """AnimeGANv3, the double-tail GAN.

    The generator has two tails on a shared encoder. The *support* tail is trained against a discriminator of grayscale
    images, with content and colour losses: it learns the style, with artefacts. Its outputs, smoothed, are the targets
    of the *main* tail, which is trained on them as on pairs, against a second discriminator. Only the main tail is
    applied.

    Phase 0, for ``pretrain_steps``: both tails learn to reproduce the photo. Phase 1: per step one update of the
    generator, then one of each discriminator on the images generated before that update, as in the released code.

    Context entries that loss terms may read (all images in [-1,1]):

    =====================  ======================================================================
    ``photo``, ``anime``   the batch
    ``support``            output of the support tail, after the self-guided filter
    ``main``               output of the main tail
    ``support_gray``       ``support`` in grayscale; likewise ``anime_gray``
    ``target``             target of the main tail: the unfiltered output of the support tail, smoothed
    ``support_regions``    ``support`` made piecewise constant; likewise ``photo_regions``
    ``support_logits``     support discriminator on ``support_gray`` (generator only)
    ``main_logits``        main discriminator on ``main`` (generator only)
    ``real_logits``        support discriminator on ``anime_gray``; main discriminator on ``target``
    ``fake_logits``        support discriminator on ``support_gray``; main discriminator on ``main``
    ``smooth_logits``      support discriminator on edge-smoothed anime in grayscale
    =====================  ======================================================================

    Two steps that the released code runs on the CPU have replacements on the device. Targets: a self-guided filter
    replaces non-local means before L0 smoothing. Regions: L0 smoothing replaces superpixels filled with their mean
    colour. Superpixel images of photos can instead be given as the batch entry ``regions``, aligned with ``photo``
    (:class:`animegen.data.views.View` with the streams ``{photo: ..., regions: ...}`` and ``{anime: ...}``).

    Args:
        generator: generator with both tails.
        discriminator_support: discriminator of grayscale images.
        discriminator_main: discriminator of images.
        pretrain_steps: length of phase 0 in train steps.
        target_strength: strength of L0 smoothing of the targets; 0.005 as published.
        region_strength: strength of L0 smoothing in place of superpixels; 0.02 as in the method's paper.
        salt: fraction of the pixels of edge-smoothed images that turn white before they reach the discriminator; 0.1
            for the published Shinkai style.
        **settings: see :class:`~animegen.engine.module.AnimeModule`.

    Source: Liu, Chen, Gao, IEICE Transactions E107.D(1), 2024, and the released code.
    """

    trains = {"pretrain": "generator"}  # noqa: RUF012 - read-only by contract

    generator: AnimeGANv3DoubleTail

    def __init__(
        self,
        generator: AnimeGANv3DoubleTail,
        discriminator_support: nn.Module,
        discriminator_main: nn.Module,
        pretrain_steps: int = 0,
        target_strength: float = 0.005,
        region_strength: float = 0.02,
        salt: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.generator = generator
        self.discriminator_support = discriminator_support
        self.discriminator_main = discriminator_main
        self.pretrain_steps = pretrain_steps
        self.target_strength, self.region_strength, self.salt = target_strength, region_strength, salt

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the pre-training update, or generator, support discriminator and main discriminator."""
        photo, anime = batch["photo"], batch["anime"]
        unfiltered, main = self.generator.both(photo)
        support = self_guided(unfiltered)
        shared = {"photo": photo, "anime": anime, "support": support, "main": main}
        if self.train_step < self.pretrain_steps:
            yield "pretrain", self.objectives["pretrain"](**shared)
            return

        # Shared by two updates.
        target = functools.cache(lambda: self._target(unfiltered))
        yield (
            "generator",
            self.objectives["generator"](
                **shared,
                target=target,
                support_gray=lambda: gray(support),
                anime_gray=lambda: gray(anime),
                support_regions=lambda: l0_smooth(support, self.region_strength),
                photo_regions=lambda: self._photo_regions(batch),
                support_logits=lambda: self.discriminator_support(gray(support)),
                main_logits=lambda: self.discriminator_main(main),
            ),
        )
        objective = self.objectives["discriminator_support"]
        gray_images: dict[str, MakeImages] = {
            "real_logits": lambda: gray(anime),
            "fake_logits": lambda: gray(support.detach()),
            "smooth_logits": lambda: gray(self._salted(smooth_of(batch))),
        }
        yield (
            "discriminator_support",
            objective(**joint_logits(objective, self.discriminator_support, gray_images)),
        )
        objective = self.objectives["discriminator_main"]
        images: dict[str, MakeImages] = {"real_logits": target, "fake_logits": main.detach}
        yield "discriminator_main", objective(**joint_logits(objective, self.discriminator_main, images))

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return photo, output of the support tail, output, and the ground truth if there is one."""
        images = super().preview(batch)
        support = pad_and_crop(lambda x: self_guided(self.generator.both(x)[0]), batch["photo"], self.size_divisor)
        return {"photo": images.pop("photo"), "support": support.clamp(-1, 1), **images}

    @torch.no_grad()
    def _target(self, unfiltered: Tensor) -> Tensor:
        return l0_smooth(self_guided(unfiltered, eps=_DENOISE_EPS), self.target_strength)

    def _photo_regions(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["regions"] if "regions" in batch else l0_smooth(batch["photo"], self.region_strength)

    def _salted(self, images: Tensor) -> Tensor:
        if not self.salt:
            return images
        return images.masked_fill(torch.rand_like(images[:, :1]) < self.salt, 1.0)
