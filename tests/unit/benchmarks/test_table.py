"""Tables and the image strip."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from animegen.benchmarks.benchmark import Scores
from animegen.benchmarks.tables import best_methods, image_strip, markdown_table, rich_table, to_json
from animegen.errors import AnimegenError
from animegen.media.images import read_image

SCORES: Scores = {
    "identity": {"psnr": {"mean": 13.004, "std": 1.25, "n": 8}, "flatness": {"mean": 0.08, "std": 0.01, "n": 8}},
    "lookup_table": {"psnr": {"mean": 18.9, "std": 2.0, "n": 8}, "flatness": {"mean": 0.06, "std": 0.01, "n": 8}},
    "model": {
        "psnr": {"mean": 17.456, "std": None, "n": 8},
        "flatness": {"mean": float("nan"), "std": None, "n": 8},
        "kid_vgg19": {"mean": 0.12344, "std": None, "n": 8},
    },
    "model[b]": {
        "psnr": {"mean": 17.4601, "std": 1.0, "n": 8},
        "flatness": {"mean": 0.7, "std": 0.01, "n": 8},
        "kid_vgg19": {"mean": 0.1, "std": 0.01, "n": 8},
    },
}


def test_best_methods_leave_out_the_privileged() -> None:
    # 17.456 and 17.4601 are shown alike, so both are the best; the table does not take part.
    assert best_methods(SCORES, "psnr") == {"model", "model[b]"}
    assert best_methods(SCORES, "psnr", privileged=()) == {"lookup_table"}
    assert best_methods(SCORES, "kid_vgg19") == {"model[b]"}  # lower is better
    assert best_methods(SCORES, "flatness") == set()  # describes, does not judge
    assert best_methods({"model": {"psnr": {"mean": float("nan"), "std": None, "n": 1}}}, "psnr") == set()


def test_markdown() -> None:
    assert markdown_table(SCORES, spread=True).splitlines() == [
        "| method | psnr (dB) ↑ | flatness | kid_vgg19 ↓ |",
        "|---|---:|---:|---:|",
        "| identity | 13.00 ±1.25 | 0.080 ±0.010 | – |",
        "| lookup_table \\* | 18.90 ±2.00 | 0.060 ±0.010 | – |",
        "| model | **17.46** | nan | 0.1234 |",
        "| model[b] | **17.46 ±1.00** | 0.700 ±0.010 | **0.1000 ±0.0100** |",
        "",
        "\\* uses the truth (drawings of the photos, or motion); excluded from the ranking.",
    ]
    assert "\\*" not in markdown_table({"identity": SCORES["identity"]})


def test_terminal_table_has_a_row_per_metric() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system="standard", no_color=True)
    console.print(rich_table(SCORES, "stylise"))
    text = out.getvalue()
    for word in ("stylise", "psnr (dB) ↑", "kid_vgg19 ↓", "lookup_table*", "model[b]", "uses the truth"):
        assert word in text
    bold = "\x1b[1m"
    row = next(line for line in text.splitlines() if "psnr" in line)
    assert row.count(bold + "17.46") == 2
    assert bold + "18.90" not in row


def test_json_is_plain_and_explains_itself() -> None:
    report = json.loads(json.dumps(to_json(SCORES, "stylise", "psnr"), allow_nan=False))
    assert (report["task"], report["main"], report["privileged"]) == ("stylise", "psnr", ["lookup_table"])
    assert report["methods"]["identity"]["psnr"] == {"mean": 13.004, "std": 1.25, "n": 8}
    assert report["methods"]["model"]["flatness"] == {"mean": None, "std": None, "n": 8}
    assert report["metrics"]["psnr"]["unit"] == "dB"
    assert report["metrics"]["kid_vgg19"]["better"] == "lower"
    # What was read back from a file can be shown again.
    assert "| model | **17.46** | – |" in markdown_table(report["methods"])


def test_image_strip_places_images_under_headers(tmp_path: Path) -> None:
    red, green, blue = (torch.full((3, 20, 30), -1.0) for _ in range(3))
    red[0], green[1], blue[2] = 1, 1, 1
    path = tmp_path / "new" / "strip.png"
    image_strip([[red, green], [blue, red]], ["photo", "a label that is too long"], path, gap=4)
    strip = read_image(path)
    assert strip.shape == (3, 20 + 2 * 24, 4 + 2 * 34)
    assert strip[:, 20 + 10, 4 + 15].tolist() == [255, 0, 0]
    assert strip[:, 20 + 10, 38 + 15].tolist() == [0, 255, 0]
    assert strip[:, 44 + 10, 4 + 15].tolist() == [0, 0, 255]
    assert strip[:, 20 + 10, 36].tolist() == [255, 255, 255]  # the gap between columns
    header = strip[:, :19]
    assert header[:, :, 4:34].min() < 128  # there are letters
    assert header[:, :, 68:].min() == 255  # and none beyond the last column
    assert [file.name for file in path.parent.iterdir()] == ["strip.png"]


def test_image_strip_overwrites_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    picture = torch.zeros(3, 16, 16)
    image_strip([[picture]], ["a"], path)
    with pytest.raises(AnimegenError, match="exists already"):
        image_strip([[picture]], ["a"], path)
    image_strip([[picture, picture]], ["a", "b"], path, overwrite=True)
    assert read_image(path).shape[-1] == 4 + 2 * 20
    with pytest.raises(ValueError, match="rows of 1 images"):
        image_strip([[picture, picture]], ["a"], tmp_path / "other.png")


def test_image_strip_takes_images_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    low, high = torch.ones(3, 16, 30), -torch.ones(3, 40, 20)
    image_strip([[low, low], [high, high]], ["a", "b"], path, gap=4)
    strip = read_image(path)
    top = 12 + 2 * 4
    assert strip.shape == (3, top + 16 + 4 + 40 + 4, 4 + 2 * (30 + 4))
    dark = (strip.amax(0) == 0)[top + 16 + 4 :]  # below the headers and the first row
    assert dark.sum() == 2 * 40 * 20
    assert dark[:40, 4:24].all()
    assert dark[:40, 38:58].all()
