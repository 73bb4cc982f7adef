"""A video of the user's own: clips that span no cut, steadiness beside strength, and smoothing as a baseline."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from animegen.benchmarks.clip_methods import Blended, Streamed, blend_past
from animegen.benchmarks.clips import clip_benchmark
from animegen.benchmarks.registry import metric_info
from animegen.benchmarks.videos import VideoBenchmark, video_clips
from animegen.errors import AnimegenError
from animegen.media.images import to_float, write_image
from animegen.media.video.flow import EstimatedMotion
from animegen.metrics import video
from animegen.toonworld import ToonWorldClips, ToonWorldImages
from tests.unit.metrics.test_video import LEVEL, Shift


@pytest.fixture(scope="module")
def shots() -> Tensor:
    """Two shots of 14 frames."""
    clips = ToonWorldClips("test", 2, 14, 48, hold=1)
    return torch.cat([clips.clip(number)["photo"] for number in range(2)])


@pytest.fixture(scope="module")
def film(shots: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("film")
    for number, frame in enumerate(shots):
        write_image(folder / f"{number:03d}.png", frame)
    return folder


def test_clips_span_no_cut_and_are_spread(film: Path, shots: Tensor) -> None:
    clips = video_clips(film, clips=8, frames=6, size=48)
    assert [clip.shape for clip in clips] == [(6, 3, 48, 48)] * 4
    for clip, start in zip(clips, (0, 6, 14, 20), strict=True):  # the cut is before frame 14
        assert torch.equal(clip, shots[start : start + 6])
    chosen = video_clips(film, clips=2, frames=6, size=48)
    assert all(torch.equal(a, b) for a, b in zip(chosen, (clips[1], clips[3]), strict=True))
    assert video_clips(film, clips=1, frames=6, size=32)[0].shape == (6, 3, 32, 32)
    with pytest.raises(AnimegenError, match=r"has 20 frames, the longest has 14: set benchmark.frames"):
        video_clips(film, clips=2, frames=20, size=48)


def test_scores_are_relative_to_the_video(film: Path, shots: Tensor) -> None:
    stills = ToonWorldImages("meadow", "train", 2, size=32)
    benchmark = VideoBenchmark(film, clips=2, frames=12, size=48, drift_frames=10, animes=stills)
    scores = benchmark.evaluate({"model": lambda clip: clip * 0.5})
    assert list(scores) == ["identity", "colour_transfer", "model"]
    identity, model = ({name: score["mean"] for name, score in scores[row].items()} for row in ("identity", "model"))
    assert (identity["warp_ratio_1_dis"], identity["tof_in_dis"], identity["cut_leak"]) == (1, 0, 0)
    assert identity["strength"] == pytest.approx(0, abs=1e-5)
    assert model["warp_ratio_1_dis"] == pytest.approx(0.5, abs=1e-4)  # half the contrast, half the error
    assert model["warp_ratio_10_dis"] == pytest.approx(0.5, abs=1e-4)
    expected = [
        float(video.warp_errors(to_float(shots[s : s + 12]), EstimatedMotion(shots[s : s + 12])).nanmean())
        for s in (0, 14)
    ]
    assert identity["warp_error_1_dis"] == pytest.approx(sum(expected) / 2, abs=1e-4)
    assert all(metric_info(name).description for name in identity)
    headers, rows = benchmark.sample_rows({"model": lambda clip: -clip}, count=2)
    assert headers == ["photo", "colour_transfer", "model"]
    torch.testing.assert_close(rows[0][2], -rows[0][0])


def test_a_video_in_the_settings_chooses_its_benchmark(film: Path) -> None:
    node = {"_target_": "animegen.benchmarks.clips.ClipBenchmark", "style": None, "keys": 2, "extractor": {}}
    built = clip_benchmark({**node, "video": str(film), "clips": 3, "frames": 6, "size": 48, "limit": 2}, {})
    assert isinstance(built, VideoBenchmark)
    assert (built.count, built.animes, built.main) == (2, None, "warp_ratio_1_dis")


def test_blending_with_the_past() -> None:
    clip = torch.stack([torch.full((3, 16, 16), v * LEVEL) for v in (0.0, 8.0, 16.0)])
    blended = blend_past(clip, Shift(), 0.5)
    # 0; (8 + 0) / 2 = 4; (16 + 4) / 2 = 10.
    torch.testing.assert_close(blended[:, 0, 0, 0] / LEVEL, torch.tensor([0.0, 4, 10]))
    hidden = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    assert torch.equal(blend_past(clip, Shift(valid=hidden), 0.5), clip)
    whole = Blended(lambda c: -c, share=0.5)(clip[None])[0]
    torch.testing.assert_close(whole, blend_past(-clip, EstimatedMotion(clip), 0.5))


class Fading:
    """Dims a stream more and more."""

    size_divisor = 1

    def stylize(self, frames: Tensor, state: int | None, style: object = None) -> tuple[Tensor, int]:
        return frames * 0.5 ** (state or 0), (state or 0) + 1


def test_a_model_without_its_memory() -> None:
    clip = torch.rand(1, 3, 3, 4, 4) + 0.1
    assert Streamed(Fading()).remembers(clip)
    assert not Streamed(Fading()).remembers(clip[:, :1])
    assert torch.equal(Streamed(Fading(), memory=False)(clip), clip)
