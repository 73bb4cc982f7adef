"""``compare=input``: the input to the left of the output, for photos and videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from animegen.cli import interpolate as interpolate_verb
from animegen.media.images import read_image, write_image
from animegen.media.video.opening import open_video
from tests.integration.test_stylize_films import Inverts, model, run
from tests.support import refused, run_verb
from tests.video_support import EXACT, write_film

__all__ = ["model"]  # a fixture

LOSSLESS = ("codec=libx264rgb", "crf=0", "preset=ultrafast", "pix_fmt=rgb24")


def frames(count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, 16, 24), dtype=torch.uint8, generator=generator) for _ in range(count)]


def test_a_photo_beside_its_drawing(model: Inverts, tmp_path: Path) -> None:
    photo = frames(1)[0]
    write_image(tmp_path / "in.png", photo)
    assert run(f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out.png'}", "compare=input") == 0
    assert torch.equal(read_image(tmp_path / "out.png"), torch.cat([photo, 255 - photo], 2))


def test_a_transparent_photo_beside_its_drawing(model: Inverts, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    values[..., 3] = 255
    values[:4, :, 3] = 0
    Image.fromarray(values).save(tmp_path / "in.png")
    assert run(f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out.png'}", "compare=input") == 0
    with Image.open(tmp_path / "out.png") as image:
        shown = np.asarray(image)
    assert shown.shape == (16, 48, 4)
    assert np.array_equal(shown[..., 3], np.tile(values[..., 3], (1, 2)))


@pytest.mark.parametrize("output", ["out.mkv", "out"])
def test_a_video_beside_its_drawing(output: str, model: Inverts, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mkv", frames(), encoding=EXACT)
    more = LOSSLESS if output == "out.mkv" else ()
    words = (f"input={source}", f"output={tmp_path / output}", "compare=input", "max_side=24", *more)
    assert run(*words) == 0
    shown = [pixels for pixels, _ in open_video(tmp_path / output)]
    assert len(shown) == 4
    for frame, pair in zip(frames(), shown, strict=True):
        assert torch.equal(pair, torch.cat([frame, 255 - frame], 2))


@pytest.mark.parametrize("output", ["out.mkv", "out"])
def test_more_frames_beside_those_that_were_there(output: str, tmp_path: Path) -> None:
    flat = [torch.full((3, 16, 24), level, dtype=torch.uint8) for level in (0, 100, 200)]
    source = write_film(tmp_path / "in.mkv", flat, fps=Fraction(10), encoding=EXACT)
    more = LOSSLESS if output == "out.mkv" else ()
    words = ("method=blend", f"input={source}", f"output={tmp_path / output}", "compare=input", "cuts=false", *more)
    assert run_verb(interpolate_verb.main, *words, "device=cpu") == 0
    halves = [
        pixels.float().unflatten(2, (2, 24)).mean((0, 1, 3)).tolist() for pixels, _ in open_video(tmp_path / output)
    ]
    expected = [(0, 0), (0, 50), (100, 100), (100, 150), (200, 200)]
    assert halves[:5] == [pytest.approx(pair, abs=1) for pair in expected]


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_verb(interpolate_verb.main, "method=dis", "input=a.mp4", "selfcheck=true", "compare=input")
    assert "selfcheck=true makes no video to compare with its input: omit compare=" in refused(capsys, code)
    code = run_verb(interpolate_verb.main, "method=dis", "input=a.mp4", "output=b.mp4", "compare=truth")
    assert "compare=truth is not valid" in refused(capsys, code)
