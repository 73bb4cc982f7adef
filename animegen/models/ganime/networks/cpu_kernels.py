"""Faster CPU implementations of linear layers, attention and group norm.

This is the only file that calls private functions of torch. Every function here computes what its public counterpart
does, and calls that counterpart on other devices, under ``torch.compile``, and if the installed version of torch lacks
a private function. Measured on one thread of an AMD EPYC with AVX-512 (``animegen bench model=ganime/gpt6``, and with
``precision=bf16``; see ``experiments/benchmarks/README.md``):

==============================================================================  ========  ========
replaced                                                                        public    here
==============================================================================  ========  ========
linear layers by oneDNN with prepacked weights and fused GELU (torch calls MKL  418       517
there, which does not use AVX-512), and attention head by head in the same
way: codes/s generated for a batch of 8, float32
attention in training in plain matrix products that skip masked keys and are    1,600     2,570
recomputed in the backward pass: codes/s trained, bfloat16
backward pass of group norm on channels-last maps, bfloat16, 8x64x64x128        51 ms     1.6 ms
==============================================================================  ========  ========

torch's fused attention kernel took 2 to 3 times as long in bfloat16 as plain products, and 10 times for a single query.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Limit on the number of attention scores that are materialised at once outside of the fused kernel.
_MAX_SCORES = 2**26
#: Approximate number of queries per chunk of :class:`MaskedAttention`.
_CHUNK = 256
#: oneDNN's linear layer without gradients, which torch.compile uses on CPUs.
_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
#: Reorders weights to the memory layout of oneDNN.
_PACK: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None) if _ONEDNN is not None else None
#: oneDNN refuses bfloat16 on processors without the instructions for it.
_BF16 = _ONEDNN is not None and torch.ops.mkldnn._is_mkldnn_bf16_supported()
_DTYPES = (torch.float32, torch.bfloat16) if _BF16 else (torch.float32,)


def linear(layer: nn.Linear, x: Tensor, gelu: bool = False) -> Tensor:
    """Return ``layer(x)``, followed by GELU (tanh approximation) with ``gelu``."""
    if _ONEDNN is not None and _is_cpu_inference(x):
        weight = layer.__dict__.get("packed", layer.weight)
        return _ONEDNN(x, weight, layer.bias, "gelu" if gelu else "none", [], "tanh" if gelu else "")
    y = layer(x)
    return F.gelu(y, approximate="tanh") if gelu else y


@contextmanager
def prepacked(module: nn.Module, rows: int) -> Iterator[None]:
    """Keep the weights of all linear layers in oneDNN's memory layout inside the block.

    Without it they are reordered in each call.

    Args:
        module: contains the layers.
        rows: number of rows of the inputs, for which the layout is chosen. Other inputs work, too.
    """
    layers = [part for part in module.modules() if isinstance(part, nn.Linear) and _PACK is not None]
    layers = [part for part in layers if part.weight.device.type == "cpu" and part.weight.dtype in _DTYPES]
    try:
        for layer in layers:
            layer.__dict__["packed"] = _PACK(layer.weight.detach(), rows)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("packed", None)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Return ``softmax(query key^T / sqrt(size)) value``, (B,heads,S,size).

    Args:
        query: (B,heads,S,size).
        key: (B,heads,K,size).
        value: (B,heads,K,size).
        mask: bool (S,K), true where a query may attend, at least at one key each; ``None`` for everywhere.
        dropout: dropout probability of the attention weights.
    """
    half = query.dtype == torch.bfloat16
    if query.device.type == "cpu" and not dropout and not torch.compiler.is_compiling():
        if half and mask is not None:
            return MaskedAttention.apply(query, key, value, mask)
        if mask is None and _is_cpu_inference(query) and query.shape[:3].numel() * key.shape[2] <= _MAX_SCORES:
            if half or query.shape[2] == 1:
                scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
                return scores.softmax(-1) @ value
            if _ONEDNN is not None:
                return _attention_by_head(query * query.shape[-1] ** -0.5, key, value)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)


