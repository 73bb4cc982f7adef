"""Sweeps: ``animegen train -m``; each job is a process of its own, whichever of Hydra's launchers started it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from animegen.config.ablations import KEY, ablation_choices
from animegen.config.compose import explain, register
from animegen.config.mismatch import mismatch
from animegen.config.plain import read_json
from animegen.config.recorded import check_sweep
from animegen.engine.runs import has_record, quoted, read_record, unquoted, unwritable
from animegen.errors import AnimegenError, did_you_mean
from animegen.launch import jobs
from animegen.launch.study import can_resume
from animegen.locks import locked

RECORD = "sweep.json"
LOG = "log.txt"
#: launcher -> (the module of its plugin, the extra that brings it)
LAUNCHERS = {
    "basic": ("hydra", ""),
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "sweep"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
}
#: Launchers that start jobs side by side on this machine and know nothing of its GPUs.
_SIDE_BY_SIDE = ("JoblibLauncher", "LocalLauncher")
#: The key by which Hydra's sweeper hands the value of ``ablation=`` to a job.
ABLATION = "swept_ablation"
#: Keys that are about the sweep and not about one of its jobs.
_OF_THE_SWEEP = ("output", "runs")
_POLL_SECONDS = 0.2


def side_by_side(gpus: Sequence[str]) -> int:
    """Return how many jobs run on this machine at a time by default: one per GPU, or one for every four cores."""
    return len(gpus) or max(1, jobs.count_cores() // 4)


def launcher_words(name: str) -> list[str]:
    """Return the settings of a launcher that the user's own words may change.

    The plugins' own defaults do not fit training: as many jobs at a time as there are cores, one hour per job, no GPU.
    """
    gpus = jobs.list_gpus() if name in ("joblib", "submitit_local", "ray") else []
    return {
        "joblib": [f"hydra.launcher.n_jobs={side_by_side(gpus)}", "hydra.launcher.batch_size='1'"],
        # All jobs begin at once and see all GPUs; each waits for its share, see slot().
        "submitit_local": [f"hydra.launcher.timeout_min={7 * 24 * 60}", f"hydra.launcher.gpus_per_node={len(gpus)}"],
        # A running cluster refuses the plugin's object_store_memory. A retry would not resume, resume_sweep= does.
        "ray": [
            "++hydra.launcher.ray.init.object_store_memory=null",
            "++hydra.launcher.ray.remote.max_retries=0",
            f"++hydra.launcher.ray.remote.num_gpus={min(1, len(gpus))}",
        ],
    }.get(name, [])


register()  # here, since jobs are unpickled in processes that have not composed anything yet


class SweepRecord(TypedDict):
    """What is read of ``sweep.json``."""

    words: list[str]


@dataclass(frozen=True)
class Sweep:
    """A sweep as the command line asks for it.

    Attributes:
        folder: of all its runs.
        words: of the command, without those about the folder.
        resumed: an earlier command is gone on with.
    """

    folder: Path
    words: tuple[str, ...]
    resumed: bool

    def hydra_words(self) -> list[str]:
        """Return the words that Hydra gets; the folder is absolute, since jobs may run elsewhere."""
        mine = [word for word in self.words if word not in ("-m", "--multirun")]
        given = {_key(word) for word in mine}
        launcher = [word for word in launcher_words(_launcher(mine)) if _key(word) not in given]
        return [
            *launcher,
            *(_swept(word) for word in mine),
            f"hydra.sweep.dir={quoted(self.folder.absolute())}",
            "--multirun",
        ]


def _swept(word: str) -> str:
    """Return a word as Hydra's sweeper takes it, which knows no ``ablation=``; the jobs get the word itself."""
    key, _, value = word.partition("=")
    return f"+{ABLATION}={value}" if key == KEY else word


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _launcher(words: Sequence[str]) -> str:
    return next((word.partition("=")[2] for word in reversed(words) if _key(word) == "hydra/launcher"), "basic")


def plan_sweep(words: Sequence[str]) -> Sweep:
    """Return the sweep that a command asks for.

    Raises:
        AnimegenError: if it cannot be run or gone on with.
    """
    values = {key: unquoted(value) for key, equals, value in (word.partition("=") for word in words) if equals}
    if "resume" in values:
        raise AnimegenError("resume= goes on with one run: leave out -m. A sweep goes on with resume_sweep=<folder>.")
    if "resume_sweep" in values:
        return _resumed(Path(values["resume_sweep"]), words)
    check_launcher(_launcher(words))
    ablation_choices(words)  # raises for those that do not exist
    time_ = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = values.get("output") or str(Path(values.get("runs", "runs")) / "sweep" / time_)
    mine = tuple(word for word in words if word.partition("=")[0] not in _OF_THE_SWEEP)
    trained = (Path(folder) / RECORD).exists() and any(Path(folder).rglob("checkpoints/*.ckpt"))
    if trained and "overwrite=true" not in words:  # a first attempt that trained nothing does not occupy the folder
        raise AnimegenError(
            f"'{folder}' already holds a sweep: resume_sweep={folder} finishes it; or choose another output=, or"
            " overwrite=true."
        )
    return Sweep(Path(folder), mine, False)


