"""The videos of ``animegen prepare`` distributed over processes or machines by a Hydra launcher."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from animegen.config.options import read
from animegen.curation.options import PrepareOptions
from animegen.curation.prepare import curate_videos
from animegen.engine.runs import quoted
from animegen.errors import AnimegenError

CONFIG = {
    "defaults": ["_self_", {"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}],
    "words": [],
    "output": "",
    "shard": 0,
    "shards": 1,
    "hydra": {
        "output_subdir": None,
        "run": {"dir": "."},
        "sweep": {"dir": "${output}/shards", "subdir": "${hydra.job.num}"},
    },
}


def curate_shards(words: Sequence[str]) -> int:
    """Run ``animegen prepare -m input=... output=... shard=0,1,2,3``, a job per shard.

    Args:
        words: arguments of the command line, without ``-m``. Those that begin with ``hydra`` set up the launcher.

    Raises:
        AnimegenError: for invalid arguments.
    """
    hydra_words = [word for word in words if word.startswith(("hydra/", "hydra.", "+hydra", "++hydra"))]
    mine = [word for word in words if word not in hydra_words]
    numbers = next((word.partition("=")[2].split(",") for word in mine if word.startswith("shard=")), [])
    if not numbers or not all(number.isdecimal() for number in numbers):
        raise AnimegenError("animegen prepare -m needs the numbers of all shards, such as shard=0,1,2,3.")
    mine = [word for word in mine if not word.startswith("shard=")]
    options = read(PrepareOptions, mine)
    if options.input is None:
        raise AnimegenError("animegen prepare -m is for videos: give input=<videos> and output=<dataset>.")
    overrides = [
        f"words=[{','.join(map(quoted, mine))}]",
        f"output={quoted(str(options.output))}",
        f"shard={','.join(numbers)}",
        f"shards={len(numbers)}",
    ]
    ConfigStore.instance().store(name="prepare_shards", node=CONFIG)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors as they are
    before = sys.argv
    sys.argv = [before[0], *overrides, *hydra_words, "--multirun"]  # Hydra reads it
    try:
        _job()
    except (HydraException, OmegaConfBaseException) as error:
        raise AnimegenError(f"Hydra refuses {' '.join(hydra_words)}: {' '.join(str(error).split())}") from error
    finally:
        sys.argv = before
    return 0


@hydra.main(version_base="1.3", config_path=None, config_name="prepare_shards")
def _job(config: DictConfig) -> int:
    """Curate the videos of one shard, in a process of the launcher."""
    words: list[Any] = [*config.words, f"shard={config.shard}/{config.shards}"]
    return curate_videos(read(PrepareOptions, words), Console(highlight=False, soft_wrap=True))
