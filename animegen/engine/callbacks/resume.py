"""States of the random generators, for exact resumption."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed as dist

from animegen.engine.lightning import LightningAdapter
from animegen.errors import AnimegenError


class ExactResume(pl.Callback):
    """Save the states of all random generators, and restore them before the first resumed step.

    Restored earlier, they would be advanced by the setup of the process. The order of the samples is not part of the
    state: it is a function of the seed and the number of trained batches.

    Each of several processes has its own random states (for example for dropout masks); checkpoints hold all of them.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] = []
        #: Whether training has begun, and the state of a checkpoint is restored.
        self.begun = False

    def on_train_start(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Use different seeds in all processes; the first one has that of a single process."""
        self.begun = True
        if trainer.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)

    def state_dict(self) -> dict[str, Any]:
        """Return the generator states of all processes; a collective operation."""
        states: list[Any] = [generator_states()]
        if dist.is_available() and dist.is_initialized():
            mine, states = states[0], [None] * dist.get_world_size()
            dist.all_gather_object(states, mine)
        return {"processes": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Store the states until training starts."""
        self._states = state["processes"]

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Restore the states once; additional processes keep their own."""
        if trainer.global_rank < len(self._states):
            try:
                restore_generators(self._states[trainer.global_rank])
            except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
                raise AnimegenError(
                    f"The random states in the checkpoint cannot be restored ({' '.join(str(error).split())[:100]}): it"
                    " is damaged; use another checkpoint of the run."
                ) from error
        self._states = []


def generator_states() -> dict[str, Any]:
    """Return the states of all random generators as tensors and plain values."""
    version, words, gauss = random.getstate()
    # The legacy generator is global state that losses, augmentations and plugins may draw from.
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_generators(state: dict[str, Any]) -> None:
    """Restore the return value of :func:`generator_states`; CUDA states only for the same number of devices."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
