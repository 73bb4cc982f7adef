"""The weights that ship with animegen: small, described, loadable, and the start of a style of one's own."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from animegen import load_model
from animegen.benchmarks.clip_methods import Streamed
from animegen.cli import stylize
from animegen.config.looks import CARD, USUAL, USUAL_FOR_VIDEOS, Look, looks
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.runs import read_record
from animegen.inference.look import COMMANDS
from animegen.media.images import read_image, to_float
from animegen.media.video.frames import VideoInfo
from animegen.media.video.opening import create_video, open_video
from animegen.metrics.image import flatness
from animegen.metrics.video import noise_gain
from tests.support import run_verb, train
from tests.video_support import deep_film

PHOTOS = Path(__file__).parents[2] / "docs/images/photos"


def test_the_shipped_looks_are_small() -> None:
    sizes = [look.file.stat().st_size for look in looks().values()]
    assert max(sizes) <= 2e6
    assert sum(sizes) <= 12e6
    assert {USUAL["stylize"], USUAL_FOR_VIDEOS["stylize"]} <= set(looks())


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


def moved(length: int, folder: Path | None = None, **settings: Any) -> list[torch.Tensor]:
    """Return frames in which a photo moves by two pixels, uint8 (3,64,96); write them as a video if there is a path."""
    still = read_image(PHOTOS / "gecko.jpg")
    frames = [still[:, 60:124, 40 + 2 * t : 136 + 2 * t].contiguous() for t in range(length)]
    if folder is not None:
        with create_video(folder, VideoInfo(96, 64, Fraction(24)), **settings) as writer:
            for t, pixels in enumerate(frames):
                writer.write(pixels, Fraction(t, 24))
            writer.close(Fraction(length, 24))
    return frames


def frames_of(path: Path) -> torch.Tensor:
    return torch.stack([pixels for pixels, _ in open_video(path)]).int()


def test_a_video_is_drawn_by_its_own_look_and_a_photo_by_cel(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    moved(4, folder / "a.mkv")
    shutil.copy(PHOTOS / "gecko.jpg", folder / "b.jpg")
    words = ("device=cpu", "threads=1", "crf=0")
    assert run_verb(stylize.main, f"input={folder}", f"output={tmp_path / 'both'}", *words) == 0
    for look, name in (("cel_film", "a.mkv"), ("cel", "a.mkv"), ("cel", "b.jpg")):
        target = tmp_path / look / name
        assert run_verb(stylize.main, f"input={folder / name}", f"output={target}", f"look={look}", *words) == 0
    assert torch.equal(frames_of(tmp_path / "both/a.mkv"), frames_of(tmp_path / "cel_film/a.mkv"))
    assert not torch.equal(frames_of(tmp_path / "both/a.mkv"), frames_of(tmp_path / "cel/a.mkv"))
    assert (tmp_path / "both/b.jpg").read_bytes() == (tmp_path / "cel/b.jpg").read_bytes()


def test_cel_film_is_steady_and_draws_like_cel() -> None:
    still = to_float(read_image(PHOTOS / "gecko.jpg"))[:, :96, :128]
    cel, film = Streamed(load_model("cel", "cpu")), Streamed(load_model("cel_film", "cpu"))
    assert noise_gain(film, still, frames=10) < 0.7 * noise_gain(cel, still, frames=10)
    clip = to_float(torch.stack(moved(6)))[None]
    one, other = cel(clip)[0, -1:], film(clip)[0, -1:]
    assert abs(float(flatness(one) - flatness(other))) < 0.08
    assert (one - other).abs().mean() < 0.1


def test_cel_film_forgets_at_a_cut_even_if_nobody_marks_it() -> None:
    first = to_float(torch.stack(moved(3)))[None]
    film = Streamed(load_model("cel_film", "cpu"))
    other = -first.flip(-1)
    drawn = film(torch.cat([first, other], 1))[:, 3:]
    assert (drawn - film(other)).abs().mean() < 0.02


def test_ten_bits_and_transparency_go_through_cel_film(tmp_path: Path) -> None:
    deep, clear = tmp_path / "deep.mkv", tmp_path / "clear.webp"
    deep_film(deep)
    pixels = np.full((48, 64, 4), 120, np.uint8)
    pixels[:, :20, 3] = 0
    images = [Image.fromarray(np.roll(pixels, 3 * t, 1)) for t in range(3)]
    images[0].save(clear, save_all=True, append_images=images[1:], duration=40, lossless=True, exact=True)
    for source in (deep, clear):
        words = [f"input={source}", f"output={tmp_path / 'out' / source.name}", "device=cpu", "threads=1"]
        assert run_verb(stylize.main, *words) == 0
    assert open_video(tmp_path / "out/deep.mkv").info.pix_fmt.endswith("10le")
    with Image.open(tmp_path / "out/clear.webp") as made:
        assert made.n_frames == 3
        assert np.asarray(made.convert("RGBA"))[:, :16, 3].max() == 0
