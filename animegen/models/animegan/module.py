"""AnimeGAN: unpaired photo-to-anime translation with a discriminator that sees four kinds of picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.engine.objective import Objective
from animegen.errors import AnimegenError
from animegen.models.animegan.adversarial import smooth_of
from animegen.models.animegan.degradation import PhotoDegradation
from animegen.nn.colour import LinearColourTransfer, gray
from animegen.tasks.adversarial import Make, joint_logits, refining
from animegen.tasks.stylize import StyliseModule, split_batches


class AnimeGAN(StyliseModule):
    """The AnimeGAN family (v1, v2 and their lite forms) behind one training procedure.

    Phase 0, for ``pretrain_steps``: the generator learns to reproduce the photo (``pretrain``
    objective, optimizer and Adam state of its own). Phase 1: per step one discriminator update,
    then one generator update that shares the generator's forward pass (other ratios on request). Both phases are
    one run.

    Context entries that loss terms may read (all images in [-1,1]):

    ======================  ==================================================================
    ``photo``, ``anime``    the batch
    ``fake``                generator(photo)
    ``anime_gray``          the anime picture without colour, three equal channels
    ``photo_coloured``      the photo after linear colour transfer to the anime set
    ``identity``            generator(anime), made only if a term reads it
    ``restored``            generator(anime degraded, and refined, to look like a photo), likewise
    ``fake_logits``         discriminator(fake)
    ``real_logits``         discriminator(anime); likewise ``gray_logits`` (anime without colour)
                            ``smooth_logits`` (edge-smoothed anime without colour) and
                            ``smooth_colour_logits`` (with colour, as in CartoonGAN)
    ``photo_logits``        discriminator(photo) (discriminator only)
    ``fake_gray_logits``    discriminator(fake without colour)
    ``degraded``            anime degraded (refiner only)
    ``refined``             refiner(degraded) (refiner only); ``refined_logits``: photo_discriminator(refined)
    ``restored_logits``     discriminator(restored); ``restored_gray_logits``: without colour
    ======================  ==================================================================

    Args:
        generator: maps photos to anime, see :mod:`animegen.models.animegan.networks`.
        discriminator: patch discriminator, or ``None`` for training without an adversary.
        degradation: makes the input of ``restored``, see
            :class:`~animegen.models.animegan.degradation.PhotoDegradation`.
        refiner: takes degraded drawings further towards photos before they are restored, see
            :class:`~animegen.nn.refiner.Refiner`. It learns on the turns of the discriminator.
        photo_discriminator: tells photos from refined drawings, as ``discriminator`` tells anime from fakes.
        pretrain_steps: length of phase 0 in train steps.
        discriminator_every: the discriminator is updated on every so many steps of phase 1, from the first on; the
            generator on each. Where the terms that read fakes have the same ``every``, no fakes are made in between.
        discriminator_updates: number of discriminator updates on such a step, all on its pictures.
        settings: see :class:`~animegen.engine.module.AnimeModule`.

    Source: Chen, Liu, Chen, "AnimeGAN: A Novel Lightweight GAN for Photo Animation", ISICA 2019,
    and the procedure of its released code.
    """

    trains = {"pretrain": "generator"}  # noqa: RUF012 - read-only by contract

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
            raise AnimegenError("model.refiner and model.photo_discriminator go together: set both, or neither.")
        self.pretrain_steps = pretrain_steps
        self.discriminator_every, self.discriminator_updates = discriminator_every, discriminator_updates
        if min(discriminator_every, discriminator_updates) < 1:
            raise AnimegenError(
                f"model.discriminator_every ({discriminator_every}) and model.discriminator_updates"
                f" ({discriminator_updates}) must be at least 1."
            )
        if discriminator is None and max(discriminator_every, discriminator_updates) > 1:
            raise AnimegenError(
                "The model has no discriminator whose updates model.discriminator_every or model.discriminator_updates"
                " could count: leave both at 1."
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
        judge = self.discriminator if phase == "generator" and self._is_turn_of_discriminator() else None
        names = (phase,) if judge is None else (phase, "discriminator")
        drawn = self._draw([self.objectives[name] for name in names], batch)
        shared = {
            **drawn,
            "photo": photo,
            "anime": anime,
            "anime_gray": lambda: gray(anime),
            "photo_coloured": lambda: self.colours(photo),
        }
        if phase == "pretrain":
            yield "pretrain", self.objectives["pretrain"](**shared)
            yield from self._refine(drawn, photo)
            return
        if judge is not None:
            objective = self.objectives["discriminator"]
            pictures: dict[str, Make] = {
                "real_logits": lambda: anime,
                "fake_logits": lambda: drawn["fake"].detach(),
                "restored_logits": lambda: drawn["restored"].detach(),
                "restored_gray_logits": lambda: gray(drawn["restored"].detach()),
                "gray_logits": lambda: gray(anime),
                "smooth_logits": lambda: gray(smooth_of(batch)),
                "smooth_colour_logits": lambda: smooth_of(batch),
                "photo_logits": lambda: photo,
                "fake_gray_logits": lambda: gray(drawn["fake"].detach()),
            }
            for _ in range(self.discriminator_updates):
                yield "discriminator", objective(**joint_logits(objective, judge, pictures))
        yield (
            "generator",
            self.objectives["generator"](
                **shared,
                fake_logits=lambda: self._discriminate(drawn["fake"]),
                fake_gray_logits=lambda: self._discriminate(gray(drawn["fake"])),
                restored_logits=lambda: self._discriminate(drawn["restored"]),
                restored_gray_logits=lambda: self._discriminate(gray(drawn["restored"])),
            ),
        )
        yield from self._refine(drawn, photo)

    def _refine(self, drawn: dict[str, Tensor], photo: Tensor) -> Updates:
        """Yield the updates of the photo discriminator and of the refiner, on their turns."""
        judge = self.photo_discriminator
        if judge is None or "refined" not in drawn or not self._is_turn_of_discriminator():
            return
        photos: dict[str, Make] = {"photo_logits": lambda: photo}
        yield from refining(self.objectives, judge, drawn["degraded"], drawn["refined"], photos)

    def _is_turn_of_discriminator(self) -> bool:
        return (self.train_step - self.pretrain_steps) % self.discriminator_every == 0

    def _draw(self, objectives: Sequence[Objective], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what the generator makes of photos and of anime, as far as a term reads it, in one pass."""

        def read(*entries: str) -> bool:
            return any(objective.reads(entry) for objective in objectives for entry in entries)

        inputs, made = {}, {}
        if read("fake", "fake_logits", "fake_gray_logits"):
            inputs["fake"] = batch["photo"]
        if read("identity"):
            inputs["identity"] = batch["anime"]
        if read("restored", "restored_logits", "restored_gray_logits"):
            if self.degradation is None:
                raise AnimegenError("A loss term reads 'restored', but the model has no model.degradation: set it.")
            inputs["restored"] = made["degraded"] = self.degradation(
                batch["anime"], self.colours, photos=batch["photo"]
            )
            if self.refiner is not None:
                with torch.set_grad_enabled(self._is_turn_of_discriminator()):
                    made["refined"] = self.refiner(made["degraded"])
                inputs["restored"] = made["refined"].detach()  # it must not learn to make the generator's task easy
        if not inputs:
            return made
        joined, slices = split_batches(inputs)
        outputs = self.generator(joined)
        return made | {name: outputs[part] for name, part in slices.items()}

    def _discriminate(self, images: Tensor) -> Tensor:
        if self.discriminator is None:
            raise AnimegenError("A loss term reads logits, but the model has no discriminator: delete the term.")
        return self.discriminator(images)
