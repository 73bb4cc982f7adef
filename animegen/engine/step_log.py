"""The scalars of the steps since the last writing, kept on the device so that no step waits for it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class NonFinite(NamedTuple):
    """The first value that is no finite number: its tag, the value, and how many steps ago it was recorded."""

    tag: str
    value: float
    steps_ago: int


class StepLog:
    """Collects scalar tensors step by step; :meth:`means` reads them all with one transfer."""

    def __init__(self) -> None:
        self._steps: list[dict[str, Tensor]] = []

    def begin(self) -> None:
        """Open a new step."""
        self._steps.append({})

    def add(self, tag: str, value: Tensor) -> None:
        """Add a scalar to the value of ``tag`` in the open step; outside of a step nothing is kept."""
        if self._steps:
            step = self._steps[-1]
            step[tag] = step[tag] + value.detach() if tag in step else value.detach()

    def set(self, tag: str, value: Tensor) -> None:
        """Set the value of ``tag`` in the open step; outside of a step nothing is kept."""
        if self._steps:
            self._steps[-1][tag] = value.detach()

    def restart(self, prefix: str) -> None:
        """Forget the tags of the open step that begin with ``prefix``: of several equal updates, the last counts."""
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

    def nonfinite(self) -> NonFinite | None:
        """Return the first value that is NaN or infinite; values of later steps only follow from it."""
        for position, step in enumerate(self._steps):
            for tag, tensor in step.items():
                if not math.isfinite(value := tensor.item()):
                    return NonFinite(tag, value, len(self._steps) - 1 - position)
        return None

    def clear(self) -> None:
        """Forget all steps."""
        self._steps = []
