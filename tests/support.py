"""What several tests share: runs as small as can be, and verbs run as the command line runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from animegen.cli import train as train_verb
from animegen.config.compose import compose_config, plain
from animegen.config.groups import list_options
from animegen.config.instantiate import build
from animegen.engine.checkpoint import TRAINING_ONLY
from animegen.engine.module import AnimeModule

#: Overrides that make any run small enough for a test.
TINY = ("size=tiny", "device=cpu", "evaluate=false", "logger=none", "val_every=100", "threads=1", "report=false")

#: Upper limits of values, wherever the composed configuration has them.
SMALLER = {
    "data.batch_size": 2,
    "data.size": 96,
    "data.load_size": 144,
    "data.scenes": 2,
    "data.val_scenes": 2,
    "data.test_scenes": 2,
    "data.frames_per_scene": 1,
    "data.frames": 8,
    "data.clips": 2,
    "data.val_clips": 2,
    "data.test_clips": 2,
    "model.pretrain_steps": 1,
    "model.generator.iterations": 2,
    "model.tokenizer.quantizer.codes": 32,
    "model.transformer.layers": 1,
    "callbacks.previews.samples": 1,
}


def tiny(*overrides: str, folders: Path | None = None) -> list[str]:
    """Return the overrides of a tiny run of whatever ``overrides`` choose; they win over what is made smaller.

    Args:
        overrides: words of the command line.
        folders: where pictures are made for data that need the user's folders; ``None`` makes none.
    """
    smaller, missing = _smaller(overrides)
    return [*TINY, *smaller, *_user_folders(missing, folders), *overrides]


@lru_cache
def _smaller(overrides: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the overrides that make a run small and offline, and the keys of its data that the user must give."""
    config = compose_config("train", [*TINY, *overrides], complete=False)
    words = [f"{key}={value}" for key, value in _smaller_values(config).items()]
    return words, [key for key in config.data if OmegaConf.is_missing(config.data, key)]


def _smaller_values(config: DictConfig) -> dict[str, Any]:
    found = {key: OmegaConf.select(config, key) for key in SMALLER}
    values: dict[str, Any] = {key: most for key, most in SMALLER.items() if (found[key] or 0) > most}
    if lengths := OmegaConf.select(config, "data.lengths"):
        values["data.lengths"] = [min(lengths)]
    return values | dict.fromkeys(_downloads(OmegaConf.to_container(config, resolve=False)), "random")


def tiny_config(*overrides: str) -> DictConfig:
    """Return the composed configuration of a tiny run, without what the user must give."""
    config = compose_config("train", [*TINY, *overrides], complete=False)
    for key, value in _smaller_values(config).items():
        OmegaConf.update(config, key, value)
    return config


def _downloads(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the keys of pretrained weights that would be downloaded."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if key == "weights" and value == "torchvision":
            yield f"{prefix}{key}"
        yield from _downloads(value, f"{prefix}{key}.")


def _user_folders(missing: list[str], folder: Path | None) -> list[str]:
    """Return values for the keys of ``data`` that the user must give, with the pictures that they name."""
    if folder is None or not missing:
        return []
    known = {"photos": folder / "train_photo", "anime": folder / "Some/style", "root": folder, "style": "Some"}
    known |= {"video": folder / "video", "videos": folder / "videos"}
    if unknown := set(missing) - set(known):
        pytest.skip(f"nobody here can give data.{' data.'.join(sorted(unknown))}")
    for name in ("train_photo", "Some/style", "Some/smooth", "val", "test/test_photo", "video"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(12 if name == "video" else 4):
            noise = torch.randint(256, (40, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
            Image.fromarray(noise.numpy()).save(folder / name / f"{number}.png")
    (folder / "videos").mkdir(exist_ok=True)
    shades = torch.linspace(0, 200, 48).expand(40, 48)
    frames = [Image.fromarray((shades + n).byte().numpy()).convert("RGB") for n in range(12)]  # one shot, ever brighter
    frames[0].save(folder / "videos/video.gif", save_all=True, append_images=frames[1:], duration=40)
    return [f"data.{key}={known[key]}" for key in missing]


def composed(*overrides: str) -> dict[str, Any]:
    """Return the resolved configuration of ``animegen train``, which is composed once per process."""
    return deepcopy(_composed(overrides))


@lru_cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    return plain(compose_config("train", overrides))


def run_verb(main: Any, *words: str) -> int:
    """Run the ``main`` of a verb in this process; return the exit code."""
    argv = sys.argv
    try:
        return main(list(words))
    finally:
        sys.argv = argv


def train(*overrides: str, output: Path | None = None) -> Path:
    """Run ``animegen train`` in this process, tiny unless resumed; return the run folder."""
    resumed = next((o.split("=", 1)[1] for o in overrides if o.startswith("resume=")), None)
    words = list(overrides) if resumed else tiny(*overrides, folders=output and output.parent / "user")
    code = run_verb(train_verb.main, *words, *([f"output={output}"] if output else []))
    assert code == 0, f"animegen train {' '.join(words)} ended with {code}"
    return output or Path(str(resumed))


def untrained(experiment: str, path: Path, *overrides: str) -> AnimeModule:
    """Write a checkpoint of a tiny model as it is before training; return the model."""
    words = tiny(f"experiment={experiment}", *overrides)
    config = compose_config("train", words, complete=False)
    OmegaConf.set_struct(config, False)
    for key in config.data or ():
        if OmegaConf.is_missing(config.data, key):
            config.data[key] = "given"
    values: dict[str, Any] = json.loads(json.dumps(plain(config), default=str))
    model = build({key: value for key, value in values["model"].items() if key not in TRAINING_ONLY}, "model")
    content = {"config": values, "train_step": 3, "version": "0", "overrides": words, "choices": {}}
    torch.save({"state_dict": model.state_dict(), "animegen": content}, path)
    return model


def command(*words: str, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``animegen ...`` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "animegen", *words], capture_output=True, text=True, cwd=cwd, timeout=timeout
    )


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """Return the one sentence of a verb that ended as a user's mistake does, see :func:`sentence`."""
    error = capsys.readouterr().err
    assert "Error executing job" not in error, "Hydra's own report"
    return sentence(error, code)


def sentence(stderr: str, code: int) -> str:
    """Return the one sentence on stderr, after checking the exit code and that there is no traceback."""
    assert code == 2, stderr
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith("animegen: ")]
    assert len(lines) == 1, stderr
    return lines[0]


def assert_same_state(mine: dict[str, Any], other: dict[str, Any]) -> None:
    """Check that two checkpoints hold the same weights, averages and optimizer states, to the bit."""
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        _assert_equal(mine[part], other[part], part)
    for part in ("train_step", "ema"):
        _assert_equal(mine["animegen"].get(part), other["animegen"].get(part), part)


def _assert_equal(mine: Any, other: Any, where: str) -> None:
    assert type(mine) is type(other), where
    if isinstance(mine, dict):
        assert mine.keys() == other.keys(), where
        for key in mine:
            _assert_equal(mine[key], other[key], f"{where}.{key}")
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(other), where
        for number, (a, b) in enumerate(zip(mine, other, strict=True)):
            _assert_equal(a, b, f"{where}[{number}]")
    elif isinstance(mine, torch.Tensor):
        assert torch.equal(mine, other), where
    else:
        assert mine == other, where


@lru_cache
def options_of(group: str) -> tuple[str, ...]:
    """Return the options of a configuration group, without ``none``."""
    names = (option.removeprefix(f"{group}/") for option in list_options() if option.startswith(f"{group}/"))
    return tuple(name for name in names if name != "none")
