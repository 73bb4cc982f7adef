"""The benchmark of in-betweens: baselines with known scores on clips that are made for it."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from animegen.benchmarks.inbetween import InbetweenBenchmark, exact_warp, half_warp, linear_blend, nearest_frame
from animegen.benchmarks.registry import metric_info
from animegen.benchmarks.tables import markdown_classes, rich_table, to_json
from animegen.data.clips import ClipView, ToonWorldFrames
from animegen.media.images import to_float
from animegen.metrics.image import psnr
from animegen.metrics.motion import motion_class, motion_size
from animegen.nn.features import FeatureExtractor


class Sliding:
    """A texture that moves two pixels to the right per frame."""

    def __len__(self) -> int:
        return 2

    def name(self, index: int) -> str:
        return str(index)

    def length(self, index: int) -> int:
        return 5

    def load(self, index: int, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        coarse = torch.rand(1, 3, 12, 20, generator=generator)
        texture = torch.nn.functional.interpolate(coarse, (64, 96), mode="bicubic").clamp(0, 1)[0]
        return (texture.roll(2 * number, -1)[..., 16:80] * 255).round().to(torch.uint8)


BASELINES = ("nearest", "blend", "ffmpeg_mci", "warp_dis", "warp_dis_weighted", "warp_dis_averaged")


def benchmark(**settings) -> InbetweenBenchmark:
    return InbetweenBenchmark(ClipView(Sliding(), size=64, gap=4, shuffle=False), **settings)


def test_baselines_by_hand() -> None:
    first, last = torch.full((2, 3, 16, 16), -0.5), torch.full((2, 3, 16, 16), 0.5)
    batch = {"first": first, "last": last, "t": torch.tensor([0.5, 0.75])}
    assert nearest_frame(batch)[:, 0, 0, 0].tolist() == [-0.5, 0.5]
    assert linear_blend(batch)[:, 0, 0, 0].tolist() == [0.0, 0.25]
    moved = half_warp(batch, lambda a, b: torch.zeros(2, 2, 16, 16))  # type: ignore[arg-type]
    assert torch.equal(moved, linear_blend(batch))


def test_half_warp_with_the_true_flow_is_the_frame_between() -> None:
    frames = [Sliding().load(0, n)[None].float() / 127.5 - 1 for n in (0, 1, 4)]
    batch = {"first": frames[0], "last": frames[2], "t": torch.tensor([0.25])}

    def true_flow(a: Tensor, b: Tensor) -> Tensor:
        flow = torch.zeros(1, 2, 64, 64)
        flow[:, 0] = 8.0 if torch.equal(a, frames[0]) else -8.0
        return flow

    found = half_warp(batch, true_flow)  # type: ignore[arg-type]
    assert torch.allclose(found[..., 8:-8], frames[1][..., 8:-8], atol=1e-5)


def test_scores_stand_beside_the_baselines_and_the_truth_wins() -> None:
    bench = benchmark(extractor=FeatureExtractor("squeezenet1_1", "random"))
    truth = {n: sample["truth"][0] for n, sample in ((n, bench.test[n]) for n in range(2))}
    calls: list[set] = []

    def perfect(batch: dict) -> Tensor:
        calls.append(set(batch))
        return torch.stack([truth[n].float() / 127.5 - 1 for n in range(2)])

    scores = bench.evaluate({"model": perfect})
    assert calls == [{"first", "last", "t"}]  # a method does not see the truth
    assert list(scores) == [*BASELINES, "model"]
    assert scores["model"]["psnr"]["mean"] == 100
    assert scores["model"]["chamfer"]["mean"] == scores["model"]["nedt"]["mean"] == 0
    assert scores["warp_dis"]["nedt"]["mean"] < scores["blend"]["nedt"]["mean"]
    assert scores["warp_dis"]["psnr"]["mean"] > scores["blend"]["psnr"]["mean"] + 2
    assert scores["blend"]["gain_over_blend"]["mean"] == 0
    expected = torch.stack([psnr(linear_blend(b), b["truth"]) for b in bench.batches(torch.device("cpu"))]).mean()
    assert scores["blend"]["psnr"]["mean"] == pytest.approx(expected.item(), abs=1e-4)
    assert not [name for name in scores["model"] if name.startswith("perceptual")]  # random features say nothing
    assert bench.task == "inbetween_gap4"
    assert all(metric_info(name) for name in scores["model"])
    headers, rows = bench.sample_rows({"model": perfect}, count=2)
    assert headers == [
        "first",
        "last",
        "nearest",
        "blend",
        "ffmpeg_mci",
        "warp_dis",
        "warp_dis_weighted",
        "warp_dis_averaged",
        "model",
        "truth",
    ]
    assert len(rows) == 2


class Mixed(Sliding):
    """Three textures that move by nothing, by two pixels per frame, and by five."""

    def __len__(self) -> int:
        return 3

    def load(self, index: int, number: int) -> Tensor:
        return super().load(0, number if index == 1 else 0).roll(5 * number if index == 2 else 0, -1)


def test_scores_by_how_far_things_move() -> None:
    still, moved = (to_float(Sliding().load(0, n)[None]) for n in (0, 4))
    sizes = motion_size(torch.cat([still, still]), torch.cat([still, moved]))
    assert sizes[0] < 0.001
    assert sizes[1] == pytest.approx(8 / 64, rel=0.15)  # eight of 64 pixels
    assert [motion_class(size) for size in (0.0, 0.0097, 0.0099, 0.039, 0.04)] == [
        *("small", "small", "medium", "medium", "large")
    ]
    bench = InbetweenBenchmark(ClipView(Mixed(), size=64, gap=2, shuffle=False))
    batch = next(bench.batches(torch.device("cpu")))
    assert bench.class_of(batch) == ["small", "large", "large"]  # 4 and 10 of 64 pixels
    for _ in range(2):  # the second time the baselines are remembered
        scores = bench.evaluate({"model": linear_blend})
        assert list(bench.by_class) == ["small", "large"]
        for label, count in (("small", 1), ("large", 2)):
            rows = bench.by_class[label]
            assert list(rows) == list(scores) == [*BASELINES, "model"]
            assert all(row["psnr"]["n"] == count for row in rows.values())
            assert rows["model"] == rows["blend"]
        assert bench.by_class["small"]["blend"]["psnr"]["mean"] == 100
        mean = sum(n * bench.by_class[label]["blend"]["ssim"]["mean"] for label, n in (("small", 1), ("large", 2))) / 3
        assert scores["blend"]["ssim"]["mean"] == pytest.approx(mean)
    result = to_json(scores, bench.task, bench.main, by_class=bench.by_class)
    assert result["by_motion"]["large"]["model"]["psnr"]["n"] == 2
    text = markdown_classes(bench.by_class)
    assert "small motion, n = 1" in text
    assert text.count("| warp_dis |") == 2
    assert "by_motion" not in to_json(scores, bench.task, bench.main)
    assert markdown_classes({}) == ""


def test_all_frames_between_are_scored_by_themselves() -> None:
    view = ClipView(Sliding(), size=64, gap=4, middle="all", shuffle=False)
    batch = next(InbetweenBenchmark(view).batches(torch.device("cpu")))
    assert batch["t"].tolist() == [0.25, 0.5, 0.75] * 2
    assert batch["first"].shape == batch["truth"].shape == (6, 3, 64, 64)
    assert torch.equal(batch["first"][0], batch["first"][2])


class Known(Sliding):
    def motion(self, index: int, number: int, other: int) -> tuple[Tensor, Tensor]:
        flow = torch.tensor([2.0 * (other - number), 0.0]).view(2, 1, 1).expand(2, 64, 64)
        return flow, torch.ones(64, 64, dtype=torch.bool)


def test_films_with_held_drawings_are_a_task_of_their_own() -> None:
    films = [ToonWorldFrames(scenes=1, frames=9, size=64, speed=0.6, hold=hold) for hold in (1, 3, None)]
    views = [ClipView(film, size=64, gap=2, shuffle=False) for film in films]
    tasks = [InbetweenBenchmark(view).task for view in views]
    assert tasks == ["inbetween_gap2", "inbetween_gap2_hold3", "inbetween_gap2_holds"]
    ones, threes = (film.images.scene(0) for film in films[:2])
    eyes = [part.material.semantic == "eye" for part in ones.stage.parts]
    for scene, held in ((ones, False), (threes, True)):
        drawn = np.stack(scene.stage.poses)[eyes]
        assert (drawn[:, 3] == drawn[:, 5]).all() == held  # persons are drawn again every third frame only
        assert not (drawn[:, 2] == drawn[:, 3]).all()
        assert not (scene.poses(3)[0] == scene.poses(4)[0]).all(), "the camera moves in every frame"


EXACT = ("warp_exact", "warp_exact_weighted", "warp_exact_averaged", "warp_exact_between")


def test_the_exact_flow_gives_privileged_baselines() -> None:
    view = ClipView(Known(), size=64, gap=4, middle="all", shuffle=False, exact_flow=True)
    bench = InbetweenBenchmark(view, batch_size=1)
    seen: list[set] = []

    def plain(batch: dict) -> Tensor:
        seen.append(set(batch))
        return linear_blend(batch)

    class Upper:
        """A model that needs the exact flow, as networks with ``prior=exact`` do."""

        exact_prior = True

        def encode_exact(self, batch: dict) -> dict:
            return batch

        def synthesize(self, encoded: dict, t: Tensor) -> Tensor:
            there, back = encoded["exact_flow"].split(2, 1)
            return half_warp(encoded, lambda a, b: there if a is encoded["first"] else back)  # type: ignore[arg-type]

    scores = bench.evaluate({"plain": plain, "upper": bench.method_of(Upper())})  # type: ignore[arg-type]
    assert list(scores) == [*BASELINES, *EXACT, "plain", "upper"]
    assert seen == [{"first", "last", "t"}] * 2  # only privileged methods see the flow
    assert bench.privileged == {*EXACT, "upper"}
    assert scores["upper"] == scores["warp_exact"]
    for batch in bench.batches(torch.device("cpu")):
        for name in EXACT:
            found = bench.apply(bench.baselines[name], batch)
            assert (found - batch["truth"])[..., 8:-8].abs().max() < 0.02, name
    assert "warp_exact* " in rich_text(rich_table(scores, privileged=bench.privileged))
    assert "warp_exact" not in benchmark().baselines


def test_the_exact_motion_of_the_frame_between() -> None:
    """What only one frame shows is taken from this one, also at outlines, where the flow between both frames fails."""
    source = ToonWorldFrames("meadow", "val", scenes=2, frames=9, size=96, speed=0.6)
    bench = InbetweenBenchmark(ClipView(source, size=96, gap=8, middle="all", shuffle=False, exact_flow=True))
    batch = next(bench.batches(torch.device("cpu")))
    assert batch["exact_between"].shape == (14, 4, 96, 96)
    flow, seen = source.motion(1, 3, 8)  # the third frame between of the second clip, to the last one
    assert torch.equal(batch["exact_between"][9, 2:], flow)
    assert torch.equal(batch["exact_sight"][9, 1], seen)
    scores = {name: psnr(bench.apply(bench.baselines[name], batch), batch["truth"]).mean() for name in EXACT}
    assert scores["warp_exact_between"] > max(scores[name] for name in EXACT[:3]) + 3
    still = torch.zeros(1, 4, 2, 2)
    first, last = torch.full((1, 3, 2, 2), -0.5), torch.full((1, 3, 2, 2), 0.5)
    sight = torch.tensor([[[[True, True], [False, False]], [[True, False], [True, False]]]])
    row = {"first": first, "last": last, "t": torch.tensor([0.25]), "exact_between": still, "exact_sight": sight}
    found = exact_warp(row)[0, 0]
    assert found[0, 0].item() == found[1, 1].item() == pytest.approx(-0.25)
    # Weights .75 * 1.01 and .25 * .01, and the other way round.
    assert found[0, 1].item() == pytest.approx(-0.5 + 0.0025 / 0.76)
    assert found[1, 0].item() == pytest.approx(-0.5 + 0.2525 / 0.26)


def rich_text(table) -> str:
    console = Console(width=300, record=True, file=StringIO())
    console.print(table)
    return console.export_text()
