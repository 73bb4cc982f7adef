"""Learning-rate schedules, counted in the steps of their optimizer."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def flat_then_linear(optimizer: Optimizer, steps: int, flat: float = 0.5, last: float = 0.0) -> LambdaLR:
    """Keep the learning rate for the share ``flat`` of ``steps``, then lower it linearly to ``last`` of it.

    Args:
        optimizer: whose rate is scheduled.
        steps: length of the whole schedule.
        flat: share of the steps at full rate, in [0, 1].
        last: share of the rate that is left at the end, in [0, 1].
    """
    begin = flat * steps

    def factor(step: int) -> float:
        if step <= begin or steps <= begin:
            return 1.0
        return max(last, 1.0 - (1.0 - last) * (step - begin) / (steps - begin))

    return LambdaLR(optimizer, factor)
