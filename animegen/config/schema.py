"""The keys of what Hydra composes: the commands ``train``, ``eval`` and ``bench``, and study files.

Keys with :func:`~animegen.config.options.option` are explained by ``--help`` and checked; the others are configuration
groups, which are checked when they are built. This module imports neither Hydra nor PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from animegen.config.common import LARGEST_SEED, CheckpointOptions, ComputeOptions, OverwriteOptions, RunsOptions
from animegen.config.options import Options, keys_of, option

#: The largest number of steps, samples and other counts.
LARGEST_COUNT = 1_000_000_000


@dataclass
class SeedOptions(Options):
    """Where random numbers begin."""

    seed: int = option(0, "of all random numbers", minimum=0, maximum=LARGEST_SEED)


@dataclass
class TrustOptions(Options):
    """Whether files from elsewhere may name any code."""

    trust: bool = option(
        False, "build whatever a checkpoint or a record names, which can run any code: only for your own files"
    )


@dataclass
class TrainSchema(RunsOptions, ComputeOptions, OverwriteOptions, SeedOptions, TrustOptions):
    """Train a model: one run, one run per combination of values (-m), or the grid of a study.

    Any value of the configuration can be set: model.optimizers.generator.lr=1e-4 changes one, +key=value adds one,
    ~key removes one, --cfg job prints the configuration and does nothing. Values other than paths are read by Hydra:
    a text with spaces, commas, brackets or equals signs needs quotes within those of the shell, "key='a, b'".
    """

    command: ClassVar[str] = "train"
    examples: ClassVar[Sequence[str]] = (
        "experiment=animegan/quickstart",
        "experiment=toy/quickstart size=tiny train_steps=200 output=runs/try",
        "resume=last",
        "resume=runs/try train_steps=500",
        "init=runs/try train_steps=500",
        "rerun=runs/try",
        "-m model=animegan/v1,animegan/v2 seed=0,1,2",
        "resume_sweep=runs/sweep/<time>",
        "study=toy jobs=2",
        "experiment=animegan/quickstart --cfg job",
    )

    train_steps: int = option(1000, "batches to train", minimum=1, maximum=LARGEST_COUNT)
    val_every: int = option(500, "validate after this many batches", minimum=1, maximum=LARGEST_COUNT)
    evaluate: bool = option(True, "score the trained model and the baselines at the end")
    report: bool = option(True, "write report.html into the run folder at the end")
    output: str | None = option(None, "the run folder; null: runs/<experiment>/...", path=True)
    resume: str | None = option(
        None, "last, a run folder, or a checkpoint: continue the run exactly where it stopped", path=True
    )
    init: str | None = option(
        None, "last, a run folder, or a checkpoint: start a new run with the weights of its networks", path=True
    )
    ablations: dict[str, bool] = field(default_factory=dict)
    model: Any = None
    data: Any = None
    size: Any = None
    features: Any = None
    trainer: Any = None
    precision: Any = None
    logger: Any = None
    callbacks: Any = None
    debug: Any = None
    benchmark: Any = None


@dataclass
class GridOptions(OverwriteOptions):
    """How the runs of a study or a sweep are started."""

    jobs: int = option(1, "runs at a time on this machine", minimum=1, maximum=1024)
    dry_run: bool = option(False, "only print the commands of the runs")


@dataclass
class StudySchema(GridOptions):
    """Train the grid of a study: experiments x changes x seeds, each run in a process of its own.

    A study is a file experiments/study/<name>.yaml in the current folder or in the clone; some come with the package.
    It sets these keys, and the command line wins. Any other key is an override for all runs, such as train_steps=50;
    hydra/launcher=... starts the runs elsewhere. The same command again runs what is missing: finished runs stay,
    others resume. Then "animegen compare study=<name>" shows tables, plots and images.
    """

    command: ClassVar[str] = "train study=<name>"
    examples: ClassVar[Sequence[str]] = (
        "jobs=2",
        "leave_one_out=generator",
        "train_steps=50 output=runs/try",
        "hydra/launcher=submitit_slurm hydra.launcher.partition=gpu",
    )

    question: str = option("", "the question that the study answers")
    experiments: list[str] = option(["none"], "options of the group experiment")
    ablations: list[Any] = option(["none"], "ablations; a list in the list combines several")
    variants: dict[str, list[str]] = option({}, "more changes: {name: [override, ...]}")
    leave_one_out: str | None = option(None, "an objective, such as generator: one more change per term, without it")
    seeds: list[int] = option([0, 1], "seeds of each change", minimum=0, maximum=LARGEST_SEED)
    overrides: list[str] = option([], "overrides for all runs")
    baseline: str | None = option(None, "the row that the others are compared with; null: the first")
    metrics: list[str] | None = option(None, "metrics to show, in this order; null: all")
    samples: list[int] | None = option(None, "test samples to show, counted from 0; null: all that were kept")
    output: str | None = option(None, "folder of all runs; null: runs/study/<name>", path=True)


@dataclass
class EvalSchema(CheckpointOptions, ComputeOptions, OverwriteOptions, SeedOptions, TrustOptions):
    """Score a checkpoint on its task, together with the trivial baselines.

    data=... replaces the data of the training; data.<key>=... changes them; input=... measures how a folder of photos
    is drawn: flatness, ink, texture, change of colour and clipped values. The groups benchmark and
    features select the benchmark and its features: benchmark.<key>=... and features.weights=<file> change them.
    """

    command: ClassVar[str] = "eval"
    examples: ClassVar[Sequence[str]] = (
        "checkpoint=last",
        "checkpoint=cel input=photos",
        "checkpoint=last benchmark=clips",
        "checkpoint=last benchmark=clips benchmark.video=video.mp4",
        "checkpoint=last benchmark=generation",
        "checkpoint=last benchmark=variants benchmark.variants=8",
        "checkpoint=runs/quickstart data=unpaired/folders data.photos=photos data.anime=stills features=vgg19",
    )

    input: str | None = option(
        None, "a folder of photos without drawings: measure on them whether a model draws", path=True
    )
    max_side: int = option(512, "with input: scale larger photos down to this side", minimum=16, maximum=100_000)
    samples: int | None = option(64, "test samples at most, evenly spread; null: all", minimum=1, maximum=LARGEST_COUNT)
    batch_size: int = option(8, "samples per batch", minimum=1, maximum=100_000)
    output: str | None = option(None, "folder for the scores; null only prints the table", path=True)
    benchmark: Any = None
    features: Any = None


class Scaling(Enum):
    """What is measured at growing sizes."""

    steps = "steps"
    photos = "photos"
    videos = "videos"


@dataclass
class BenchSchema(ComputeOptions, OverwriteOptions, SeedOptions):
    """Measure speed and memory on this machine.

    data=toonworld measures ToonWorld, data=video decoding and encoding, data=film a video that is stylized and
    interpolated beside the parts of that work, "animegen bench startup" the start of the commands. scaling measures how
    the cost of a training step, or of stylize, grows; with output=x.json it draws x.png. budget and price_per_hour add
    the number of steps that the budget pays for on this machine, for each stage of a curriculum.
    """

    command: ClassVar[str] = "bench"
    examples: ClassVar[Sequence[str]] = (
        "data=toonworld",
        "data=video",
        "data=film seconds=60",
        "model=animegan/v2 size=base",
        "experiment=animegan/quickstart",
        "model=ganime/gpt6 precision=bf16",
        "scaling=steps model=animegan/v2_lite output=scaling.json",
        "model=interpolation/hybrid_vae budget=200 price_per_hour=0.8",
    )

    seconds: float = option(10.0, "how long to measure", above=0, maximum=100_000)
    input: str | None = option(None, "with data=video and data=film: a video of your own", path=True)
    output: str | None = option(None, "a file for the result as JSON", path=True)
    scaling: Scaling | None = option(
        None, "growth of cost: steps by batch, crop and width; photos by pixels; videos by frames"
    )
    budget: float | None = option(None, "money to spend", above=0)
    price_per_hour: float | None = option(None, "price of this machine", above=0)
    samples: int | None = option(None, "samples of the data, to count epochs", minimum=1, maximum=LARGEST_COUNT)
    train_steps: int = option(1_000_000, "of learning-rate schedules and of budget", minimum=1, maximum=LARGEST_COUNT)
    val_every: int = option(1_000_000, "as in train", minimum=1, maximum=LARGEST_COUNT)
    model: Any = None
    precision: Any = None
    size: Any = None
    features: Any = None


SCHEMAS: Mapping[str, type[Options]] = {
    "train": TrainSchema,
    "study": StudySchema,
    "eval": EvalSchema,
    "bench": BenchSchema,
}


def register_schemas() -> None:
    """Make the schemas known to Hydra under ``schema/<command>``; calling it again changes nothing."""
    from hydra.core.config_store import ConfigStore

    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(group="schema", name=name, node=schema, package="_global_")


def schema_keys(name: str) -> list[str]:
    """Return the top-level keys of the configuration ``name``: those of its registered schema."""
    from hydra.core.config_store import ConfigStore

    return [str(key) for key in ConfigStore.instance().load(f"schema/{name}.yaml").node]


def check_values(name: str, config: Mapping[str, Any]) -> None:
    """Raise :class:`AnimegenError` for a top-level value outside of its range.

    Args:
        name: name of the configuration.
        config: key -> value.
    """
    for key in keys_of(SCHEMAS[name]) if name in SCHEMAS else ():
        if key.name in config:
            key.check(config[key.name])


def path_keys(name: str) -> list[str]:
    """Return the keys of a command that name files and folders."""
    return [key.name for key in keys_of(SCHEMAS[name]) if key.declaration.path]
