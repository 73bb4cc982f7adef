"""Encoding a style from stills, and bringing it into the picture."""

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
    """Stills to a code (what the style is like as a whole) and 64 tokens (what it is like in parts of the still).

    Four convolutions of stride 2 without any norm, which would erase the style. The code is read off mean *and*
    deviation of the channels, since the mean alone forgets contrast; the tokens are means over an 8x8 grid.

    A *default* style, a code and tokens of its own, is learned beside: what is drawn when no still is given.

    Args:
        width: factor on the channels; 1 has 64, 128, 256 and 256, and a code and tokens of 256.
    """

    #: Smallest side of a still in pixels.
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
        self.default_code = nn.Parameter(0.1 * torch.randn(1, self.size))
        self.default_tokens = nn.Parameter(0.1 * torch.randn(1, GRID**2, self.size))

    def forward(self, stills: Tensor) -> Style:
        """Encode one still (3,H,W) of each of B samples, ``(B,3,H,W)`` in [-1,1], sides of at least 32 pixels."""
        height, width = stills.shape[-2:]
        if min(height, width) < self.smallest:
            raise AnimegenError(f"A still of {width}x{height} pixels is too small: its sides need {self.smallest}.")
        if height % 16 or width % 16:
            stills = stills[..., : height - height % 16, : width - width % 16]
        features = self.layers(stills)
        deviation, mean = torch.std_mean(at_least_float32(features), (2, 3), correction=0)
        code = self.code(torch.cat([mean, deviation], 1))
        tokens = F.adaptive_avg_pool2d(features, GRID).flatten(2).transpose(1, 2)
        return Style(code, tokens, torch.ones_like(tokens[..., 0]))

    def default(self, batch: int) -> Style:
        """Return the learned style for B samples."""
        tokens = self.default_tokens.expand(batch, -1, -1)
        return Style(self.default_code.expand(batch, -1), tokens, torch.ones_like(tokens[..., 0]))


def scaled(stills: Tensor, size: int) -> Tensor:
    """Scale stills (N,3,H,W) so that their shorter side has ``size`` pixels."""
    factor = size / min(stills.shape[-2:])
    shape = [max(size, round(side * factor)) for side in stills.shape[-2:]]
    return F.interpolate(stills, shape, mode="bilinear", antialias=True)


def blend(styles: Sequence[Style], weights: Sequence[float]) -> Style:
    """Mix styles of the same samples: the mean of their codes, and all their tokens, which count by the weights.

    Raises:
        AnimegenError: if there are not as many weights as styles, one is negative, or all are 0.
    """
    if len(styles) != len(weights) or not styles or min(weights) < 0 or sum(weights) <= 0:
        raise AnimegenError(
            f"{len(styles)} styles cannot be blended by the weights {list(weights)}: give one for each, none negative,"
            " and not all 0."
        )
    shares = [weight / sum(weights) for weight in weights]
    code = sum((share * style.code for share, style in zip(shares, styles, strict=True)), torch.zeros(()))
    tokens = torch.cat([style.tokens for style in styles], 1)
    return Style(code, tokens, torch.cat([s * style.weights for s, style in zip(shares, styles, strict=True)], 1))


class AdaNorm(nn.Module):
    """A norm whose scale and shift come from the style's code (AdaIN: Huang and Belongie 2017, with the code learned).

    ``(1 + rho) norm(x) + beta`` with ``rho, beta`` linear in the code; both begin at 0. The scale is predicted as it
    is, never as the root of a predicted variance, so that no code whatever makes it NaN.

    Args:
        channels: of the maps.
        code: size of the code.
        kind: ``instance`` (AdaIN) or ``layer``, see :func:`~animegen.nn.norm.make_norm`; of each frame by itself.
    """

    def __init__(self, channels: int, code: int, kind: str = "instance") -> None:
        super().__init__()
        self.norm = make_norm(kind, channels)
        for name in ("weight", "bias"):  # its scale and shift are those of the code
            self.norm.register_parameter(name, None)
        self.affine = nn.Linear(code, 2 * channels)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Normalise maps (N,C,H,W) by codes (N,Z); shape and dtype stay."""
        scale, shift = self.affine(code).to(x.dtype)[..., None, None].chunk(2, 1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


class FusionBlock(nn.Module):
    """Brings a style into maps: ``x + eta g_c g_t conv(lrelu(conv(a)))``, where ``a`` depends on the kind of fusion.

    =============  =================================================================================================
    ``attention``  AdaAttN (Liu et al. 2021): each place reads from the tokens the mean and the deviation that its
                   normalised map is given
    ``gate``       the maps, each channel scaled by a sigmoid of the code
    ``adain``      :class:`AdaNorm` by the code
    ``none``       the normalised maps
    =============  =================================================================================================

    ``g_c`` is a sigmoid of the code (not with ``none``). ``g_t`` is a sigmoid of ``a`` and of what the memory holds
    there, which can veto that a place is drawn anew. ``eta`` begins at 0.1.

    Args:
        channels: of the maps.
        code: size of the style's code and tokens.
        memory: channels of the memory's hidden maps at this scale, 0 without.
        kind: see above.
        kernel: how attention weighs tokens: ``cosine``, ``1 + cos(q, k)`` (AdaAttN for video: smooth in the query, so
            that little changes do not flip the token that is read), ``softmax`` of ``q k / sqrt(d)``, or ``linear``,
            ``q k / sqrt(d)`` as it is (MCCNet).
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
            style: of each of the N frames.
            memory: (N,memory,H,W).

        Returns:
            the maps, and what each place read from each token, (N,HW,K), if the kind is ``attention``.
        """
        a, shares = self._fused(x, style)
        y = self.second(F.leaky_relu(self.first(a), SLOPE))
        if self.channel_gate is not None:
            y = y * torch.sigmoid(self.channel_gate(style.code)).to(y.dtype)[..., None, None]
        if self.time_gate is not None and memory is not None:
            y = y * torch.sigmoid(self.time_gate(torch.cat([a.to(memory.dtype), memory], 1))).to(y.dtype)
        return x + (self.eta * y).to(x.dtype), shares

    def _fused(self, x: Tensor, style: Style) -> tuple[Tensor, Tensor | None]:
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
            shares = self._shares(query, key, style.weights.to(query.dtype))
            mean = shares @ value
            # The epsilon inside the root: its slope at 0 is infinite.
            deviation = ((shares @ value.square() - mean.square()).relu() + _EPS).sqrt()
            mean, deviation = (part.transpose(1, 2).unflatten(2, x.shape[-2:]) for part in (mean, deviation))
            return (deviation * normed + mean).to(x.dtype), shares

    def _shares(self, query: Tensor, key: Tensor, weights: Tensor) -> Tensor:
        """Return how much each place reads from each token, (N,HW,K)."""
        weights = weights.unsqueeze(1)
        if self.kernel == "cosine":
            cosine = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(1, 2)
            shares = (1 + cosine) * weights
            return shares / shares.sum(-1, keepdim=True).clamp_min(1e-8)
        products = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        if self.kernel == "softmax":
            return torch.softmax(products + weights.log(), -1)
        return products * weights / weights.sum(-1, keepdim=True)
