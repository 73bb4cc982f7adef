"""Means and group norms over the whole image, computed tile by tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from animegen.nn.precision import at_least_float32

_MEAN, _GROUP_NORM = torch.ops.aten.mean.dim, torch.ops.aten.native_group_norm.default

Moments = tuple[int, Tensor, Tensor | None]
"""Number of values, their mean, and the sum of their squared deviations from it."""


@dataclass(frozen=True)
class Reduction:
    """A mean over at least height and width, or the statistics of a group norm.

    Attributes:
        dims: dimensions of the mean.
        keepdim: keep them with size 1.
        groups: number of groups of a group norm, whose statistics are mean and biased variance (B,groups,1,...);
            ``None``: a mean.
    """

    dims: tuple[int, ...]
    keepdim: bool = True
    groups: int | None = None

    @classmethod
    def of(cls, node: fx.Node) -> Reduction | None:
        """Return the reduction over height and width that a node of a graph computes, if it does."""
        arguments: Any = node.args
        if node.target is _GROUP_NORM:
            ndim = arguments[0].meta["val"].ndim
            return cls(tuple(range(2, ndim + 1)), groups=arguments[6])
        if node.target is _MEAN:
            x, dims, *keepdim = arguments
            ndim = x.meta["val"].ndim
            dims = tuple(dim % ndim for dim in dims or range(ndim))
            if {ndim - 2, ndim - 1} <= set(dims):
                return cls(dims, bool(keepdim and keepdim[0]))
        return None

    def moments(self, x: Tensor) -> Moments:
        """Return the moments of a part of the map."""
        x = at_least_float32(x)
        if self.groups is not None:
            x = x.unflatten(1, (self.groups, -1))
        mean = x.mean(self.dims, keepdim=True)
        count = x.numel() // mean.numel()
        if self.groups is None:
            return count, mean, None
        # In two passes: the difference of the mean square and the squared mean would cancel, and torch.var_mean takes
        # six to eight times as long on a CPU.
        return count, mean, (x - mean).square_().sum(self.dims, keepdim=True)

    def total(self) -> Total:
        """Return the moments of no values, to which those of parts are added."""
        return Total(self)


class Total:
    """Combined moments of disjoint parts of a map, accumulated in float64 (Chan, Golub, LeVeque 1979)."""

    def __init__(self, reduction: Reduction) -> None:
        self.reduction = reduction
        self.count = 0
        self._mean = self._squares = torch.zeros(())
        self._device, self._dtype = torch.device("cpu"), torch.float32

    def add(self, part: Moments) -> None:
        """Add the moments of a part."""
        count, mean, squares = part
        if self.count == 0:
            self._device, self._dtype = mean.device, mean.dtype
            self._mean, self._squares = (torch.zeros_like(self._double(mean)) for _ in range(2))
        self.count += count
        delta = self._double(mean) - self._mean
        # In place: tensors that outlive a tile would fragment the heap.
        self._mean += delta * (count / self.count)
        if squares is not None:
            self._squares += self._double(squares) + delta.square() * (count * (self.count - count) / self.count)

    def result(self, dtype: torch.dtype) -> Tensor | tuple[Tensor, Tensor]:
        """Return the mean in the type ``dtype``, or mean and biased variance in that of the moments."""
        if self.reduction.groups is None:
            mean = self._mean if self.reduction.keepdim else self._mean.squeeze(self.reduction.dims)
            return mean.to(dtype).to(self._device)
        mean, variance = (x.to(self._dtype).to(self._device) for x in (self._mean, self._squares / self.count))
        return mean, variance

    def _double(self, x: Tensor) -> Tensor:
        return (x.cpu() if x.device.type == "mps" else x).double()  # MPS has no float64


def split_group_norm(node: fx.Node) -> None:
    """Replace a group norm in a graph by its statistics, which ``node`` then represents, and two functions of them."""
    graph = node.graph
    arguments: Any = node.args
    x, weight, bias, _, channels, _, _, eps = arguments
    with graph.inserting_after(node):
        affine = graph.call_function(_affine, (node, weight, bias, channels, eps))
    with graph.inserting_after(affine):
        result = graph.call_function(_apply, (x, affine))
    for output in [user for user in node.users if user is not affine]:
        if output.args[1] == 0:
            result.meta = dict(output.meta)
            output.replace_all_uses_with(result)
        graph.erase_node(output)


def _affine(
    statistics: tuple[Tensor, Tensor], weight: Tensor | None, bias: Tensor | None, channels: int, eps: float
) -> tuple[Tensor, Tensor]:
    """Return scale and shift per channel, (B,C,1,...), of a group norm with these statistics (B,groups,1,1,...)."""
    mean, variance = statistics
    share = channels // mean.shape[1]
    mean, deviation = (x.repeat_interleave(share, 1).squeeze(2) for x in (mean, torch.rsqrt(variance + eps)))
    size = (1, channels, *[1] * (mean.ndim - 2))
    scale = deviation if weight is None else deviation * weight.view(size)
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias.view(size)


def _apply(x: Tensor, affine: tuple[Tensor, Tensor]) -> Tensor:
    scale, shift = affine
    return torch.addcmul(shift, at_least_float32(x), scale).to(x.dtype)
