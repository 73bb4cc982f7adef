"""Training with weights, gradients and optimizer states sharded over all processes (FSDP)."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import ModelParallelStrategy
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


def shard(module: LightningModule, networks: dict[str, nn.Module]) -> None:
    """Shard the weights of networks over the processes, if the trainer has a `ShardedStrategy`."""
    if not isinstance(module.trainer.strategy, ShardedStrategy):
        return
    for network in networks.values():
        # torch shards contiguous weights only, and channels_last has changed their memory format.
        network.to(memory_format=torch.contiguous_format)
        # Resharded after each forward pass, so that the parameters are the shards that the optimizers hold.
        fully_shard(network, mesh=module.trainer.strategy.device_mesh["data_parallel"], reshard_after_forward=True)