def _attention_by_head(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute attention of scaled queries head by head, with keys and values as weights of oneDNN's linear layer."""
    out = torch.empty_like(query)
    plain: tuple[Any, ...] = (None, "none", [], "")
    for number, head in product(range(query.shape[0]), range(query.shape[1])):
        queries, keys, values = (part[number, head] for part in (query, key, value))
        weights = _ONEDNN(queries.contiguous(), keys.contiguous(), *plain).softmax(-1)
        out[number, head] = _ONEDNN(weights, values.t().contiguous(), *plain)
    return out


class MaskedAttention(torch.autograd.Function):
    """Masked attention in plain matrix products; the backward pass recomputes the weights instead of storing them.

    Queries are processed in chunks, each with the keys up to the last one that a query of the chunk attends to: under a
    causal mask that is half of the work.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Return (B,heads,S,size), see :func:`attention`."""
        query, key, value = (part.contiguous() for part in (query, key, value))  # for faster products
        ctx.chunks = query_chunks(mask)
        ctx.save_for_backward(query, key, value, mask)
        out = torch.empty_like(query)
        for begin, end, shared, seen in ctx.chunks:
            hidden = ~mask[begin:end, shared:seen]
            for number in range(len(query)):
                weights = _weights(query[number, :, begin:end], key[number, :, :seen], hidden)
                out[number, :, begin:end] = weights @ value[number, :, :seen]
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of query, key and value."""
        query, key, value, mask = ctx.saved_tensors
        gradient = gradient.contiguous()
        scale = query.shape[-1] ** -0.5
        to_query, to_key, to_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for begin, end, shared, seen in ctx.chunks:
            hidden = ~mask[begin:end, shared:seen]
            for number in range(len(query)):
                queries, keys = query[number, :, begin:end], key[number, :, :seen]
                to_out = gradient[number, :, begin:end]
                weights = _weights(queries, keys, hidden)
                to_value[number, :, :seen] += weights.transpose(-1, -2) @ to_out
                to_weights = to_out @ value[number, :, :seen].transpose(-1, -2)
                to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
                to_query[number, :, begin:end] = (to_scores @ keys) * scale
                to_key[number, :, :seen] += to_scores.transpose(-1, -2) @ (queries * scale)
        return to_query, to_key, to_value, None


def query_chunks(mask: Tensor) -> list[tuple[int, int, int, int]]:
    """Divide the queries of a mask (S,K) into chunks, and find the keys that each chunk attends to.

    Returns:
        for each chunk the first query, the end of its queries, the number of leading keys that all of its queries
        attend to, and the end of the keys that any of them attends to.
    """
    chunks = []
    size = -(-len(mask) // max(1, round(len(mask) / _CHUNK)))
    for begin in range(0, len(mask), size):
        part = mask[begin : begin + size]
        shared = part.all(0).long().cumprod(0).sum()
        seen = part.any(0).nonzero().max() + 1
        chunks.append((begin, begin + len(part), int(shared), int(seen)))
    return chunks


def _weights(query: Tensor, key: Tensor, hidden: Tensor) -> Tensor:
    """Return attention weights (heads,S,K); ``hidden`` masks the last keys."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if hidden.shape[1]:
        scores[..., -hidden.shape[1] :].masked_fill_(hidden, -torch.inf)
    return scores.softmax(-1)


def _is_cpu_inference(x: Tensor) -> bool:
    """Return whether oneDNN's functions apply: on a CPU, without gradients, autocast or compilation."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return x.dtype in _DTYPES and not torch.compiler.is_compiling()


class GroupNorm(nn.GroupNorm):
    """Group norm with a fast backward pass on channels-last maps in bfloat16 on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,h,w) to the same shape."""
        slow = x.dtype == torch.bfloat16 and x.device.type == "cpu"
        slow = slow and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        if slow and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _ContiguousBackwardGroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(x)


class _ContiguousBackwardGroupNorm(torch.autograd.Function):
    """Group norm whose backward pass runs on contiguous maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        size, channels, area = x.shape[0], x.shape[1], x.shape[2:].numel()
        ctx.sizes = (size, channels, area, groups)
        y, mean, rstd = torch.native_group_norm(x, weight, bias, size, channels, area, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        gradients = torch.ops.aten.native_group_norm_backward(
            gradient.contiguous(), x.contiguous(), mean, rstd, weight, *ctx.sizes, list(ctx.needs_input_grad[:3])
        )
        to_x, to_weight, to_bias = (part if part is None or part.numel() else None for part in gradients)
        return None if to_x is None else _channels_last(to_x), to_weight, to_bias, None, None


def _channels_last(maps: Tensor) -> Tensor:
    """Convert contiguous maps (B,C,h,w) to channels-last, sample by sample, which is faster than ``Tensor.to``."""
    result = torch.empty_like(maps, memory_format=torch.channels_last)
    for target, source in zip(result, maps, strict=True):
        target.permute(1, 2, 0).flatten(0, 1).copy_(source.flatten(1).t())
    return result
