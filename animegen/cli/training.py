"""The modes of ``animegen train``: one run, a sweep, a study, or a recorded run again."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from animegen.cli.main import quieten
from animegen.config.ablations import expand
from animegen.config.compose import (
    CACHE_PATHS,
    DATA_PATHS,
    check_data_paths,
    compose_choices,
    explain,
    literal_paths,
    plain,
    quoted,
    register,
    run_dir,
    swept_homes,
)
from animegen.config.fitting import check_ablations
from animegen.engine.runs import resumed_overrides, unwritable
from animegen.errors import AnimegenError
from animegen.launch.rerun import plan_rerun
from animegen.launch.run import Request, train
from animegen.launch.study import run_study
from animegen.launch.sweep import is_sweep, run_sweep, split_options


class _Failed(BaseException):
    """Wraps the error of a run, so that Hydra does not print its own report."""


def run_by_hydra(overrides: list[str], options: list[str]) -> None:
    """Perform the action of Hydra's options and keys, such as ``--cfg job``.

    Args:
        overrides: arguments of the command line, which the run records.
        options: options of Hydra, with their values.
    """

    @hydra.main(version_base="1.3", config_path="pkg://animegen.conf", config_name="train")
    def job(config: DictConfig) -> None:
        settings = HydraConfig.get()
        request = Request(config, Path(settings.runtime.output_dir), own(settings.runtime.choices), overrides)
        try:
            begin(request, [*overrides, *options])
        except Exception as error:
            raise _Failed from error

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises the original errors
    before = sys.argv
    sys.argv = [sys.argv[0], *expand(overrides), *options]  # Hydra reads it
    try:
        job()
    except _Failed as failed:
        error = failed.__cause__ or failed
        raise error from error.__cause__  # with its own cause, which --debug shows
    except (HydraException, OmegaConfBaseException) as error:
        raise AnimegenError(explain(error, "train", overrides)) from error
    except OSError as error:
        raise unwritable(error.filename, error) from error
    finally:
        sys.argv = before


def own(choices: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the choices of groups without those of Hydra itself."""
    return {name: choice for name, choice in choices.items() if not name.startswith("hydra/")}


def begin(request: Request, arguments: list[str]) -> None:
    """Train. Further processes of distributed training start with the same arguments, and find the same folder."""
    named = {word.partition("=")[0] for word in arguments} & {"output", "resume"}
    sys.argv = [sys.argv[0], "train", *arguments, *([] if named else [f"output={quoted(request.folder)}"])]
    quieten()
    train(request)


def run_once(config: DictConfig, choices: dict[str, Any], overrides: list[str]) -> None:
    """Perform one run."""
    parts = (choices["experiment"], choices["model"], config.ablations, config.seed, f"{datetime.now():%m%d-%H%M%S}")
    folder = Path(os.path.abspath(run_dir(config.output, config.resume, config.runs, *parts)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error.filename, error) from error
    before = sys.argv
    try:
        begin(Request(config, folder, choices, overrides), overrides)
    finally:
        sys.argv = before


def train_command(words: list[str]) -> int:
    """Run ``animegen train``; return the exit code."""
    keys = {word.partition("=")[0] for word in words}
    if "study" in keys:
        return run_study(words)
    if is_sweep(words):
        words = [swept_homes(word) for word in words]
        return run_sweep(literal_paths("train", words, but=("init", "resume", *DATA_PATHS, *CACHE_PATHS)))
    if "rerun" in keys:
        return rerun(words)
    register()
    overrides, options = split_options(literal_paths("train", words))
    if not options:
        overrides = resumed_overrides(overrides)
        check_ablations(overrides)
        config, choices = compose_choices("train", overrides)  # reports errors in animegen's messages, before Hydra's
        if "resume" in keys:
            check_data_paths(plain(config).get("data") or {}, "The run to be resumed")
        if not any(word.lstrip("+~").startswith("hydra") for word in overrides):
            run_once(config, own(choices), overrides)
            return 0
    run_by_hydra(overrides, options)
    return 0


def rerun(words: list[str]) -> int:
    """Run ``animegen train rerun=<run folder>``: train with the recorded configuration."""
    request, notes = plan_rerun(words)
    for line in notes:
        print(line, file=sys.stderr)
    begin(request, words)
    return 0
