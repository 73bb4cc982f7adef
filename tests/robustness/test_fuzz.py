"""Pictures and films with random damage: told, skipped or drawn as far as they go, and never a crash."""

from __future__ import annotations

import io
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animegen.data.toonworld import Scene
from tests.robustness.support import Ended, assert_calm, run
from tests.robustness.test_kills import film
from tests.support import train

#: In `make test`, and in `make test-all`.
PICTURES = [pytest.param(20), pytest.param(500, marks=pytest.mark.slow)]
FILMS = [pytest.param(10), pytest.param(200, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("experiment=toy/quickstart", "train_steps=1", output=tmp_path_factory.mktemp("toy") / "run")


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ("experiment=interpolation/quickstart", "train_steps=1")
    return train(*words, output=tmp_path_factory.mktemp("between") / "run")


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Return a file with damage of one of the kinds that disks, networks and people make."""
    content = bytearray(data)
    kind = draw.randrange(6)
    if kind == 0:  # cut off, perhaps down to nothing
        return bytes(content[: int(len(content) * draw.random() ** 2)])
    if kind == 1:  # single bits
        for _ in range(draw.randint(1, 30)):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == 2:  # the head, where sizes and formats stand
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(min(64, len(content)))] = draw.randrange(256)
    elif kind == 3:  # a hole
        begin = draw.randrange(len(content))
        length = draw.randint(1, len(content) // 4)
        content[begin : begin + length] = bytes(len(content[begin : begin + length]))
    elif kind == 4:  # something else in the middle
        begin = draw.randrange(len(content))
        content[begin:begin] = draw.randbytes(draw.randint(1, 400))
    else:  # a piece is missing
        begin = draw.randrange(len(content))
        del content[begin : begin + draw.randint(1, len(content) // 4)]
    return bytes(content)


def damaged_pictures(folder: Path, count: int) -> None:
    """Write damaged pictures of many formats and modes, and one that is whole."""
    draw = random.Random(1)
    photo = Image.fromarray(Scene(seed=0, split="test", index=0, size=48).photo(0))
    originals = []
    for mode, suffix in (
        *(("RGB", "png"), ("RGB", "jpg"), ("RGB", "webp"), ("RGB", "bmp"), ("P", "gif"), ("RGB", "tiff")),
        *(("L", "png"), ("RGBA", "png"), ("I;16", "png"), ("CMYK", "jpg"), ("1", "tiff")),
    ):
        buffer = io.BytesIO()
        picture = (
            Image.fromarray(np.asarray(photo.convert("L"), np.uint16) * 257) if mode == "I;16" else photo.convert(mode)
        )
        picture.save(buffer, {"jpg": "jpeg"}.get(suffix, suffix))
        originals.append((buffer.getvalue(), suffix))
    folder.mkdir()
    photo.save(folder / "whole.png")
    for number in range(count):
        data, suffix = originals[number % len(originals)]
        other = draw.choice(originals)[1] if draw.random() < 0.1 else suffix  # a wrong name
        (folder / f"{number:03d}.{other}").write_bytes(mutated(data, draw))


@pytest.mark.parametrize("count", PICTURES)
def test_damaged_pictures(
    count: int, toy: Path, between: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    damaged_pictures(folder, count)
    log = tmp_path / "log"
    words = [f"checkpoint={toy}", f"input={folder}", f"output={tmp_path / 'drawn'}", "device=cpu"]
    drawn = run("animegen.stylize", [words], log)
    assert_calm(drawn)
    made = {path.stem for path in (tmp_path / "drawn").iterdir()}
    assert "whole" in made
    counts = Counter(stylize=len(made))
    # Each beside the one that is whole, so that a pair is readable if the other one is.
    pairs = [path for path in sorted(folder.iterdir()) if path.stem != "whole"]
    commands = [
        [
            f"checkpoint={between}",
            f"input=[{folder / 'whole.png'},{path}]",
            f"output={tmp_path / 'pairs' / path.stem}",
        ]
        for path in pairs
    ]
    paired = run("animegen.interpolate", [[*words, "device=cpu"] for words in commands], log)
    assert_calm(paired)
    counts["interpolate"] = len(list((tmp_path / "pairs").iterdir())) if (tmp_path / "pairs").exists() else 0
    assert counts["interpolate"] > 0
    data = ("data=unpaired/folders", f"data.photos={folder}", f"data.anime={folder}", "data.image_size=32")
    scored = run("animegen.evaluate", [[f"checkpoint={toy}", "device=cpu", "size=tiny", "features=none", *data]], log)
    assert_calm(scored)
    with capsys.disabled():
        print(f"\n{count} damaged pictures: {counts['stylize']} drawn, {counts['interpolate']} in-betweened, no crash")


def damaged_films(folder: Path, count: int) -> None:
    """Write damaged films of several containers."""
    draw = random.Random(2)
    originals = {suffix: film(folder.parent / f"film.{suffix}", shots=2, frames=6) for suffix in ("mkv", "mp4", "mov")}
    folder.mkdir()
    for number in range(count):
        suffix = ("mkv", "mp4", "mov")[number % 3]
        (folder / f"{number:03d}.{suffix}").write_bytes(mutated(originals[suffix].read_bytes(), draw))


@pytest.mark.parametrize("count", FILMS)
def test_damaged_films(
    count: int, toy: Path, between: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, log = tmp_path / "in", tmp_path / "log"
    damaged_films(folder, count)
    quick = ("device=cpu", "preset=ultrafast")
    words = [f"checkpoint={toy}", f"input={folder}", f"output={tmp_path / 'drawn'}", *quick]
    assert_calm(run("animegen.stylize", [words], log))
    drawn = len(list((tmp_path / "drawn").glob("*.m*"))) if (tmp_path / "drawn").exists() else 0
    commands = [
        [f"checkpoint={between}", f"input={path}", f"output={tmp_path / 'smooth' / path.name}", *quick]
        for path in sorted(folder.iterdir())
    ]
    ended: Ended = run("animegen.interpolate", commands, log)
    assert_calm(ended)
    smooth = len(list((tmp_path / "smooth").glob("*.m*"))) if (tmp_path / "smooth").exists() else 0
    assert_calm(run("animegen.prepare", [[f"input={folder}", f"output={tmp_path / 'clips'}", "short_side=null"]], log))
    with capsys.disabled():
        print(f"\n{count} damaged films: {drawn} drawn, {smooth} in-betweened, no crash")
