"""How a discriminator is asked about a frame: alone, together with the frames round it, or by its motion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.interpolation.networks.base import as_map

KINDS = ("frame", "pair", "motion")


class Judge(nn.Module):
    """A discriminator, and what it is shown.

    ==========  ==============================================================================================
    ``frame``   the frame by itself
    ``pair``    together with both frames round it and the time: does it belong between these? The network takes a
                condition of 7 channels (`SNResNetPatch` with ``condition: 7``)
    ``motion``  two pictures of change, from the first frame to it and from it to the last (the differences, halved):
                does it move like a film? Logits come first for all of the former, then for all of the latter
    ==========  ==============================================================================================

    Args:
        network: any discriminator of `animegen.nn.discriminators`.
        shows: one of the above.

    Raises:
        AnimegenError: if there is no such way, or the network does not take what it would be shown.
    """

    def __init__(self, network: nn.Module, shows: str = "frame") -> None:
        super().__init__()
        if shows not in KINDS:
            raise AnimegenError(
                f"A judge shows {', '.join(KINDS)}, not '{shows}': set one of them.{did_you_mean(shows, KINDS)}"
            )
        wanted = 7 if shows == "pair" else 0
        if getattr(network, "condition", 0) != wanted:
            raise AnimegenError(
                f"A judge with shows={shows} needs a discriminator with condition={wanted}, which"
                f" {type(network).__name__} does not have here: SNResNetPatch takes one."
            )
        self.network, self.shows = network, shows
        self.factor = getattr(network, "factor", 1)

    def forward(self, frames: Tensor, first: Tensor, last: Tensor, t: Tensor) -> Tensor:
        """Return logits for frames (B,3,H,W) at times t (B,) between first and last (B,3,H,W); higher = more real."""
        if self.shows == "frame":
            return self.network(frames)
        if self.shows == "pair":
            return self.network(frames, torch.cat([first, last, as_map(t, frames)], 1))
        return self.network(torch.cat([frames - first, last - frames]) / 2)
