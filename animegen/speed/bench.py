"""Samples per second, overhead of the framework, and memory, as a table and as JSON."""

from __future__ import annotations

import importlib
import importlib.util
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from animegen.config.compose import compose_config, literal_paths
from animegen.config.instantiate import build
from animegen.config.schema import BenchSchema, Scaling
from animegen.engine.callbacks import LogEvery, StopAfter
from animegen.engine.checkpoint import pick_device
from animegen.engine.lightning import LightningAdapter
from animegen.engine.machine import machine, versions
from animegen.engine.module import AnimeModule
from animegen.errors import AnimegenError
from animegen.files import check_outputs, completed, user_path
from animegen.nn.precision import trainer_precision
from animegen.speed.parts import Stopwatch, data_wait, step_parts
from animegen.tasks.protocols import Interpolator


def bench(config: DictConfig, data: str | None = None, experiment: DictConfig | None = None) -> dict[str, Any]:
    """Measure the model of the configuration, or ``data``; return the result with the facts of the machine."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if data == "toonworld":
        result = bench_toonworld(config.seconds)
    elif data == "video":
        result = bench_video(config.input, config.seconds)
    elif data == "film":
        result = bench_film(config.input, config.seconds, config.threads)
    elif config.budget is not None:
        result = bench_budget(config, experiment)
    elif data is not None:
        raise AnimegenError(f"animegen bench data={data}: only toonworld, video and film can be measured.")
    else:
        result = bench_model(config, experiment)
    return {**result, "machine": machine(), "versions": versions()}


def bench_toonworld(seconds: float) -> dict[str, Any]:
    """Measure the rendering of ToonWorld at 128 and 256 pixels."""
    from animegen.speed.toonworld import measure as measure_world

    rows = {}
    for size in (128, 256):
        rows.update({f"{size} px: {name}": value for name, value in measure_world(size, seconds / 2).items()})
    return {"what": "toonworld", "rows": rows}


def bench_video(video: str | None, seconds: float) -> dict[str, Any]:
    """Measure decoding and encoding of ``video``, or of a generated video of 1280x720."""
    from animegen.speed.video import measure as measure_video

    path = None if video is None else user_path("input", video)
    return {"what": video or "video", "rows": measure_video(path, seconds / 4)}


def bench_film(video: str | None, seconds: float, threads: int | None) -> dict[str, Any]:
    """Measure whole commands on ``video``, or on a generated video of 1280x720, beside their parts."""
    from animegen.speed.film import measure as measure_film

    path = None if video is None else user_path("input", video)
    return {"what": video or "film", "rows": measure_film(path, seconds / 6, threads)}


def bench_model(config: DictConfig, experiment: DictConfig | None = None) -> dict[str, Any]:
    """Measure training steps of a model in the framework's loop, in a plain loop, and by part.

    For an experiment, its model, size and data are measured.
    """
    torch.manual_seed(config.seed)
    device = pick_device(config.device.value)
    model: AnimeModule = build(config.model, "model")
    own = family_measure(model)
    if own is not None:
        rows = own(model, config.seconds, config.precision.trainer, device)
        return {"what": config.model._target_, "rows": rows, "precision": config.precision.trainer}
    side = config.size.image_size
    batch = batch_for(model, config.size.batch_size, side, side, device)
    bare = BareLoop(build(config.model, "model"), device, config.precision.trainer)
    bare.times(batch, 1)
    probe = _framework_times(model, batch, config, steps=1)
    # Short turns of both loops alternate, so that a busy machine slows both alike.
    affordable = max(1, int(config.seconds / 2 / max(probe, 1e-6)))
    turns = min(5, affordable)
    steps = affordable // turns
    inside, outside = [], []
    for _ in range(turns):
        outside.append(bare.times(batch, steps))
        inside.append(_framework_times(model, batch, config, steps))
    step, reference = statistics.median(inside), statistics.median(outside)
    samples = config.size.batch_size
    rows = {
        "ms per step": 1000 * step,
        "samples/s": samples / step,
        "ms per step, bare loop": 1000 * reference,
        "framework cost, ms per step": 1000 * (step - reference),
        "peak memory of the process, MiB": peak_memory(),
    }
    rows |= step_parts(bare.model, lambda watch: bare.step(batch, watch), device, max(1, min(steps, 5)))
    if experiment is not None:
        wait = data_wait(experiment, device)
        rows |= {"data, ms per batch": 1000 * wait, "data, share of a step with it": wait / (wait + step)}
    if device.type == "cuda":
        rows["peak CUDA memory, MiB"] = torch.cuda.max_memory_allocated(device) / 2**20
    if isinstance(model, Interpolator) and "first" in batch:
        rows |= bench_pairs(model, config, device)
    if getattr(model, "remembers", False):
        rows |= bench_streams(model, config, device)
    return {
        "what": config.model._target_,
        "rows": rows,
        "batch": list(next(iter(batch.values())).shape),
        "precision": config.precision.trainer,
        "steps": steps * turns,
        "parameters": {name: sum(p.numel() for p in n.parameters()) for name, n in model.networks().items()},
    }


def bench_scaling(config: DictConfig, words: Sequence[str], plot: Path | None) -> dict[str, Any]:
    """Measure how a cost grows, see :mod:`animegen.speed.scaling`; ``words`` are those of the configuration."""
    from animegen.speed import scaling

    if config.threads:
        torch.set_num_threads(config.threads)
    if config.scaling is Scaling.steps:
        curves = scaling.scale_steps(lambda more: compose_config("bench", [*words, *more]), batch_for, BareLoop)
        what = config.model._target_
    else:
        scale = scaling.scale_photos if config.scaling is Scaling.photos else scaling.scale_videos
        curves, what = scale([f"threads={config.threads}"] if config.threads else []), config.scaling.value
    if plot is not None:
        with completed(plot, overwrite=config.overwrite) as hidden:
            scaling.plot(curves, hidden)
    return {"what": what, "rows": scaling.rows_of(curves), "machine": machine(), "versions": versions()}


def bench_budget(config: DictConfig, experiment: DictConfig | None) -> dict[str, Any]:
    """Measure a step of each stage, and compute the steps for a budget; see :mod:`animegen.speed.budget`."""
    from animegen.speed.budget import Part, parts_of, rows_of, table_of

    if config.price_per_hour is None or config.price_per_hour <= 0 or config.budget <= 0:
        raise AnimegenError("A budget needs a price: budget=200 price_per_hour=0.8, both above 0.")
    torch.manual_seed(config.seed)
    device = pick_device(config.device.value)
    source = config if experiment is None else experiment
    model: AnimeModule = build(source.model, "model")
    stages, timed = parts_of(source, config.size), []
    for stage in stages:
        model.settings.accumulate = stage.accumulate
        batch = batch_for(model, stage.batch_size, *stage.size, device)
        probe = _framework_times(model, batch, config, steps=1)
        steps = max(1, min(20, int(config.seconds / len(stages) / max(probe, 1e-6))))
        timed.append(Part(stage, _framework_times(model, batch, config, steps)))
    table = table_of(timed, config.budget, config.price_per_hour, config.samples, config.train_steps)
    return {"what": f"{config.budget:g} at {config.price_per_hour:g} per hour", "rows": rows_of(table), "budget": table}


def family_measure(model: AnimeModule) -> Callable[..., dict[str, float]] | None:
    """Return the function ``measure`` of :mod:`animegen.speed` for the family of a model, if it ``fits`` the model."""
    name = f"animegen.speed.{type(model).__module__.removeprefix('animegen.models.').partition('.')[0]}"
    own = importlib.import_module(name) if importlib.util.find_spec(name) else None
    return own.measure if own is not None and own.fits(model) else None


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # the only system that counts bytes


def batch_for(model: AnimeModule, size: int, height: int, width: int, device: torch.device) -> dict[str, Tensor]:
    """Return a batch on which a model can train: that of its task (``example_batch``), or one of images."""
    make = getattr(model, "example_batch", None) or ready_batch
    return make(size, height, width, device)


def ready_batch(size: int, height: int, width: int, device: torch.device) -> dict[str, Tensor]:
    """Return a batch with every image entry that a view can make, so that any stylise model can train on it."""
    images = {name: torch.rand(size, 3, height, width, device=device) * 2 - 1 for name in ("photo", "anime", "smooth")}
    return {**images, "sample": torch.arange(size, device=device)}


def bench_pairs(model: Any, config: DictConfig, device: torch.device) -> dict[str, float]:
    """Return ms for a pair of frames of 256x448, for each further frame between, and for the half-warp by DIS flow."""
    from animegen.benchmarks.inbetween import half_warp
    from animegen.media.video.flow import DISFlow
    from animegen.nn.precision import inference

    frames = torch.rand(2, 1, 3, 256, 448, device=device) * 2 - 1
    t = torch.tensor([0.5], device=device)
    pair = {"first": frames[0], "last": frames[1], "t": t}
    model = model.to(device).eval()
    flow, dtype = DISFlow(), torch.bfloat16 if config.precision.trainer == "bf16-mixed" else None
    with inference(device, dtype):
        encoded = model.encode_pair(frames[0], frames[1])
        encode = _seconds(lambda: model.encode_pair(frames[0], frames[1]), device)
        draw = _seconds(lambda: model.synthesize(encoded, t), device)
        warp = _seconds(lambda: half_warp(pair, flow), device)
    model.train()
    return {
        "ms per pair of 256x448, one frame between": 1000 * (encode + draw),
        "ms for each further frame between": 1000 * draw,
        "ms per pair x8 (seven frames)": 1000 * (encode + 7 * draw),
        "ms per pair, half-warp by DIS flow": 1000 * warp,
    }


def bench_streams(model: Any, config: DictConfig, device: torch.device) -> dict[str, float]:
    """Return frame size -> frames per second of one stream of a model with a memory, and the MiB of its state."""
    from animegen.nn.precision import inference

    rows = {}
    # In the memory format of animegen stylize.
    order = torch.channels_last
    model = model.to(device, memory_format=order).eval()
    dtype = torch.bfloat16 if config.precision.trainer == "bf16-mixed" else None
    for side in (128, 256):
        frame = (torch.rand(1, 3, side, side, device=device) * 2 - 1).contiguous(memory_format=order)
        with inference(device, dtype):
            _, state = model.stylize(frame)
            rows[f"stream of {side} px, frames/s"] = 1 / _seconds(partial(model.stylize, frame, state), device)
        pictures = [value for value in (state.previous, state.output) if value is not None]
        held = [*(value for pair in state.memory for value in pair), *pictures]
        rows[f"stream of {side} px, state in MiB"] = sum(v.numel() * v.element_size() for v in held) / 2**20
    model.train()
    return rows


def _seconds(call: Any, device: torch.device) -> float:
    """Return the median time of five calls, after one that warms up."""
    times = []
    for _ in range(6):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


class _Same(IterableDataset):
    """The same batch repeated endlessly, so that only the step is measured."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            yield self.batch


