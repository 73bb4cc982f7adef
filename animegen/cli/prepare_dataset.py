"""Films to a data set of clips, for ``animegen prepare input=<films> output=<dataset>``; also in shards by Hydra."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from animegen.config.compose import compose_config, explain
from animegen.curation.dataset import Curation, curate
from animegen.curation.films import Writing
from animegen.curation.rules import Rules
from animegen.errors import AnimegenError

#: Keys of ``animegen prepare`` that belong to films alone, with the class that takes them.
RULES = ("every", "held", "dark", "bright", "flicker", "fast", "unexplained", "still", "uneven", "per_shot")
WRITING = ("short_side", "format", "bars")


def curate_films(config: DictConfig, show: Console) -> int:
    """Do what the configuration asks for; return 0, or 1 if a film could not be read.

    Raises:
        AnimegenError: for a mistake in the configuration, before anything is written.
    """
    shortest, longest = _pair(config.length)
    rules = Rules(length=(shortest, longest), **{name: config[name] for name in RULES})
    curation = Curation(rules, Writing(**{name: config[name] for name in WRITING}), config.repeat, config.holdout)
    if config.jobs < 1:
        raise AnimegenError(f"jobs={config.jobs} is not possible: use 1 or more.")
    outcome = curate(
        *(config.input, config.output, curation, config.jobs, _shard(config.shard, config.shards)),
        overwrite=config.overwrite,
        tell=lambda text: show.print(text, markup=False),
    )
    for problem in outcome.failed:
        show.print(f"- {problem}", markup=False)
    if outcome.missing:
        show.print(
            f"{outcome.missing} of {outcome.films} films are left to other shards; the last one writes the report."
        )
    else:
        clips = ", ".join(f"{side} {count}" for side, count in outcome.clips.items())
        show.print(f"clips: {clips}; report: {Path(config.output) / 'REPORT.md'}", markup=False)
    return 1 if outcome.failed else 0


def _pair(value: Any) -> tuple[int, int]:
    numbers = [value, value] if isinstance(value, int) else list(value)
    if len(numbers) != 2 or not all(isinstance(n, int) for n in numbers):
        raise AnimegenError(f"length={value} is not possible: give from and to, as length=[15,25].")
    return numbers[0], numbers[1]


def _shard(shard: Any, shards: int | None) -> tuple[int, int]:
    """Return (k, n) of ``shard=k/n``, or of ``shard=k shards=n``."""
    if shard is None and shards is None:
        return 0, 1
    number, _, count = str(shard).partition("/")
    total = count or ("" if shards is None else str(shards))
    if not (number.isdigit() and total.isdigit() and int(number) < int(total)):
        raise AnimegenError(f"shard={shard} is not possible: say which of how many, the first being 0: shard=0/4.")
    return int(number), int(total)


@hydra.main(version_base="1.3", config_path="pkg://animegen.conf", config_name="prepare")
def job(config: DictConfig) -> int:
    """One job of a sweep over shards."""
    return curate_films(config, Console(highlight=False, soft_wrap=True))


def sweep(words: list[str]) -> int:
    """Run ``animegen prepare -m ... shard=0,1,2,3`` on the launcher that the words choose."""
    overrides = [word for word in words if "=" in word or word.startswith("~")]
    options = [word for word in words if word not in overrides]
    numbers = next((word[6:].split(",") for word in overrides if word.startswith("shard=")), [])
    if numbers and not any(word.startswith("shards=") or "/" in numbers[0] for word in overrides):
        overrides.append(f"shards={len(numbers)}")
    single = [word for word in overrides if not word.startswith(("shard=", "hydra", "+hydra"))]
    config = compose_config("prepare", single)  # tells mistakes in our words before Hydra does in its own
    if not config.input or not config.output:
        raise AnimegenError("A sweep of animegen prepare is for films: give input=<films> and output=<dataset>.")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    before = sys.argv
    sys.argv = [before[0], *overrides, *options]
    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        raise AnimegenError(explain(error, "prepare", overrides)) from error
    finally:
        sys.argv = before
    return 0
