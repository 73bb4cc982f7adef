"""Values of a record that is run again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from animegen.config.compose import compose_config, plain
from animegen.errors import AnimegenError
from animegen.launch.rerun import plan_rerun
from tests.support import tiny


def test_the_last_run_is_repeated(tmp_path: Path) -> None:
    config = plain(compose_config("train", tiny("experiment=toy/quickstart")))
    for age, name in enumerate(("newer", "older")):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "last.ckpt").touch()
        os.utime(tmp_path / name / "checkpoints" / "last.ckpt", (1e9 - age, 1e9 - age))
        record = {"config": {**config, "seed": 7 + age}, "overrides": [], "status": "finished"}
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    request, _ = plan_rerun(["rerun=last", f"runs={tmp_path}"])
    assert request.config.seed == 7
    assert request.folder.name.startswith("newer-")
    with pytest.raises(AnimegenError, match="There is no checkpoint below"):
        plan_rerun(["rerun=last", f"runs={tmp_path / 'none'}"])


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("threads", "word", "an integer from 1 to 1024, or null"),
        ("val_every", 1.5, "an integer from 1 to 1000000000"),
        ("model.generator.channels", -3, "an integer from 1 to 65536"),
        ("model.objectives.generator.l1.weight", float("nan"), "a number from 0 to 1000000"),
        ("data.train.photo.scenes", 1e30, "an integer from 1 to 1000000000"),
    ],
)
def test_values_of_a_record_have_the_ranges_of_the_command_line(
    key: str, value: Any, allowed: str, tmp_path: Path
) -> None:
    config = plain(compose_config("train", tiny("experiment=toy/quickstart")))
    node = config
    *path, last = key.split(".")
    for name in path:
        node = node[name]
    node[last] = value
    (tmp_path / "run.json").write_text(json.dumps({"config": config, "overrides": [], "status": "finished"}))
    with pytest.raises(AnimegenError) as caught:
        plan_rerun([f"rerun={tmp_path}"])
    assert str(caught.value) == f"{key}={value} is not valid: use {allowed}."
