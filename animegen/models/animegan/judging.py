"""One pass of a discriminator over all pictures that an update judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from animegen.core.errors import AnimegenError
from animegen.core.objective import Objective
from animegen.core.tasks import split_batches

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


def smooth_of(batch: Mapping[str, Tensor]) -> Tensor:
    """Return the edge-smoothed anime (B,3,H,W) of a batch.

    Raises:
        AnimegenError: if the data have none.
    """
    if "smooth" not in batch:
        raise AnimegenError(
            "A loss term judges edge-smoothed pictures, but the data have none: set data.smooth=online, or give"
            " ready-made ones."
        )
    return batch["smooth"]
