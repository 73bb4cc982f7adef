"""What the groups compose is kept, and values are applied to it as Hydra does."""

from __future__ import annotations

from pathlib import Path

import omegaconf.base
import pytest
from hydra._internal.config_repository import ConfigRepository
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError

from animegen.config import composing
from animegen.config.compose import register
from animegen.config.composing import compose_words
from animegen.config.schema import register_schemas

STUDY = ("experiment=animegan/study", "size=tiny")


@pytest.mark.parametrize(
    "words",
    [
        (),
        STUDY,
        (*STUDY, "train_steps=3", "model.clip=1.0", "+model.generator.more=[1,2]"),
        ("train_steps=3", "~model.objectives.generator.style", *STUDY, "model={clip: 2}", "model.clip=3"),
        ("model={clip: 2}", "model=toy", "++seed=4", "logger=none"),
        ("logger=csv", "model.optimizers.generator.lr='${mul:2,0.1}'"),
        ("model=toy", "hydra.job.name=x"),
    ],
)
def test_it_is_what_hydra_composes(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    register_schemas()
    with monkeypatch.context() as patch:
        patch.setattr(composing, "_FilesReadOnce", ConfigRepository)
        expected, chosen = composing._compose("train", words)
    for _ in range(2):  # composed, and recalled
        config, choices = compose_words("train", words)
        assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(expected)
        assert OmegaConf.is_struct(config)
        assert choices == chosen
        config.seed = 77  # what is kept is not what was returned


def test_the_same_groups_are_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composing._composed_groups.cache_clear()
    calls: list[tuple[str, ...]] = []
    compose = composing._compose
    monkeypatch.setattr(composing, "_compose", lambda name, words: (calls.append(words), compose(name, words))[1])
    for rate in (0.1, 0.2):
        config, _ = compose_words("train", (*STUDY, f"model.optimizers.generator.lr={rate}"))
        assert config.model.optimizers.generator.lr == rate
    assert calls == [STUDY]


def test_files_of_the_package_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composing._compose("train", STUDY)
    read: list[object] = []
    load = OmegaConf.load
    monkeypatch.setattr(OmegaConf, "load", lambda file: (read.append(file), load(file))[1])
    composing._compose("train", STUDY)[0].seed = 77
    assert read == []
    assert composing._compose("train", STUDY)[0].seed == 0  # what is kept is not what was returned
    monkeypatch.setattr(composing, "_FILES", {})
    composing._compose("train", STUDY)
    assert len(read) > 10


def test_files_of_a_folder_are_read_again(tmp_path: Path) -> None:
    words = (f"hydra.searchpath=[file://{tmp_path}]", "size=own")
    (tmp_path / "size").mkdir()
    for width in (0.5, 0.75):
        (tmp_path / "size" / "own.yaml").write_text(f"width: {width}\n")
        assert compose_words("train", words)[0].size.width == width


def test_defaults_may_refer_to_choices(tmp_path: Path) -> None:
    register_schemas()
    (tmp_path / "size" / "part").mkdir(parents=True)
    (tmp_path / "size" / "own.yaml").write_text("defaults: [{part: '${size}'}]\n")
    (tmp_path / "size" / "part" / "own.yaml").write_text("colour: red\n")
    config, choices = compose_words("train", (f"hydra.searchpath=[file://{tmp_path}]", "size=own"))
    assert config.size.part.colour == "red"
    assert choices["size/part"] == "own"


def test_a_text_is_parsed_once_and_resolved_each_time() -> None:
    register()
    parse = vars(omegaconf.base)["parse"]
    parse.cache_clear()
    for number in (1, 2, 3):
        assert OmegaConf.create({"a": number, "b": "${a} of ${mul:2,${a}}"}).b == f"{number} of {2 * number}"
    assert (parse.cache_info().misses, parse.cache_info().hits) == (1, 2)
    with pytest.raises(GrammarParseError):
        OmegaConf.create({"b": "${a"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=toy", "model.nothing=1"), "Could not override 'model.nothing'"),
        (("model=toy", "~model.nothing"), "Could not delete from config"),
        (("model=none_such",), "Could not find 'model/none_such'"),
        (("model=toy", "seed=0,1"), "sweep"),
        (("model=toy", "seed=[1"), "no viable alternative"),
        (("model=toy", "seed=many"), "Error merging override seed=many"),
    ],
)
def test_mistakes_are_those_that_hydra_finds(words: tuple[str, ...], message: str) -> None:
    register_schemas()
    with pytest.raises(HydraException, match=message):
        compose_words("train", words)
