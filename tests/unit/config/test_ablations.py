"""Ablations: the catalogues, and what ``ablation=`` does to the words of a command."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from animegen.cli import listing, training
from animegen.cli import train as train_command
from animegen.config.ablations import ablation_choices, chosen_ablations, expand, recorded
from animegen.config.compose import compose_config
from animegen.config.groups import list_ablations, list_groups, list_options, read_catalogue
from animegen.errors import AnimegenError

STUDY = "experiment=animegan/study"


def test_every_entry_has_a_description_and_overrides_of_values() -> None:
    parser = OverridesParser.create()
    for ablation in list_ablations().values():
        assert ablation.description, ablation.name
        assert ablation.overrides, ablation.name
        for override in parser.parse_overrides(list(ablation.overrides)):
            # An option of a group would be set before the experiment's own values, not after them.
            assert override.key_or_group not in list_groups(), ablation.name


def test_ablations_are_options_of_their_group() -> None:
    options = [option for option in list_options() if option.startswith("ablation/")]
    assert {"ablation/none", "ablation/animegan/no_tv"} <= set(options)
    assert len(options) == 1 + len(list_ablations())


def test_words_of_an_ablation_come_before_those_of_the_user() -> None:
    words = [STUDY, "ablation=[animegan/blocks_1,animegan/clip]", "model.clip=3"]
    assert expand(words) == [
        *("model.generator.blocks=1", "model.clip=10.0", "++ablations.blocks_1=true", "++ablations.clip=true"),
        *(STUDY, "model.clip=3"),
    ]
    config = compose_config("train", words)
    assert (config.model.generator.blocks, config.model.clip) == (1, 3)
    assert config.ablations == {"blocks_1": True, "clip": True}


@pytest.mark.parametrize("value", ["none", "null", "[]", "[none]"])
def test_no_ablation(value: str) -> None:
    assert expand([STUDY, f"ablation={value}"]) == [STUDY]


def test_the_last_choice_counts() -> None:
    assert chosen_ablations(["ablation=animegan/no_tv", "ablation='animegan/clip'"]) == ["animegan/clip"]


def test_choices_of_a_sweep() -> None:
    word = "ablation=none,animegan/no_tv,[animegan/no_tv,animegan/clip]"
    assert ablation_choices([word]) == [[], ["animegan/no_tv"], ["animegan/no_tv", "animegan/clip"]]
    with pytest.raises(AnimegenError, match=r"several values: add -m .* 'ablation=\[none,animegan/no_tv,\["):
        chosen_ablations([word])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ablation=animegan/no_tw", "no option 'ablation/animegan/no_tw'. Did you mean 'ablation/animegan/no_tv'"),
        ("ablation=[animegan/no_tv,x]", "no option 'ablation/x'"),
        ("ablation=[animegan/no_tv", "cannot be read"),
        ("animegan/no_tv", "Did you mean 'ablation=animegan/no_tv'"),
        ("ablation=animegan/lpips", "ablation=animegan/lpips does not fit: There is no key"),
    ],
)
def test_mistakes(word: str, message: str) -> None:
    with pytest.raises(AnimegenError, match=re.escape(message)):
        compose_config("train", [STUDY, word])


def test_recorded_names() -> None:
    assert recorded(["animegan/no_tv", "temporal/clip"]) == {"no_tv": True, "clip": True}
    assert recorded("none") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [b", "not valid YAML"),
        ("a: model.clip=1", "'a' must be a list of overrides"),
        ("a: [1]", "'a' must be a list of overrides"),
        ("a: [model.clip]", "not of the form key=value"),
        ("a: [b=1]\na: [b=2]", "names the ablation 'a' twice"),
    ],
)
def test_mistakes_in_a_catalogue(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "family.yaml").write_text(text)
    with pytest.raises(AnimegenError, match=message):
        read_catalogue(tmp_path / "family.yaml")


def test_descriptions_are_the_comments_behind_the_names(tmp_path: Path) -> None:
    text = "# heading\na: [b='#1', ~c]  # one # two\n"
    text += "d:  # three\n  - e=1  # not this\n  - >-\n    f={g: 1,\n    h: 2}\ni: [j=1]\n"
    (tmp_path / "family.yaml").write_text(text)
    found = [(each.name, each.overrides, each.description) for each in read_catalogue(tmp_path / "family.yaml")]
    assert found == [
        ("family/a", ("b='#1'", "~c"), "one # two"),
        ("family/d", ("e=1", "f={g: 1, h: 2}"), "three"),
        ("family/i", ("j=1",), ""),
    ]


def test_the_list_prints_overrides_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["ablations", "animegan/long_pre*", "words=true"]) == 0
    head, words = capsys.readouterr().out.splitlines()
    assert head == "# animegan/long_pretraining: pretraining for half of the steps"
    assert (
        words
        == "'model.pretrain_steps='\"'\"'${share:0.5,${train_steps}}'\"'\"'' model.optimizers.pretrain._partial_=true"
    )
    assert listing.main(["models", "words=true"]) == 2
    assert "is for ablations" in capsys.readouterr().err


def test_a_run_records_the_words_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", lambda request: asked.append((request, sys.argv[1:])))
    words = [STUDY, "ablation=[animegan/no_tv,animegan/clip]", "seed=7"]
    assert train_command.main(words) == 0
    request, command = asked[0]
    assert command == ["train", *words, f"output='{request.folder}'"]  # for other processes of the run
    assert request.overrides == words
    assert request.config.model.clip == 10
    assert request.config.ablations == {"no_tv": True, "clip": True}
    assert request.folder.parent == tmp_path / "runs/animegan/study/clip+no_tv"
    assert request.folder.name.startswith("seed7-")
    monkeypatch.setattr("animegen.config.fitting.list_options", lambda: ["experiment/animegan/study"])
    assert train_command.main([STUDY, "ablation=animegan/lpips"]) == 2


def test_the_configuration_of_an_ablation_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_command.main([STUDY, "ablation=animegan/blocks_1", "--cfg", "job"]) == 0
    shown = capsys.readouterr().out
    assert "blocks: 1\n" in shown
    assert "ablations:\n  blocks_1: true" in shown
