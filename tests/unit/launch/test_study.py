"""Studies: expansion of the grid, what is missing, and the words that a study takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from animegen.cli import listing
from animegen.config.studies import list_studies
from animegen.errors import AnimegenError
from animegen.launch import execution, jobs, slots
from animegen.launch.grid import Job, missing_words
from animegen.launch.study import compose_study, expand, leave_one_out, plan_study, split_words

TOY = "experiment=toy/quickstart"


def rows(*words: str, common: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    return expand(compose_study("toy", words), common)


def test_the_grid_is_experiments_times_changes() -> None:
    found = rows(
        "experiments=[toy/quickstart,animegan/paired]",
        "ablations=[none,animegan/lpips,[animegan/lpips,animegan/no_discriminator]]",
        "~variants.half_rate",
        "+variants.slow=['model.clip=1']",
        "leave_one_out=null",
        "overrides=['size=tiny']",
        common=("train_steps=3",),
    )
    both = "ablation=[animegan/lpips,animegan/no_discriminator]"
    assert found == {
        "quickstart": (TOY, "size=tiny", "ablation=none", "train_steps=3"),
        "quickstart+lpips": (TOY, "size=tiny", "ablation=animegan/lpips", "train_steps=3"),
        "quickstart+lpips+no_discriminator": (TOY, "size=tiny", both, "train_steps=3"),
        "quickstart+slow": (TOY, "size=tiny", "model.clip=1", "train_steps=3"),
        "paired": ("experiment=animegan/paired", "size=tiny", "ablation=none", "train_steps=3"),
        "paired+lpips": ("experiment=animegan/paired", "size=tiny", "ablation=animegan/lpips", "train_steps=3"),
        "paired+lpips+no_discriminator": ("experiment=animegan/paired", "size=tiny", both, "train_steps=3"),
        "paired+slow": ("experiment=animegan/paired", "size=tiny", "model.clip=1", "train_steps=3"),
    }


def test_a_study_may_have_variants_alone() -> None:
    only = rows("ablations=[]", "~variants.half_rate", "+variants.slow=['model.clip=1']", "leave_one_out=null")
    assert list(only) == ["slow"]
    with pytest.raises(AnimegenError, match="no ablations: give at least one"):
        rows("ablations=[]", "~variants.half_rate", "leave_one_out=null")


def test_one_run_without_each_term() -> None:
    assert leave_one_out("generator", [TOY]) == {
        "no_l1": ("~model.objectives.generator.l1",),
        "no_colour": ("~model.objectives.generator.colour",),
        "no_tv": ("~model.objectives.generator.tv",),
    }
    off = [TOY, "model.objectives.generator.l1=null", "model.objectives.generator.tv.weight=0"]
    with pytest.raises(AnimegenError, match="only one term"):
        leave_one_out("generator", off)
    with pytest.raises(AnimegenError, match="Did you mean 'generator'"):
        leave_one_out("generater", [TOY])


def test_the_example_expands_to_runs_that_compose(tmp_path: Path) -> None:
    grid = plan_study(["study=toy", "seeds=[0,7]", "overwrite=true", f"output={tmp_path}"])
    assert grid.options.overwrite
    assert grid.again == f"animegen train study=toy 'seeds=[0,7]' output={tmp_path}"  # what has finished stays
    names = ["plain", "half_rate", "no_l1", "no_colour", "no_tv"]
    assert [job.name for job in grid.jobs] == [f"{row}, seed {seed}" for seed in (0, 7) for row in names]
    assert grid.jobs[2].folder == tmp_path / "no_l1" / "seed0"
    assert set(grid.jobs[2].config["model"]["objectives"]["generator"]) == {"_target_", "_recursive_", "colour", "tv"}
    assert grid.jobs[1].config["model"]["optimizers"]["generator"]["lr"] == 0.0015
    assert grid.jobs[9].config["seed"] == grid.jobs[9].config["data"]["train"]["seed"] == 7
    assert all(job.config["train_steps"] == 200 for job in grid.jobs)
    assert grid.record[1]["runs"][9] == {"row": "no_tv", "seed": 7, "folder": "no_tv/seed7"}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["seeds=[]"], "has no seeds"),
        (["seeds=[1,1]"], "twice"),
        (["+variants.no_l1=['model.clip=1']"], "Two rows of the study are called 'no_l1'"),
        (["baseline=plan"], "Did you mean 'plain'"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(words: list[str], what: str) -> None:
    with pytest.raises(AnimegenError, match=what):
        rows(*words)


def test_words_belong_to_the_study_or_to_its_runs() -> None:
    words = ["study=toy", "seeds=[1]", "train_steps=5", "~model.objectives.generator.tv", "jobs=2", "data.scenes=2"]
    assert split_words(words) == (
        "toy",
        ["seeds=[1]", "jobs=2"],
        ["train_steps=5", "~model.objectives.generator.tv", "data.scenes=2"],
    )


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("seed=1", r"use seeds=\[\.\.\.\] instead"),
        ("ablation=none", "use ablations="),
        ("resume=last", "resumes unfinished runs"),
        ("-m", "takes no option -m"),
        ("sedes=[1]", "Did you mean 'seeds'"),
    ],
)
def test_words_that_a_study_cannot_take(word: str, what: str) -> None:
    with pytest.raises(AnimegenError, match=what):
        split_words(["study=toy", word])


def test_studies_are_found_in_the_current_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "experiments" / "study"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\nexperiments: [toy/quickstart]\nseeds: [3]\n")
    config = compose_study("mine", ["jobs=2"])
    assert (config.experiments, config.seeds, config.jobs, config.leave_one_out) == (["toy/quickstart"], [3], 2, None)
    (folder / "bare.yaml").write_text("seeds: [3]\n")
    with pytest.raises(AnimegenError, match="must begin with"):
        compose_study("bare")
    (folder / "wrong.yaml").write_text("# @package _global_\nsede: [3]\n")
    with pytest.raises(AnimegenError, match="seeds"):
        compose_study("wrong")
    with pytest.raises(AnimegenError, match=r"There is no study 'mein'.*Did you mean 'mine'"):
        compose_study("mein")
    (folder / "toy.yaml").write_text("# @package _global_\n")
    with pytest.raises(AnimegenError, match="two studies 'toy'"):
        compose_study("toy")


def test_a_study_of_the_current_folder_replaces_that_of_the_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The current folder may be another clone, with equal or changed studies."""
    there = list_studies()["ganime_layouts"]
    assert there.parts[-3:] == ("experiments", "study", "ganime_layouts.yaml")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "experiments" / "study"
    folder.mkdir(parents=True)
    shutil.copy(list_studies()["toy"], folder)
    (folder / there.name).write_text(there.read_text("utf-8").replace("seeds: [0, 1]", "seeds: [77]"))
    assert list_studies()["ganime_layouts"] == folder.resolve() / there.name
    assert compose_study("ganime_layouts").seeds == [77]
    assert listing.main(["studies"]) == 0
    assert capsys.readouterr().out.count("ganime_layouts ") == 1


