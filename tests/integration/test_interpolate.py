"""``animegen interpolate``: pictures and films through the real command."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from animegen import interpolate as verb
from animegen.apply.inbetween import same_drawing
from animegen.data.images import read_image, write_image
from animegen.data.toonworld import ToonWorldImages
from animegen.video.reader import VideoReader
from tests.support import refused, run_verb, train
from tests.video_support import EXACT, level, write_film


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step: its network still draws nearly the blend."""
    return train("experiment=interpolation/quickstart", "train_steps=1", output=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def frames() -> list[torch.Tensor]:
    source = ToonWorldImages("meadow", "val", scenes=1, frames_per_scene=4, frames=4, size=(40, 52), speed=0.6)
    return [source.image(n) for n in range(4)]


def go(run: Path, source: str, target: Path, *words: str) -> int:
    return run_verb(verb.main, f"checkpoint={run}", f"input={source}", f"output={target}", "device=cpu", *words)


def test_two_pictures(run: Path, frames: list[torch.Tensor], tmp_path: Path) -> None:
    for name, frame in zip(("a.png", "b, c.png"), frames, strict=False):
        write_image(tmp_path / name.replace(",", ""), frame)
    pair = f"[{tmp_path / 'a.png'},{tmp_path / 'b c.png'}]"
    assert go(run, pair, tmp_path / "out", "factor=4") == 0
    made = [read_image(tmp_path / f"out/{n:06}.png") for n in range(1, 6)]
    assert not (tmp_path / "out/000006.png").exists()
    assert torch.equal(made[0], frames[0])
    assert torch.equal(made[4], frames[1])
    for n in (1, 2, 3):
        blend = frames[0].float().lerp(frames[1].float(), n / 4)
        assert (made[n].float() - blend).abs().mean() < 12
        assert not torch.equal(made[n], made[n - 1])


def test_a_folder_of_frames_with_holds_becomes_a_film(run: Path, frames: list[torch.Tensor], tmp_path: Path) -> None:
    for n, k in enumerate((0, 0, 1, 1)):
        write_image(tmp_path / f"in/{n}.png", frames[k])
    words = ("input_fps=12", "codec=libx264rgb", "crf=0", "pix_fmt=rgb24", "cuts=false")
    assert go(run, str(tmp_path / "in"), tmp_path / "out.mkv", *words) == 0
    made = list(VideoReader(tmp_path / "out.mkv"))
    assert [round(float(time), 3) for _, time in made] == [round(n / 24, 3) for n in range(8)]
    # Held drawings stay; what is new stands in the last interval before the change alone.
    assert [torch.equal(pixels, frames[0]) for pixels, _ in made] == [True] * 3 + [False] * 5
    assert [torch.equal(pixels, frames[1]) for pixels, _ in made] == [False] * 4 + [True] * 4


def test_a_film_keeps_its_times_its_cut_and_its_length(run: Path, frames: list[torch.Tensor], tmp_path: Path) -> None:
    dark = [(f // 4) for f in frames]
    film = write_film(tmp_path / "in.mp4", [*frames, *frames, *dark, *dark], fps=Fraction(24000, 1001), encoding=EXACT)
    words = ("fps=60", "codec=libx264rgb", "crf=0", "pix_fmt=rgb24")
    assert go(run, str(film), tmp_path / "out.mp4", *words) == 0
    made = list(VideoReader(tmp_path / "out.mp4"))
    end = 16 / Fraction(24000, 1001)
    assert [time for _, time in made] == [Fraction(k, 60) for k in range(len(made))]
    assert len(made) == -(-end * 60 // 1)
    means = [pixels.float().mean().item() for pixels, _ in made]
    bright, night = frames[0].float().mean().item(), dark[0].float().mean().item()
    # Nothing is drawn across the cut: no frame lies between day and night.
    assert all(abs(m - bright) < 15 or abs(m - night) < 8 for m in means)


def test_the_same_drawing_is_known_under_noise_and_a_blink_is_another(frames: list[torch.Tensor]) -> None:
    noise = torch.randint(-2, 3, frames[0].shape, generator=torch.Generator().manual_seed(0))
    assert same_drawing(frames[0], (frames[0].int() + noise).clamp(0, 255).to(torch.uint8))
    assert not same_drawing(frames[0], frames[1])
    blink = frames[0].clone()
    blink[:, 20:23, 20:24] = 255 - blink[:, 20:23, 20:24]
    assert not same_drawing(frames[0], blink)
    assert same_drawing(level(10), level(10))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["input={a}", "output={t}/o"], "is one picture: name two"),
        (["input=[{a}]", "output={t}/o"], "two pictures at least"),
        (["input={t}/none", "output={t}/o"], "does not exist"),
        (["input=[{a},{b}]", "output={t}/o"], "different sizes"),
        (["input=[{a},{a}]", "output={t}/o", "factor=1"], "makes no new frame"),
        (["input=[{a},{a}]", "output={t}/o", "factor=2", "fps=60"], "not both"),
        (["input=[{a},{a}]", "output={t}/o", "fps=fast"], "fps=fast is not possible"),
        (["input=[{a},{a}]", "output={t}/x.png"], "neither a film"),
        (["input=[{a},{a}]", "output={t}"], "exists"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    run: Path, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "a.png", level(50))
    write_image(tmp_path / "b.png", level(50, 20, 20))
    before = sorted(tmp_path.iterdir())
    filled = [word.format(a=tmp_path / "a.png", b=tmp_path / "b.png", t=tmp_path) for word in words]
    assert message in refused(capsys, run_verb(verb.main, f"checkpoint={run}", *filled))
    assert sorted(tmp_path.iterdir()) == before
