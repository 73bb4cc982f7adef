"""Tables that are divided where the terminal is too narrow."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from animegen.benchmarks.tables import rich_table
from animegen.benchmarks.wide_table import FRAME, Column, WideTable, wrapped

LABELS = Column("metric", ["psnr", "ssim"])  # 6 wide
COLUMNS = [Column(name, ["1.00", "22.00"]) for name in ("model", "identity", "transfer", "table")]  # 5, 8, 8, 5 wide


@pytest.mark.parametrize(
    ("width", "repeat", "expected"),
    [
        (100, True, [["model", "identity", "transfer", "table"]]),
        (1 + 6 + 5 + 8 + 8 + 5 + 5 * FRAME, True, [["model", "identity", "transfer", "table"]]),
        (6 + 5 + 8 + 8 + 5 + 5 * FRAME, True, [["model", "identity", "transfer"], ["model", "table"]]),
        (6 + 5 + 8 + 8 + 5 + 5 * FRAME, False, [["model", "identity", "transfer"], ["table"]]),
        (20, True, [["model"], ["identity"], ["transfer"], ["table"]]),  # no room for a repeated column
    ],
)
def test_columns_are_divided_by_the_width(width: int, repeat: bool, expected: list[list[str]]) -> None:
    table = WideTable(LABELS, COLUMNS, repeat=repeat)
    assert [[column.heading for column in block] for block in table.blocks(width)] == expected


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_name_and_no_value_is_cut(width: int) -> None:
    metrics = ("psnr", "perceptual_squeezenet1_1_random", "gain_over_flow_key", "colour_distance", "flicker_excess_dis")
    methods = ("identity", "colour_transfer", "flow_key", "nearest_key", "model", "model_without_memory", "smoothed")
    scores = {
        name: {metric: {"mean": 10.0 + 100 * number, "std": 0.0, "n": 4} for metric in metrics}
        for number, name in enumerate(methods)
    }
    out = io.StringIO()
    Console(file=out, width=width).print(rich_table(scores, "title"))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for word in (
        "identity",
        "flow_key*",
        "nearest_key*",
        "without_",
        "smoothed",
        "psnr (dB) ↑",
        "colour_distance (Delta E) ↓",
    ):
        assert word in text
    for number in range(len(methods)):
        assert f" {10 + 100 * number}.00 " in text
    assert text.count("title") == text.count("* uses true") == 1


def test_names_break_after_separators() -> None:
    assert wrapped("model_without_memory", 12) == "model_\nwithout_\nmemory"
    assert wrapped("identity", 12) == "identity"
    assert wrapped("abcdefghijklmnop", 12) == "abcdefghijkl\nmnop"
    assert wrapped("seed 0, 1, 2", 12) == "seed 0, 1, 2"
