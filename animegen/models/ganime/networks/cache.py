"""Key-value cache of the transformer, allocated once."""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values of all layers, each ``(layers, B, heads, length, size)``.

    New entries are written in place and attention reads a view, so nothing is ever concatenated.

    Args:
        layers: layers of the transformer.
        batch: B.
        heads: attention heads per layer.
        length: capacity in tokens, including those of the last pass.
        size: channels per head.
        like: tensor with the device and dtype of the cache. Attention to cached keys is computed in this dtype.
    """

    def __init__(self, layers: int, batch: int, heads: int, length: int, size: int, like: Tensor) -> None:
        self.keys = like.new_empty((layers, batch, heads, length, size))
        self.values = torch.empty_like(self.keys)
        # Views per layer, created once: indexing would take longer than the rest of `write`.
        self._layers = [(self.keys[n], self.values[n]) for n in range(layers)]
        #: Number of cached tokens.
        self.length = 0

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values (B,heads,n,size) behind the cached ones; return all, (B,heads,length+n,size).

        They are kept only if :attr:`length` is increased after the last layer; otherwise the next pass overwrites them.
        """
        count = keys.shape[2]
        all_keys, all_values = self._layers[layer]
        all_keys.narrow(2, self.length, count).copy_(keys)
        all_values.narrow(2, self.length, count).copy_(values)
        end = self.length + count
        return all_keys.narrow(2, 0, end), all_values.narrow(2, 0, end)
