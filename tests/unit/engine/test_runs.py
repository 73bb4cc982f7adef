"""Finding runs, and the overrides that a resumed run is composed of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from animegen.config.compose import compose_config
from animegen.engine import AnimegenError
from animegen.engine.runs import quoted, read_record, resolve_checkpoint, resumed_overrides, unquoted


def make_run(folder: Path, overrides: list[str], age: float = 0.0) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"overrides": overrides}))
    checkpoint = folder / "checkpoints" / "last.ckpt"
    checkpoint.touch()
    os.utime(checkpoint, (1e9 - age, 1e9 - age))
    return checkpoint


def test_last_is_the_newest_of_all_or_of_an_experiment(tmp_path: Path) -> None:
    new = make_run(tmp_path / "toy" / "a", [])
    old = make_run(tmp_path / "animegan" / "b", [], age=60)
    assert resolve_checkpoint("last", str(tmp_path)) == new
    assert resolve_checkpoint("last", str(tmp_path), "animegan") == old
    assert resolve_checkpoint(str(tmp_path / "toy" / "a")) == new
    assert resolve_checkpoint(str(old)) == old


@pytest.mark.parametrize("what", ["last", "folder", "file.ckpt"])
def test_missing_things_are_reported(what: str, tmp_path: Path) -> None:
    path = what if what == "last" else str(tmp_path / what)
    (tmp_path / "folder").mkdir()
    with pytest.raises(AnimegenError, match="checkpoint"):
        resolve_checkpoint(path, str(tmp_path))


def test_given_words_replace_recorded_ones(tmp_path: Path) -> None:
    recorded = [
        "experiment=toy/quickstart",
        "seed=3",
        "output=x",
        "~model.objectives.generator.tv",
        "hydra.verbose=true",
    ]
    checkpoint = make_run(tmp_path / "it's here", recorded)
    words = resumed_overrides(["train_steps=9", f"resume={tmp_path}/it's here", "seed=4"])
    kept = ["experiment=toy/quickstart", "~model.objectives.generator.tv"]
    assert words == [*kept, "train_steps=9", "seed=4", f"resume={quoted(checkpoint)}"]
    # Hydra reads the quoted path as it is, and so do we when a process is started with these words.
    assert compose_config("train", words).resume == str(checkpoint)
    assert resumed_overrides(words)[-1] == words[-1]


def test_without_resume_nothing_changes() -> None:
    assert resumed_overrides(["seed=4"]) == ["seed=4"]
    assert resumed_overrides(["resume=null"]) == ["resume=null"]


@pytest.mark.parametrize("text", ["plain", "it's", 'say "x"', "back\\slash", "a,b=(c) {d}", "trailing\\"])
def test_quoting_is_undone(text: str) -> None:
    assert unquoted(quoted(text)) == text
    assert compose_config("train", ["model=toy", f"output={quoted(text)}"]).output == text


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no readable run.json"), ("{", "damaged"), ("[]", "not the record")]
)
def test_damaged_records_are_reported(content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(AnimegenError, match=words):
        read_record(tmp_path)
