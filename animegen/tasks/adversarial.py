"""Adversarial training shared by model families: joint discriminator passes, and refiners."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.engine.objective import Objective, Objectives
from animegen.tasks.stylize import split_batches

MakeImages = Callable[[], Tensor]
"""A function that returns a batch of images (B,3,H,W); it is called only if a loss term reads their logits."""


def joint_logits(
    objective: Objective, discriminator: nn.Module, images: Mapping[str, MakeImages]
) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """Return context entries for logits that are computed in one forward pass of the discriminator.

    Only batches whose logits a term reads take part. All norms are per sample, so the result is that of separate
    passes, but it is faster, and the power iteration of spectral norm advances once per step.

    Args:
        objective: determines which entries are read.
        discriminator: maps (B,3,H,W) to logits (B,...).
        images: name of an entry -> function that returns the images whose logits the entry holds.
    """

    def joint_pass() -> dict[str, Tensor]:
        joined, slices = split_batches({name: make() for name, make in images.items() if objective.reads(name)})
        logits = discriminator(joined)
        return {name: logits[part] for name, part in slices.items()}

    return dict.fromkeys(images, joint_pass)


def refiner_updates(
    objectives: Objectives,
    discriminator: nn.Module,
    degraded: Tensor,
    refined: Tensor,
    images: Mapping[str, MakeImages],
) -> Updates:
    """Yield the updates of a refiner and of the discriminator of photos that supervises it.

    Args:
        objectives: has ``photo_discriminator``, whose terms read the logits of ``images`` and ``refined_logits``, and
            ``refiner``, whose terms read ``degraded``, ``refined`` and ``refined_logits``.
        discriminator: the discriminator of photos.
        degraded: drawings degraded to resemble photos, (B,3,H,W) in [-1,1].
        refined: refiner(degraded), with its graph.
        images: further inputs of the discriminator, see :func:`joint_logits`.
    """
    objective = objectives["photo_discriminator"]
    inputs = {**images, "refined_logits": refined.detach}
    yield "photo_discriminator", objective(**joint_logits(objective, discriminator, inputs))
    logits = {"refined_logits": lambda: discriminator(refined)}
    yield "refiner", objectives["refiner"](refined=refined, degraded=degraded, **logits)
