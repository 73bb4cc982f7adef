"""A configuration from a file builds what is listed for its place, and nothing else."""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from animegen.config.groups import CONFIG_MODULE
from animegen.config.plain import plain_data
from animegen.config.recorded import check_recorded, check_sweep, recorded_words
from animegen.config.trust import build_from, check_node, installed, named_in, permitted
from animegen.errors import AnimegenError
from tests.support import options_of

CONF = Path(str(resources.files(CONFIG_MODULE)))
GENERATOR = {"_target_": "animegen.models.toy.networks.ToyGenerator", "channels": 4}


def check(node: Any, role: str = "model", **settings: Any) -> None:
    check_node(plain_data(node, "It"), role, "It", "Trust it.", **settings)


def test_every_constructor_of_the_installed_configuration_is_known_by_its_place() -> None:
    written = {
        target
        for path in CONF.rglob("*.yaml")
        for target in re.findall(r"^[^#\n]*?_target_\W+([\w.]+)", path.read_text(), re.MULTILINE)
    }
    assert written == set().union(*installed().values())
    assert "pytorch_lightning.Trainer" in installed()["trainer"]
    assert not any(name.startswith("animegen.models") for name in installed()["data"])
    assert all(not permitted(role) for role in ("size", "precision", "ablations", "seed"))


@pytest.mark.parametrize("group", ["benchmark", "callbacks", "debug", "features", "logger", "precision", "trainer"])
def test_every_option_is_accepted(group: str) -> None:
    for option in options_of(group):
        words = ["experiment=animegan/quickstart", f"{group}={option}"]
        check_recorded(recorded_words(words, "It"), (), "It")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.utils.collect_env.run",
        "torch.nn.Module",
        "torch.optim.lr_scheduler.LambdaLR",
        "torch.hub.load",
        "functools.partial",
        "hydra.utils.get_object",
        "animegen.media.images.write_image",
        "animegen.data.write_image",
        "animegen.losses.gram",
        "animegen.losses.pixel.torch.load",
        "animegen.engine.callbacks.RunRecord",
        "animegen.engine.AnimegenError",
        "animegen.launch.jobs.run_all",
        "animegen.models.toy.module.Toy.load_from_checkpoint",
        "animegen.models..networks.ToyGenerator",
        "animegen.models.nothing.networks.Here",
        "animegen.losses.L1.",
        "pytorch_lightning.Trainer",
        "",
    ],
)
def test_nothing_else_is_built(target: str) -> None:
    for role in ("model", "data", "callbacks", "logger", "benchmark", "features", "size", "anything"):
        with pytest.raises(AnimegenError, match="not on the list"):
            check({"a": [{"b": {"_target_": target}}]}, role)


def test_modules_are_not_imported_to_find_out() -> None:
    sys.modules.pop("antigravity", None)
    with pytest.raises(AnimegenError):
        check({"_target_": "antigravity.fly"})
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("node", "role", "words"),
    [
        ({**GENERATOR, "_args_": [1]}, "model", "model._args_' has no place"),
        ({**GENERATOR, "_mode_": "x"}, "model", "_mode_"),
        ({**GENERATOR, "_partial_": "yes"}, "model", "_partial_"),
        ({**GENERATOR, "_convert_": {"a": 1}}, "model", "_convert_"),
        ({"_target_": ["os.system"]}, "model", "not on the list"),
        ({"_target_": {"_target_": "os.system"}}, "model", "not on the list"),
        ({**GENERATOR, "channels": "four"}, "model", "channels is 'four', not an integer"),
        ({"_target_": "pytorch_lightning.Trainer", "default_root_dir": "/tmp/x"}, "trainer", "names a path"),
        ({"_target_": "animegen.engine.callbacks.CsvLogger", "save_dir": "../x"}, "logger", "names a path"),
        (
            {"_target_": "animegen.benchmarks.generation.generation_benchmark", "network": "evil.pt2"},
            "benchmark",
            "names a program",
        ),
    ],
)
def test_settings_that_reach_further_are_refused(node: Any, role: str, words: str) -> None:
    with pytest.raises(AnimegenError, match=words):
        check(node, role)


def test_own_parts_can_be_named() -> None:
    node = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
    with pytest.raises(AnimegenError, match="not on the list"):
        check(node)
    check(node, own=["torch.nn.Conv2d"])
    check(node, own=["torch.nn."], base=torch.nn.Module)
    with pytest.raises(AnimegenError, match="not on the list"):
        check(node, own=["torch.optim."])
    with pytest.raises(AnimegenError, match="not on the list"):  # reached through the package, defined elsewhere
        check({"_target_": "animegen.losses.pixel.Tensor"}, own=["animegen."])
    with pytest.raises(AnimegenError, match="not on the list"):
        check({"_target_": "torch.nn.functional.relu"}, own=["torch.nn."], base=torch.nn.Module)
    words = ["a.x={_target_: one.Two, b: {_target_: 'three.Four'}}", "b._target_=five.Six", "c=1"]
    assert named_in(words) == {"one.Two", "three.Four", "five.Six"}


def test_whatever_a_constructor_raises_is_a_sentence() -> None:
    for channels in (-1, 2**40, 2**63):
        with pytest.raises(AnimegenError, match=r"^It cannot be used: "):
            build_from({**GENERATOR, "channels": channels}, "model", "It", "Trust it.")


