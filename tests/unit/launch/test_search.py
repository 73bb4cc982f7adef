"""Ready search spaces: every key exists, every choice builds, and a search runs where Optuna is."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
import yaml

from animegen.config.compose import compose_config
from animegen.config.instantiate import build
from animegen.engine.module import AnimeModule
from tests.support import command, options_of, tiny

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")

SPACES = options_of("search")


def space(name: str) -> dict[str, str]:
    """Return the parameters of a search space with their ranges."""
    text = resources.files("animegen.conf").joinpath(f"search/{name}.yaml").read_text()
    return yaml.safe_load(text)["hydra"]["sweeper"]["params"]


@pytest.mark.parametrize("name", SPACES)
def test_every_key_of_a_search_space_exists_and_every_choice_builds(name: str) -> None:
    ranges = space(name)
    choices = {key: text[7:-1].split(", ") for key, text in ranges.items() if text.startswith("choice(")}
    numbers = [key for key in ranges if key not in choices]
    assert all("interval(" in ranges[key] for key in numbers)
    words = tiny(f"experiment={name}", f"search={name}", *(f"{key}=0.0123" for key in numbers))
    for turn in range(max(len(values) for values in choices.values())):
        chosen = [f"{key}={values[turn % len(values)]}" for key, values in choices.items()]
        assert isinstance(build(compose_config("train", [*words, *chosen]).model, "model"), AnimeModule)


@pytest.mark.slow
def test_a_search_runs_its_trials_and_tells_the_best(tmp_path: Path) -> None:
    name = "interpolation/vae"
    words = tiny(f"experiment={name}", f"search={name}", "train_steps=1", "evaluate=true", "hydra.sweeper.n_trials=2")
    done = command("train", "-m", *words, f"output={tmp_path / 'search'}", timeout=600)
    assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in (tmp_path / "search").rglob("run.json")]
    assert len(records) == 2
    rates = {record["config"]["model"]["optimizers"]["generator"]["lr"] for record in records}
    assert len(rates) == 2
    assert (tmp_path / "search/optimization_results.yaml").exists()
