"""Where the milliseconds of a training step go: networks forward, backward per update, optimizers, data."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from animegen.config.instantiate import build
from animegen.engine.module import AnimeModule


class Stopwatch:
    """Adds up seconds by name; synchronizes the device before each reading."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Return the time after all queued operations have finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``name``."""
        began = self.now()
        yield
        self.seconds[name] += self.now() - began


def timed_networks(model: AnimeModule, watch: Stopwatch) -> Callable[[], None]:
    """Add the forward time of each trained network, and of the feature network, to ``"<name> forward"``.

    Returns:
        A function that removes the hooks.
    """
    parts: dict[str, nn.Module] = dict(model.networks())
    if model.features is not None:
        parts["features"] = model.features
    handles: list[Any] = []
    begun: dict[str, float] = {}
    for name, network in parts.items():

        def before(*_: Any, name: str = name) -> None:
            begun[name] = watch.now()

        def after(*_: Any, name: str = name) -> None:
            watch.seconds[f"{name} forward"] += watch.now() - begun[name]

        handles += [network.register_forward_pre_hook(before), network.register_forward_hook(after)]

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def step_parts(
    model: AnimeModule, one_step: Callable[[Stopwatch], None], device: torch.device, steps: int
) -> dict[str, float]:
    """Return the milliseconds of a step by part; the remainder (losses, augmentation) is ``"rest"``.

    Args:
        model: the forward passes of its networks are timed separately.
        one_step: trains one step and adds its backward passes and optimizers to the stopwatch.
        device: where the model is.
        steps: number of steps to take the mean of, after one that warms up.
    """
    one_step(Stopwatch(device))
    watch = Stopwatch(device)
    remove = timed_networks(model, watch)
    began = watch.now()
    for _ in range(steps):
        one_step(watch)
    whole = watch.now() - began
    remove()
    watch.seconds["rest"] = whole - sum(watch.seconds.values())
    return {f"ms per step, {name}": 1000 * seconds / steps for name, seconds in watch.seconds.items()}


def data_wait(experiment: DictConfig, device: torch.device, batches: int = 8) -> float:
    """Return the seconds that one batch of an experiment's data takes: loading, moving to the device, augmentation.

    With ``data.num_workers`` above 0 loading is parallel to the step; this is the time without parallel loading.
    """
    data: Any = build(experiment.data, "data")
    data.setup("fit")
    batches_of = iter(data.train_dataloader())  # endless
    next(batches_of)  # renders ToonWorld, reads folders
    watch, times = Stopwatch(device), []
    for _ in range(batches):
        began = watch.now()
        batch = {key: value.to(device) for key, value in next(batches_of).items()}
        data.finish_training(batch)
        times.append(watch.now() - began)
    return median(times)
