"""Tables that are divided where the terminal is too narrow."""

from __future__ import annotations

import io
import re

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


NET = "squeezenet1_1_random"
#: Benchmark -> the methods and the metrics of its result, in their order.
RESULTS = {
    "stylise": (
        "identity colour_transfer lookup_table model",
        f"psnr ssim edge_f flatness flatness_gap colour_distance perceptual_{NET} kid_{NET} photo_kid_{NET}",
    ),
    "stylise without truth": (
        "identity colour_transfer model",
        f"kid_{NET} photo_kid_{NET} flatness ink texture colour_change clipped flatness_gap content_edge_f chroma_ratio"
        f" high_frequency_ratio checkerboard content_{NET}",
    ),
    "stylise_from_keys": (
        "lut nearest_key flow_key blended_keys model",
        "psnr ssim edge_f flatness_gap colour_distance gain_over_lut gain_over_nearest_key gain_over_flow_key"
        " gain_over_blended_keys warp_error_exact warp_gap_exact warp_over_truth_exact",
    ),
    "inbetween": (
        "nearest blend ffmpeg_mci warp_dis model",
        "psnr gain_over_blend ssim ssim_atd_legacy ie edge_f chamfer nedt",
    ),
    "generation": (
        "copy_first copy_nearest cross_fade ffmpeg_mci warp_dis warp_dis_averaged copy_first_reconstructed"
        " copy_nearest_reconstructed"
        " cross_fade_reconstructed reconstruction copy_nearest_rendered cross_fade_rendered reconstruction_rendered"
        " model",
        f"psnr ssim edge_f perceptual_{NET} arrival arrival_error motion_ratio psnr_at_1 ssim_at_1 psnr_at_10"
        " ssim_at_10 fvd_random3d",
    ),
    "clips": (
        "identity colour_transfer lookup_table nearest_key flow_key truth model per_frame blended",
        "psnr gain_over_lookup_table ssim edge_f flatness_gap colour_distance flatness strength strength_colour"
        f" strength_edges perceptual_{NET} strength_{NET} tlp_perceptual_{NET} tlp_in_perceptual_{NET}"
        " warp_error_1_exact warp_excess_1_exact warp_gap_1_exact warp_error_10_dis warp_excess_10_dis warp_gap_10_dis"
        " flicker_exact flicker_excess_exact flicker_gap_exact tof_dis tof_in_dis static_flicker noise_gain"
        " drift_colour drift_detail ping_pong cut_leak cut_leak_unmarked",
    ),
    "video": (
        "identity model per_frame blended",
        f"flatness strength strength_colour strength_edges chroma_ratio high_frequency_ratio strength_{NET}"
        f" tlp_in_perceptual_{NET} warp_error_1_dis warp_ratio_1_dis warp_error_10_dis warp_ratio_10_dis flicker_dis"
        " tof_in_dis static_flicker noise_gain drift_colour drift_detail ping_pong cut_leak cut_leak_unmarked",
    ),
}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("benchmark", RESULTS)
def test_no_word_and_no_value_is_broken(benchmark: str, width: int) -> None:
    methods, metrics = (names.split() for names in RESULTS[benchmark])
    scores = {
        name: {metric: {"mean": 10.0 + 100 * number, "std": 0.0, "n": 4} for metric in metrics}
        for number, name in enumerate(methods)
    }
    out = io.StringIO()
    Console(file=out, width=width).print(rich_table(scores, "the title"))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = set(re.findall(r"[^\W_]+", out.getvalue()))
    shown = [metric for metric in metrics if "_at_" not in metric]
    assert {word for name in [*methods, *shown] for word in name.split("_")} <= words
    for number in range(len(methods)):
        assert f" {10 + 100 * number}." in out.getvalue()
    assert not [line for line in lines if re.match(r"│ [↑↓] ", line)], "an arrow alone"
    assert out.getvalue().count("the title") == 1
    assert ("psnr_at_<frame> and ssim_at_<frame>" in " ".join(" ".join(lines).split())) == (benchmark == "generation")


def test_names_break_after_separators() -> None:
    assert wrapped("model_without_memory", 12) == "model_\nwithout_\nmemory"
    assert wrapped("identity", 12) == "identity"
    assert wrapped("abcdefghijklmno", 12) == "abcdefghijklmno"
    assert wrapped("abcdefghijklmnop", 12) == "abcdefghijkl\nmnop"
    assert wrapped("gain_over_lut (dB) ↑", 18) == "gain_over_lut\n(dB) ↑"
    assert wrapped("seed 0, 1, 2", 12) == "seed 0, 1, 2"
