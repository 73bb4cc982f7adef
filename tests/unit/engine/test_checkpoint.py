"""A checkpoint from anybody is data: it builds networks of ours or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from animegen import __version__, load_model
from animegen.config.instantiate import build
from animegen.engine import AnimegenError
from animegen.engine.checkpoint import read_checkpoint
from tests.support import untrained

NETWORK = {"_target_": "animegen.models.toy.networks.ToyGenerator", "channels": 4}
TOY = {"_target_": "animegen.models.toy.Toy", "generator": NETWORK}


def write(path: Path, model: Any = TOY, **state: Any) -> Path:
    """Write a checkpoint of a toy model whose weights are all 0.5, with any model configuration."""
    weights = {key: torch.full_like(value, 0.5) for key, value in build(TOY, "model").state_dict().items()}
    content = {"config": {"model": model}, "train_step": 7, "version": "0.0.1", **state}
    torch.save({"state_dict": weights, "animegen": content}, path)
    return path


def test_a_checkpoint_alone_is_enough(tmp_path: Path) -> None:
    training = {"optimizers": {"generator": {"_target_": "no.such.optimizer"}}, "features": {"_target_": "no.features"}}
    model = load_model(write(tmp_path / "a.ckpt", {**TOY, **training}), device="cpu")
    assert model.train_step == 7
    assert not model.training
    assert all(not p.requires_grad and (p == 0.5).all() for p in model.parameters())


def test_averaged_weights_are_taken_unless_raw_ones_are_wanted(tmp_path: Path) -> None:
    averages = {key: torch.full_like(value, 0.25) for key, value in build(NETWORK, "net").state_dict().items()}
    path = write(tmp_path / "a.ckpt", ema={"updates": 3, "averages": {"generator": averages}})
    assert all((p == 0.25).all() for p in load_model(path, "cpu").parameters())
    assert all((p == 0.5).all() for p in load_model(path, "cpu", weights="raw").parameters())
    with pytest.raises(AnimegenError, match="weights must be 'ema' or 'raw'"):
        load_model(path, weights="best")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.nn.Linear",
        "animegen.engine.runs.json.loads",
        "animegen.engine.module.nn.Linear",
        "animegen.engine.checkpoint.torch.load",
        "animegen.cli.train.main",
        "animegen.nothing.Here",
        "animegenx.models.Toy",
    ],
)
def test_other_targets_are_refused(target: str, tmp_path: Path) -> None:
    for model in (
        {**TOY, "_target_": target},
        {**TOY, "generator": {"_target_": target}},
        {**TOY, "generator": [{"deep": [{"_target_": target}]}]},
    ):
        with pytest.raises(AnimegenError, match=r"asks for '.*', which is not on the list"):
            load_model(write(tmp_path / "a.ckpt", model))


def test_a_node_cannot_hide_in_an_interpolation(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = f"{{_target_:pathlib.Path,_args_:[{trap}]}}"
    hidden = f"${{oc.create:{{_target_:pathlib.Path.touch,_args_:[{path}]}}}}"
    for generator in ({**NETWORK, "channels": hidden}, {**NETWORK, hidden: 1}, hidden):
        with pytest.raises(AnimegenError, match="an interpolation"):
            load_model(write(tmp_path / "a.ckpt", {**TOY, "generator": generator}))
    assert not trap.exists()


def test_own_packages_can_be_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt", {**TOY, "generator": {"_target_": "torch.nn.Conv2d"}})
    with pytest.raises(AnimegenError, match="lacks the setting"):  # it was built, at least
        load_model(path, packages=["torch.nn"])


def test_weights_that_do_not_fit_tell_the_version(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt", {**TOY, "generator": {**NETWORK, "channels": 5}})
    with pytest.raises(AnimegenError, match=r"written by animegen 0\.0\.1 and cannot be loaded.*do not fit the model"):
        load_model(path)
    same = write(tmp_path / "b.ckpt", {**TOY, "generator": {**NETWORK, "channels": 5}}, version=__version__)
    with pytest.raises(AnimegenError, match=r"^The weights in .* do not fit the model"):
        load_model(same)


@pytest.mark.parametrize("model", [None, [], NETWORK, {"generator": 3}])
def test_what_is_no_model_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match=r"not a checkpoint of animegen|no model of animegen|has no setting"):
        load_model(write(tmp_path / "a.ckpt", model))


def test_a_run_folder_means_its_last_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    write(tmp_path / "checkpoints" / "last.ckpt")
    assert read_checkpoint(tmp_path)["animegen"]["train_step"] == 7
    with pytest.raises(AnimegenError, match="There is no checkpoint at"):
        read_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["finite_scalar", "learned_codebook", "cosine_codes"])
def test_codebooks_of_every_kind_are_loaded(name: str, tmp_path: Path) -> None:
    model = untrained("ganime/tokenizer", tmp_path / "a.ckpt", f"ablation=ganime/{name}")
    loaded = load_model(tmp_path / "a.ckpt", "cpu")
    assert all(torch.equal(*pair) for pair in zip(loaded.parameters(), model.parameters(), strict=True))
