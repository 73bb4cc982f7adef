"""Settings of training that all models have in common, and the optimizers that they describe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from animegen.config.instantiate import finish
from animegen.errors import AnimegenError, did_you_mean


@dataclass
class TrainingSettings:
    """Settings of training; see :class:`~animegen.engine.module.AnimeModule` for their meaning.

    Raises:
        AnimegenError: for invalid values.
    """

    optimizers: Mapping[str, Callable[..., torch.optim.Optimizer]]
    schedulers: Mapping[str, Callable[..., Any]]
    ema: Mapping[str, Any] | None
    clip: float | Mapping[str, float] | None
    accumulate: int
    compile: list[str]
    channels_last: bool
    gradient_norms: int

    def __post_init__(self) -> None:
        """Check the values."""
        if self.accumulate < 1:
            raise AnimegenError(f"model.accumulate must be at least 1, got {self.accumulate}.")
        if self.gradient_norms < 0:
            raise AnimegenError(
                f"model.gradient_norms={self.gradient_norms} must be a number of steps, or 0 for never."
            )
        for name, limit in self.clip.items() if isinstance(self.clip, Mapping) else [("", self.clip)]:
            if limit is not None and not limit > 0:
                key = f"model.clip.{name}" if name else "model.clip"
                raise AnimegenError(f"{key}={limit} is no gradient norm: give a number above 0, or null for no limit.")

    def clip_of(self, update: str) -> float | None:
        """Return the largest gradient norm of an update, if there is one."""
        return self.clip.get(update) if isinstance(self.clip, Mapping) else self.clip

    def build_optimizers(self, network_of: Callable[[str], nn.Module]) -> tuple[list[Any], list[Any]]:
        """Build the optimizers and schedulers.

        Args:
            network_of: update name -> the network that it trains.

        Raises:
            AnimegenError: for settings that do not fit.
        """
        self._check_names("schedulers", self.schedulers)
        self._check_names("clip", self.clip if isinstance(self.clip, Mapping) else ())
        optimizers, schedulers = [], []
        for name, make in self.optimizers.items():
            parameters = list(network_of(name).parameters())
            optimizers.append(finish(make, f"model.optimizers.{name}", parameters))
            if name in self.schedulers:
                schedule = self.schedulers[name]
                check_schedule(schedule, f"model.schedulers.{name}")
                schedulers.append(finish(schedule, f"model.schedulers.{name}", optimizers[-1]))
        return optimizers, schedulers

    def _check_names(self, setting: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.optimizers:
                known = ", ".join(self.optimizers)
                raise AnimegenError(
                    f"model.{setting} names '{name}', which has no optimizer; optimizers: {known}."
                    + did_you_mean(name, self.optimizers)
                )


def check_schedule(schedule: Callable[..., Any], key: str) -> None:
    """Step a schedule once with an optimizer of its own.

    Raises:
        AnimegenError: if it cannot be stepped, such as one that needs a metric, or a period of 0 steps.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    tried = finish(schedule, key, optimizer)
    optimizer.step()
    try:
        tried.step()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise AnimegenError(
            f"{key} cannot be stepped once per train step ({reason}): correct its settings, or use a schedule that"
            " needs no metric."
        ) from error
