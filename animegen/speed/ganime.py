"""Speed of the transformer: codes per second in training and generation, for all decoding strategies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from animegen.models.ganime.networks import CodeTransformer
from animegen.models.ganime.networks.decoding import STRATEGIES

#: Codes per clip, as in the measurements of other implementations.
TOKENS = 1024


def fits(model: Any) -> bool:
    """Return whether :func:`measure` applies to a model: a tokenizer alone is measured like other models."""
    return model.transformer is not None


def measure(model: Any, seconds: float, precision: str, device: torch.device) -> dict[str, float]:
    """Measure the transformer of a GANime model on random codes.

    In generation the codes of the given frames do not count, in training all codes of the sequence do.

    Args:
        model: a model with a ``transformer``, trained or not.
        seconds: approximate duration of the measurement.
        precision: ``bf16-mixed`` or ``32-true``.
        device: device of the computation.
    """
    network: CodeTransformer = model.transformer.to(device)
    height, width = network.grid
    frames = min(network.max_frames, max(3, TOKENS // (height * width)))
    drawn = (frames - 2) * height * width
    share = seconds / (3 + len(STRATEGIES))
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")

    def drawing(transformer: CodeTransformer, batch: int) -> float:
        first, last = torch.randint(network.codes, (2, batch, height, width), device=device)
        with autocast, torch.no_grad():
            return _seconds(lambda: transformer.generate(first, last, frames), share, device)

    size = (len(network.backbone.blocks), network.backbone.heads, network.head.in_features)
    one, eight = drawing(network, 1), drawing(network, 8)
    beside: dict[str, float] = {}
    for name in STRATEGIES:
        other = network
        if name != network.strategy_name:
            other = CodeTransformer(network.codes, network.grid, network.max_frames, *size, decoding=name).to(device)
            beside[f"s per clip, {name}"] = taken = drawing(other, 1)
            beside[f"{name} over {network.strategy_name}, times as fast"] = one / taken
        beside[f"passes one after the other, {name}"] = other.strategy.passes(frames, height * width)
    codes = torch.randint(network.codes, (4, frames, height, width), device=device)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step() -> None:
        with autocast:
            out = network(codes)
            loss = F.cross_entropy(out["logits"].float(), out["targets"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    network.train()
    learning = _seconds(step, share, device)
    name = network.strategy_name
    return {
        f"codes drawn/s, {name}, one clip": drawn / one,
        f"codes drawn/s, {name}, batch of 8": 8 * drawn / eight,
        f"s per clip of {frames} frames of {height}x{width}, {name}": one,
        **beside,
        "codes/s in training, batch of 4": codes.numel() / learning,
    }


def _seconds(work: Callable[[], Any], budget: float, device: torch.device) -> float:
    """Return the shortest time of several calls of a function within a budget of seconds; at least two calls."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < budget:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)
