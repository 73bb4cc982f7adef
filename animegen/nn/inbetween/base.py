"""Interface of the frame interpolation networks, and the helpers that they share."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError


class InbetweenOutput(NamedTuple):
    """Output of a frame interpolation network.

    Attributes:
        image: (B,3,H,W), the interpolated frame, about [-1,1]; not clamped, so that values outside get gradients.
        extra: named intermediate values for loss terms, such as ``mean``, ``logvar`` or ``flow``; see each network.
    """

    image: Tensor
    extra: dict[str, Any]


class InbetweenNetwork(nn.Module):
    """Base class: work that does not depend on the time is done once per pair, then frames are synthesized.

    A subclass sets ``size_divisor``, the number by which height and width of its input must be divisible.
    """

    size_divisor = 1

    def encode_pair(self, first: Tensor, last: Tensor) -> dict[str, Any]:
        """Return what all frames between ``first`` and ``last``, (B,3,H,W) in [-1,1], have in common.

        Raises:
            AnimegenError: if a side is not a multiple of ``size_divisor``.
        """
        height, width = first.shape[-2:]
        divisor = self.size_divisor
        if not torch.compiler.is_compiling() and (height % divisor or width % divisor):
            raise AnimegenError(
                f"The network needs frames whose sides are multiples of {divisor}, not {height}x{width}: set"
                " data.image_size accordingly."
            )
        return {"first": first, "last": last}

    def synthesize(self, state: dict[str, Any], t: Tensor) -> InbetweenOutput:
        """Return the frames at time ``t`` (B,) in [0,1]; ``state`` comes from :meth:`encode_pair`."""
        raise NotImplementedError

    def forward(self, first: Tensor, last: Tensor, t: Tensor) -> InbetweenOutput:
        """Return the frames at time ``t`` (B,) between ``first`` and ``last`` (B,3,H,W)."""
        return self.synthesize(self.encode_pair(first, last), t)

    def entries(self, output: InbetweenOutput, truth: Tensor) -> dict[str, Callable[[], Any]]:
        """Return further context entries, functions of the truth (B,3,H,W) that run only if a loss term reads them."""
        return {}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the submodules with :func:`torch.compile`, since training does not call ``forward`` of the whole."""
        for child in self.children():
            for part in child if isinstance(child, nn.ModuleList) else (child,):
                part.compile(*args, **kwargs)


class Symmetric(InbetweenNetwork):
    """Average of the forward and the backward prediction: invariant to swapping the frames and t to 1 - t.

    Twice the cost. Loss terms read the extra values of the forward pass.

    Args:
        network: any frame interpolation network.
    """

    def __init__(self, network: InbetweenNetwork) -> None:
        super().__init__()
        self.network = network
        self.size_divisor = network.size_divisor

    def encode_pair(self, first: Tensor, last: Tensor, **prior: Tensor) -> dict[str, Any]:
        """Encode the pair in both orders; ``prior``: of a :class:`~animegen.nn.inbetween.prior.PriorNetwork`."""
        swapped = {name: torch.cat(value.chunk(2, 1)[::-1], 1) for name, value in prior.items()}
        return {
            "forward": self.network.encode_pair(first, last, **prior),
            "backward": self.network.encode_pair(last, first, **swapped),
        }

    def synthesize(self, state: dict[str, Any], t: Tensor) -> InbetweenOutput:
        """Return the frames at time ``t`` (B,)."""
        forward = self.network.synthesize(state["forward"], t)
        backward = self.network.synthesize(state["backward"], 1 - t)
        return InbetweenOutput((forward.image + backward.image) / 2, forward.extra)

    def entries(self, output: InbetweenOutput, truth: Tensor) -> dict[str, Callable[[], Any]]:
        """Return the entries of the wrapped network."""
        return self.network.entries(output, truth)


def time_map(t: Tensor, like: Tensor) -> Tensor:
    """Expand times (B,) to a map (B,1,H,W) with the size and dtype of ``like`` (B,C,H,W)."""
    return t.to(like.dtype).view(-1, 1, 1, 1).expand(-1, 1, *like.shape[-2:])


def blend(first: Tensor, last: Tensor, t: Tensor) -> Tensor:
    """Return the cross-fade ``(1 - t) first + t last`` of two tensors (B,C,H,W), t (B,)."""
    return torch.lerp(first, last, t.to(first.dtype).view(-1, 1, 1, 1))


def bump(t: Tensor, like: Tensor) -> Tensor:
    """Return ``4 t (1 - t)`` as (B,1,1,1): 1 at t = 0.5, and 0 at t = 0 and t = 1.

    Corrections scaled by this factor vanish at both ends, so that the output there equals the given frame exactly.
    """
    t = t.to(like.dtype).view(-1, 1, 1, 1)
    return 4 * t * (1 - t)


def zero_init(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """Set weights and bias of an output layer to 0, so that a residual branch starts as no correction."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Return group norm with at most 32 groups of at least 4 channels; ``channels`` is a multiple of 4."""
    return nn.GroupNorm(gcd(32, channels // 4), channels)