class _Clock(pl.Callback):
    """Time between the end of the first and of the last batch."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        """Note the time."""
        if module.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def _framework_times(model: AnimeModule, batch: dict[str, Tensor], config: DictConfig, steps: int) -> float:
    """Return seconds per step inside the framework's loop, with all callbacks except previews and files."""
    clock = _Clock()
    model.train_step = 0
    trainer = pl.Trainer(
        accelerator=config.device.value if config.device.value != "auto" else "auto",
        devices=1,
        max_epochs=-1,
        precision=config.precision.trainer,
        logger=pl.loggers.logger.DummyLogger(),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[LogEvery(10), StopAfter(steps + 1), clock],
    )
    trainer.fit(LightningAdapter(model), DataLoader(_Same(batch), batch_size=None))
    return (clock.ends[-1] - clock.ends[0]) / steps


class BareLoop:
    """The same updates written as a plain torch loop: no hooks, no logs, no guards."""

    def __init__(self, model: AnimeModule, device: torch.device, precision: str) -> None:
        self.model = model.to(device).train()
        if model.settings.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.optimizers = {}
        for name, make in model.settings.optimizers.items():
            self.optimizers[name] = make(list(model.network(model.trains.get(name, name)).parameters()))
        self.networks = {name: list(network.parameters()) for name, network in model.networks().items()}
        self.autocast = precision == "bf16-mixed"

    def times(self, batch: dict[str, Tensor], steps: int) -> float:
        """Return seconds per step."""
        began = time.perf_counter()
        for _ in range(steps):
            self.step(batch)
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / steps

    def step(self, batch: dict[str, Tensor], watch: Stopwatch | None = None) -> None:
        """Train one step; a stopwatch gets the time of each backward pass, without the forward pass, and optimizer."""
        timed = watch.running if watch is not None else lambda name: nullcontext()
        for objective in self.model.objectives.values():
            objective.step = self.model.train_step  # terms may have turns
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.autocast):
            for name, evaluation in self.model.updates(batch):
                trained = self.model.trains.get(name, name)
                for other, parameters in self.networks.items():
                    for parameter in parameters:
                        parameter.requires_grad_(other == trained)
                total = evaluation.compute()[0]
                with timed(f"{name} backward"):
                    total.backward()
                with timed("optimizers"):
                    self.optimizers[name].step()
                    self.optimizers[name].zero_grad(set_to_none=True)
                for parameters in self.networks.values():
                    for parameter in parameters:
                        parameter.requires_grad_(True)
        self.model.train_step += 1


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    table = Table("measure", "value", title=str(result["what"]), title_justify="left", box=None, pad_edge=False)
    for name, value in result["rows"].items():
        if isinstance(value, int | float):
            value = f"{value:.3g}" if value < 100 else f"{value:,.0f}"
        table.add_row(name, str(value))
    console = Console(highlight=False)
    console.print(table)
    facts = result["machine"]
    console.print(
        f"{facts['cores']} cores ({facts['torch_threads']} torch threads), {', '.join(facts.get('cuda', ['no CUDA']))}"
    )


