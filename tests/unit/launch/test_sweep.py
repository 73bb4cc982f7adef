"""Sweeps: their runs, what is resumed, launchers, and what is reported."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib import resources
from pathlib import Path

import pytest
import yaml

from animegen.config.grids import expand_grid
from animegen.errors import AnimegenError
from animegen.launch import execution, jobs, launchers, slots
from animegen.launch.execution import best_trial, optimized, run_grid
from animegen.launch.launchers import check_search, with_defaults
from animegen.launch.sweep import is_sweep, plan_sweep, split_options
from tests.support import options_of

TOY = ("-m", "model=toy")


@pytest.mark.parametrize("words", ["-m seed=0,1", "seed=0,1 --multirun", "resume_sweep=a", "hydra.mode=MULTIRUN"])
def test_what_a_sweep_is(words: str) -> None:
    assert is_sweep(words.split())
    assert not is_sweep(["experiment=toy/quickstart", "output=-m", "--cfg", "job"])


def test_options_of_hydra_are_distinguished_from_overrides() -> None:
    words = ["seed=1", "--cfg", "job", "~model.clip", "-p", "model"]
    assert split_options(words) == (["seed=1", "~model.clip"], ["--cfg", "job", "-p", "model"])
    assert split_options(["seed", "a=b"]) == (["seed", "a=b"], [])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("seed=0,1 model=toy", ["seed=0 model=toy", "seed=1 model=toy"]),
        ("seed=range(2) +a=x,y", ["seed=0 +a=x", "seed=0 +a=y", "seed=1 +a=x", "seed=1 +a=y"]),
        ("ablation=a,[b,c] ~model.clip", ["ablation=a ~model.clip", "ablation=[b,c] ~model.clip"]),
        ("experiment=glob(toy/*)", ["experiment=toy/quickstart"]),
        ("ablation=glob(animegan/no_t*)", ["ablation=animegan/no_tv"]),
        ("seed=0,1 seed=3", ["seed=3"]),
        ("data.lengths=[1,2] x='a,b'", ["data.lengths=[1,2] x='a,b'"]),
    ],
)
def test_lists_of_values_are_combined(words: str, expected: list[str]) -> None:
    assert [" ".join(run) for run in expand_grid(words.split())] == expected


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("seed=interval(0,1)", "is an interval"),
        ("seed=range(1000) train_steps=range(1,1000)", "at most 10000"),
        ("seed=[0", "cannot be read"),
        ("experiment=glob(tay/*)", "matches no option"),
    ],
)
def test_lists_that_make_no_sense(words: str, what: str) -> None:
    with pytest.raises(AnimegenError, match=what):
        expand_grid(words.split())


def test_the_runs_of_a_sweep(tmp_path: Path) -> None:
    grid = plan_sweep([*TOY, "seed=0,1", "ablation=none,animegan/no_tv", f"output='{tmp_path / 'a b'}'"])
    assert [job.name for job in grid.jobs] == [
        "job 0 (seed=0 ablation=none)",
        "job 1 (seed=0 ablation=animegan/no_tv)",
        "job 2 (seed=1 ablation=none)",
        "job 3 (seed=1 ablation=animegan/no_tv)",
    ]
    folders = [job.folder.relative_to(tmp_path / "a b").as_posix() for job in grid.jobs]
    assert folders == ["toy/seed0-0", "toy/no_tv/seed0-1", "toy/seed1-2", "toy/no_tv/seed1-3"]
    assert grid.jobs[3].words == ("model=toy", "seed=1", "ablation=animegan/no_tv")
    assert grid.record[1]["words"] == ["-m", "model=toy", "seed=0,1", "ablation=none,animegan/no_tv"]
    assert plan_sweep([*TOY, f"runs={tmp_path}"]).folder.parent == tmp_path / "sweep"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("train_steps=0,1", r"The run 'job 0 \(train_steps=0\)' cannot be composed: train_steps=0 is not valid"),
        ("sede=0,1", "Did you mean 'seed'"),
        ("ablation=none,animegan/gan_hinge", "does not fit"),
        ("ablation=animegan/no_tw", "Did you mean"),
        ("ablation=none,animegan/no_tv --cfg job", "-m cannot be combined with --cfg job: dry_run=true"),
        ("resume=last", "leave out -m"),
        ("hydra/launcher=joblip", "Did you mean 'joblib'"),
        ("hydra/launcher=joblib jobs=2", "jobs= applies to"),
        ("search=interpolation/vae dry_run=true", "dry_run= lists runs"),
        ("jobs=0", "jobs=0 is not valid"),
    ],
)
def test_invalid_values_are_reported_before_anything_runs(
    words: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(launchers.LAUNCHERS, "joblib", ("hydra", "sweep"))
    with pytest.raises(AnimegenError, match=what):
        plan_sweep([*TOY, *words.split()])


def test_a_sweep_is_not_overwritten_but_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(launchers.LAUNCHERS, "joblib", ("hydra", "sweep"))
    words = [*TOY, "seed=0,1", "trust=true", "overwrite=true", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    (tmp_path / "sweep.json").write_text(json.dumps({"words": words}))
    asked = [*TOY, "seed=0,1", f"output={tmp_path}"]
    assert len(plan_sweep(asked).jobs) == 2  # nothing was trained there
    (tmp_path / "toy" / "checkpoints").mkdir(parents=True)
    (tmp_path / "toy" / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(AnimegenError, match="already holds a sweep: finish it with resume_sweep="):
        plan_sweep(asked)
    with pytest.raises(AnimegenError, match="leave out seed=3"):
        plan_sweep([f"resume_sweep={tmp_path}", "seed=3"])
    same = plan_sweep([f"resume_sweep={tmp_path}"])
    assert same.launcher == ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    # A record does not decide whom to trust, and another launcher does not get the settings of the first.
    assert same.jobs[0].words == ("model=toy", "seed=0")
    again = plan_sweep([f"resume_sweep={tmp_path}", "hydra/launcher=basic"])
    assert again.launcher == ["hydra/launcher=basic"]
    assert again.record[1]["words"] == ["-m", "model=toy", "seed=0,1", "hydra/launcher=basic"]
    with pytest.raises(AnimegenError, match=r"has no sweep\.json"):
        plan_sweep([f"resume_sweep={tmp_path / 'nothing'}"])
    for text, what in (('{"words": ["-m", "resume=elsewhere"]}', "leave out -m"), ("{", "cannot be read")):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(AnimegenError, match=what):
            plan_sweep([f"resume_sweep={tmp_path}"])


def test_launchers_need_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(launchers.LAUNCHERS, "ray", ("no_such_package_here", "ray"))
    with pytest.raises(AnimegenError, match=r"pip install 'animegen\[ray\]'"):
        plan_sweep([*TOY, "hydra/launcher=ray"])


def test_launchers_know_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "list_gpus", lambda: ["0", "1", "5"])
    assert with_defaults(["hydra/launcher=joblib"])[0] == "hydra.launcher.n_jobs=3"
    assert "hydra.launcher.gpus_per_node=3" in with_defaults(["hydra/launcher=submitit_local"])
    assert "++hydra.launcher.ray.remote.num_gpus=1" in with_defaults(["hydra/launcher=ray"])
    monkeypatch.setattr(slots, "list_gpus", list)
    monkeypatch.setattr(slots, "count_cores", lambda: 16)
    assert with_defaults(["hydra/launcher=joblib"])[0] == "hydra.launcher.n_jobs=4"
    assert with_defaults([]) == []
    assert with_defaults(["hydra/launcher=joblib", "hydra.launcher.n_jobs=9"]) == [
        *("hydra.launcher.batch_size='1'", "hydra/launcher=joblib", "hydra.launcher.n_jobs=9")
    ]


def test_a_search_optimizes_the_main_metric_or_the_first() -> None:
    scores = {"main": "kid", "methods": {"model": {"kid": {"mean": 0.25}, "ssim": {"mean": 0.5}}}}
    record = {"metrics": {"train/x": 1.0, "val/psnr": 20.0}}
    assert optimized({**record, "evaluation": scores}) == 0.25
    del scores["methods"]["model"]["kid"]  # too few images for it
    assert optimized({**record, "evaluation": scores}) == 20.0
    assert optimized(record) == 20.0
    assert optimized({"metrics": {}}) is None


@pytest.mark.parametrize("by_hydra", [False, True])
def test_failures_are_listed(
    by_hydra: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_all(tasks: list[jobs.Task], *_: object) -> list[jobs.Failure]:
        return [jobs.Failure(task, "NaN") for task in tasks if "seed=1" in task.command]

    monkeypatch.setattr(jobs, "run_all", run_all)
    if by_hydra:  # its basic launcher stands for the others, which plugins bring
        monkeypatch.setattr(execution, "launcher_of", lambda words: "another")
    asked = plan_sweep([*TOY, "seed=0,1", f"output={tmp_path}"])
    assert run_grid(asked) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "failed: job 1 (seed=1): NaN",
        f"animegen: 1 of 2 runs failed. To run them again: animegen train resume_sweep={tmp_path}",
    ]
    assert said.out.splitlines() == [
        f"sweep: 2 of 2 runs to do in {tmp_path}",
        f"To compare the runs: animegen compare {tmp_path}",
    ]
    assert json.loads((tmp_path / "sweep.json").read_text())["words"] == ["-m", "model=toy", "seed=0,1"]
    ends = [json.loads(path.read_text())["status"] for path in sorted((tmp_path / "jobs").glob("*.json"))]
    assert ends == (["finished", "failed"] if by_hydra else [])


def test_a_search_is_run_by_hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[jobs.Task] = []

    def run_all(tasks: list[jobs.Task], *_: object) -> list[jobs.Failure]:
        started.extend(tasks)
        for task in tasks:
            task.log.parent.mkdir(parents=True, exist_ok=True)
            (task.log.parent / "run.json").write_text('{"metrics": {}}')
        return []

    monkeypatch.setattr(jobs, "run_all", run_all)
    monkeypatch.setattr("animegen.launch.sweep._is_search", lambda words: True)  # Hydra's grid stands for Optuna
    words = [*TOY, "seed=4", "ablation=none,animegan/no_tv", f"output={tmp_path}"]
    assert run_grid(plan_sweep(words)) == 0
    folders = [tmp_path / "toy" / name for name in ("seed4-0", "no_tv/seed4-1")]
    assert [task.log.parent for task in started] == folders
    common = ("model=toy", "seed=4")
    assert [task.command[5:] for task in started] == [
        (*common, f"ablation={value}", f"output={folder}")
        for value, folder in zip(("none", "animegan/no_tv"), folders, strict=True)
    ]


def test_a_search_without_optuna_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for word in ("search=interpolation/vae", "hydra/sweeper=optuna"):
        with pytest.raises(AnimegenError, match=re.escape(f"{word} needs further packages: pip install 'animegen[sw")):
            check_search([word, "experiment=interpolation/vae"])
    check_search(["hydra/sweeper=other"])


def test_the_best_trial_of_a_search_is_told(tmp_path: Path) -> None:
    assert best_trial(tmp_path) == ""
    text = "name: optuna\nbest_params: {model.optimizers.generator.lr: 0.003, model.kind: conv}\nbest_value: 0.8125\n"
    (tmp_path / "optimization_results.yaml").write_text(text)
    assert best_trial(tmp_path) == "best value 0.8125: model.optimizers.generator.lr=0.003 model.kind=conv"


def test_a_failed_trial_ends_no_search() -> None:
    for name in options_of("search"):
        text = resources.files("animegen.conf").joinpath(f"search/{name}.yaml").read_text()
        assert yaml.safe_load(text)["hydra"]["sweeper"]["max_failure_rate"] == 1.0
