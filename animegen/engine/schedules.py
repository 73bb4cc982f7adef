"""Learning rate schedules, in steps of their optimizer."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def flat_then_linear(optimizer: Optimizer, steps: int, flat: float = 0.5, last: float = 0.0) -> LambdaLR:
    """Constant learning rate for a fraction ``flat`` of ``steps``, then linear decay to a fraction ``last``.

    Args:
        optimizer: the scheduled optimizer.
        steps: length of the whole schedule.
        flat: fraction of the steps at the full rate, in [0, 1].
        last: final fraction of the rate, in [0, 1].
    """
    begin = flat * steps

    def factor(step: int) -> float:
        if step <= begin or steps <= begin:
            return 1.0
        return max(last, 1.0 - (1.0 - last) * (step - begin) / (steps - begin))

    return LambdaLR(optimizer, factor)
