"""Scores of whole clips: baselines, arrival, frames by number, Frechet video distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from animegen.benchmarks.generation import (
    GenerationBenchmark,
    copy_first,
    copy_nearest,
    cross_fade,
    generation_benchmark,
)
from animegen.benchmarks.registry import PRIVILEGED, metric_info
from animegen.data.clips import ClipsView, ClipView, ToonWorldFrames
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.mci import available
from animegen.metrics.clip_features import ClipFeatures
from animegen.metrics.distribution import fid
from animegen.tasks.clip_adapter import InterpolatorAsClipGenerator


@pytest.fixture(scope="module")
def view() -> ClipView:
    clips = ToonWorldFrames("meadow", "test", scenes=4, frames=9, size=(32, 32), speed=0.6)
    return ClipView(clips, 32, gap=4, middle="all", pairs=2, shuffle=False)


@pytest.fixture(scope="module")
def truth(view: ClipView) -> Tensor:
    view.prepare()
    samples = [view[n] for n in range(len(view))]
    return torch.stack([to_float(torch.cat([s["first"][None], s["truth"], s["last"][None]])) for s in samples])


def darker(frames: Tensor) -> Tensor:
    """A tokenizer that loses a tenth of the contrast."""
    return 0.9 * frames


def test_baselines_are_what_they_are_called() -> None:
    first, last = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    drawn = [baseline(first, last, 5)[0, :, 0, 0, 0].tolist() for baseline in (copy_first, copy_nearest, cross_fade)]
    assert drawn == [[0, 0, 0, 0, 1], [0, 0, 0, 1, 1], [0, 0.25, 0.5, 0.75, 1]]


def test_scores_are_those_of_the_definitions(view: ClipView, truth: Tensor) -> None:
    benchmark = GenerationBenchmark(view)
    # Half the contrast, so that nothing is cut off where 8 levels are added.
    truth = 0.5 * truth
    batch = {"clip": truth}
    late = truth.clone()
    late[:, -2] = truth[:, -1] + 8 / 127.5
    values = benchmark.measure(batch, late).values
    jump = (truth[:, -2] - truth[:, -1]).abs().flatten(1).mean(1) * 127.5
    assert torch.allclose(values["arrival"], 8 - jump, atol=1e-3)
    assert torch.allclose(values["arrival_error"], (8 - jump).abs(), atol=1e-3)
    assert (values["psnr_at_1"] > 90).all()
    assert values["ssim_at_2"] == pytest.approx(torch.ones(8))
    error = (truth[:, -1] + 8 / 127.5 - truth[:, -2]).square().flatten(1).mean(1)
    assert torch.allclose(values["psnr_at_3"], 10 * torch.log10(4 / error), atol=1e-2)
    still = benchmark.measure(batch, truth[:, :1].expand_as(truth)).values
    assert (still["motion_ratio"] == 0).all()
    assert torch.allclose(benchmark.measure(batch, truth).values["motion_ratio"], torch.ones(8))


def test_a_model_stands_beside_the_baselines_and_the_ceiling_of_its_tokenizer(view: ClipView) -> None:
    benchmark = GenerationBenchmark(view, darker, ClipFeatures(), limit=4, batch_size=3)
    scores = benchmark.evaluate({"model": benchmark.method_of(Halves())})
    coded = [f"{name}_reconstructed" for name in ("copy_first", "copy_nearest", "cross_fade")]
    moved = [*(["ffmpeg_mci"] if available() else []), "warp_dis", "warp_dis_averaged"]
    still = ["copy_first", "copy_nearest", "cross_fade"]
    assert list(scores) == [*still, *moved, *coded, "reconstruction", "model"]
    for name in moved[-2:]:  # FFmpeg blends frames as small as these
        assert scores[name]["psnr"]["mean"] > scores["cross_fade"]["psnr"]["mean"]  # type: ignore[operator]
    assert scores["model"]["psnr"]["n"] == 4
    assert scores["model"]["ssim"] == scores["cross_fade"]["ssim"]
    mean = {name: score["psnr"]["mean"] for name, score in scores.items()}
    assert mean["cross_fade"] > mean["cross_fade_reconstructed"]  # type: ignore[operator]
    assert {*scores["model"]} >= {"psnr_at_1", "psnr_at_2", "psnr_at_3", "arrival"}
    assert "fvd_random3d" not in scores["model"], "four clips are too few"
    for metric in scores["model"]:
        metric_info(metric)
    headers, rows = benchmark.sample_rows({"model": benchmark.method_of(Halves())}, count=2)
    assert headers[0] == "first"
    assert headers[-2:] == ["model", "truth"]
    assert len(rows) == 2


def test_what_a_renderer_makes_of_both_ends_alone_and_of_the_true_codes_stands_beside_it(view: ClipView) -> None:
    given: list[tuple[Any, ...]] = []

    sure: list[float] = []

    def render(coded: Tensor, frames: Any, confidence: float) -> Tensor:
        given.append((sorted(frames), frames[0], frames[4], coded))
        sure.append(confidence)
        return coded / 0.9  # undoes what the tokenizer of this test loses

    benchmark = GenerationBenchmark(view, darker, limit=4, render=render)
    scores = benchmark.evaluate({})
    rendered = ["copy_nearest_rendered", "cross_fade_rendered", "reconstruction_rendered"]
    assert list(scores)[-4:] == ["reconstruction", *rendered]
    for name in ("copy_nearest", "cross_fade"):
        assert scores[f"{name}_rendered"]["psnr"]["mean"] == pytest.approx(scores[name]["psnr"]["mean"], abs=1e-3)
    assert scores["reconstruction_rendered"]["psnr"]["mean"] > 90
    assert sorted(sure) == [0.0, 0.0, 1.0]  # only the true codes are sure
    for numbers, first, last, coded in given:
        assert numbers == [0, 4]
        torch.testing.assert_close(coded[:, 0], 0.9 * first)
        torch.testing.assert_close(coded[:, -1], 0.9 * last)


def test_clips_with_known_motion_show_what_a_perfect_estimate_of_it_would_give() -> None:
    clips = ToonWorldFrames("meadow", "test", scenes=2, frames=9, size=(32, 32), speed=0.6)
    view = ClipsView(clips, 32, gap=4, pairs=1, shuffle=False)
    given: list[tuple[Tensor, Tensor]] = []

    def render(coded: Tensor, frames: Any, confidence: float, known: Any = None) -> Tensor:
        if known is not None:
            given.append(known)
            assert confidence == 0
        return coded

    benchmark = GenerationBenchmark(view, darker, render=render, along_motion=True)
    names = list(benchmark.evaluate({}))
    assert names[-3:] == ["reconstruction_rendered", "uniform_motion_rendered", "exact_motion_rendered"]
    assert PRIVILEGED.issuperset(names[-3:])
    (uniform, seen), (exact, same) = given
    scene = clips.motion(0, 2 + 3, 2 + 4)  # the piece begins at frame 2 of 9
    torch.testing.assert_close(exact[0, 2, 2:], scene[0])
    assert torch.equal(same[0, 2, 1], scene[1].view(32, 32))
    assert torch.equal(seen, same)
    torch.testing.assert_close(uniform[:, 2, 2:] - uniform[:, 2, :2], exact[:, 2, 2:] - exact[:, 2, :2])
    torch.testing.assert_close(uniform[:, 2, :2], -3 * uniform[:, 2, 2:])
    plain = GenerationBenchmark(view, darker, render=render)
    assert list(plain.baselines)[-1] == "reconstruction_rendered"
    assert "exact_between" not in ClipsView(clips, 32, gap=4, pairs=1, shuffle=False)[0]  # nobody reads it
    blind = ClipsView(Blind(clips), 32, gap=4, pairs=1, shuffle=False)
    assert list(GenerationBenchmark(blind, darker, render=render, along_motion=True).baselines) == list(plain.baselines)


class Blind:
    """Clips without their motion."""

    def __init__(self, clips: ToonWorldFrames) -> None:
        self.length, self.load, self.name, self.prepare = clips.length, clips.load, clips.name, clips.prepare
        self.count = len(clips)

    def __len__(self) -> int:
        return self.count


class Halves:
    """An interpolator that draws the blend."""

    size_divisor = 1

    def encode_pair(self, first: Tensor, last: Tensor) -> Any:
        return first, last

    def synthesize(self, encoded: Any, t: Tensor) -> Tensor:
        return torch.lerp(*encoded, t.view(-1, 1, 1, 1))


def test_an_interpolator_draws_clips_at_even_times_through_all_that_is_given() -> None:
    grey = [torch.full((2, 3, 1, 1), level) for level in (0.0, 0.8, 0.4)]
    clip = InterpolatorAsClipGenerator(Halves()).generate(grey[0], grey[2], 7, keys={4: grey[1]})
    assert clip[1, :, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.6, 0.4])


def test_the_frechet_distance_is_that_of_the_networks_features(truth: Tensor) -> None:
    network = ClipFeatures()
    assert network.name == "random3d"
    features = network(truth)
    assert features.shape == (8, 64)
    assert torch.equal(features, ClipFeatures()(truth))
    # Twenty clips of other brightness lie further off than those of other noise.
    clips = torch.rand(20, 5, 3, 16, 16)
    same, other = clips + 0.01 * torch.randn_like(clips), clips * 0.5
    distances = [fid(network(clips), network(x), 16) for x in (clips, same, other)]
    assert all(distances)
    values = [d.value for d in distances if d]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[0] < values[1] < values[2]


class Means(nn.Module):
    """Mean colour of a clip; notes the shape that it was given as a fourth number."""

    def forward(self, clips: Tensor) -> Tensor:
        mean = clips.mean(dim=(2, 3, 4))
        return torch.cat([mean, torch.full_like(mean[:, :1], clips.shape[2] * 1000 + clips.shape[3])], 1)


def test_networks_come_from_files_and_get_clips_as_they_want_them(tmp_path: Path) -> None:
    torch.jit.script(Means()).save(tmp_path / "i3d.ts")
    clips = torch.rand(2, 5, 3, 16, 12)
    network = ClipFeatures(str(tmp_path / "i3d.ts"), size=8, frames=9)
    assert network.name == "i3d"
    assert network(clips)[:, 3].tolist() == [9008, 9008]
    program = torch.export.export(Means(), (torch.zeros(2, 3, 5, 16, 12),))
    torch.export.save(program, tmp_path / "means.pt2")
    assert torch.allclose(ClipFeatures(str(tmp_path / "means.pt2"))(clips)[:, :3], clips.mean((1, 3, 4)), atol=1e-6)


def test_a_network_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match="does not exist: the Frechet video distance needs a network"):
        ClipFeatures(str(tmp_path / "i3d.pt"))
    (tmp_path / "i3d.pt").write_text("nothing")
    with pytest.raises(AnimegenError, match="holds no network"):
        ClipFeatures(str(tmp_path / "i3d.pt"))
    torch.jit.script(nn.Identity()).save(tmp_path / "same.pt")
    with pytest.raises(AnimegenError, match="'same' does not make one vector"):
        ClipFeatures(str(tmp_path / "same.pt"))(torch.zeros(1, 3, 3, 4, 4))


def test_data_and_models_that_do_not_fit_are_reported(view: ClipView) -> None:
    class Data:
        test, val = None, None

    with pytest.raises(AnimegenError, match="data=clips/toonworld"):
        generation_benchmark({"network": "none"}, Data(), Halves())
    with pytest.raises(AnimegenError, match="middle=all"):
        GenerationBenchmark(ClipView(view.clips, 32, gap=4, shuffle=False))

    class Short:
        max_frames = 4
        size_divisor = 1

        def generate(self, *_: Any) -> None: ...

    with pytest.raises(AnimegenError, match=r"up to 4 frames, and the test clips have 5: set data\.test_gap to 3"):
        GenerationBenchmark(view).method_of(Short())
