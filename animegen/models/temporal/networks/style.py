"""Style encoder, and the blocks that apply a style to feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.temporal.networks.state import Style
from animegen.nn.conv import SLOPE, ReflectConv, scale_channels
from animegen.nn.norm import InstanceNorm, make_norm
from animegen.nn.precision import at_least_float32

#: Side of the grid of style tokens: 64 of them.
GRID = 8
FUSIONS = ("attention", "gate", "adain", "none")
KERNELS = ("cosine", "softmax", "linear")
_EPS = 1e-5


class StyleEncoder(nn.Module):
    """Encode a style image to a global code and 64 local tokens.

    Four convolutions of stride 2 without norms, which would remove the style. The code is computed from mean *and*
    standard deviation of the channels, since the mean alone does not represent contrast; the tokens are means over an
    8x8 grid.

    The *default* style is a learned code with learned tokens, for application without a style image.

    Args:
        width: factor on the channels; at 1 they are 64, 128, 256 and 256, and code and tokens have size 256.
    """

    #: Smallest side of a style image in pixels.
    smallest = 32

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = [scale_channels(c, width) for c in (64, 128, 256, 256)]
        self.size = channels[-1]
        self.layers = nn.Sequential()
        for inputs, outputs in zip([3, *channels[:-1]], channels, strict=True):
            self.layers.append(ReflectConv(inputs, outputs, 4, stride=2, bias=True))
            self.layers.append(nn.LeakyReLU(SLOPE))
        self.code = nn.Linear(2 * self.size, self.size)
        self.default_code = nn.Parameter(torch.empty(1, self.size).normal_(std=0.1))
        self.default_tokens = nn.Parameter(torch.empty(1, GRID**2, self.size).normal_(std=0.1))

    def forward(self, stills: Tensor) -> Style:
        """Encode one style image per sample, ``(B,3,H,W)`` in [-1,1], with sides of at least 32 pixels."""
        height, width = stills.shape[-2:]
        if min(height, width) < self.smallest:
            raise AnimegenError(
                f"A still of {width}x{height} pixels is too small: both sides need at least {self.smallest}."
            )
        if height % 16 or width % 16:
            stills = stills[..., : height - height % 16, : width - width % 16]
        features = self.layers(stills)
        deviation, mean = torch.std_mean(at_least_float32(features), (2, 3), correction=0)
        code = self.code(torch.cat([mean, deviation], 1))
        tokens = F.adaptive_avg_pool2d(features, GRID).flatten(2).transpose(1, 2)
        return Style(code, tokens, torch.ones_like(tokens[..., 0]))

    def default(self, batch: int) -> Style:
        """Return the default style for B samples."""
        tokens = self.default_tokens.expand(batch, -1, -1)
        return Style(self.default_code.expand(batch, -1), tokens, torch.ones_like(tokens[..., 0]))


def resize_shorter_side(stills: Tensor, size: int) -> Tensor:
    """Resize images (N,3,H,W) to a shorter side of ``size`` pixels."""
    scale = size / min(stills.shape[-2:])
    shape = [max(size, round(side * scale)) for side in stills.shape[-2:]]
    return F.interpolate(stills, shape, mode="bilinear", antialias=True)


def blend_styles(styles: Sequence[Style], weights: Sequence[float]) -> Style:
    """Blend styles of the same samples: weighted mean of the codes, and all tokens with these weights.

    Raises:
        AnimegenError: if there is not one weight per style, one is negative, or all are 0.
    """
    if len(styles) != len(weights) or not styles or min(weights) < 0 or sum(weights) <= 0:
        raise AnimegenError(
            f"{len(styles)} styles cannot be blended with the weights {list(weights)}: give one per style, none"
            " negative, and not all 0."
        )
    shares = [weight / sum(weights) for weight in weights]
    code = sum((share * style.code for share, style in zip(shares, styles, strict=True)), torch.zeros(()))
    tokens = torch.cat([style.tokens for style in styles], 1)
    return Style(code, tokens, torch.cat([s * style.weights for s, style in zip(shares, styles, strict=True)], 1))


class AdaNorm(nn.Module):
    """Norm with scale and shift predicted from the style code (AdaIN, Huang and Belongie 2017).

    ``(1 + rho) norm(x) + beta`` with ``rho`` and ``beta`` linear in the code, initially 0. The scale is predicted
    directly, not as the root of a variance, so it is finite for any code.

    Args:
        channels: channels of the maps.
        code: size of the code.
        kind: ``instance`` (AdaIN) or ``layer``, see :func:`~animegen.nn.norm.make_norm`; per frame.
    """

    def __init__(self, channels: int, code: int, kind: str = "instance") -> None:
        super().__init__()
        self.norm = make_norm(kind, channels)
        for name in ("weight", "bias"):  # scale and shift come from the code
            self.norm.register_parameter(name, None)
        self.affine = nn.Linear(code, 2 * channels)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Map (N,C,H,W) and codes (N,Z) to the same shape and dtype."""
        scale, shift = self.affine(code).to(x.dtype)[..., None, None].chunk(2, 1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class FusionBlock(nn.Module):
    """Apply a style to feature maps: ``x + eta g_c g_t conv(lrelu(conv(a)))``, where ``a`` depends on ``kind``.

    =============  ==============================================================================================
    ``kind``       ``a``
    =============  ==============================================================================================
    ``attention``  AdaAttN (Liu et al. 2021): the normalised maps, with mean and standard deviation per position
                   from attention to the style tokens
    ``gate``       the maps, each channel scaled by a sigmoid of the code
    ``adain``      :class:`AdaNorm` with the code
    ``none``       the normalised maps
    =============  ==============================================================================================

    The gate ``g_c`` is a sigmoid of the code (not with ``none``). The gate ``g_t`` is a sigmoid of ``a`` and of the
    hidden maps of the memory, which can suppress changes of a position. ``eta`` is learned, initially 0.1.

    Args:
        channels: channels of the maps.
        code: size of the code and of the tokens.
        memory: channels of the hidden maps of the memory at this resolution; 0 for none.
        kind: see above.
        kernel: attention weights: ``cosine``, ``1 + cos(q, k)`` (AdaAttN for video; smooth in the query, so that small
            changes do not switch between tokens), ``softmax`` of ``q k / sqrt(d)``, or ``linear``, ``q k / sqrt(d)``
            (MCCNet).

    Raises:
        AnimegenError: for an unknown kind or kernel.
    """

    def __init__(
        self, channels: int, code: int, memory: int = 0, kind: str = "attention", kernel: str = "cosine"
    ) -> None:
        super().__init__()
        for what, value, known in (("fusion", kind, FUSIONS), ("kernel", kernel, KERNELS)):
            if value not in known:
                raise AnimegenError(f"{what}={value} is unknown: use {', '.join(known)}.{did_you_mean(value, known)}")
        self.kind, self.kernel = kind, kernel
        self.norm = InstanceNorm(channels, affine=False)
        if kind == "attention":
            self.query = nn.Conv2d(channels, channels, 1, bias=False)
            self.token_norm = nn.LayerNorm(code)
            self.key = nn.Linear(code, channels, bias=False)
            self.value = nn.Linear(code, channels, bias=False)
        elif kind == "gate":
            self.scale = nn.Linear(code, channels)
        elif kind == "adain":
            self.adain = AdaNorm(channels, code)
        self.channel_gate = nn.Linear(code, channels) if kind != "none" else None
        self.time_gate = nn.Conv2d(channels + memory, 1, 1) if memory else None
        self.first, self.second = ReflectConv(channels, channels, 3, bias=True), ReflectConv(channels, channels, 3)
        self.eta = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor, style: Style, memory: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Map (N,C,H,W) to the same shape.

        Args:
            x: the maps.
            style: the style of each of the N frames.
            memory: hidden maps (N,memory,H,W).

        Returns:
            the maps, and the attention weights (N,HW,K) if the kind is ``attention``.
        """
        a, attention = self._fuse(x, style)
        y = self.second(F.leaky_relu(self.first(a), SLOPE))
        if self.channel_gate is not None:
            y = y * torch.sigmoid(self.channel_gate(style.code)).to(y.dtype)[..., None, None]
        if self.time_gate is not None and memory is not None:
            y = y * torch.sigmoid(self.time_gate(torch.cat([a.to(memory.dtype), memory], 1))).to(y.dtype)
        return x + (self.eta * y).to(x.dtype), attention

    def _fuse(self, x: Tensor, style: Style) -> tuple[Tensor, Tensor | None]:
        if self.kind == "gate":
            return x * torch.sigmoid(self.scale(style.code)).to(x.dtype)[..., None, None], None
        if self.kind == "adain":
            return self.adain(x, style.code), None
        normed = self.norm(x)
        if self.kind == "none":
            return normed, None
        query = self.query(normed).flatten(2).transpose(1, 2)  # (N,HW,C)
        key, value = self.key(self.token_norm(style.tokens)), self.value(style.tokens)  # (N,K,C)
        with torch.autocast(x.device.type, enabled=False):
            query, key, value = (at_least_float32(part) for part in (query, key, value))
            weights = self._attention(query, key, style.weights.to(query.dtype))
            mean = weights @ value
            # With the epsilon inside the root, since its derivative at 0 is infinite.
            deviation = ((weights @ value.square() - mean.square()).relu() + _EPS).sqrt()
            mean, deviation = (part.transpose(1, 2).unflatten(2, x.shape[-2:]) for part in (mean, deviation))
            return (deviation * normed + mean).to(x.dtype), weights

    def _attention(self, query: Tensor, key: Tensor, weights: Tensor) -> Tensor:
        """Return the attention weights (N,HW,K)."""
        weights = weights.unsqueeze(1)
        if self.kernel == "cosine":
            cosine = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(1, 2)
            attention = (1 + cosine) * weights
            return attention / attention.sum(-1, keepdim=True).clamp_min(1e-8)
        products = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        if self.kernel == "softmax":
            return torch.softmax(products + weights.log(), -1)
        return products * weights / weights.sum(-1, keepdim=True)
