"""``animegen generate``: pictures in, clips out, through the real command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from animegen.cli import generate as verb
from animegen.inference import application
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


def test_samples_stand_side_by_side_and_the_seed_counts(model: Fader, pictures: list[Path], tmp_path: Path) -> None:
    assert go(*pictures[:2], tmp_path / "out", "frames=3", "samples=3", "seed=2") == 0
    middle = read_image(tmp_path / "out/000002.png")
    # Two by two of 10x16 with 2 white pixels around each; the fourth place stays white.
    assert middle.shape == (3, 26, 38)
    places = [middle[0, 2 + 12 * row + 5, 2 + 18 * column + 8].item() for row in (0, 1) for column in (0, 1)]
    assert places == [60, 70, 80, 255]
    assert (middle[:, :2] == 255).all()


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
