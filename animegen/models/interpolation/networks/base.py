"""What every in-betweening network looks like from outside, and the small things that they share."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError


class Drawn(NamedTuple):
    """A drawn frame, and what a network tells about how it came about.

    Attributes:
        image: (B,3,H,W), about [-1,1]; not clamped, so that gradients reach what lies outside.
        extra: named values for loss terms, such as ``mean``, ``logvar``, ``flow``; see the networks.
    """

    image: Tensor
    extra: dict[str, Any]


class InbetweenNetwork(nn.Module):
    """Base of the networks: what does not depend on the time is computed once per pair, then any number of frames.

    A subclass sets ``factor``, by which the sides of its input must be divisible.
    """

    factor = 1

    def encode_pair(self, first: Tensor, last: Tensor) -> dict[str, Any]:
        """Return what all frames between ``first`` and ``last``, (B,3,H,W) in [-1,1], have in common."""
        height, width = first.shape[-2:]
        if not torch.compiler.is_compiling() and (height % self.factor or width % self.factor):
            raise AnimegenError(
                f"The network needs frames whose sides are multiples of {self.factor}, not {height}x{width}: set"
                " data.image_size accordingly."
            )
        return {"first": first, "last": last}

    def synthesize(self, state: dict[str, Any], t: Tensor) -> Drawn:
        """Draw the frames at time ``t`` (B,) in [0,1]."""
        raise NotImplementedError

    def forward(self, first: Tensor, last: Tensor, t: Tensor) -> Drawn:
        """Draw the frames at time ``t`` (B,) between ``first`` and ``last`` (B,3,H,W)."""
        return self.synthesize(self.encode_pair(first, last), t)

    def entries(self, drawn: Drawn, truth: Tensor) -> dict[str, Callable[[], Any]]:
        """Return further values for loss terms that need the truth (B,3,H,W); computed only if a term reads them."""
        return {}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the parts with :func:`torch.compile`: training calls them, but not ``forward`` of the whole."""
        for child in self.children():
            for part in child if isinstance(child, nn.ModuleList) else (child,):
                part.compile(*args, **kwargs)


class Symmetric(InbetweenNetwork):
    """Draws forwards and backwards and takes the mean: swapping the frames and t to 1 - t changes nothing.

    Twice the work. The loss terms read the forward pass's values.

    Args:
        network: any of the networks.
    """

    def __init__(self, network: InbetweenNetwork) -> None:
        super().__init__()
        self.network = network
        self.factor = network.factor

    def encode_pair(self, first: Tensor, last: Tensor) -> dict[str, Any]:
        """Encode the pair in both orders."""
        return {"there": self.network.encode_pair(first, last), "back": self.network.encode_pair(last, first)}

    def synthesize(self, state: dict[str, Any], t: Tensor) -> Drawn:
        """Draw the frames at time ``t`` (B,)."""
        there = self.network.synthesize(state["there"], t)
        back = self.network.synthesize(state["back"], 1 - t)
        return Drawn((there.image + back.image) / 2, there.extra)

    def entries(self, drawn: Drawn, truth: Tensor) -> dict[str, Callable[[], Any]]:
        """Return those of the network."""
        return self.network.entries(drawn, truth)


def as_map(t: Tensor, like: Tensor) -> Tensor:
    """Return the times (B,) as a map (B,1,H,W) of the size and type of a picture (B,C,H,W)."""
    return t.to(like.dtype).view(-1, 1, 1, 1).expand(-1, 1, *like.shape[-2:])


def blend(first: Tensor, last: Tensor, t: Tensor) -> Tensor:
    """Return the cross-fade ``(1 - t) first + t last`` of two tensors (B,C,H,W), t (B,)."""
    return torch.lerp(first, last, t.to(first.dtype).view(-1, 1, 1, 1))


def bump(t: Tensor, like: Tensor) -> Tensor:
    """Return ``4 t (1 - t)`` as (B,1,1,1): 1 in the middle and 0 at both ends, where nothing must be added.

    A picture made of one end and a correction times this is exactly that end at t = 0 and t = 1.
    """
    t = t.to(like.dtype).view(-1, 1, 1, 1)
    return 4 * t * (1 - t)


def silent(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """Set weights and bias of a last layer to 0, so that training starts from what its output is added to."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Return group norm with at most 32 groups of at least 4 channels; ``channels`` is a multiple of 4."""
    return nn.GroupNorm(gcd(32, channels // 4), channels)
