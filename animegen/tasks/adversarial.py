"""What models with discriminators have in common: one pass over all that an update judges, and refiners."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.engine.objective import Objective, Objectives
from animegen.tasks.stylize import split_batches

Make = Callable[[], Tensor]


def joint_logits(
    objective: Objective, discriminator: nn.Module, pictures: Mapping[str, Make]
) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """Return context entries that share one forward pass over just those batches that a term reads.

    One pass instead of several: the same result, since the norms are per sample, faster, and the power iteration
    of spectral norm advances once per step.

    Args:
        objective: tells what is read.
        discriminator: maps (B,3,H,W) to logits (B,...).
        pictures: name of an entry -> function that makes the batch (B,3,H,W) whose logits it holds.
    """

    def together() -> dict[str, Tensor]:
        joined, slices = split_batches({name: make() for name, make in pictures.items() if objective.reads(name)})
        logits = discriminator(joined)
        return {name: logits[part] for name, part in slices.items()}

    return dict.fromkeys(pictures, together)


def refining(
    objectives: Objectives,
    judge: nn.Module,
    degraded: Tensor,
    refined: Tensor,
    pictures: Mapping[str, Make],
) -> Updates:
    """Yield the updates of the discriminator of photos and of the refiner that it teaches.

    Args:
        objectives: has ``photo_discriminator``, which reads logits of ``pictures`` and ``refined_logits``, and
            ``refiner``, which reads ``degraded``, ``refined`` and ``refined_logits``.
        judge: the discriminator of photos.
        degraded: drawings made to look like photos, (B,3,H,W) in [-1,1].
        refined: refiner(degraded), with its history.
        pictures: what else the discriminator judges, see :func:`joint_logits`.
    """
    objective = objectives["photo_discriminator"]
    yield (
        "photo_discriminator",
        objective(**joint_logits(objective, judge, {**pictures, "refined_logits": refined.detach})),
    )
    judged = {"refined_logits": lambda: judge(refined)}
    yield "refiner", objectives["refiner"](refined=refined, degraded=degraded, **judged)
