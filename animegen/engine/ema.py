"""Exponential moving averages of networks, for any number of optimizers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError


class Ema:
    """Exponential moving average of the parameters of networks; buffers are copied.

    Args:
        networks: name -> network.
        decay: weight of the old average per update, in [0, 1). After n updates the weight is
            ``min(decay, (1 + n) / (10 + n))``, as in TensorFlow's ``ExponentialMovingAverage``, so that early weights
            do not dominate.

    Raises:
        AnimegenError: for a decay outside of [0, 1).
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise AnimegenError(f"model.ema.decay must lie in [0, 1), got {decay}: 0.999 averages about 1000 steps.")
        self.decay = decay
        self.updates = 0
        self._networks = dict(networks)
        self._averages = {
            name: {key: value.detach().clone() for key, value in _tensors(network).items()}
            for name, network in self._networks.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages with the current weights; call once per train step."""
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, network in self._networks.items():
            averages = self._averages[name]
            parameters = dict(network.named_parameters())
            self._follow(network, averages)
            torch._foreach_lerp_([averages[key] for key in parameters], list(parameters.values()), weight)
            for key, value in network.named_buffers():
                if key in averages:
                    averages[key].copy_(value)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Swap the averaged weights into the networks inside the ``with`` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, network in self._networks.items():
            averages = self._averages[name]
            self._follow(network, averages)
            for key, value in _tensors(network).items():
                current = value.detach().clone()
                value.copy_(averages[key])
                averages[key].copy_(current)

    @staticmethod
    def _follow(network: nn.Module, averages: dict[str, Tensor]) -> None:
        """Move the averages to the device of the network."""
        device = next(network.parameters()).device
        if next(iter(averages.values())).device != device:
            for key, value in averages.items():
                averages[key] = value.to(device)

    def state_dict(self) -> dict[str, object]:
        """Return the averages (one state dict per network) and the update count."""
        averages = {name: {key: value.clone() for key, value in a.items()} for name, a in self._averages.items()}
        return {"updates": self.updates, "averages": averages}

    def load_state_dict(self, state: dict) -> None:
        """Restore the return value of :meth:`state_dict`."""
        self.updates = int(state["updates"])
        for name, averages in state["averages"].items():
            if name in self._averages:
                for key, value in averages.items():
                    self._averages[name][key].copy_(value)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent floating-point buffers of a network by state dict key."""
    persistent = network.state_dict(keep_vars=True)
    return {key: value for key, value in persistent.items() if isinstance(value, Tensor) and value.is_floating_point()}
