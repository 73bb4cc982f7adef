from __future__ import annotations

import pytest

from animegen.launch.modes import Mode, choose_mode, split_options


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ("seed=0", Mode.run),
        ("resume=last", Mode.run),
        ("experiment=toy/quickstart --cfg job", Mode.run),
        ("-m seed=0,1", Mode.sweep),
        ("seed=0,1 --multirun", Mode.sweep),
        ("resume_sweep=runs/sweep/a", Mode.sweep),
        ("hydra.mode=MULTIRUN seed=0,1", Mode.sweep),
        ("-m seed=0,1 --cfg job", Mode.sweep),  # which refuses --cfg
        ("study=toy", Mode.study),
        ("study=toy --help", Mode.study),
        ("study=toy -m", Mode.study),  # which refuses -m
        ("rerun=runs/a", Mode.rerun),
        ("output=study=a", Mode.run),
    ],
)
def test_modes_of_train(words: str, mode: Mode) -> None:
    assert choose_mode(words.split()) is mode


def test_options_of_hydra_are_told_from_overrides() -> None:
    words = ["seed=1", "--cfg", "job", "~model.clip", "-p", "model"]
    assert split_options(words) == (["seed=1", "~model.clip"], ["--cfg", "job", "-p", "model"])
    assert split_options(["seed", "a=b"]) == (["seed", "a=b"], [])
