"""The keys and values of tokens that a transformer has read already, in memory that is allocated once."""

from __future__ import annotations

import torch
from torch import Tensor


class Cache:
    """Keys and values of all layers, each ``(layers, B, heads, length, size)``.

    Nothing is ever concatenated: a token is written into its place, and attention reads the view up to there.

    Args:
        layers: of the transformer.
        batch: B.
        heads: of each layer.
        length: the most tokens that are ever kept, those of the last pass included.
        size: of a head.
        like: a tensor of the wanted device and type; attention to what is kept is computed in this type.
    """

    def __init__(self, layers: int, batch: int, heads: int, length: int, size: int, like: Tensor) -> None:
        self.keys = like.new_empty((layers, batch, heads, length, size))
        self.values = torch.empty_like(self.keys)
        # A layer's own, since indexing costs more than the rest of `write`.
        self._layers = [(self.keys[n], self.values[n]) for n in range(layers)]
        #: How many tokens are kept.
        self.length = 0

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys and values (B,heads,n,size) behind the kept ones; return both together, (B,heads,length+n,size).

        They stay only if :attr:`length` is raised after the last layer; otherwise the next pass writes over them.
        """
        count = keys.shape[2]
        all_keys, all_values = self._layers[layer]
        all_keys.narrow(2, self.length, count).copy_(keys)
        all_values.narrow(2, self.length, count).copy_(values)
        end = self.length + count
        return all_keys.narrow(2, 0, end), all_values.narrow(2, 0, end)
