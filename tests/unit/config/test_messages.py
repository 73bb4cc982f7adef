"""What is said about mistakes in configurations: one sentence, with the nearest right thing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from animegen.cli import bench, compare, evaluate, prepare, train
from animegen.config.compose import compose_config
from animegen.config.instantiate import build, finish
from animegen.config.messages import no_key
from animegen.engine import AnimegenError
from animegen.errors import did_you_mean
from tests.support import refused

TOY = ["model=toy"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train_step=5"], "There is no key 'train_step' in this configuration. Did you mean 'train_steps'"),
        (
            ["data.scens=3"],
            "no key 'data.scens' in this configuration. Did you mean 'data.scenes' or 'data.val_scenes'",
        ),
        (["data.train.phot.look=1"], "Did you mean 'data.train.photo.look'"),
        (["experiment=toy/quikstart"], "Did you mean 'experiment/toy/quickstart'"),
        (["callbacks.preview.every=3"], "Did you mean 'callbacks.previews.every'"),
        (["~model.nope"], "There is no key 'model.nope' in this configuration. 'model' has: schedulers, ema,"),
        (["model.nope=1"], "+model.nope=... adds a key."),
        (["model.ema.decay=0.9"], "'model.ema' has no keys: set it as a whole, model.ema={decay: ...}."),
        (["++train_stps=5"], "There is no key 'train_stps' in this configuration. Did you mean 'train_steps'?"),
        (["+train_steps=3"], "The key 'train_steps' is there already: write it without the '+'."),
        (["seed=abc"], "seed=abc is not valid: use an integer from 0 to 4294967295."),
        (["evaluate=maybe"], "evaluate=maybe is not valid: use true or false."),
        (["device=gpu"], "device=gpu is not valid: use one of auto, cpu, cuda, mps."),
        (["model=toi"], "There is no option 'model/toi'. Did you mean 'model/toy'"),
        (["data=nowhere"], "There is no option 'data/nowhere'. 'data' has: "),
        (
            ["seed=0,1"],
            "'seed=0,1' gives several values: write -m in front to run once with each, seed=[0,1] for a list",
        ),
        (
            ["toy/quickstart"],
            "'toy/quickstart' is not of the form key=value. Did you mean 'experiment=toy/quickstart'?",
        ),
        (["=3"], "'=3' is not of the form key=value."),
        (["model={a:1"], "The command line cannot be read"),
        (["size.width=${nope}", "model=animegan/v2"], "model.discriminator.width refers to 'nope'"),
        (["ablations=3"], "ablations=3 must be a mapping: ablations={name: value}."),
        (["trainer=null"], "trainer=null is not valid, since trainer is a group of options: use one of cpu,"),
        (
            ["callbacks=1"],
            "callbacks=1 is not valid, since callbacks is a group of options: use callbacks=none",
        ),
        (["data=paired/folders"], "Missing on the command line: data.photos=... data.anime=..."),
    ],
)
def test_composing(words: list[str], sentence: str) -> None:
    with pytest.raises(AnimegenError) as caught:
        compose_config("train", words if any(w.startswith("model") for w in words) else [*TOY, *words])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (train.main, ["output", "resume", "init", "data.photos", "+model.clip", "study"]),
        (evaluate.main, ["checkpoint", "output", "data.photos"]),
        (bench.main, ["output", "input"]),
        (compare.main, ["output", "study"]),
        (prepare.main, ["input", "output"]),
    ],
)
@pytest.mark.parametrize("value", ["", " ", "''", '""', "' '"])
def test_a_key_without_a_value_is_refused(
    command: Callable[[list[str]], int], keys: list[str], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in keys:
        assert f"{key}= has no value" in refused(capsys, command([f"{key}={value}"]))


@pytest.mark.parametrize("command", [train.main, evaluate.main, bench.main])
def test_a_variable_in_a_path_is_refused(
    command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "output=runs/${NAME} holds '${'" in refused(capsys, command(["output=runs/${NAME}"]))


@pytest.mark.parametrize("command", [train.main, evaluate.main, bench.main])
def test_an_empty_word_is_refused(command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert "is empty" in refused(capsys, command(["model=toy", ""]))


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("jobs=null", "jobs=null is not valid: use an integer from 1 to 1024."),
        ("seeds=0", "seeds=0 is not valid: use a list [a,b] in which each is an integer from 0 to 4294967295."),
        ("variants=x", "variants=x is not valid: use key: value pairs {a: 1}."),
    ],
)
def test_values_of_a_study(word: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["study=toy", "dry_run=true", word]) == 2
    assert sentence in capsys.readouterr().err


def test_siblings_come_before_what_is_written_alike() -> None:
    known = ["data", "data.batch_size", "data.cache", "size", "size.width", "val_every"]
    assert no_key("data.batchsize", known).endswith("Did you mean 'data.batch_size'?")
    assert no_key("model.width", known).endswith("Did you mean 'size.width'?")
    assert no_key("data.nope", known).endswith("'data' has: batch_size, cache; +data.nope=... adds a key.")


def test_no_name_is_offered_twice() -> None:
    assert did_you_mean("modle", ["model", "model", "mode"]) == " Did you mean 'mode' or 'model'?"
    assert did_you_mean("x", ["model"]) == ""


class Base(nn.Module):
    def __init__(self, depth: int = 1) -> None:
        super().__init__()
        if depth < 1:
            raise AnimegenError("depth must be at least 1: give more.")
        if depth > 99:
            raise KeyError("a defect")


class Child(Base):
    def __init__(self, width: int, **more: int) -> None:
        super().__init__(**more)


def node(**settings: object) -> dict:
    return {"_target_": f"{__name__}.Child", "width": 1, **settings}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (node(dept=3), "it: Child has no setting 'dept'. Did you mean 'depth'?"),
        (node(colour=3), "it: Child has no setting 'colour'. It has: width, depth."),
        ({"_target_": f"{__name__}.Child"}, "it: Child lacks the setting 'width': give it a value."),
        (
            {"_target_": f"{__name__}.Chil"},
            f"it: there is no '{__name__}.Chil' that _target_ names. Did you mean 'Child'?",
        ),
        ({"_target_": "no.such.place"}, "it: there is no 'no.such.place' that _target_ names."),
        (node(depth=0), "depth must be at least 1: give more."),
        ({"_target_": f"{__name__}.Child", "width": node(depth=0)}, "depth must be at least 1: give more."),
        ({"_target_": "torch.nn.Linear", "in_features": "x", "out_features": 1}, "it.in_features=x is not valid"),
    ],
)
def test_building(config: dict, sentence: str) -> None:
    with pytest.raises(AnimegenError) as caught:
        build(config, "it")
    assert str(caught.value).startswith(sentence)


def test_defects_are_not_explained_away() -> None:
    with pytest.raises(Exception, match="a defect") as caught:
        build(node(depth=100), "it")
    assert not isinstance(caught.value, AnimegenError)


def test_finishing_a_partial() -> None:
    partial = build({**node(), "_partial_": True}, "it")
    assert isinstance(finish(partial, "it", depth=2), Child)
    with pytest.raises(AnimegenError, match="Child has no setting 'dept'"):
        finish(partial, "it", dept=2)