def _resumed(folder: Path, words: Sequence[str]) -> Sweep:
    launcher = [word for word in words if _key(word).startswith(("hydra/launcher", "hydra.launcher."))]
    more = [w for w in words if w not in launcher and _key(w) not in ("resume_sweep", "trust", "-m", "--multirun")]
    if more:
        raise AnimegenError(f"resume_sweep= finishes a sweep as it was: leave out {' '.join(more)}.")
    if not (folder / RECORD).exists():
        raise AnimegenError(f"'{folder}' has no {RECORD}: name the folder of a sweep, which animegen train -m printed.")
    record = read_json(folder / RECORD, "the record of a sweep", "run the sweep again")
    if fault := mismatch(record, SweepRecord, "it"):
        raise AnimegenError(f"'{folder / RECORD}' is damaged, {fault}: run the sweep again.")
    recorded = record["words"]
    if "trust=true" not in words:
        check_sweep(recorded, f"The record '{folder / RECORD}'", LAUNCHERS)
    searches = ("hydra/sweeper=", "search=")
    if any(word.startswith(searches) and not word.endswith(("=basic", "=none")) for word in recorded):
        raise AnimegenError(
            "resume_sweep= goes on with grids: a search goes on with its hydra.sweeper.storage and study_name."
        )
    changed = {_key(word) for word in launcher}
    another = "hydra/launcher" in changed  # then the settings of the old one are of no use
    kept = [
        word
        for word in recorded
        if _key(word) not in {*changed, "overwrite"} and not (another and _key(word).startswith("hydra.launcher."))
    ]
    check_launcher(_launcher([*kept, *launcher]))
    return Sweep(folder, (*kept, *launcher), True)


def check_launcher(name: str) -> None:
    """Raise if a launcher does not exist, or if its packages are not installed."""
    if name not in LAUNCHERS:
        raise AnimegenError(
            f"There is no hydra/launcher={name}.{did_you_mean(name, LAUNCHERS)} There are: {', '.join(LAUNCHERS)}."
        )
    module, extra = LAUNCHERS[name]
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec(module) is not None:
            return
    raise AnimegenError(f"hydra/launcher={name} needs further packages: pip install 'animegen[{extra}]'.")


# --- A job ---------------------------------------------------------------------------------------------------------


def sweep_job(config: DictConfig) -> float | None:
    """Run one job of a sweep; called by the launcher, in whatever process and on whatever machine that uses.

    Returns:
        The value of the metric that the experiment optimises; ``None`` if the run failed, which ends nothing else and
        is told at the end.
    """
    settings = HydraConfig.get()
    number, folder = int(settings.job.num), Path(settings.runtime.output_dir)
    words = [word for word in settings.overrides.task if word.partition("=")[0] not in _OF_THE_SWEEP]
    words = [f"{KEY}={word.partition('=')[2]}" if word.startswith(f"+{ABLATION}=") else word for word in words]
    said = Path(settings.sweep.dir) / "jobs" / f"{number}.json"
    told: dict[str, Any] = {"job": number, "words": words, "folder": str(folder), "status": "running"}
    _write(said, told)
    try:
        todo = _missing(folder, words)
        if todo is not None:
            target = settings.launcher.get("_target_", "").rpartition(".")[2]
            count = int(settings.launcher.get("n_jobs", -1)) if target == "JoblibLauncher" else -1
            sweep = Path(settings.sweep.dir)
            command = jobs.train_command(todo)
            name = f"job {number}, {folder.relative_to(sweep).as_posix()}"
            task = jobs.Task(name, command, folder / LOG, config.train_steps, Path(settings.runtime.cwd))
            with slot(sweep, count if target in _SIDE_BY_SIDE else 0) as (share, lock):
                failed = jobs.run_all([task], [share], lock)
            if failed:
                raise AnimegenError(failed[0].reason)
    except AnimegenError as error:
        _write(said, {**told, "status": "failed", "reason": str(error)})
        return None
    _write(said, {**told, "status": "finished"})
    return optimised(read_record(folder))


def _missing(folder: Path, words: list[str]) -> list[str] | None:
    """Return the words of the run that finishes a job, or ``None`` if it has finished."""
    output = [*words, f"output={quoted(folder)}"]
    if not has_record(folder) or "overwrite=true" in words:
        return output
    record = read_record(folder)
    if record.get("status") == "finished":
        return None
    if can_resume(folder):
        return [*words, f"resume={quoted(folder)}"]  # what they name may be built, whatever the record says
    return [*output, "overwrite=true"]


