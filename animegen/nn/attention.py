"""Self-attention over the positions of a feature map, and external attention to a learned memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.conv import SLOPE
from animegen.nn.norm import InstanceNorm
from animegen.nn.precision import at_least_float32

_LARGEST_EXPONENT = 60.0


class SelfAttention(nn.Module):
    """Residual self-attention of SAGAN (Zhang et al. 2019).

    Queries and keys have 1/8 of the channels, values 1/2; keys and values are max-pooled by 2. The result is scaled
    by a learned scalar, initially 0, so that the layer starts as the identity.

    Args:
        channels: a multiple of 8.
        window: even side of square windows; maps of more than ``4 window^2`` positions use attention within each
            window, since the cost is quadratic in the number of positions. ``None``: always global.
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
        # SAGAN does not scale the products. ONNX requires the axis of the single head.
        read = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)
        read = read[:, 0].transpose(1, 2).unflatten(2, x.shape[-2:])  # (B,C/2,H,W)
        return x + (self.gain * self.project(read)).to(x.dtype)


class ExternalAttention(nn.Module):
    """External attention (Guo et al. 2021) as in AnimeGANv3: attention of each position to a learned memory.

    The products with the ``slots`` memory entries are normalised by a softmax over the *positions*, then to a sum of
    1 over the entries at each position. The same memory holds keys and values. 1x1 convolutions without bias
    come before and after, followed by a norm, the residual sum and leaky ReLU.

    The softmax over the positions only needs the mean of the exponentials, which tiled inference shares between tiles
    like the statistics of a norm. Instance norm replaces AnimeGANv3's batch norm: it has as many parameters, is
    independent of the batch, and is the same in training and inference.

    Args:
        channels: channels of input and output.
        slots: number of memory entries, 128 in AnimeGANv3.
    """

    def __init__(self, channels: int, slots: int = 128) -> None:
        super().__init__()
        self.before = nn.Conv2d(channels, channels, 1, bias=False)
        # A convolution, so that initialisation and spectral normalisation include it.
        self.memory = nn.Conv2d(channels, slots, 1, bias=False)
        self.after = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = InstanceNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,H,W) to the same shape."""
        shares = self._shares(self.memory(self.before(x)))
        rebuilt = F.conv2d(shares.to(x.dtype), self.memory.weight.transpose(0, 1))
        return F.leaky_relu(self.norm(self.after(rebuilt)) + x, SLOPE)

    def _shares(self, products: Tensor) -> Tensor:
        """Return the attention weights (B,slots,H,W): positive, of sum 1 over the entries at each position."""
        with torch.autocast(products.device.type, enabled=False):
            products = at_least_float32(products)
            # A constant per entry cancels. Subtracting the mean and clamping keep the exponentials finite.
            weights = torch.exp((products - products.mean((2, 3), keepdim=True)).clamp_max(_LARGEST_EXPONENT))
            # The mean replaces the sum over positions: the number of positions cancels, too.
            weights = weights / (weights.mean((2, 3), keepdim=True) + 1e-9)
            return weights / (weights.sum(1, keepdim=True) + 1e-9)
