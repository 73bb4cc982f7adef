"""``animegen stylize`` keeps transparency where the output can; colours are checked with Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.integration.test_stylize_films import Inverts, model, run

__all__ = ["model"]  # a fixture

COUNT = 4
SAVED = {".webp": {"lossless": True, "exact": True}, ".apng": {}, ".gif": {"disposal": 2}}


def frame(number: int, levels: bool) -> Image.Image:
    """Return an image with four colours, a moving bar without opacity, and, with ``levels``, one of half opacity."""
    values = np.zeros((32, 48, 4), np.uint8)
    values[:16, :24] = (200, 40, 0, 255)
    values[16:, :24] = (0, 200, 40, 255)
    values[:16, 24:] = (40, 0, 200, 255)
    values[16:, 24:] = (90, 90, 10, 255)
    values[:, 4 * number : 4 * number + 8, 3] = 0
    if levels:
        values[:, 4 * number + 10 : 4 * number + 14, 3] = 100
    return Image.fromarray(values)


def write(path: Path, levels: bool = True) -> Path:
    images = [frame(number, levels) for number in range(COUNT)]
    if not path.suffix:
        path.mkdir()
        for number, image in enumerate(images):
            image.save(path / f"{number}.png")
    else:
        kind = "PNG" if path.suffix == ".apng" else None
        images[0].save(path, kind, save_all=True, append_images=images[1:], duration=40, loop=0, **SAVED[path.suffix])
    return path


def read(path: Path) -> list[np.ndarray]:
    """Return the frames of an animation or a folder, RGBA (H,W,4)."""
    if path.is_dir():
        return [np.asarray(Image.open(file).convert("RGBA")) for file in sorted(path.iterdir())]
    with Image.open(path) as image:
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGBA")))
    return frames


@pytest.mark.parametrize("output", ["out", "out.webp", "out.apng", "out.gif"])
@pytest.mark.parametrize("source", ["in", "in.webp", "in.apng", "in.gif"])
def test_transparency_is_kept(
    source: str, output: str, model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = ".gif" not in source + output
    write(tmp_path / source, levels)
    assert run(f"input={tmp_path / source}", f"output={tmp_path / output}", "cuts=false") == 0
    assert "transparency" not in capsys.readouterr().err
    drawn = read(tmp_path / output)
    assert len(drawn) == COUNT
    for number, image in enumerate(drawn):
        before = np.asarray(frame(number, levels))
        assert np.array_equal(image[..., 3], before[..., 3])
        seen = before[..., 3] > 0
        assert np.abs(255 - image[seen][:, :3].astype(int) - before[seen][:, :3]).max() <= (1 if levels else 8)


def test_transparency_of_scaled_frames(model: Inverts, tmp_path: Path) -> None:
    write(tmp_path / "in")
    assert run(f"input={tmp_path / 'in'}", f"output={tmp_path / 'out.webp'}", "max_side=24", "start=0.04") == 0
    drawn = read(tmp_path / "out.webp")
    assert len(drawn) == COUNT - 1  # from the second frame on, whose bar is at 2 to 6
    assert drawn[0].shape == (16, 24, 4)
    assert drawn[0][:, 3:5, 3].max() < 10
    assert drawn[0][:, 10:, 3].min() == 255


def test_an_opaque_animation_has_no_alpha(model: Inverts, tmp_path: Path) -> None:
    images = [frame(number, False).convert("RGB") for number in range(COUNT)]
    images[0].save(tmp_path / "in.apng", "PNG", save_all=True, append_images=images[1:], duration=40)
    assert run(f"input={tmp_path / 'in.apng'}", f"output={tmp_path / 'out.apng'}", "cuts=false") == 0
    with Image.open(tmp_path / "out.apng") as image:
        assert image.mode == "RGB"


def test_formats_without_transparency_say_so(
    model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in")
    words = [f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}/%d.jpg", "cuts=false"]
    assert run(*words) == 0
    assert "Its transparency is not kept: it is shown on white." in capsys.readouterr().err
    assert np.asarray(Image.open(tmp_path / "out" / "1.jpg"))[:, :6].max() < 12  # inverted white
