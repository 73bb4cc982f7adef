"""The two products that a transformer is made of, each by whatever computes it fastest: linear layers and attention.

On a CPU torch's usual ways are not the fastest ones. All of this was measured on an AMD EPYC with AVX-512:

- A linear layer in float32 goes to MKL, which does not use AVX-512 there; oneDNN took half of the time.
- Attention's fused kernel took 2 to 3 times as long in bfloat16 as plain products with a softmax between, which
  reach oneDNN's kernels for bfloat16, and 10 times as long where there is one query.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Most scores, of all queries with all keys, that are ever held at once where no fused kernel spares them.
_SCORES = 2**26
#: Queries that are compared with keys at a time in training, about.
_CHUNK = 256
#: oneDNN's linear layer, without gradients; what torch.compile uses on CPUs.
_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None

#: Puts weights in the order that oneDNN wants.
_PACK: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None) if _ONEDNN is not None else None
_TYPES = (torch.float32, torch.bfloat16)


def linear(layer: nn.Linear, x: Tensor, gelu: bool = False) -> Tensor:
    """Return ``layer(x)``, with ``gelu`` (in its approximation by tanh) behind it if wanted."""
    if _ONEDNN is not None and _plain(x):
        weight = layer.__dict__.get("packed", layer.weight)
        return _ONEDNN(x, weight, layer.bias, "gelu" if gelu else "none", [], "tanh" if gelu else "")
    y = layer(x)
    return F.gelu(y, approximate="tanh") if gelu else y


@contextmanager
def packed(module: nn.Module, rows: int) -> Iterator[None]:
    """Keep the weights of all linear layers in oneDNN's order as long as the block runs, for inputs of so many rows.

    Otherwise they are put in order again in every call.
    """
    layers = [part for part in module.modules() if isinstance(part, nn.Linear) and _PACK is not None]
    layers = [part for part in layers if part.weight.device.type == "cpu" and part.weight.dtype in _TYPES]
    try:
        for layer in layers:
            layer.__dict__["packed"] = _PACK(layer.weight.detach(), rows)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("packed", None)


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Return ``softmax(query key / sqrt(size)) value``, (B,heads,S,size).

    Args:
        query: (B,heads,S,size).
        key: (B,heads,K,size).
        value: (B,heads,K,size).
        mask: bool (S,K), true where a query may look, somewhere at least; ``None`` for everywhere.
        dropout: share of the weights that are left out.
    """
    half = query.dtype == torch.bfloat16
    if query.device.type == "cpu" and not dropout and not torch.compiler.is_compiling():
        if half and mask is not None:
            return MaskedAttention.apply(query, key, value, mask)
        if mask is None and _plain(query) and query.shape[:3].numel() * key.shape[2] <= _SCORES:
            if half or query.shape[2] == 1:
                scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
                return scores.softmax(-1) @ value
            if _ONEDNN is not None:
                return _by_head(query * query.shape[-1] ** -0.5, key, value)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)


def _by_head(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return attention of scaled queries, a head after the other: to oneDNN keys and values are linear layers."""
    out = torch.empty_like(query)
    plain: tuple[Any, ...] = (None, "none", [], "")
    for number, head in product(range(query.shape[0]), range(query.shape[1])):
        asked, keys, values = (part[number, head] for part in (query, key, value))
        weights = _ONEDNN(asked.contiguous(), keys.contiguous(), *plain).softmax(-1)
        out[number, head] = _ONEDNN(weights, values.t().contiguous(), *plain)
    return out


class MaskedAttention(torch.autograd.Function):
    """Attention in plain products, which computes its weights again on the way back instead of keeping them.

    Queries go in chunks, and of the keys only those up to the last one that a query of the chunk may see: under a
    causal mask that is half of the work.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Return (B,heads,S,size), see `attended`."""
        query, key, value = (part.contiguous() for part in (query, key, value))  # the products are faster so
        ctx.spans = spans(mask)
        ctx.save_for_backward(query, key, value, mask)
        out = torch.empty_like(query)
        for begin, end, shared, seen in ctx.spans:
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
        for begin, end, shared, seen in ctx.spans:
            hidden = ~mask[begin:end, shared:seen]
            for number in range(len(query)):
                asked, keys = query[number, :, begin:end], key[number, :, :seen]
                given = gradient[number, :, begin:end]
                weights = _weights(asked, keys, hidden)
                to_value[number, :, :seen] += weights.transpose(-1, -2) @ given
                to_weights = given @ value[number, :, :seen].transpose(-1, -2)
                to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
                to_query[number, :, begin:end] = (to_scores @ keys) * scale
                to_key[number, :, :seen] += to_scores.transpose(-1, -2) @ (asked * scale)
        return to_query, to_key, to_value, None


def spans(mask: Tensor) -> list[tuple[int, int, int, int]]:
    """Return chunks of the queries of a mask (S,K), and which keys they see.

    Returns:
        For each chunk its first query and the end of its queries; then, how many of the first keys all of them see, and
        the end of the keys that any of them sees.
    """
    found = []
    size = -(-len(mask) // max(1, round(len(mask) / _CHUNK)))
    for begin in range(0, len(mask), size):
        part = mask[begin : begin + size]
        shared = part.all(0).long().cumprod(0).sum()
        seen = part.any(0).nonzero().max() + 1
        found.append((begin, begin + len(part), int(shared), int(seen)))
    return found


def _weights(query: Tensor, key: Tensor, hidden: Tensor) -> Tensor:
    """Return the weights (heads,S,K) of attention; ``hidden`` says which of the last keys are not to be seen."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if hidden.shape[1]:
        scores[..., -hidden.shape[1] :].masked_fill_(hidden, -torch.inf)
    return scores.softmax(-1)


def _plain(x: Tensor) -> bool:
    """Tell whether there is nothing to learn, no other device, and no conversion of types to be done."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return x.dtype in _TYPES and not torch.compiler.is_compiling()
