"""Run folders: finding, reading and resuming them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from animegen.config.compose import quoted, run_folder
from animegen.config.looks import WEIGHTS
from animegen.config.mismatch import mismatch
from animegen.config.plain import read_json
from animegen.config.recorded import check_recorded, recorded_words
from animegen.engine.checkpoint import checkpoint_file, no_checkpoint, read_resumable
from animegen.errors import AnimegenError
from animegen.files import shown, user_path
from animegen.outputs import REPLACED, OutputFolder

#: Record of a run, and of a finished run that is trained further; see
#: :class:`animegen.engine.callbacks.RunRecord`.
RECORD, RESUMED = "run.json", "resumed.json"
#: The newest checkpoint.
LAST = "checkpoints/last.ckpt"
#: Files of every run; callbacks, loggers and models name theirs in ``writes``.
RUN_FILES = (RECORD, RESUMED, "config/config.yaml", "config/overrides.yaml")

RESTORE = "restore it, or start the run again"


class Config(TypedDict, total=False):
    """Fields of the configuration that are read from a record."""

    seed: int
    train_steps: int
    output: str | None
    model: dict[str, Any] | None
    data: dict[str, Any] | None
    ablations: dict[str, Any] | list[str] | None


class Score(TypedDict):
    """A metric of a method on the test set; ``None`` for values that are not finite."""

    mean: float | None
    std: float | None
    n: int | None


class MetricNote(TypedDict):
    """Unit, direction and description of a metric."""

    unit: str
    better: Literal["higher", "lower", "none"]
    description: str


class Scores(TypedDict):
    """The scores that every evaluation has."""

    task: str
    main: str
    methods: dict[str, dict[str, Score]]
    metrics: dict[str, MetricNote]
    privileged: list[str]


class Evaluation(Scores, total=False):
    """Content of ``scores.json``."""

    derived: list[str]
    by_motion: dict[str, dict[str, dict[str, Score]]]


class Git(TypedDict, total=False):
    """State of the source repository."""

    commit: str
    dirty: bool


class RunRecord(TypedDict, total=False):
    """Content of ``run.json``; all fields are optional."""

    status: str
    error: str
    config: Config
    choices: dict[str, Any]
    overrides: list[str]
    command: str
    started: str
    versions: dict[str, str]
    git: Git | None
    machine: dict[str, Any]
    metrics: dict[str, float]
    seconds: dict[str, float]
    parameters: dict[str, int]
    features: str
    calibration: dict[str, dict[str, float]]
    train_step: int
    resumed_at: int | None
    evaluation: Evaluation | None


def has_record(folder: Path) -> bool:
    """Return whether a folder holds the record of a run, after cleaning up after a killed command."""
    OutputFolder(folder).recover()
    return (folder / RECORD).is_file()


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a run that has a checkpoint, or is trained or finished."""
    try:
        ended = has_record(folder) and read_record(folder).get("status") in ("trained", "finished")
    except AnimegenError:  # not a record, or damaged
        ended = False
    return ended or (folder / LAST).exists()


def unwritable(folder: Path | str, error: OSError) -> AnimegenError:
    """Return the error for a run folder that cannot be created or written."""
    return AnimegenError(
        f"The run folder '{shown(folder)}' cannot be written ({error.strerror}): choose another output= or runs=."
    )


def resolve_checkpoint(path: str, runs: str = "runs", what: str | None = None) -> Path:
    """Return the checkpoint file for ``last``, a run folder, a file, or a shipped look.

    Args:
        path: path of a file or folder, or name of a look, see :func:`~animegen.engine.checkpoint.checkpoint_file`;
            ``last`` for the newest checkpoint below ``runs``.
        runs: folder that holds all runs.
        what: with ``last``, only runs below ``runs/<what>`` (an experiment).
    """
    if path == "last":
        below = user_path("runs", runs) / (what or "")
        found = sorted(files_of_runs(below, LAST), key=lambda p: p.stat().st_mtime)
        if not found:
            raise AnimegenError(
                f"There is no checkpoint below '{below}': train first, or name a run folder or a .ckpt file."
            )
        return found[-1]
    given = user_path("checkpoint", path)
    OutputFolder(run_folder(given)).recover()
    file = checkpoint_file(given)
    if file.is_file():
        return file
    if given.is_dir():
        raise AnimegenError(
            f"The folder '{given}' has no checkpoints/last.ckpt: it is not a run, or was stopped too early."
        )
    raise no_checkpoint(given)


