"""Scalars of the steps since the last log entry, kept on the device to avoid synchronisation in each step."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from animegen.errors import AnimegenError


class NonFinite(NamedTuple):
    """The first recorded value that is NaN or infinite.

    Attributes:
        tag: tag of the value.
        value: the value.
        steps_ago: number of steps since then.
    """

    tag: str
    value: float
    steps_ago: int


class StepLog:
    """Collects scalar tensors by step; :meth:`means` transfers all of them at once."""

    def __init__(self) -> None:
        self._steps: list[dict[str, Tensor]] = []

    def begin(self) -> None:
        """Start a new step."""
        self._steps.append({})

    def add(self, tag: str, value: Tensor) -> None:
        """Add a scalar to the value of ``tag`` in the current step; ignored before the first step."""
        if self._steps:
            step = self._steps[-1]
            step[tag] = step[tag] + value.detach() if tag in step else value.detach()

    def set(self, tag: str, value: Tensor) -> None:
        """Set the value of ``tag`` in the current step; ignored before the first step."""
        if self._steps:
            self._steps[-1][tag] = value.detach()

    def restart(self, prefix: str) -> None:
        """Discard the tags with a prefix in the current step, so that the last of several equal updates is logged."""
        if self._steps:
            self._steps[-1] = {tag: value for tag, value in self._steps[-1].items() if not tag.startswith(prefix)}

    def means(self) -> dict[str, float]:
        """Return the mean of each tag over the steps that recorded it."""
        columns: dict[str, list[Tensor]] = {}
        for step in self._steps:
            for tag, value in step.items():
                columns.setdefault(tag, []).append(value)
        if not columns:
            return {}
        means = torch.stack([torch.stack(column).float().mean() for column in columns.values()])
        return dict(zip(columns, means.tolist(), strict=True))

    def finite_means(self, step: int) -> dict[str, float]:
        """Return :meth:`means`.

        Args:
            step: train step of the newest values, for messages.

        Raises:
            AnimegenError: if a value is NaN or infinite; it names the first one.
        """
        row = self.means()
        if not all(map(math.isfinite, row.values())) and (found := self.nonfinite()) is not None:
            network, _, term = found.tag.removeprefix("train/").rpartition("/")
            what = f"The term '{term}' of '{network}'" if network else f"'{term}'"
            raise not_finite(what, found.value, step - found.steps_ago)
        return row

    def nonfinite(self) -> NonFinite | None:
        """Return the first value that is NaN or infinite; later ones are its consequences."""
        for position, step in enumerate(self._steps):
            for tag, tensor in step.items():
                if not math.isfinite(value := tensor.item()):
                    return NonFinite(tag, value, len(self._steps) - 1 - position)
        return None

    def clear(self) -> None:
        """Discard all steps."""
        self._steps = []


def not_finite(what: str, value: float, step: int) -> AnimegenError:
    """Return the error for a value that is NaN or infinite."""
    return AnimegenError(
        f"{what} became {value} in train step {step}; training stopped and the last checkpoint is intact. Try a smaller"
        " learning rate, model.clip=1, precision=fp32, or a smaller weight of that term."
    )
