"""Training with weights, gradients and optimizer states sharded over all processes (FSDP)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.fsdp import fully_shard


class ShardedStrategy(ModelParallelStrategy):
    """PyTorch's ``fully_shard`` (FSDP2) over all processes; checkpoints hold the full weights.

    Lightning's FSDP strategy wraps the whole module, which does not support several optimizers and alternately frozen
    networks; here each network is sharded separately.

    Args:
        **settings: see :class:`pytorch_lightning.strategies.ModelParallelStrategy`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **settings)

    def setup_environment(self) -> None:
        """Start the processes, all of them data-parallel."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the state dict of the model in the first process, an empty one in the others."""
        with self._without_adapter():
            return super().lightning_module_state_dict()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the state of an optimizer in the first process, an empty one in the others."""
        with self._without_adapter():
            return super().optimizer_state(optimizer)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load the weights and the states of the optimizers; return the rest of the checkpoint."""
        with self._without_adapter():
            return super().load_checkpoint(checkpoint_path, weights_only)

    @contextmanager
    def _without_adapter(self) -> Iterator[None]:
        """Take names of weights from the model itself: those of its `LightningAdapter` have a prefix."""
        adapter: Any = self.model
        self.model = adapter.model
        try:
            yield
        finally:
            self.model = adapter


def shard(strategy: Strategy, networks: dict[str, nn.Module]) -> None:
    """Shard the weights of networks over the processes, if the strategy is a `ShardedStrategy`."""
    if not isinstance(strategy, ShardedStrategy):
        return
    for network in networks.values():
        # torch shards contiguous weights only, and channels_last has changed their memory format.
        network.to(memory_format=torch.contiguous_format)
        # Resharded after each forward pass, so that the parameters are the shards that the optimizers hold.
        fully_shard(network, mesh=strategy.device_mesh["data_parallel"], reshard_after_forward=True)
