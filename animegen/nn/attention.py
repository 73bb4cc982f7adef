"""Attention between the places of a map: to all others (self), or to a memory of what maps of this kind contain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.conv import SLOPE
from animegen.nn.norm import InstanceNorm
from animegen.nn.precision import at_least_float32

_LARGEST_EXPONENT = 60.0


class SelfAttention(nn.Module):
    """Self-attention of SAGAN (Zhang et al. 2019): each place adds what it reads from all places.

    Queries and keys have 1/8 of the channels, values 1/2; keys and values are max-pooled by 2. The result is scaled
    by a learned number that begins at 0, so that the layer begins as the identity.

    Args:
        channels: a multiple of 8.
        window: even; maps of more than ``4 window^2`` places are read in squares of that side, each by itself, since
            the work grows with the square of the places. ``None``: never.
    """

    def __init__(self, channels: int, window: int | None = None) -> None:
        super().__init__()
        self.window = window
        self.query = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.key = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.project = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,H,W) to the same shape; H and W are at least 2."""
        height, width = x.shape[-2:]
        if self.window is None or height * width <= 4 * self.window**2:
            return self._read(x)
        side = self.window
        whole = F.pad(x, (0, -width % side, 0, -height % side), mode="replicate")
        squares = whole.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5)  # (B,i,j,C,h,w)
        read = self._read(squares.flatten(0, 2)).unflatten(0, squares.shape[:3])
        read = read.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return read[..., :height, :width]

    def _read(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).transpose(1, 2)  # (B,HW,C/8)
        key = F.max_pool2d(self.key(x), 2).flatten(2).transpose(1, 2)
        value = F.max_pool2d(self.value(x), 2).flatten(2).transpose(1, 2)
        # SAGAN does not divide the products by the root of the width.
        # With an axis for the one head: ONNX knows no other form.
        read = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[
            :, 0
        ]  # (B,HW,C/2)
        read = read.transpose(1, 2).unflatten(2, x.shape[-2:])
        return x + (self.gain * self.project(read)).to(x.dtype)


class ExternalAttention(nn.Module):
    """External attention (Guo et al. 2021) as in AnimeGANv3: each place is rebuilt from a learned memory.

    Of the products with the memory's ``slots`` entries the softmax is taken over the *places*, then the shares of the
    entries at each place are made to sum to 1. One memory serves as keys and values. 1x1 convolutions without bias
    come before and after, then a norm, the input is added, leaky ReLU.

    The softmax over all places needs only their mean of the exponentials, which the tiles of a large picture share
    like the statistics of a norm. AnimeGANv3 has a batch norm here; this is an instance norm with as many
    parameters, which treats each picture alone and the same in training and application.

    Args:
        channels: channels of input and output.
        slots: entries of the memory, 128 in AnimeGANv3.
    """

    def __init__(self, channels: int, slots: int = 128) -> None:
        super().__init__()
        self.before = nn.Conv2d(channels, channels, 1, bias=False)
        # A convolution, so that the network's initialisation and spectral norms find it.
        self.memory = nn.Conv2d(channels, slots, 1, bias=False)
        self.after = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = InstanceNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,H,W) to the same shape."""
        shares = self._shares(self.memory(self.before(x)))
        rebuilt = F.conv2d(shares.to(x.dtype), self.memory.weight.transpose(0, 1))
        return F.leaky_relu(self.norm(self.after(rebuilt)) + x, SLOPE)

    def _shares(self, products: Tensor) -> Tensor:
        """Return how much each place (H,W) reads of each entry, (B,slots,H,W): positive, of sum 1 over the entries."""
        with torch.autocast(products.device.type, enabled=False):
            products = at_least_float32(products)
            # Any constant per entry cancels; around the mean the exponentials stay within range, and if a wild network
            # leaves it nevertheless, the limit keeps them finite.
            weights = torch.exp((products - products.mean((2, 3), keepdim=True)).clamp_max(_LARGEST_EXPONENT))
            # The sum over places is their number times the mean: that number cancels, too.
            weights = weights / (weights.mean((2, 3), keepdim=True) + 1e-9)
            return weights / (weights.sum(1, keepdim=True) + 1e-9)
