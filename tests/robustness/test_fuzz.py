"""Pictures and films with random damage: told, skipped or drawn as far as they go, and never a crash."""

from __future__ import annotations

import io
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animegen.toonworld import Scene
from tests.robustness.support import Ended, assert_calm, run
from tests.robustness.test_kills import film

#: In `make test`, and in `make test-all`.
PICTURES = [pytest.param(11), pytest.param(500, marks=pytest.mark.slow)]
FILMS = [pytest.param(3), pytest.param(200, marks=pytest.mark.slow)]


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


def encoded(photo: Image.Image, mode: str, suffix: str) -> bytes:
    """Return a picture as a file of that mode and format."""
    buffer = io.BytesIO()
    wide = mode == "I;16"
    picture = Image.fromarray(np.asarray(photo.convert("L"), np.uint16) * 257) if wide else photo.convert(mode)
    picture.save(buffer, {"jpg": "jpeg"}.get(suffix, suffix))
    return buffer.getvalue()


def damaged_pictures(folder: Path, count: int) -> None:
    """Write damaged pictures of many formats and modes, and one that is whole."""
    draw = random.Random(1)
    photo = Image.fromarray(Scene(seed=0, split="test", index=0, size=48).photo(0))
    kinds = (
        *(("RGB", "png"), ("RGB", "jpg"), ("RGB", "webp"), ("RGB", "bmp"), ("P", "gif"), ("RGB", "tiff")),
        *(("L", "png"), ("RGBA", "png"), ("I;16", "png"), ("CMYK", "jpg"), ("1", "tiff")),
    )
    originals = [(encoded(photo, mode, suffix), suffix) for mode, suffix in kinds]
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
    drawn = run("animegen.cli.stylize", [words], log, files=count)
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
    paired = run("animegen.cli.interpolate", [[*words, "device=cpu"] for words in commands], log)
    assert_calm(paired)
    counts["interpolate"] = len(list((tmp_path / "pairs").iterdir())) if (tmp_path / "pairs").exists() else 0
    assert counts["interpolate"] > 0
    data = ("data=unpaired/folders", f"data.photos={folder}", f"data.anime={folder}", "data.image_size=32")
    score = [f"checkpoint={toy}", "device=cpu", "size=tiny", "features=none", *data]
    scored = run("animegen.cli.evaluate", [score], log, files=count)
    assert_calm(scored)
    assert scored.code == 0, scored.said  # enough is left to score on
    with capsys.disabled():
        told = f"{counts['stylize']} drawn, {counts['interpolate']} in-betweened, the rest scored on"
        print(f"\n{count} damaged pictures: {told}, no crash")


#: The folders of a key-frame project in our layout and in that of another program, with the frames in each.
LAYOUTS = {
    "check": {"frames": range(4), "keys": (1, 2), "masks": (1,), "guides/depth": range(4)},
    "import": {"input": range(4), "output": (1, 2), "mask": (1,), "depth": range(4)},
}


def damaged_projects(folder: Path, count: int) -> dict[Path, str]:
    """Write key-frame projects with so many damaged pictures in all, one to four each; the first two are whole.

    Returns:
        Folder -> the key of ``animegen prepare`` that it is for.
    """
    draw = random.Random(3)
    scene = Scene(seed=0, split="test", index=0, size=48)
    projects: dict[Path, str] = {}
    while count > 0 or len(projects) < 2:
        key = list(LAYOUTS)[len(projects) % 2]
        root = folder / f"{len(projects):03d}_train"
        places = [(name, number) for name, numbers in LAYOUTS[key].items() for number in numbers]
        spoilt = draw.sample(places, min(count, draw.randint(1, 4))) if len(projects) >= 2 else []
        for name, number in places:
            drawn = scene.anime(number, "meadow") if name in ("keys", "output") else scene.photo(number)
            if name in ("masks", "mask"):
                drawn = np.full_like(drawn, 255)
            grey = name.endswith("depth")
            suffix = draw.choice(("png", "jpg", "bmp", "tiff") if grey else ("png", "jpg", "webp", "bmp", "tiff"))
            data = encoded(Image.fromarray(drawn), "L" if grey else "RGB", suffix)
            data = mutated(data, draw) if (name, number) in spoilt else data
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / f"{number:03d}.{suffix}").write_bytes(data)
        count -= len(spoilt)
        projects[root] = key
    return projects


@pytest.mark.parametrize("count", PICTURES)
def test_damaged_pictures_of_projects(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = []
    for root, key in damaged_projects(tmp_path / "in", count).items():
        project = tmp_path / "imported" / root.name if key == "import" else root
        commands += [
            [f"import={root}", f"output={project}"] if key == "import" else [f"check={root}"],
            [f"suggest_keys={project}", "count=1"],
            [f"filter={project}", f"output={tmp_path / 'filtered' / root.name}", "radius=1"],
        ]
    ended = run("animegen.cli.prepare", commands, tmp_path / "log")
    assert_calm(ended)
    filtered = sorted(path.name for path in (tmp_path / "filtered").iterdir())
    assert {"000_train", "001_train"} <= set(filtered)
    # What was called ready could be read to the last pixel.
    assert ended.said.count("ready to train") == len(filtered)
    with capsys.disabled():
        told = f"{len(commands) // 3} projects: {len(filtered)} ready to train, the problems of the others told"
        print(f"\n{count} damaged pictures in {told}, no crash")


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
    assert_calm(run("animegen.cli.stylize", [words], log, files=count))
    drawn = len(list((tmp_path / "drawn").glob("*.m*"))) if (tmp_path / "drawn").exists() else 0
    commands = [
        [f"checkpoint={between}", f"input={path}", f"output={tmp_path / 'smooth' / path.name}", *quick]
        for path in sorted(folder.iterdir())
    ]
    ended: Ended = run("animegen.cli.interpolate", commands, log)
    assert_calm(ended)
    smooth = len(list((tmp_path / "smooth").glob("*.m*"))) if (tmp_path / "smooth").exists() else 0
    everything = ("short_side=null", "still=0", "uneven=100", "repeat=null")
    words = [f"input={folder}", f"output={tmp_path / 'clips'}", *everything]
    assert_calm(run("animegen.cli.prepare", [words], log, files=count))
    cut = len({path.parent for path in (tmp_path / "clips").rglob("*.jpg")})
    small = ("benchmark.clips=1", "benchmark.frames=4", "benchmark.intervals=[1]", "benchmark.drift_frames=8")
    words = [f"checkpoint={toy}", "device=cpu", "features=none", "benchmark=clips", "benchmark.size=32", *small]
    films = sorted(folder.iterdir())
    commands = [[*words, f"benchmark.video={path}", f"output={tmp_path / 'scores' / path.stem}"] for path in films]
    assert_calm(run("animegen.cli.evaluate", commands, log))
    scored = len(list((tmp_path / "scores").glob("*/scores.json")))
    commands = [[f"checkpoint={between}", f"input={path}", "selfcheck=true", "device=cpu"] for path in films]
    checked = run("animegen.cli.interpolate", commands, log)
    assert_calm(checked)
    compared = checked.said.count("every other drawing was left out")
    assert min(drawn, smooth, cut, scored, compared) > 0
    with capsys.disabled():
        told = f"{drawn} drawn, {smooth} in-betweened, {cut} clips cut, {scored} scored, {compared} self-checked"
        print(f"\n{count} damaged films: {told}, no crash")
