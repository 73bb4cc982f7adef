"""``animegen generate``: pictures in, clips out, through the real command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from animegen.cli import generate as verb
from animegen.inference import application
from animegen.inference.generate import GAP, difference, place
from animegen.media.images import read_image, write_image
from animegen.media.video.opening import open_video
from animegen.tasks.protocols import Sampling
from tests.support import refused, run_verb
from tests.unit.inference.test_generation import Blend, Fader

EXACT = ("codec=libx264rgb", "crf=0", "pix_fmt=rgb24")


class Loaded(Fader):
    """A generator whose samples differ: the seed and the number in the batch lighten what is between."""

    def generate(self, first: torch.Tensor, last: torch.Tensor, frames: int, sampling: Any = None, keys: Any = None):
        clip = super().generate(first, last, frames, sampling, keys)
        for number, sample in enumerate(clip):
            sample[1:-1] += 10 * (sampling.seed + number) / 127.5
        return clip


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Fader:
    made = Loaded(max_frames=8)
    monkeypatch.setattr(application, "load_model", lambda *_, **__: made)
    monkeypatch.setattr(application, "resolve_checkpoint", lambda name, _: name)
    return made


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{name}.png" for name in ("a, b", "c", "d")]
    for file, level in zip(files, (0, 80, 40), strict=True):
        write_image(file, torch.full((3, 10, 16), level, dtype=torch.uint8))
    return files


def go(first: Path, last: Path, target: Path, *words: str) -> int:
    return run_verb(
        verb.main, "checkpoint=x", f"first={first}", f"last={last}", f"output={target}", "device=cpu", *words
    )


def levels(path: Path) -> list[int]:
    return [int(pixels.float().mean().round()) for pixels, _ in open_video(path)]


def test_a_folder_of_pictures(model: Fader, pictures: list[Path], tmp_path: Path) -> None:
    assert go(*pictures[:2], tmp_path / "out", "frames=5") == 0
    assert levels(tmp_path / "out") == [0, 20, 40, 60, 80]
    assert read_image(tmp_path / "out/000001.png").shape == (3, 10, 16)
    assert model.calls == [(5, 0, [], (10, 16))]


@pytest.mark.parametrize("name", ["clip.mkv", "clip.gif"])
def test_films_have_their_rate_and_frames(model: Fader, pictures: list[Path], tmp_path: Path, name: str) -> None:
    assert go(*pictures[:2], tmp_path / name, "frames=5", "fps=10", *EXACT) == 0
    reader = open_video(tmp_path / name)
    times = [float(time) for _, time in reader]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-3)
    assert float(reader.end) == pytest.approx(0.5, abs=1e-3)
    assert levels(tmp_path / name) == [0, 20, 40, 60, 80]


def test_a_chain_of_pictures_shares_the_frames_between(model: Fader, pictures: list[Path], tmp_path: Path) -> None:
    names = ",".join(map(str, pictures[1:]))
    words = ("checkpoint=x", f"keys=[{names},{pictures[1]}]", f"output={tmp_path / 'out'}", "frames=3", "device=cpu")
    assert run_verb(verb.main, *words) == 0
    assert levels(tmp_path / "out") == [80, 60, 40, 60, 80]


def test_samples_are_clips_of_their_own_and_stand_side_by_side(
    model: Fader, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(*pictures[:2], tmp_path / "out", "frames=3", "samples=3", "seed=2") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1", "2", "3", "grid"]
    assert [levels(tmp_path / "out" / str(number)) for number in (1, 2, 3)] == [[0, 60, 80], [0, 70, 80], [0, 80, 80]]
    # The differences 10, 10 and 20.
    said = "The samples differ by 13.3 levels of 255 on average, 1 and 3 the most (20.0); the first two images differ"
    assert f"{said} by 80.0." in capsys.readouterr().out
    middle = read_image(tmp_path / "out/grid/000002.png")
    # Two by two of 10x16 with 2 white pixels around each; the fourth place stays white.
    assert middle.shape == (3, 26, 38)
    places = [middle[0, 2 + 12 * row + 5, 2 + 18 * column + 8].item() for row in (0, 1) for column in (0, 1)]
    assert places == [60, 70, 80, 255]
    assert (middle[:, :2] == 255).all()


def test_samples_of_a_video_have_numbers_and_a_small_video_of_all(
    model: Fader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        write_image(file, torch.full((3, 400, 600), 50, dtype=torch.uint8))
    assert go(*files, tmp_path / "clip.gif", "frames=3", "samples=2") == 0
    assert sorted(path.name for path in tmp_path.glob("clip*")) == ["clip.gif", "clip_1.gif", "clip_2.gif"]
    sizes = {
        path.name: (reader.info.width, reader.info.height)
        for path in tmp_path.glob("clip*")
        for reader in [open_video(path)]
    }
    assert sizes["clip_1.gif"] == (600, 400)
    assert max(sizes["clip.gif"]) <= 640 + 3 * GAP
    assert "side by side: " in capsys.readouterr().out
    assert go(*files, tmp_path / "clip.gif", "frames=3", "samples=3") == 2
    assert "exists" in capsys.readouterr().err
    assert not (tmp_path / "clip_3.gif").exists()


def test_images_per_sample_of_a_pattern() -> None:
    target = Path("clips/%03d.png")
    assert [place(target, number) for number in (1, None)] == [Path("clips/1/%03d.png"), Path("clips/grid/%03d.png")]


@pytest.mark.parametrize(
    ("offset", "sentence"),
    [(0, "The samples are equal"), (1, "differ by 1.0 levels"), (1, "That is hardly visible"), (9, "differ by 9.0")],
)
def test_what_is_said_about_samples(offset: int, sentence: str) -> None:
    clips = torch.zeros(2, 5, 3, 8, 8, dtype=torch.uint8)
    clips[1, [1, 3]] += offset  # the key frames are 0, 2 and 4
    clips[:, 2] = 100
    said = difference(clips, 2)
    assert sentence in said
    assert ("hardly" in said) == (offset == 1)


def test_transparency_is_told(
    model: Fader, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGBA", (16, 10), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert go(tmp_path / "clear.png", pictures[1], tmp_path / "out", "frames=3") == 0
    assert "transparency is not kept: it is shown on white" in capsys.readouterr().err
    assert levels(tmp_path / "out")[0] == 255


def test_the_models_own_way_to_choose_is_changed_key_by_key(
    model: Fader, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.sampling = Sampling(top_k=50, temperature=0.7)  # type: ignore[attr-defined]
    seen = []
    own = model.generate
    monkeypatch.setattr(model, "generate", lambda *a, sampling: (seen.append(sampling), own(*a, sampling))[1])
    assert go(*pictures[:2], tmp_path / "out", "frames=3", "temperature=1.5", "top_p=0.9", "guidance=2") == 0
    assert seen == [Sampling(temperature=1.5, top_k=50, top_p=0.9, guidance=2.0)]


def test_an_interpolator_draws_at_even_times_but_not_by_chance(
    between: Path,
    monkeypatch: pytest.MonkeyPatch,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [f"checkpoint={between}", f"first={pictures[0]}", f"last={pictures[1]}", "device=cpu", "frames=4"]
    assert run_verb(verb.main, *words, f"output={tmp_path / 'out'}") == 0
    made = levels(tmp_path / "out")
    assert (made[0], made[3]) == (0, 80)
    assert made == sorted(made)
    capsys.readouterr()
    monkeypatch.setattr(application, "load_model", lambda *_, **__: Blend())
    code = run_verb(verb.main, *words, f"output={tmp_path / 'no'}", "temperature=0.5")
    assert "is deterministic; temperature= has no effect: leave it out" in refused(capsys, code)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["frames=2"], "frames=2 is not valid: use an integer from 3 to 10000"),
        (["samples=0"], "samples=0 is not valid"),
        (["fps=0"], "fps=0 is not valid"),
        (["top_k=0"], "top_k=0 is not valid"),
        (["keys=[a.png,b.png]"], "leave first= and last= out"),
        (["codec=libx265", "pix_fmt=rgb48le"], "pix_fmt=rgb48le"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    model: Fader,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
) -> None:
    code = go(*pictures[:2], tmp_path / "new/clip.mp4", *words)
    assert sentence in refused(capsys, code)
    assert not (tmp_path / "new").exists()
    assert not model.calls


def test_pictures_of_two_sizes_and_existing_results_are_refused(
    model: Fader, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "wide.png", torch.zeros(3, 10, 20, dtype=torch.uint8))
    assert go(pictures[1], tmp_path / "wide.png", tmp_path / "out") == 2
    assert "different sizes" in capsys.readouterr().err
    assert go(*pictures[:2], tmp_path / "out.gif", "frames=3") == 0
    before = (tmp_path / "out.gif").read_bytes()
    assert go(*pictures[:2], tmp_path / "out.gif", "frames=4") == 2
    assert "overwrite=true" in capsys.readouterr().err
    assert (tmp_path / "out.gif").read_bytes() == before
    assert go(*pictures[:2], tmp_path / "out.gif", "frames=4", "overwrite=true") == 0
    assert len(levels(tmp_path / "out.gif")) == 4
    assert go(*pictures[:2], pictures[0], "frames=4", "overwrite=true") == 2
    words = ("checkpoint=x", f"first={pictures[0]}", f"output={tmp_path / 'o.gif'}")
    capsys.readouterr()
    assert run_verb(verb.main, *words) == 2
    assert "last= is missing" in capsys.readouterr().err