CHANNELS = "model.generator.channels=${train_steps}"
GOOD = ["experiment=toy/quickstart", "seed=3", CHANNELS, "~model.ema", "+data.note=null"]


@pytest.mark.parametrize(
    "word",
    [
        "data.style=${oc.env:TOKEN}",
        "data.style='${oc.env:TOKEN}'",
        r"data.style=$\{oc.env\:TOKEN\}",
        r"data.style='\${oc.env:TOKEN}'",
        "data.style={a: [1, '${oc.env:TOKEN}']}",
        "data.style=${oc.${data.look}:TOKEN}",
        "data.style=${oc.select:seed,${oc.env:TOKEN}}",
        "data.style=${oc.decode:x}",
        "data.style=${oc.create:{a:1}}",
        "data.style=${hydra:runtime.cwd}",
        "data.style=${ oc.env:TOKEN}",
        "experiment=../../../../tmp/evil",
        "experiment=/tmp/evil",
        "+experiment=[toy/quickstart,../x]",
        "model/toy=../x",
        "schema=../x",
        "experiment=${oc.env:TOKEN}",
        "seed=1,2",
        "seed=range(1,3)",
        "model=glob(*)",
        "model@data=toy",
        "--config-dir=/tmp",
        "-m",
        "no override",
        "a=" + "[" * 1000 + "]" * 1000,
        "a=" + "x" * 100_000,
    ],
)
def test_recorded_words_only_set_values(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "secret-of-mine")
    with pytest.raises(AnimegenError, match="It is refused") as caught:
        recorded_words([*GOOD, word], "It")
    assert "secret-of-mine" not in str(caught.value)


def test_recorded_words_of_hydra_are_left_out() -> None:
    of_hydra = [
        "hydra.verbose=true",
        "+hydra.callbacks.x={_target_: os.system}",
        "++hydra.searchpath=[/tmp]",
        "hydra/launcher=joblib",
        "hydra.job.env_set.LD_PRELOAD=evil",
    ]
    assert recorded_words([*GOOD, *of_hydra], "It") == GOOD


@pytest.mark.parametrize(
    "words",
    [
        ["+callbacks.x={_target_: torch.utils.collect_env.run, command: ls}"],
        ["+callbacks.x._target_=os.system"],
        ["callbacks.previews._target_=os.system"],
        ["+callbacks.x=${model.generator}"],
        ["trainer._target_=os.system"],
        ["+trainer.plugins=[{_target_: os.system}]"],
        ["+data.a={b: {_target_: os.system}}"],
        ["callbacks=[1]"],
        ["model=null"],
        ["~model"],
        # A text that becomes an interpolation when it is resolved, and another one when it is built.
        ["+data.a='$'", "+data.b='${data.a}{oc.env:HOME}'"],
        # A name that is put together.
        ["+data.a=os", "+callbacks.x={_target_: '${data.a}.system'}"],
    ],
)
def test_what_recorded_words_compose_is_checked(words: list[str]) -> None:
    words = recorded_words(["experiment=toy/quickstart", *words], "It")
    with pytest.raises(AnimegenError, match=r"It is refused|model=null is not valid"):
        check_recorded(words, (), "It")


def test_what_the_command_line_names_is_accepted() -> None:
    mine = "+callbacks.x={_target_: my.Callback}"
    words = ["experiment=toy/quickstart", mine]
    with pytest.raises(AnimegenError, match="not on the list"):
        check_recorded(words, (), "It")
    with pytest.raises(AnimegenError, match=r"There is no 'my\.Callback'"):  # it would be built
        check_recorded(words, [mine], "It")


@pytest.mark.parametrize(
    "word",
    [
        "hydra.launcher.setup=[ls]",
        "hydra.launcher.python=evil",
        "hydra.launcher._target_=os.system",
        "hydra.launcher.partition='a\nb'",
        "hydra.launcher.ray.init.address=evil",
        "hydra/launcher=evil",
        "hydra/sweeper=evil",
        "+hydra.callbacks.x={_target_: os.system}",
        "hydra.sweep.dir=/tmp",
        "hydra.job.env_set.LD_PRELOAD=evil",
        "+callbacks.x={_target_: os.system}",
        "+callbacks.x={_target_: animegen.engine.callbacks.LogEvery},{_target_: os.system}",
        "seed=range(100000),${oc.env:HOME}",
        "--config-dir=/tmp",
    ],
)
def test_a_recorded_sweep_starts_nothing_else(word: str) -> None:
    good = ["-m", "experiment=toy/quickstart", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    check_sweep(good, "It", ("basic", "joblib"))
    with pytest.raises(AnimegenError, match=r"It is refused|cannot be read"):
        check_sweep([*good, word], "It", ("basic", "joblib"))


def test_the_precision_of_a_record_may_be_left_to_the_machine() -> None:
    trainer = {"_target_": "pytorch_lightning.Trainer", "max_steps": 2}
    check(trainer | {"precision": "auto"}, "trainer")
    with pytest.raises(AnimegenError, match=r"trainer\.precision is 'best'"):
        check(trainer | {"precision": "best"}, "trainer")
