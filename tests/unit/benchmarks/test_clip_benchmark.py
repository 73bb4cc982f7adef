"""The clip benchmark: streaming, held-out frames, baselines and steadiness beside every score, and its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from animegen.benchmarks.clip_methods import Streamed
from animegen.benchmarks.clips import ClipBenchmark, clip_benchmark
from animegen.benchmarks.keyframe_baselines import keyframe_baselines
from animegen.benchmarks.registry import PRIVILEGED, metric_info
from animegen.benchmarks.tables import markdown_table
from animegen.cli import evaluate
from animegen.data.keyframes import toonworld_project
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.flow import DISFlow, EstimatedMotion, ExactMotion
from animegen.metrics import image, video
from animegen.metrics.perceptual import PerceptualDistance
from animegen.nn.features import FeatureExtractor
from animegen.toonworld import ToonWorldClips
from tests.support import refused, run_verb, train

SMALL: dict[str, Any] = {"clips": 2, "frames": 12, "size": 32, "train_scenes": 2, "drift_frames": 20}
BASELINES = ["identity", "colour_transfer", "lookup_table", "nearest_key", "flow_key", "truth"]


class Summing:
    """A stateful styliser: frame k of a stream is dimmed k times."""

    size_divisor = 1

    def stylize(self, frames: Tensor, state: int | None, style: object = None) -> tuple[Tensor, int]:
        count = state or 0
        return frames * 0.9**count, count + 1


@pytest.fixture(scope="module")
def benchmark() -> ClipBenchmark:
    return ClipBenchmark(**SMALL)


@pytest.fixture(scope="module")
def scores(benchmark: ClipBenchmark) -> dict[str, Any]:
    return benchmark.evaluate({"model": lambda clip: clip * 0.5})


def test_a_model_is_streamed_from_a_fresh_state() -> None:
    clip = torch.rand(2, 4, 3, 8, 8)
    run = Streamed(Summing())
    for _ in range(2):
        torch.testing.assert_close(run(clip), clip * 0.9 ** torch.arange(4).view(1, 4, 1, 1, 1))


def flow_difference(output: Tensor, reference: Tensor, estimator: DISFlow) -> Tensor:
    """tOF (TecoGAN) per pair of frames: mean length of the difference of both flows."""
    flows = [estimator(clip[:-1], clip[1:]) for clip in (output, reference)]
    return (flows[0] - flows[1]).norm(dim=1).mean((1, 2))


def test_scores_are_those_of_the_measures(benchmark: ClipBenchmark, scores: dict[str, Any]) -> None:
    assert list(scores) == [*BASELINES, "model"]
    world = ToonWorldClips("test", 2, 12, 32, "meadow", hold=1)
    rows: list[dict[str, float]] = []
    for number in range(2):
        clip = world.clip(number)
        photo, truth = to_float(clip["photo"]), to_float(clip["anime"])
        output = photo * 0.5
        held = [t for t in range(12) if t not in (3, 9)]
        table = benchmark.baselines["lookup_table"](photo[None])[0]
        dis, estimated, exact = DISFlow(), EstimatedMotion(clip["photo"]), ExactMotion(world.scene(number))
        psnr = float(image.psnr(output[held], truth[held]).mean())
        error = video.warp_errors(output, exact)
        rows.append(
            {
                "psnr": psnr,
                "gain_over_lookup_table": psnr - float(image.psnr(table[held], truth[held]).mean()),
                "ssim": float(image.ssim(output[held], truth[held]).mean()),
                "strength": float(video.stylisation_strength(output[held], photo[held]).mean()),
                "strength_colour": float(image.colour_distance(output[held], photo[held]).mean()),
                "strength_edges": 1 - float(image.edge_f_score(output[held], photo[held]).mean()),
                "warp_error_1_exact": float(error.mean()),
                "warp_gap_1_exact": abs(video.excess(error, video.warp_errors(truth, exact))),
                "warp_excess_1_exact": video.excess(error, video.warp_errors(truth, exact)),
                "warp_error_10_dis": float(video.warp_errors(output, estimated, 10).nanmean()),
                "flicker_exact": float(video.flicker(output, exact).mean()),
                "tof_dis": float(flow_difference(output, truth, dis).mean()),
                "tof_in_dis": float(flow_difference(output, photo, dis).mean()),
            }
        )
    for metric in rows[0]:
        expected = sum(row[metric] for row in rows) / 2
        assert scores["model"][metric]["mean"] == pytest.approx(expected, abs=1e-4), metric
        assert scores["model"][metric]["n"] == 2


def test_the_truth_is_perfect_and_its_gaps_are_zero(scores: dict[str, Any]) -> None:
    truth = {metric: score["mean"] for metric, score in scores["truth"].items()}
    assert (truth["psnr"], truth["edge_f"]) == (100, 1)
    assert truth["warp_error_1_exact"] > 1  # ink lines do not survive bilinear warping
    relative = [metric for metric in truth if "_gap" in metric or "_excess" in metric]
    assert all(truth[metric] == 0 for metric in (*relative, "tof_dis"))
    assert scores["identity"]["strength"]["mean"] == pytest.approx(0, abs=1e-5)
    assert scores["lookup_table"]["gain_over_lookup_table"]["mean"] == 0


def test_key_baselines_are_those_of_the_key_frames(benchmark: ClipBenchmark, scores: dict[str, Any]) -> None:
    batch = next(benchmark.batches(torch.device("cpu")))
    clip = ToonWorldClips("test", 1, 12, 32, "meadow", hold=1).clip(0)
    made = keyframe_baselines(clip["photo"], {t: clip["anime"][t] for t in (3, 9)})
    for name in ("nearest_key", "flow_key"):
        output = benchmark.apply(benchmark.baselines[name], batch)
        torch.testing.assert_close(output[0], to_float(made[name]))
    assert scores["flow_key"]["psnr"]["mean"] > scores["nearest_key"]["psnr"]["mean"] + 1
    assert scores["flow_key"]["psnr"]["mean"] < 60  # the keys themselves, which are perfect, are left out
    assert {"nearest_key", "flow_key", "truth", "lookup_table"} <= PRIVILEGED


def test_behaviour_tells_of_memory(benchmark: ClipBenchmark, scores: dict[str, Any]) -> None:
    memory = ("static_flicker", "ping_pong", "cut_leak_unmarked", "drift_colour")
    assert all(scores["model"][metric]["mean"] == 0 for metric in (*memory, "cut_leak", "drift_detail"))
    assert scores["model"]["noise_gain"]["mean"] == pytest.approx(0.5)
    assert scores["identity"]["noise_gain"]["mean"] == pytest.approx(1)
    again = benchmark.evaluate({"model": benchmark.method_of(Summing())})
    assert all(again["model"][metric]["mean"] > 0.5 for metric in memory)
    assert again["model"]["cut_leak"]["mean"] == 0
    # Without its memory the model changes nothing, and a blend of the past is what that was smoothed to.
    assert list(again) == [*BASELINES, "model", "per_frame", "blended"]
    assert again["per_frame"]["psnr"] == again["identity"]["psnr"]
    assert again["blended"]["warp_error_1_exact"]["mean"] < again["per_frame"]["warp_error_1_exact"]["mean"]
    assert again["blended"]["noise_gain"]["mean"] < 0.7
    assert again["identity"] == scores["identity"]


def test_every_metric_is_registered_and_the_table_prints(scores: dict[str, Any]) -> None:
    for row in scores.values():
        for metric in row:
            assert metric_info(metric).description
    assert metric_info("flicker_gap_exact").better == "lower"
    assert metric_info("flicker_exact").better == "none"
    assert "| flow_key \\* |" in markdown_table(scores)


def test_images_show_one_clip_in_time(benchmark: ClipBenchmark) -> None:
    headers, rows = benchmark.sample_rows({"model": lambda clip: -clip}, count=3)
    assert headers == ["photo", *BASELINES[1:5], "model", "truth"]
    clip = ToonWorldClips("test", 1, 12, 32, "meadow", hold=1).clip(0)
    for row, t in zip(rows, (2, 6, 10), strict=True):
        torch.testing.assert_close(row[0], to_float(clip["photo"][t]))
        torch.testing.assert_close(row[5], -to_float(clip["photo"][t]))
        torch.testing.assert_close(row[6], to_float(clip["anime"][t]))


def test_features_give_a_distance_and_tlp() -> None:
    extractor = FeatureExtractor("squeezenet1_1", "random")
    assert ClipBenchmark(**SMALL, extractor=extractor).perceptual is None  # random weights tell nothing
    benchmark = ClipBenchmark(**{**SMALL, "clips": 1})
    distance = benchmark.perceptual = PerceptualDistance(extractor)
    clip = ToonWorldClips("test", 1, 12, 32, "meadow", hold=1).clip(0)
    photo, truth = to_float(clip["photo"]), to_float(clip["anime"])
    with torch.no_grad():
        scores = benchmark.evaluate({"model": lambda c: c * 0.5})["model"]
        wanted = video.tlp(photo * 0.5, truth, distance).mean()
        held = distance(photo * 0.5, truth)[[t for t in range(12) if t not in (3, 9)]].mean()
    assert scores[f"tlp_{distance.name}"]["mean"] == pytest.approx(float(wanted), rel=1e-3)
    assert scores[distance.name]["mean"] == pytest.approx(float(held), rel=1e-4)


def test_style_and_settings() -> None:
    node = {"_target_": "animegen.benchmarks.clips.ClipBenchmark", "style": None, "limit": 1, **SMALL}
    built = clip_benchmark(node, {"style": "dusk"})
    assert (built.style, len(built.clips)) == ("dusk", 1)
    assert clip_benchmark({**node, "style": "print"}, {"style": "dusk"}).style == "print"
    with pytest.raises(AnimegenError, match=r"set benchmark.style=meadow\|dusk\|print"):
        clip_benchmark(node, {"style": "Hayao"})
    with pytest.raises(AnimegenError, match="fewer keys than frames"):
        ClipBenchmark(frames=4, keys=4)
    with pytest.raises(AnimegenError, match=r"intervals=\[12\] does not suit clips of 12 frames"):
        ClipBenchmark(**SMALL, intervals=[12])
    assert ClipBenchmark(**SMALL, intervals=[1, 4, 12]).intervals == [1, 4]


def test_grain_is_noise_of_its_own_on_every_photo_and_always_the_same() -> None:
    settings = {**SMALL, "clips": 1}
    clean, grainy = ClipBenchmark(**settings), ClipBenchmark(**settings, grain=4.0)
    (plain,), (first,), (again,) = (list(b.batches(torch.device("cpu"))) for b in (clean, grainy, grainy))
    assert torch.equal(first["photo"], again["photo"])
    assert torch.equal(first["anime"], plain["anime"])
    noise = (first["photo"] - plain["photo"])[0] * video.LEVELS
    inner = plain["photo"][0].abs() < 0.8  # where nothing is cut off at black and white
    assert noise[inner].std().item() == pytest.approx(4.0, rel=0.03)
    both = inner[0] & inner[1]
    assert abs(torch.corrcoef(torch.stack([noise[0][both], noise[1][both]]))[0, 1].item()) < 0.1
    with pytest.raises(AnimegenError, match=r"benchmark\.grain=-1 is a standard deviation"):
        ClipBenchmark(**SMALL, grain=-1)


def test_the_clip_of_a_key_frame_project_can_be_scored() -> None:
    project = toonworld_project(frames=8, size=32, scene=3)
    benchmark = ClipBenchmark(clips=1, frames=8, size=32, hold=None, first_scene=3)
    assert torch.equal(benchmark.photos(0), torch.stack([project.photo[t] for t in range(8)]))
    assert benchmark.keys == sorted(project.keys)


def test_the_command_scores_a_checkpoint_on_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [f"benchmark.{key}={value}" for key, value in {**SMALL, "clips": 1}.items()]
    chosen = ["evaluate=true", "logger=tensorboard", "benchmark=clips", *small]
    run = train("experiment=toy/quickstart", "train_steps=2", "data.style=dusk", *chosen, output=tmp_path / "run")
    final = json.loads((run / "run.json").read_text())["evaluation"]
    assert (final["task"], final["derived"]) == ("stylise_clips", ["blended"])  # the toy has no memory
    assert (run / "pareto.png").stat().st_size > 0
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    assert "eval/pareto" in events.Tags()["images"]
    words = ["device=cpu", *small, "samples=1"]
    output = tmp_path / "clips"
    assert run_verb(evaluate.main, f"checkpoint={run}", "benchmark=clips", *words, f"output={output}") == 0
    result = json.loads((output / "scores.json").read_text())
    assert (result["task"], result["main"]) == ("stylise_clips", "ssim")
    assert list(result["methods"]) == [*BASELINES, "model", "blended"]
    assert (output / "pareto.png").stat().st_size > 0
    assert result["methods"]["model"]["warp_error_1_exact"] == final["methods"]["model"]["warp_error_1_exact"]
    assert result["methods"]["model"]["psnr"]["n"] == 1
    assert (output / "strip.png").stat().st_size > 0
    capsys.readouterr()
    code = run_verb(evaluate.main, f"checkpoint={run}", "benchmark=clips", "benchmark.frame=3")
    assert "Did you mean 'benchmark.frames'" in refused(capsys, code)
