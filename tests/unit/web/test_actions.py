"""The functions behind the buttons of the page, without Gradio."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from animegen.config.looks import Look
from animegen.errors import AnimegenError
from animegen.media.images import read_image
from animegen.media.video.opening import open_video
from animegen.web import models, runs
from animegen.web.actions import CancelledError, PageDisplay, draw_between, stylize_photo, stylize_video
from animegen.web.models import choices, offered
from animegen.web.options import WebOptions
from tests.support import untrained


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> WebOptions:
    """Options that offer a model for each task."""
    folder = tmp_path_factory.mktemp("models")
    untrained("toy/quickstart", folder / "toy.ckpt")
    untrained("interpolation/quickstart", folder / "between.ckpt")
    checkpoints = [str(folder / name) for name in ("toy.ckpt", "between.ckpt")]
    return WebOptions(checkpoint=checkpoints, runs=str(folder / "runs"), threads=1)


def image(path: Path, width: int = 64, height: int = 48, seed: int = 0) -> Path:
    noise = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    Image.fromarray(noise.numpy()).save(path)
    return path


def display(cancel_after: int = 10**9) -> tuple[PageDisplay, list[Any]]:
    reported: list[Any] = []
    return PageDisplay(lambda *count: reported.append(count), lambda: len(reported) >= cancel_after), reported


@pytest.mark.parametrize(("name", "result"), [("a b.jpg", "a b-anime.jpg"), ("a.tif", "a-anime.png")])
def test_photo_and_result_have_the_size_asked_for(options: WebOptions, name: str, result: str, tmp_path: Path) -> None:
    made = stylize_photo(options, str(image(tmp_path / name)), options.checkpoint[0], 1.0, 32, tmp_path)
    assert made.after.name == result
    assert Image.open(made.before).size == Image.open(made.after).size == (32, 24)
    assert made.text.startswith("32 x 24 pixels, ")


def test_strength_0_is_the_photo(options: WebOptions, tmp_path: Path) -> None:
    source = image(tmp_path / "a.png")
    same = stylize_photo(options, str(source), options.checkpoint[0], 0, 64, tmp_path)
    assert read_image(same.after).equal(read_image(source))
    same.after.unlink()
    drawn = stylize_photo(options, str(source), options.checkpoint[0], 1, 64, tmp_path)
    assert not read_image(drawn.after).equal(read_image(source))


def text(path: Path) -> None:
    path.write_text("not an image")


def bomb(path: Path) -> None:
    Image.new("1", (16_000, 16_000)).save(path, "PNG")


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (None, "Drop a photo first."),
        (text, "'.*photo.jpg' is not an image, or its header is broken: replace or remove it."),
        (lambda path: path.write_bytes(b""), "'.*photo.jpg' is empty: replace or remove it."),
        (bomb, "'.*photo.jpg' is so large that it may be a decompression bomb .*: scale it down."),
        (lambda path: path.write_bytes(image(path).read_bytes()[:1000]), "'.*photo.jpg' is broken or truncated"),
    ],
)
def test_a_photo_that_cannot_be_read_gives_a_sentence(
    options: WebOptions, write: Callable[[Path], None] | None, sentence: str, tmp_path: Path
) -> None:
    path, folder = tmp_path / "photo.jpg", tmp_path / "request"
    folder.mkdir()
    if write:
        write(path)
    with pytest.raises(AnimegenError, match=sentence):
        stylize_photo(options, str(path) if write else None, options.checkpoint[0], 1, 64, folder)
    assert not list(folder.iterdir())


def test_names_settings_and_kinds_that_do_not_fit_are_refused(options: WebOptions, tmp_path: Path) -> None:
    source, toy = str(image(tmp_path / "a.png")), options.checkpoint[0]
    secret = tmp_path / "secret.ckpt"
    untrained("toy/quickstart", secret)
    with pytest.raises(AnimegenError, match="Choose a model from the list"):
        stylize_photo(options, source, str(secret), 1, 64, tmp_path)
    with pytest.raises(AnimegenError, match="strength"):
        stylize_photo(options, source, toy, 1.5, 64, tmp_path)
    with pytest.raises(AnimegenError, match="does not stylize images"):
        stylize_photo(options, source, options.checkpoint[1], 1, 64, tmp_path)
    with pytest.raises(AnimegenError, match=r"'a.png' is no video or animation"):
        stylize_video(options, source, toy, 1, 64, 1, tmp_path, display()[0])
    with pytest.raises(AnimegenError, match="up to 60 seconds"):
        stylize_video(options, str(video(tmp_path)), toy, 1, 64, 61, tmp_path, display()[0])
    with pytest.raises(AnimegenError, match="3 to 60 frames"):
        draw_between(options, source, source, options.checkpoint[1], 61, 12, 64, tmp_path)
    with pytest.raises(AnimegenError, match="Drop two images first"):
        draw_between(options, source, None, options.checkpoint[1], 5, 12, 64, tmp_path)


def video(folder: Path) -> Path:
    """Write two seconds of ten frames each."""
    frames = [Image.open(image(folder / "frame.png", seed=seed)).convert("RGB") for seed in range(20)]
    frames[0].save(folder / "video.gif", save_all=True, append_images=frames[1:], duration=100)
    return folder / "video.gif"


def test_the_beginning_of_a_video(options: WebOptions, tmp_path: Path) -> None:
    shown, reported = display()
    made = stylize_video(options, str(video(tmp_path)), options.checkpoint[0], 1, 32, 1, tmp_path, shown)
    reader = open_video(made.file)
    assert (reader.info.width, reader.info.height) == (32, 24)
    assert len(list(reader)) == 10
    assert [done for done, _ in reported] == list(range(1, 11))
    assert made.text.startswith("10 frames, ")


def test_a_cancelled_video_ends_at_the_next_frame(options: WebOptions, tmp_path: Path) -> None:
    shown, reported = display(cancel_after=3)
    with pytest.raises(CancelledError):
        stylize_video(options, str(video(tmp_path)), options.checkpoint[0], 1, 32, 2, tmp_path, shown)
    assert len(reported) == 3
    assert not list(tmp_path.glob("*.mp4"))


def test_frames_between_two_images(options: WebOptions, tmp_path: Path) -> None:
    ends = [image(tmp_path / f"{seed}.png", 96, 64, seed) for seed in range(2)]
    folder = tmp_path / "request"
    folder.mkdir()
    made = draw_between(options, *map(str, ends), options.checkpoint[1], 5, 10, 96, folder)
    assert len(made.frames) == 5
    assert read_image(made.frames[0]).equal(read_image(ends[0]))
    assert read_image(made.frames[-1]).equal(read_image(ends[1]))
    for file in (made.video, made.animation):
        reader = open_video(file)
        assert (reader.info.width, reader.info.height, len(list(reader)), reader.info.fps) == (96, 64, 5, 10)


def test_images_of_different_sizes_give_a_sentence(options: WebOptions, tmp_path: Path) -> None:
    ends = [image(tmp_path / "a.png", 96, 64), image(tmp_path / "b.png", 64, 96)]
    folder = tmp_path / "request"
    folder.mkdir()
    with pytest.raises(AnimegenError, match=r"different sizes.*first.png' 96x64.*last.png' 64x96"):
        draw_between(options, *map(str, ends), options.checkpoint[1], 5, 10, 96, folder)


def write_run(folder: Path, started: str, model: str, **record: Any) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/last.ckpt").touch()
    config = {"model": {"_target_": f"animegen.models.{model}"}}
    content = {"started": started, "config": config, "choices": {"model": model.split(".")[0]}, **record}
    (folder / "run.json").write_text(json.dumps(content))
    return folder


def test_looks_and_runs_are_offered_where_they_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"bright": ["stylize"], "cel": ["stylize"], "between": ["interpolate", "generate"]}
    shipped = {
        name: Look(name, tmp_path / name, "toy", tuple(commands), f"a {name} look, and more", "MIT")
        for name, commands in about.items()
    }
    monkeypatch.setattr(models, "looks", lambda: shipped)
    for name, model in (
        ("toy/a", "toy.Toy"),
        ("cel", "toy.Toy"),
        ("own", "interpolation.FrameInterpolation"),
        ("other", "nowhere.Model"),
    ):
        write_run(tmp_path / name, "2026", model)
    (write_run(tmp_path / "damaged", "2026", "toy.Toy") / "run.json").write_text("{")
    options = WebOptions(runs=str(tmp_path), checkpoint=["a.ckpt"])
    assert choices(options, "stylize") == [
        ("cel: a cel look", "cel"),
        ("bright: a bright look", "bright"),
        ("a.ckpt", "a.ckpt"),
        ("toy/a", "toy/a"),
    ]
    found = offered(options, "stylize")
    assert (found["cel"], found["toy/a"]) == (str(tmp_path / "cel"), str(tmp_path / "toy/a"))
    assert list(offered(options, "generate")) == ["between", "a.ckpt", "own"]


def test_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "looks", dict)
    with pytest.raises(AnimegenError, match=f"no model for this in '{tmp_path}' yet"):
        stylize_photo(WebOptions(runs=str(tmp_path)), str(image(tmp_path / "a.png")), None, 1, 64, tmp_path)


def test_the_newest_runs_with_scores_and_previews(tmp_path: Path) -> None:
    scores = {"identity": {"ssim": 0.25}, "model": {"ssim": 0.75}}
    evaluation = {
        "task": "stylise",
        "main": "ssim",
        "metrics": {},
        "privileged": [],
        "methods": {
            method: {name: {"mean": value, "std": None, "n": 1} for name, value in row.items()}
            for method, row in scores.items()
        },
    }
    old = write_run(tmp_path / "old", "2026-01-01T10:00:00+00:00", "toy.Toy", status="interrupted", train_step=7)
    new = write_run(
        tmp_path / "b/new", "2026-01-02T10:00:00+00:00", "toy.Toy", status="finished", evaluation=evaluation
    )
    (write_run(tmp_path / "damaged", "2026", "toy.Toy") / "run.json").write_text("{")
    for folder, steps in ((old, ()), (new, (1, 20))):
        (folder / "previews").mkdir()
        for step in steps:
            image(folder / f"previews/step-{step:07}.png", 2000 + step, 10)
    found, problems = runs.newest_runs(str(tmp_path))
    assert [row[0] for row in runs.table(found, str(tmp_path))] == ["b/new", "old"]
    assert runs.table(found, str(tmp_path))[0][2:] == [
        "finished",
        "",
        "2026-01-02 10:00",
        "ssim 0.750",
        "identity 0.250",
    ]
    assert runs.table(found, str(tmp_path))[1][2:] == ["interrupted", "7", "2026-01-01 10:00", "", ""]
    assert len(problems) == 1
    assert "damaged" in problems[0]
    (preview,) = runs.previews(found, str(tmp_path), tmp_path)
    assert preview[1] == "b/new, step-0000020"
    assert Image.open(preview[0]).size == (1600, 8)
