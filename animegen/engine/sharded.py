"""Training with the weights, gradients and optimizer states cut up over all processes (FSDP)."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard


class ShardedStrategy(ModelParallelStrategy):
    """PyTorch's ``fully_shard`` (FSDP2) over all processes, a shard for each; checkpoints are whole, as always.

    Lightning's own FSDP strategy wraps the whole module, which does not go with several optimizers and with networks
    that are frozen in turn; here each network is sharded by itself.

    Args:
        **settings: see :class:`pytorch_lightning.strategies.ModelParallelStrategy`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **settings)

    def setup_environment(self) -> None:
        """Start the processes; all of them share the batch."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(module: LightningModule, networks: dict[str, nn.Module]) -> None:
    """Cut the weights of networks up over the processes, if the strategy of the trainer is to."""
    if not isinstance(module.trainer.strategy, ShardedStrategy):
        return
    for network in networks.values():
        # torch cuts up weights in the usual memory order only, and channels_last has put them into another.
        network.to(memory_format=torch.contiguous_format)
        # Off again after each forward, so that the parameters at rest are the shards that the optimizers have.
        fully_shard(network, mesh=module.trainer.strategy.device_mesh["data_parallel"], reshard_after_forward=True)
