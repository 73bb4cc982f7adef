"""``animegen stylize``: photos in, drawings out, and nothing else touched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor, nn

from animegen.cli import stylize as verb
from animegen.engine.checkpoint import load_model
from animegen.inference import application
from animegen.media.images import read_image, to_float, to_uint8
from animegen.models.animegan.networks import AnimeGANv2
from animegen.tasks.stylize import pad_and_crop
from tests.support import refused, train


class Model(nn.Module):
    """A model that the applications know by its protocol only."""

    size_divisor = 4

    def __init__(self) -> None:
        super().__init__()
        self.network = AnimeGANv2(width=0.125)
        self.largest = 10**9
        self.sizes: list[tuple[int, int]] = []

    def stylize(self, frames: Tensor, state: Any, style: Any = None) -> tuple[Tensor, Any]:
        height, width = frames.shape[-2:]
        self.sizes.append((height, width))
        if height * width > self.largest:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return self.network(frames), state


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    torch.manual_seed(0)
    model = Model().eval().requires_grad_(False)
    monkeypatch.setattr(application, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(application, "resolve_checkpoint", lambda path, runs: Path(path))
    return model


def photo(path: Path, height: int = 20, width: int = 30, **options: Any) -> np.ndarray:
    values = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return values


def run(*words: str) -> int:
    return verb.main(["checkpoint=some.ckpt", "device=cpu", *words])


def expected(model: Model, values: np.ndarray) -> Tensor:
    images = to_float(torch.from_numpy(values).permute(2, 0, 1))[None]
    return to_uint8(pad_and_crop(model.network, images, 4)[0])


@pytest.mark.parametrize(("height", "width"), [(20, 30), (33, 47), (64, 64), (1, 1), (2, 9), (5, 3)])
def test_any_size_gives_what_the_network_gives(
    height: int, width: int, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = photo(tmp_path / "in.png", height, width)
    assert run(f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out.png'}") == 0
    result = read_image(tmp_path / "out.png")
    assert result.shape == (3, height, width)
    difference = (result.int() - expected(model, values).int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.01
    assert "1 done, 0 skipped" in capsys.readouterr().out


def test_tiles_do_not_show(model: Model, tmp_path: Path) -> None:
    values = photo(tmp_path / "in.png", 150, 203)
    assert run(f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out.png'}", "tile=64") == 0
    assert (150 + 2, 203 + 1) not in model.sizes  # it never ran on the whole picture
    difference = (read_image(tmp_path / "out.png").int() - expected(model, values).int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.01


def test_strength(model: Model, tmp_path: Path) -> None:
    values = photo(tmp_path / "in.png", 40, 52)
    results = {}
    for strength in (0, 0.5, 1):
        target = tmp_path / f"{strength}.png"
        assert run(f"input={tmp_path / 'in.png'}", f"output={target}", f"strength={strength}") == 0
        results[strength] = read_image(target).permute(1, 2, 0).numpy().astype(float)
    assert np.array_equal(results[0], values)  # to the bit
    assert np.abs(results[0.5] - (values + results[1]) / 2).max() <= 1
    assert np.abs(results[1] - values).mean() > 10


def test_orientation_alpha_and_sub_folders(model: Model, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Camera"
    stored = photo(tmp_path / "in" / "turned.png", 24, 40, exif=exif)
    seen = np.ascontiguousarray(np.rot90(stored, -1))
    alpha = np.random.default_rng(1).integers(1, 256, (16, 20), dtype=np.uint8)
    clear = np.dstack([photo(tmp_path / "in" / "deep" / "er" / "clear.png", 16, 20), alpha])
    Image.fromarray(clear).save(tmp_path / "in" / "deep" / "er" / "clear.png")
    assert run(f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}") == 0
    with Image.open(tmp_path / "out" / "turned.png") as picture:
        assert picture.size == (24, 40)
        assert dict(picture.getexif()) == {ExifTags.Base.Orientation: 1, ExifTags.Base.Make: "Camera"}
        result = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert (result.int() - expected(model, seen).int()).abs().max() <= 1
    with Image.open(tmp_path / "out" / "deep" / "er" / "clear.png") as picture:
        assert picture.mode == "RGBA"
        assert np.array_equal(np.array(picture)[..., 3], alpha)
        result = torch.from_numpy(np.array(picture)[..., :3]).permute(2, 0, 1)
    assert (result.int() - expected(model, np.ascontiguousarray(clear[..., :3])).int()).abs().max() <= 1


def test_max_side_and_format(model: Model, tmp_path: Path) -> None:
    photo(tmp_path / "in.png", 60, 90)
    words = (f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out'}", "max_side=45", "format=jpg")
    assert run(*words) == 0
    with Image.open(tmp_path / "out" / "in.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (45, 30))


def test_bf16_is_close(model: Model, tmp_path: Path) -> None:
    photo(tmp_path / "in.png", 64, 64)
    for precision in ("fp32", "bf16"):
        words = (f"input={tmp_path / 'in.png'}", f"output={tmp_path / precision}", f"precision={precision}")
        assert run(*words) == 0
    full, half = (read_image(tmp_path / name / "in.png").float() for name in ("fp32", "bf16"))
    assert 0 < (full - half).abs().mean() < 3


def test_a_broken_photo_is_skipped_named_and_counted(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "broken.png").write_bytes((tmp_path / "in" / "good.png").read_bytes()[:200])
    assert run(f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}") == 1
    text = capsys.readouterr().out
    assert "1 done, 1 skipped" in text
    assert text.count("broken.png") == 1
    assert "skipped: The image" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


def test_on_error_fail_stops(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "in" / "2.png")
    (tmp_path / "in" / "1.png").write_bytes(b"")
    message = refused(capsys, run(f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}", "on_error=fail"))
    assert "1.png" in message
    assert not (tmp_path / "out").exists()


def test_existing_results_are_refused_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(application, "load_model", never)
    monkeypatch.setattr(application, "resolve_checkpoint", never)
    photo(tmp_path / "in.png")
    (tmp_path / "out.png").write_bytes(b"mine")
    message = refused(capsys, run(f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out.png'}"))
    assert "exists: choose another output= or set overwrite=true" in message
    assert (tmp_path / "out.png").read_bytes() == b"mine"


def test_overwrite(model: Model, tmp_path: Path) -> None:
    photo(tmp_path / "in.png")
    (tmp_path / "out.png").write_bytes(b"old")
    assert run(f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out.png'}", "overwrite=true") == 0
    assert read_image(tmp_path / "out.png").shape == (3, 20, 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png"]


def test_names_that_mean_something_to_hydra(model: Model, tmp_path: Path) -> None:
    name = "it's a (1), [x]=y {z} \\ .png"
    photo(tmp_path / name)
    assert run(f"input={tmp_path / name}", f"output={tmp_path / 'out'}") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strength=2"], "strength=2 is not valid"),
        (["strenght=1"], "no key 'strenght'.*Did you mean 'strength'"),
        (["tile=-3"], "tile=-3 is not valid: use an integer from 64 to 100000 or 0, or auto"),
        (["tile=big"], "tile=big is not valid"),
        (["max_side=0"], "max_side=0 is not valid"),
        (["on_error=ignore"], "on_error=ignore is not valid: use one of skip, fail"),
        (["format=gif"], "format=gif is not valid"),
        (["output=~/x.mp4"], "has no suffix of an image"),
    ],
)
def test_mistakes(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "in.png")
    base = [] if words[0].startswith("output=") else [f"output={tmp_path / 'out.png'}"]
    text = refused(capsys, run(f"input={tmp_path / 'in.png'}", *base, *words))
    assert re.search(message, text), text


def test_what_is_no_picture_is_an_error_that_names_what_is_supported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_bytes(b"x")
    message = refused(capsys, run(f"input={tmp_path / 'text.txt'}", f"output={tmp_path / 'out'}"))
    assert "text.txt' is neither an image nor a video that can be read: supported are .jpg" in message


def test_unwritable_output(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "in.png")
    (tmp_path / "file").write_text("in the way")
    message = refused(capsys, run(f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'file' / 'out.png'}"))
    assert "file' is not a folder" in message
    assert model.sizes == []


def test_a_model_without_the_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(application, "load_model", lambda *_, **__: nn.Identity())
    monkeypatch.setattr(application, "resolve_checkpoint", lambda path, runs: Path(path))
    photo(tmp_path / "in.png")
    message = refused(capsys, run(f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out.png'}"))
    assert "Identity, does not stylize images" in message


def test_want_of_memory_leads_to_smaller_tiles(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = photo(tmp_path / "in.png", 200, 300)
    model.largest = 200 * 200
    assert run(f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out.png'}", "tile=0") == 0
    assert "did not suffice; continuing in tiles of 150 pixels" in capsys.readouterr().err
    assert (read_image(tmp_path / "out.png").int() - expected(model, values).int()).abs().max() <= 1


def test_want_of_memory_that_no_tile_helps(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.largest = 10
    photo(tmp_path / "in.png", 100, 100)
    assert run(f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out.png'}") == 1
    text = capsys.readouterr().out
    assert "0 done, 1 skipped" in text
    assert "does not suffice" in text
    assert "set max_side=" in text


def test_progress_is_about_twenty_plain_lines(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(41):
        photo(tmp_path / "in" / f"{index}.png", 8, 8)
    assert run(f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [*(f"{count}/41" for count in range(3, 41, 3)), "41/41"]


def test_a_checkpoint_alone_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train("model=animegan/v2", "features=random", "train_steps=1", output=tmp_path / "run")
    values = photo(tmp_path / "in" / "a.png", 50, 70)
    monkeypatch.chdir(tmp_path)
    assert verb.main([f"checkpoint={folder}", "input=in", "output=out", "tile=64", "device=cpu"]) == 0
    assert "1 done, 0 skipped" in capsys.readouterr().out
    model = load_model(folder, "cpu")
    drawing = model.stylize(to_float(torch.from_numpy(values).permute(2, 0, 1))[None])[0]  # type: ignore[operator]
    difference = (read_image(tmp_path / "out" / "a.png").int() - to_uint8(drawing[0]).int()).abs()
    assert difference.max() <= 1
