"""``animegen train``: one run, a sweep, a study, or a recorded run again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from animegen.cli.main import quieten, run
from animegen.config.compose import compose_config, explain, list_options, register
from animegen.engine.runs import resumed_overrides, unwritable
from animegen.errors import AnimegenError
from animegen.launch.modes import Mode, choose_mode, split_options
from animegen.launch.rerun import plan_rerun
from animegen.launch.run import Request, train
from animegen.launch.study import run_study
from animegen.launch.sweep import run_sweep

HELP = """animegen train [key=value ...]

  animegen train experiment=animegan/quickstart
  animegen train experiment=toy/quickstart size=tiny train_steps=200 output=runs/try
  animegen train resume=last                            go on with the newest run, exactly where it stopped
  animegen train resume=runs/try train_steps=500        train on
  animegen train init=runs/try train_steps=500          begin anew, but with its weights: other data, losses or rates
  animegen train model.optimizers.generator.lr=1e-4     change any value; ~key removes one, +key=value adds one
  animegen train rerun=runs/try                         the same run again, from its run.json
  animegen train -m model=animegan/v1,animegan/v2 seed=0,1,2      one run for each combination
  animegen train resume_sweep=runs/sweep/<time>         what is missing of these
  animegen train study=toy jobs=2                       a grid of runs from a file, see animegen train study=toy --help
  animegen train experiment=animegan/quickstart --cfg job         print the configuration and do nothing

keys: seed, train_steps, val_every, device=auto|cpu|cuda|mps, threads, evaluate, report, output=<folder>, runs,
      overwrite, resume=last|<run folder>|<.ckpt file>, init=likewise, rerun=<run folder>, resume_sweep=<folder>, and
      these groups (what each option is: animegen list):
"""


class _Failed(BaseException):
    """Carries the error of a single run past Hydra, which would print a report of its own."""


@hydra.main(version_base="1.3", config_path="pkg://animegen.conf", config_name="train")
def job(config: DictConfig) -> None:
    """One run."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    choices = {name: choice for name, choice in settings.runtime.choices.items() if not name.startswith("hydra/")}
    overrides = list(settings.overrides.task)
    # Lightning starts the other processes of a distributed run with this command line.
    sys.argv = [sys.argv[0], "train", *sys.argv[1:]]
    try:
        quieten()
        train(Request(config, folder, choices, overrides))
    except Exception as error:
        raise _Failed from error


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen train`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> int:
        mode = choose_mode(words)
        if mode is Mode.study:
            return run_study(words)
        if mode is Mode.sweep:
            return run_sweep(words)
        if mode is Mode.rerun:
            return rerun(words)
        register()
        if mode is Mode.help:
            print(help_text())
            return 0
        overrides, options = split_options(words)
        if not options:
            overrides = resumed_overrides(overrides)
            compose_config("train", overrides)  # tells mistakes in our words before Hydra does in its own
        # Hydra then hands us exceptions as they are.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        before = sys.argv
        sys.argv = [sys.argv[0], *overrides, *options]  # Hydra reads it
        try:
            job()
        except _Failed as failed:
            error = failed.__cause__ or failed
            raise error from error.__cause__  # with its own history, which --debug shows
        except (HydraException, OmegaConfBaseException) as error:
            raise AnimegenError(explain(error, "train", overrides)) from error
        except OSError as error:
            raise unwritable(error.filename, error) from error
        finally:
            sys.argv = before
        return 0

    return run(body)


def rerun(words: list[str]) -> int:
    """Run ``animegen train rerun=<run folder>``: the configuration of its record, whatever the files say now."""
    again = plan_rerun(words)
    for line in again.notes:
        print(line, file=sys.stderr)
    # Further processes of distributed training start with the same words, and must find the same folder.
    sys.argv = [sys.argv[0], "train", *again.words]
    quieten()
    train(Request(again.config, again.folder, again.choices, again.overrides))
    return 0


def help_text() -> str:
    """Return what ``animegen train --help`` prints."""
    groups: dict[str, list[str]] = {}
    for option in list_options():
        group, _, name = option.partition("/")
        groups.setdefault(group, []).append(name)
    return HELP + "\n".join(f"  {group:<11} {', '.join(names)}" for group, names in groups.items())
