"""The typed top level of a training configuration: a wrong type or a mistyped key is told at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from animegen.config.common import Device


@dataclass
class TrainSchema:
    """Top-level keys of ``animegen train``; the groups below them are checked when they are built."""

    seed: int = 0
    train_steps: int = 1000
    val_every: int = 500
    device: Device = Device.auto
    output: str | None = None
    runs: str = "runs"
    overwrite: bool = False
    evaluate: bool = True
    report: bool = True
    threads: int | None = None
    resume: str | None = None
    init: str | None = None
    trust: bool = False
    ablations: dict[str, bool] = field(default_factory=dict)
    model: Any = None
    data: Any = None
    size: Any = None
    features: Any = None
    trainer: Any = None
    precision: Any = None
    logger: Any = None
    callbacks: Any = None
    debug: Any = None
    benchmark: Any = None


@dataclass
class EvalSchema:
    """Keys of ``animegen eval``."""

    checkpoint: str = "???"
    runs: str = "runs"
    device: Device = Device.auto
    threads: int | None = None
    weights: str = "ema"
    samples: int | None = None
    batch_size: int = 8
    benchmark: Any = None
    features: Any = None
    output: str | None = None
    overwrite: bool = False
    trust: bool = False
    seed: int = 0


@dataclass
class BenchSchema:
    """Keys of ``animegen bench``."""

    model: Any = None
    device: Device = Device.auto
    precision: Any = None
    size: Any = None
    features: Any = None
    train_steps: int = 1_000_000
    val_every: int = 1_000_000
    seconds: float = 10.0
    budget: float | None = None
    price_per_hour: float | None = None
    samples: int | None = None
    input: str | None = None
    output: str | None = None
    overwrite: bool = False
    seed: int = 0
    threads: int | None = None


def register_schemas() -> None:
    """Make the schemas known to Hydra under ``schema/<verb>``; calling it again changes nothing."""
    for name, schema in (("train", TrainSchema), ("eval", EvalSchema), ("bench", BenchSchema)):
        ConfigStore.instance().store(group="schema", name=name, node=schema, package="_global_")


def schema_keys(name: str) -> list[str]:
    """Return the top-level keys of the configuration ``name``: those of its registered schema."""
    return [str(key) for key in ConfigStore.instance().load(f"schema/{name}.yaml").node]