def optimised(record: dict[str, Any]) -> float | None:
    """Return the value that a sweeper optimises: the task's main metric, else the first validation metric.

    The main metric is missing where there were too few pictures for it, as for a distance of distributions.
    """
    evaluation = record.get("evaluation") or {}
    main = evaluation["methods"]["model"].get(evaluation["main"]) if evaluation else None
    if main is not None:
        return main["mean"]
    return next((value for name, value in record["metrics"].items() if name.startswith("val/")), None)


@contextlib.contextmanager
def slot(sweep: Path, count: int, gpus: Sequence[str] | None = None) -> Iterator[tuple[jobs.Slot, int | None]]:
    """Wait for a share of this machine that no other job of the sweep uses, and hold it.

    Yields the share, and what processes must inherit to hold it as well (see :func:`animegen.locks.locked`).

    Args:
        sweep: folder of the sweep.
        count: number of shares; 0 leaves the machine as the launcher (or the cluster) has set it up for the job, -1
            takes :func:`side_by_side`.
        gpus: names of the CUDA devices; ``None`` looks.
    """
    environment = _alone()
    if count == 0:
        yield jobs.Slot(0, changes=environment), None
        return
    gpus = jobs.list_gpus() if gpus is None else gpus
    shares = jobs.share_machine(count if count > 0 else side_by_side(gpus), gpus=gpus)
    # A folder of this machine: file locks are not to be trusted on the disks of a network.
    name = hashlib.sha256(os.fsencode(sweep.absolute())).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"animegen-{os.getuid() if hasattr(os, 'getuid') else 0}-{name}"
    while True:
        for number, share in enumerate(shares):
            with contextlib.ExitStack() as stack:
                try:
                    lock = stack.enter_context(locked(place / str(number)))
                except AnimegenError:
                    continue
                yield jobs.Slot(share.threads, share.gpus, environment), lock
                return
        time.sleep(_POLL_SECONDS)


def _alone() -> dict[str, str]:
    """Return what a job's environment must say so that Lightning starts its own processes within a Slurm job."""
    # Lightning would take each task of the job for one of its processes; it does not in a shell that is called 'bash'.
    return {"SLURM_JOB_NAME": "bash"} if "SLURM_JOB_ID" in os.environ else {}


# --- The whole -----------------------------------------------------------------------------------------------------


# The function is found by its name, so that launchers can hand it to other processes.
_run_jobs = hydra.main(version_base="1.3", config_path="pkg://animegen.conf", config_name="train")(sweep_job)


def run_sweep(words: Sequence[str]) -> int:
    """Run ``animegen train -m ...`` or ``animegen train resume_sweep=<folder>``; return the exit code."""
    sweep = plan_sweep(words)
    arguments = sweep.hydra_words()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands us exceptions as they are
    sys.argv = [sys.argv[0], *arguments]
    try:
        with recorded(sweep):
            _run_jobs()
    except (HydraException, OmegaConfBaseException) as error:
        raise AnimegenError(explain(error, "train", [word for word in sweep.words if word[0] != "-"])) from error
    except OSError as error:
        raise unwritable(error.filename or sweep.folder, error) from error
    return report(sweep)


@contextlib.contextmanager
def recorded(sweep: Sweep) -> Iterator[None]:
    """Hold the folder of a sweep, with a record of the command in it, while Hydra runs it."""
    with locked(sweep.folder):
        for old in (sweep.folder / "jobs").glob("*.json"):
            old.unlink()
        if not sweep.resumed:
            command = shlex.join(["animegen", "train", *sweep.words])
            try:
                _write(sweep.folder / RECORD, {"command": command, "words": list(sweep.words)})
            except OSError as error:
                raise unwritable(sweep.folder, error) from error
        print(f"the sweep: {sweep.folder}", file=sys.stderr)
        try:
            yield
        except KeyboardInterrupt:
            print(f"animegen: stopped; animegen train resume_sweep={sweep.folder} goes on.", file=sys.stderr)
            raise


def report(sweep: Sweep) -> int:
    """Tell how the jobs of a sweep ended; return the exit code, 1 if any failed."""
    told = [json.loads(path.read_text()) for path in (sweep.folder / "jobs").glob("*.json")]
    told.sort(key=lambda job: job["job"])
    bad = [job for job in told if job["status"] != "finished"]
    for job in bad:
        reason = job.get("reason") or "it ended without a word"
        log = Path(job["folder"]) / LOG
        where = f" (log: {log})" if log.exists() else ""
        print(f"failed: job {job['job']}: {' '.join(job['words'])}: {reason}{where}", file=sys.stderr)
    if bad:
        print(
            f"animegen: {len(bad)} of {len(told)} jobs failed; animegen train resume_sweep={sweep.folder} tries them"
            " again.",
            file=sys.stderr,
        )
    print(f"the comparison: animegen compare {shlex.quote(str(sweep.folder))}")
    return 1 if bad or not told else 0


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".json.unfinished")
    try:
        unfinished.write_text(json.dumps(content, indent=2, default=str) + "\n")
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
