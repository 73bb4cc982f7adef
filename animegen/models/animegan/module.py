"""Training of AnimeGAN: unpaired photo-to-anime translation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.engine.objective import Objective
from animegen.errors import AnimegenError
from animegen.models.animegan.adversarial import smooth_of
from animegen.nn.colour import LinearColourTransfer, gray
from animegen.nn.degradation import PhotoDegradation
from animegen.nn.inked import InkedUNet
from animegen.tasks.adversarial import MakeImages, joint_logits, refiner_updates
from animegen.tasks.stylize import StyliseModule, split_batches


class AnimeGAN(StyliseModule):
    """AnimeGAN v1, v2 and its lite versions, and other generators with the same training procedure.

    Phase 0, for ``pretrain_steps``: the generator learns to reproduce the photo (``pretrain`` objective, with an
    separate optimizer). Phase 1: per step one update of the discriminator, then one of the generator, which shares
    its forward pass; other ratios are possible. Both phases are one run.

    Context entries that loss terms may read (all images in [-1,1]):

    ======================  =====================================================================
    ``photo``, ``anime``    the batch
    ``drawn``, ``ink``      drawings of the photos and their lines, with ``data=unpaired/drawn``
    ``fake``                generator(photo)
    ``fake_ink``            logits of the opacity of its lines, of a generator that draws them
    ``anime_gray``          the anime image in grayscale, three equal channels
    ``photo_coloured``      the photo after linear colour transfer to the anime set
    ``identity``            generator(anime), computed only if a term reads it
    ``restored``            generator(anime degraded, and refined, to resemble a photo), likewise
    ``fake_logits``         discriminator(fake)
    ``real_logits``         discriminator(anime); likewise ``gray_logits`` (anime in grayscale),
                            ``smooth_logits`` (edge-smoothed anime in grayscale) and
                            ``smooth_colour_logits`` (edge-smoothed anime, as in CartoonGAN)
    ``photo_logits``        discriminator(photo) (discriminator only)
    ``fake_gray_logits``    discriminator(fake in grayscale)
    ``degraded``            degraded anime (refiner only)
    ``refined``             refiner(degraded) (refiner only)
    ``refined_logits``      photo_discriminator(refined) (refiner and photo discriminator only)
    ``restored_logits``     discriminator(restored); ``restored_gray_logits`` in grayscale
    ======================  =====================================================================

    Args:
        generator: maps photos to anime, see :mod:`animegen.models.animegan.networks`.
        discriminator: patch discriminator, or ``None`` for training without one.
        degradation: makes the input of ``restored``, see :class:`~animegen.nn.degradation.PhotoDegradation`.
        refiner: makes degraded drawings more similar to photos before they are restored, see
            :class:`~animegen.nn.refiner.Refiner`. It is updated in the same steps as the discriminator.
        photo_discriminator: distinguishes photos from refined drawings.
        pretrain_steps: length of phase 0 in train steps.
        discriminator_every: interval of discriminator updates in steps of phase 1, starting with the first. The
            generator is updated in every step. If all terms that read fakes have the same ``every``, none are generated
            in the other steps.
        discriminator_updates: number of discriminator updates in such a step, all on the same images.
        **settings: see :class:`~animegen.engine.module.AnimeModule`.

    Raises:
        AnimegenError: for settings that cannot be combined.

    Source: Chen, Liu, Chen, "AnimeGAN: A Novel Lightweight GAN for Photo Animation", ISICA 2019, and the procedure of
    its released code.
    """

    trains = {"pretrain": "generator"}  # noqa: RUF012 - read-only by contract
    training_only = (
        *("discriminator", "degradation", "refiner", "photo_discriminator"),
        *("pretrain_steps", "discriminator_every", "discriminator_updates"),
    )

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None = None,
        degradation: PhotoDegradation | None = None,
        refiner: nn.Module | None = None,
        photo_discriminator: nn.Module | None = None,
        pretrain_steps: int = 0,
        discriminator_every: int = 1,
        discriminator_updates: int = 1,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.generator = generator
        self.discriminator = discriminator
        self.degradation = degradation
        self.refiner, self.photo_discriminator = refiner, photo_discriminator
        if (refiner is None) != (photo_discriminator is None):
            raise AnimegenError("model.refiner and model.photo_discriminator need each other: set both, or neither.")
        self.pretrain_steps = pretrain_steps
        self.discriminator_every, self.discriminator_updates = discriminator_every, discriminator_updates
        if min(discriminator_every, discriminator_updates) < 1:
            raise AnimegenError(
                f"model.discriminator_every ({discriminator_every}) and model.discriminator_updates"
                f" ({discriminator_updates}) must be at least 1."
            )
        if discriminator is None and max(discriminator_every, discriminator_updates) > 1:
            raise AnimegenError(
                "The model has no discriminator, so model.discriminator_every and model.discriminator_updates have no"
                " effect: leave both at 1."
            )
        self.colours = LinearColourTransfer()
        if discriminator is None and "discriminator" in self.objectives:
            raise AnimegenError(
                "The model has no discriminator but an objective for one: delete it with"
                " ~model.objectives.discriminator and ~model.optimizers.discriminator,"
                " or use ablation=animegan/no_discriminator."
            )

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the pre-training update, or discriminator and generator."""
        photo, anime = batch["photo"], batch["anime"]
        self.colours.observe(photo, anime)
        phase = "pretrain" if self.train_step < self.pretrain_steps else "generator"
        discriminator = self.discriminator if phase == "generator" and self._is_discriminator_step() else None
        names = (phase,) if discriminator is None else (phase, "discriminator")
        generated = self._generate([self.objectives[name] for name in names], batch)
        shared: dict[str, Any] = {
            **generated,
            "photo": photo,
            "anime": anime,
            "anime_gray": lambda: gray(anime),
            **{key: batch[key] for key in ("drawn", "ink") if key in batch},
            "photo_coloured": lambda: self.colours(photo),
        }
        if phase == "pretrain":
            yield "pretrain", self.objectives["pretrain"](**shared)
            yield from self._refiner_updates(generated, photo)
            return
        if discriminator is not None:
            objective = self.objectives["discriminator"]
            images: dict[str, MakeImages] = {
                "real_logits": lambda: anime,
                "fake_logits": lambda: generated["fake"].detach(),
                "restored_logits": lambda: generated["restored"].detach(),
                "restored_gray_logits": lambda: gray(generated["restored"].detach()),
                "gray_logits": lambda: gray(anime),
                "smooth_logits": lambda: gray(smooth_of(batch)),
                "smooth_colour_logits": lambda: smooth_of(batch),
                "photo_logits": lambda: photo,
                "fake_gray_logits": lambda: gray(generated["fake"].detach()),
            }
            for _ in range(self.discriminator_updates):
                yield "discriminator", objective(**joint_logits(objective, discriminator, images))
        yield (
            "generator",
            self.objectives["generator"](
                **shared,
                fake_logits=lambda: self._logits(generated["fake"]),
                fake_gray_logits=lambda: self._logits(gray(generated["fake"])),
                restored_logits=lambda: self._logits(generated["restored"]),
                restored_gray_logits=lambda: self._logits(gray(generated["restored"])),
            ),
        )
        yield from self._refiner_updates(generated, photo)

    def _refiner_updates(self, generated: dict[str, Tensor], photo: Tensor) -> Updates:
        """Yield the updates of photo discriminator and refiner in the steps in which they are trained."""
        discriminator = self.photo_discriminator
        if discriminator is None or "refined" not in generated or not self._is_discriminator_step():
            return
        photos: dict[str, MakeImages] = {"photo_logits": lambda: photo}
        degraded, refined = generated["degraded"], generated["refined"]
        yield from refiner_updates(self.objectives, discriminator, degraded, refined, photos)

    def _is_discriminator_step(self) -> bool:
        return (self.train_step - self.pretrain_steps) % self.discriminator_every == 0

    def _generate(self, objectives: Sequence[Objective], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return those outputs of the generator that a term reads, computed in one forward pass, and their inputs."""

        def read(*entries: str) -> bool:
            return any(objective.reads(entry) for objective in objectives for entry in entries)

        inputs, entries = {}, {}
        if read("fake", "fake_ink", "fake_logits", "fake_gray_logits"):
            inputs["fake"] = batch["photo"]
        if read("identity"):
            inputs["identity"] = batch["anime"]
        if read("restored", "restored_logits", "restored_gray_logits"):
            if self.degradation is None:
                raise AnimegenError("A loss term reads 'restored', but the model has no model.degradation: set it.")
            inputs["restored"] = entries["degraded"] = self.degradation(
                batch["anime"], self.colours, photos=batch["photo"]
            )
            if self.refiner is not None:
                with torch.set_grad_enabled(self._is_discriminator_step()):
                    entries["refined"] = self.refiner(entries["degraded"])
                # Detached: the refiner must not learn to make the restoration easy.
                inputs["restored"] = entries["refined"].detach()
        if not inputs:
            return entries
        joined, slices = split_batches(inputs)
        if read("fake_ink"):
            if not isinstance(self.generator, InkedUNet):
                raise AnimegenError("A loss term reads 'fake_ink', which only InkedUNet has: delete the term.")
            outputs, logits = self.generator.draw(joined)
            entries["fake_ink"] = logits[slices["fake"]]
        else:
            outputs = self.generator(joined)
        return entries | {name: outputs[part] for name, part in slices.items()}

    def _logits(self, images: Tensor) -> Tensor:
        if self.discriminator is None:
            raise AnimegenError("A loss term reads logits, but the model has no discriminator: delete the term.")
        return self.discriminator(images)