def left(folder: Path, config: dict[str, Any], checkpoint: bool = False, **record: Any) -> tuple[str, ...] | None:
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"config": config, **record}))
    if checkpoint:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()
    return missing_words(Job("plain", ("model=toy",), folder, {"train_steps": 9, "threads": 1}))


def test_only_what_is_missing_is_done(tmp_path: Path) -> None:
    new = Job("plain", ("model=toy",), tmp_path / "new")
    assert missing_words(new) == ("model=toy", f"output={tmp_path / 'new'}")
    same = {"train_steps": 9, "threads": 2, "output": "elsewhere"}
    assert left(tmp_path / "a", same, status="finished") is None
    resumed = left(tmp_path / "b", same, True, status="interrupted", train_step=4)
    assert resumed == ("model=toy", f"resume={tmp_path / 'b'}")
    again = ("model=toy", f"output={tmp_path / 'c'}", "overwrite=true")
    assert left(tmp_path / "c", same, status="crashed", train_step=4) == again
    whole = left(tmp_path / "d", same, True, status="crashed", train_step=9)
    assert whole == ("model=toy", f"resume={tmp_path / 'd'}")  # only its evaluation is left
    with pytest.raises(AnimegenError, match="train_steps is 8 there and 9 now"):
        left(tmp_path / "e", {"train_steps": 8}, status="finished")
    finished = Job("plain", ("model=toy",), tmp_path / "a", {"train_steps": 9})
    assert missing_words(finished, overwrite=True) == ("model=toy", f"output={tmp_path / 'a'}", "overwrite=true")


def test_runs_share_out_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "count_cores", lambda: 7)
    monkeypatch.setattr(slots, "list_gpus", list)
    started: list[jobs.Task] = []
    monkeypatch.setattr(jobs, "run_all", lambda tasks, *_: started.extend(tasks) or [])
    words = ["study=toy", f"output={tmp_path / 'a b'}", "seeds=[1]", "leave_one_out=null"]
    own = "+variants.own=['threads=5']"
    assert execution.run_grid(plan_study([*words, "jobs=2", own])) == 0
    folder = tmp_path / "a b" / "plain" / "seed1"
    assert started[0].command[1:5] == ("-P", "-m", "animegen", "train")
    assert started[0].command[-3:] == ("seed=1", f"output='{folder}'", "threads=3")
    assert (started[0].name, started[0].steps, started[0].log) == ("plain, seed 1", 200, folder / "log.txt")
    assert "threads=5" in started[2].command
    assert "threads=3" not in started[2].command
    started.clear()
    assert execution.run_grid(plan_study(words)) == 0  # one at a time: the machine is left as it is
    assert [task.command[-1] for task in started] == [
        f"output='{tmp_path / 'a b' / row / 'seed1'}'" for row in ("plain", "half_rate")
    ]