def files_of_runs(below: Path, name: str) -> list[Path]:
    """Return the files called ``name`` (such as ``run.json``) of all runs in a folder, except those being replaced."""
    for path in list(below.rglob(f"{REPLACED}*")):
        OutputFolder(path.parent).recover()
    return [path for path in below.rglob(name) if not any(part.startswith(REPLACED) for part in path.parts)]


def read_record(folder: str | Path, newest: bool = False) -> dict[str, Any]:
    """Return the record of a run: plain data of the types that `RunRecord` declares.

    Args:
        folder: the run folder.
        newest: if a finished run is being trained further, return the record of that training.

    Raises:
        AnimegenError: if there is none, or if it is damaged.
    """
    OutputFolder(folder).recover()
    path = Path(folder) / RECORD
    if newest and (Path(folder) / RESUMED).exists():
        path = Path(folder) / RESUMED
    if not path.exists():
        raise AnimegenError(
            f"'{folder}' has no readable run.json: it is not the folder of a run; checkpoints lie in"
            " <run folder>/checkpoints."
        )
    record = read_json(path, "the record of a run", RESTORE)
    if not isinstance(record, dict):
        raise AnimegenError(f"'{path}' is not the record of a run: {RESTORE}.")
    if fault := mismatch(record, RunRecord, "it"):
        raise AnimegenError(f"'{path}' is damaged, {fault}: {RESTORE}.")
    if record.get("evaluation") and not record["evaluation"]["methods"].get("model"):
        raise AnimegenError(f"'{path}' is damaged, its evaluation has no scores of the model: {RESTORE}.")
    return record


def resumed_overrides(overrides: list[str]) -> list[str]:
    """Return the overrides of the run that ``resume=`` names, followed by the given ones.

    So ``animegen train resume=last`` needs no further overrides, and ``resume=last train_steps=9000`` extends the run.
    With ``output=`` the run continues in another folder, and the old one is unchanged. Without ``resume=`` the given
    overrides are returned.
    """
    values = {key: unquoted(value) for key, equals, value in (o.partition("=") for o in overrides) if equals}
    wanted = values.get("resume")
    if wanted in (None, "null", ""):
        return overrides
    checkpoint = resolve_checkpoint(str(wanted), values.get("runs", "runs"), values.get("experiment"))
    if checkpoint.name == WEIGHTS:
        raise AnimegenError(f"'{wanted}' is a look, which cannot be resumed: start a new run from it, init={wanted}.")
    mine = [o for o in overrides if not o.startswith("resume=")]
    folder = run_folder(checkpoint)
    recorded = read_record(folder, newest=True).get("overrides", [])
    trust, source = values.get("trust", "").lower() == "true", f"The record '{folder / RECORD}'"
    words = merged_overrides(recorded if trust else recorded_words(recorded, source), mine)
    if not trust:
        check_recorded(words, mine, source)
    return [*words, f"resume={quoted(checkpoint)}"]


def merged_overrides(recorded: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the overrides of an earlier run without those of its process (``output``, ...), followed by new ones."""
    gone = {"resume", "output", "overwrite", "trust", *(o.split("=", 1)[0] for o in given)}
    return [*(o for o in recorded if o.split("=", 1)[0] not in gone and not o.startswith("hydra.")), *given]


def resumed_state(checkpoint: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint that is resumed tells of its run: all metadata but the weight averages.

    Raises:
        AnimegenError: if the checkpoint is damaged, has trained all steps already, or has other optimizers.
    """
    state: dict[str, Any] = read_resumable(checkpoint)["animegen"]
    if state["train_step"] >= config["train_steps"]:
        raise AnimegenError(
            f"'{checkpoint}' has already trained {state['train_step']} steps: give a larger train_steps= to train on,"
            f" or score it with animegen eval checkpoint={checkpoint}."
        )
    if state["config"]["model"].get("optimizers") != config["model"].get("optimizers"):
        raise AnimegenError(
            f"resume={checkpoint} continues with the optimizers of the checkpoint, so model.optimizers cannot change:"
            " leave it as it was, or start a new run."
        )
    return {key: value for key, value in state.items() if key != "ema"}


def unquoted(value: str) -> str:
    """Return a value of the command line without quotes."""
    try:
        read = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return value
    return "null" if read is None else str(read)
