"""Steps, epochs and hours that a budget pays for, by training stage, from the measured time of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from animegen.data.clips.curriculum import Curriculum


@dataclass(frozen=True)
class Step:
    """A kind of step: (height, width), samples, pieces per batch, and its share of all steps."""

    name: str
    size: tuple[int, int]
    batch_size: int
    accumulate: int
    share: float


@dataclass(frozen=True)
class Part:
    """A kind of step with the seconds that one takes."""

    step: Step
    seconds: float


def parts_of(config: DictConfig, size: DictConfig) -> list[Step]:
    """Return the kinds of steps of a configuration: the stages of its curriculum, or the one of ``size``."""
    stages = OmegaConf.select(config, "data.stages")
    if stages is None:
        side, batch = int(size.image_size), int(size.batch_size)
        return [Step(f"{side}x{side}", (side, side), batch, 1, 1.0)]
    given: Any = OmegaConf.to_container(stages, resolve=True)
    plan = Curriculum(given, OmegaConf.select(config, "data.multiple") or 1)
    ends = [*plan.begins[1:], max(config.train_steps, plan.begins[-1])]
    total = max(1, ends[-1])
    return [
        Step(f"{stage.size[1]}x{stage.size[0]}", stage.size, stage.batch_size, stage.accumulate, (end - begin) / total)
        for stage, begin, end in zip(plan.stages, plan.begins, ends, strict=True)
    ]


def table_of(
    parts: list[Part], budget: float, price_per_hour: float, samples: int | None, wanted: int
) -> dict[str, Any]:
    """Return the steps for the budget, and the cost of the wanted number of steps.

    Args:
        parts: kinds of steps with their time; the shares do not depend on the length of the run.
        budget: amount in any currency.
        price_per_hour: price of the machine in the same currency.
        samples: number of training samples; ``None`` omits the epochs.
        wanted: number of training steps whose cost is returned.
    """
    hours = budget / price_per_hour
    mean = sum(part.step.share * part.seconds for part in parts)
    steps = round(hours * 3600 / mean)
    stages = []
    for part in parts:
        mine = round(steps * part.step.share)
        row: dict[str, Any] = {
            "name": part.step.name,
            "batch": part.step.batch_size,
            "steps_per_second": 1 / part.seconds,
            "steps": mine,
            "hours": mine * part.seconds / 3600,
            "price": mine * part.seconds / 3600 * price_per_hour,
        }
        if samples:
            row["epochs"] = mine * part.step.batch_size / samples
        stages.append(row)
    need = wanted * mean / 3600
    return {
        "hours": hours,
        "steps": steps,
        "stages": stages,
        "wanted": {"steps": wanted, "hours": need, "price": need * price_per_hour},
    }


def rows_of(table: dict[str, Any]) -> dict[str, str]:
    """Return the table as lines for the terminal."""
    rows = {"all": f"{table['steps']:,} steps in {table['hours']:,.1f} h"}
    for number, row in enumerate(table["stages"]):
        epochs = f", {row['epochs']:,.1f} epochs" if "epochs" in row else ""
        rows[f"stage {number}: {row['name']}, batch {row['batch']}"] = (
            f"{row['steps_per_second']:.3g} steps/s; {row['steps']:,} steps{epochs}, {row['hours']:,.1f} h,"
            f" {row['price']:,.2f}"
        )
    wanted = table["wanted"]
    rows[f"{wanted['steps']:,} steps would take"] = f"{wanted['hours']:,.1f} h, {wanted['price']:,.2f}"
    return rows
