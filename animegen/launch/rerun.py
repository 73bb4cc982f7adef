"""``animegen train rerun=<run>``: repeat a run from its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from animegen.config.compose import check_groups, run_folder, wrong_value
from animegen.config.recorded import REMEDY, recorded_words
from animegen.config.schema import TrainSchema
from animegen.config.trust import check_config
from animegen.engine.machine import git_state, versions
from animegen.engine.runs import read_record, resolve_checkpoint, unquoted
from animegen.errors import AnimegenError
from animegen.launch.run_plan import Request

#: Keys that may differ in the repeated run: its folder and its speed.
ALLOWED = ("output", "runs", "overwrite", "device", "threads", "trust")


def plan_rerun(words: Sequence[str]) -> tuple[Request, list[str]]:
    """Return the run that ``rerun=`` repeats, and lines about changed versions and code.

    Raises:
        AnimegenError: if the record is missing or damaged, or if the arguments would change the training.
    """
    values = {key: unquoted(value) for key, equals, value in (word.partition("=") for word in words) if equals}
    name = values.pop("rerun")
    named = resolve_checkpoint(name, values.get("runs", "runs")) if name == "last" else Path(name)
    more = [word for word in words if word.partition("=")[0] not in ("rerun", *ALLOWED)]
    if more:
        raise AnimegenError(
            f"rerun= repeats a run as it was; it takes {', '.join(ALLOWED)}, not {' '.join(more)}. To change something,"
            " run its command with other arguments."
        )
    old = named.parent if named.name == "run.json" else run_folder(named)
    record, source = read_record(old), f"The record '{old / 'run.json'}'"
    if not isinstance(record.get("config"), dict):
        raise AnimegenError(f"'{old / 'run.json'}' contains no configuration: it cannot be run again.")
    check_groups(record["config"])
    overrides = record.get("overrides", [])
    if values.get("trust", "").lower() != "true":
        overrides = recorded_words(overrides, source)
        check_config(record["config"], source, REMEDY)
    then = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(values.get("output") or f"{values.get('runs', 'runs')}/rerun/{old.name}-{then}")
    given = {key: value for key, value in values.items() if key != "output"}
    circumstances = {"output": str(folder), "resume": None, "overwrite": False, "trust": False, **given}
    try:
        typed = OmegaConf.merge(OmegaConf.structured(TrainSchema), record["config"])
        config = OmegaConf.merge(typed, circumstances)
    except OmegaConfBaseException as error:
        words = [f"{key}={value}" for key, value in record["config"].items()]
        raise AnimegenError(
            wrong_value(error, "train", words)
            or f"The configuration in '{old / 'run.json'}' does not fit this version of animegen"
            f" ({' '.join(str(error).split())})."
        ) from error
    assert isinstance(config, DictConfig)
    if "device" in given and isinstance(config.trainer, DictConfig):
        config.trainer.accelerator = given["device"]  # recorded as resolved
    gone = ("resume", *ALLOWED)
    kept = [word for word in overrides if word.partition("=")[0] not in gone]
    mine = [f"{key}={value}" for key, value in given.items()]
    request = Request(config, folder, dict(record.get("choices") or {}), [*kept, *mine])
    return request, what_differs(record)


def what_differs(record: Mapping[str, Any]) -> list[str]:
    """Return a line for each changed version, and for other or uncommitted code."""
    now = versions()
    then = record.get("versions") or {}
    lines = [
        f"{name}: {then.get(name, 'not recorded')} then, {now[name]} now" for name in now if then.get(name) != now[name]
    ]
    git, before = git_state(), record.get("git")
    if before and git and before.get("commit") != git["commit"]:
        lines.append(f"code: commit {str(before.get('commit'))[:9]} then, {git['commit'][:9]} now")
    if before and before.get("dirty"):
        lines.append("code: it had uncommitted changes then")
    if record.get("resumed_at"):
        lines.append(f"the run was resumed at train step {record['resumed_at']}; this one starts at step 0")
    return lines
