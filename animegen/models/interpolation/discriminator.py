"""Discriminator of interpolated frames and its inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.nn.inbetween.base import time_map

INPUTS = ("frame", "pair", "motion")


class InterpolationDiscriminator(nn.Module):
    """Discriminator of interpolated frames.

    ==========  ==========================================================================================
    ``inputs``  input of the network
    ==========  ==========================================================================================
    ``frame``   the frame alone
    ``pair``    the frame, conditioned on both neighbours and the time. The network needs a condition of 7
                channels (``SNResNetPatch`` with ``condition: 7``)
    ``motion``  two difference images, from the first frame to this one and from this one to the last, both
                halved. The logits of all first differences come before those of all second differences
    ==========  ==========================================================================================

    Args:
        network: any discriminator of :mod:`animegen.nn.discriminators`.
        inputs: input of the network, see above.

    Raises:
        AnimegenError: if there is no such input, or the network does not accept it.
    """

    def __init__(self, network: nn.Module, inputs: str = "frame") -> None:
        super().__init__()
        if inputs not in INPUTS:
            raise AnimegenError(
                f"The discriminator has no input inputs={inputs}: use one of {', '.join(INPUTS)}."
                + did_you_mean(inputs, INPUTS)
            )
        wanted = 7 if inputs == "pair" else 0
        if getattr(network, "condition", 0) != wanted:
            raise AnimegenError(
                f"A discriminator with inputs={inputs} needs a network with condition={wanted}, but"
                f" {type(network).__name__} has another one here: use SNResNetPatch with condition={wanted}."
            )
        self.network, self.inputs = network, inputs
        self.size_divisor = getattr(network, "size_divisor", 1)

    def forward(self, frames: Tensor, first: Tensor, last: Tensor, t: Tensor) -> Tensor:
        """Return logits for frames (B,3,H,W) at times t (B,) between first and last (B,3,H,W); higher = more real."""
        if self.inputs == "frame":
            return self.network(frames)
        if self.inputs == "pair":
            return self.network(frames, torch.cat([first, last, time_map(t, frames)], 1))
        return self.network(torch.cat([frames - first, last - frames]) / 2)
