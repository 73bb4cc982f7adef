"""The weights that ship with animegen: small, described, loadable, and the start of a style of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from animegen import load_model
from animegen.cli import stylize
from animegen.config.looks import CARD, USUAL, Look, looks
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.runs import read_record
from animegen.inference.look import COMMANDS
from animegen.media.images import read_image
from tests.support import run_verb, train

PHOTOS = Path(__file__).parents[2] / "docs/images/photos"


def test_the_shipped_looks_are_small() -> None:
    sizes = [look.file.stat().st_size for look in looks().values()]
    assert max(sizes) <= 2e6
    assert sum(sizes) <= 12e6
    assert USUAL["stylize"] in looks()


@pytest.mark.parametrize("look", looks().values(), ids=looks())
def test_a_shipped_look_is_described_and_loads_as_data(look: Look) -> None:
    assert look.licence != "unknown"
    assert look.about
    assert len((look.file.parent / CARD).read_text().splitlines()) > 10
    model = load_model(look.name, "cpu")
    assert isinstance(model, COMMANDS[look.commands[0]])
    assert type(model).__module__.split(".")[2] == look.family
    content = read_checkpoint(look.name)
    assert "/" not in str(content["animegen"]["config"].get("data")), "a path of the machine that trained it"
    assert all(
        not weight.isnan().any() for weight in content["state_dict"].values() if isinstance(weight, torch.Tensor)
    )


@pytest.mark.parametrize("name", [name for name, look in looks().items() if look.commands[0] == "stylize"])
def test_a_shipped_look_draws(name: str, tmp_path: Path) -> None:
    photo, drawn = PHOTOS / "gecko.jpg", tmp_path / "drawn.png"
    assert run_verb(stylize.main, f"input={photo}", f"output={drawn}", f"look={name}", "device=cpu") == 0
    before, after = (read_image(file).float() for file in (photo, drawn))
    assert before.shape == after.shape
    assert 3 < (before - after).abs().mean() < 40  # neither the photo nor a plain area
    assert after.std() > 0.6 * before.std()


def test_own_images_starts_from_cel(tmp_path: Path) -> None:
    words = ("experiment=animegan/own_images", "train_steps=1")
    run = train(*words, output=tmp_path / "runs/a")
    record = read_record(run)
    assert record["config"]["init"] == "cel"
    assert record["config"]["model"]["pretrain_steps"] == 0
    cel, mine = read_checkpoint("cel")["state_dict"], read_checkpoint(run)["state_dict"]
    rate = record["config"]["model"]["optimizers"]["generator"]["lr"]
    for name, weight in cel.items():
        if name.startswith("generator."):
            assert (mine[name] - weight.float()).abs().max() <= 1.1 * rate, name  # one step of Adam
    train(*words, "init=null", "model.pretrain_steps=1", output=tmp_path / "runs/b")
    assert read_record(tmp_path / "runs/b")["config"]["model"]["pretrain_steps"] == 1