def run_bench(words: Sequence[str]) -> None:
    """Run ``animegen bench``: measure, print, and write to a file if given."""
    # Not a key of the configuration, since there is a group of that name.
    data = [word.removeprefix("data=") for word in words if word.startswith("data=")]
    chosen = [word for word in words if word.startswith("experiment=")]
    # The parts of an experiment: its model has keys that are not in the bench's.
    parts = ("experiment=", "ablation=", "data.", "features", "model.", "+model.", "~model.") if chosen else ()
    mine = [word for word in words if not word.startswith(("data=", *parts))]
    mine = literal_paths("bench", mine)
    config = compose_config("bench", mine)
    passed = [word for word in words if word.startswith(("size=", "size.", "precision=", *parts))]
    experiment = compose_config("train", passed, complete=False) if chosen else None
    if experiment is not None:
        config.model, config.size, config.precision = experiment.model, experiment.size, experiment.precision
        if config.train_steps == BenchSchema.train_steps:
            config.train_steps = experiment.train_steps
    config.precision.trainer = trainer_precision(config.precision.trainer, pick_device(config.device.value))
    output = None if config.output is None else user_path("output", config.output)
    plot = None if output is None or config.scaling is None else output.with_suffix(".png")
    check_outputs([path for path in (output, plot) if path is not None], config.overwrite)
    if config.scaling is not None:
        if data or chosen:
            raise AnimegenError("scaling= measures model=, or the looks: leave data= and experiment= out.")
        result = bench_scaling(config, mine, plot)
    else:
        result = bench(config, data[-1] if data else None, experiment)
    show(result)
    if output is not None:
        with completed(output, overwrite=config.overwrite) as hidden:
            hidden.write_text(json.dumps(result, indent=2) + "\n")
