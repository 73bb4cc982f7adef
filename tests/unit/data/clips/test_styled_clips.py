"""Live clips with their motion, moved stills, and what is made of them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from animegen.data import ImageFolder
from animegen.data.clips import (
    MovingStills,
    StyledClipAugment,
    StyledClipView,
    ToonWorldWindows,
    VideoWindows,
    in_looks,
)
from animegen.data.clips.videos import anime_windows
from animegen.data.sources import next_good
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.frames import VideoInfo
from animegen.media.video.opening import create_video
from animegen.nn.warp import backward_warp, inside
from animegen.toonworld import VISIBLE, Scene


@pytest.fixture(scope="module")
def world() -> ToonWorldWindows:
    source = ToonWorldWindows("photo", scenes=2, length=4, size=48, motion=True)
    source.prepare()
    return source


@pytest.fixture(scope="module")
def drawn() -> ToonWorldWindows:
    return ToonWorldWindows("meadow", scenes=3, length=4, size=48, first_scene=2)


def test_windows_of_toonworld_hold_its_frames_and_exact_motion(world: ToonWorldWindows) -> None:
    scene = Scene(split="train", index=1, size=48, frames=24, hold=1)
    assert world.times == [10, 11, 12, 13]
    first, frames = world.window(1, 4, 48, None)
    assert first == 0
    for t in range(4):
        assert np.array_equal(frames[t].permute(1, 2, 0).numpy(), scene.photo(10 + t))
    for now, then in ((1, 0), (3, 2), (3, 0)):
        flow, valid = world.motion(1, now, then)
        assert np.array_equal(flow.numpy(), scene.flow(10 + now, 10 + then))
        assert np.array_equal(valid[0].numpy(), scene.visibility(10 + now, 10 + then) == VISIBLE)
    assert len(world) == 8
    assert world.clips == 2
    assert world.in_look("dusk").name(5) == "train-0001-t011-dusk"


def test_a_sample_is_a_function_of_its_number(world: ToonWorldWindows, drawn: ToonWorldWindows) -> None:
    view = StyledClipView(world, drawn, length=3, long=True, size=40, seed=5)
    view.prepare()
    sample, again = view[7], view[7]
    assert {key: tuple(value.shape) for key, value in sample.items()} == {
        "photo": (3, 3, 40, 40),
        "anime": (3, 3, 40, 40),
        "style": (3, 40, 40),
        "flow": (2, 2, 40, 40),
        "valid": (2, 1, 40, 40),
        "flow_first": (2, 2, 40, 40),
        "valid_first": (2, 1, 40, 40),
        "sample": (),
    }
    assert all(torch.equal(sample[key], again[key]) for key in sample)
    assert torch.equal(sample["flow"][0], sample["flow_first"][0])
    assert not torch.equal(view[8]["photo"], sample["photo"])
    assert len(view) == 3
    # Motion and photos were cut alike: the flow brings the frame before here, but for grain.
    for t in range(2):
        flow = sample["flow"][t][None]
        mask = sample["valid"][t][None] & inside(flow)
        before, now = (to_float(sample["photo"][n][None]) for n in (t, t + 1))
        gap = (backward_warp(before, flow) - now).abs().expand(-1, 3, -1, -1)[mask.expand(-1, 3, -1, -1)].mean()
        back = (backward_warp(before, -flow) - now).abs()[mask.expand(-1, 3, -1, -1)].mean()
        assert gap < 0.08
        assert gap < back
    begin = StyledClipView(world, drawn, length=3, single_until=7, size=40, seed=5)
    assert begin[6]["photo"].shape == (1, 3, 40, 40)
    assert "flow" not in begin[6]
    assert begin[7]["photo"].shape == (3, 3, 40, 40)


def test_with_truth_the_drawings_are_those_of_the_photos(world: ToonWorldWindows) -> None:
    truth = world.in_look("meadow")
    view = StyledClipView(world, truth, truth=True, length=4, size=48, shuffle=False)
    assert len(view) == 2
    assert view.aligned == [["photo", "anime"]]
    assert torch.equal(view[1]["anime"], truth.window(1, 4, 48, None)[1])
    assert "style" not in view[0]
    assert view.preview(2)["anime"].shape == (2, 4, 3, 48, 48)
    unpaired = StyledClipView(world, truth, length=4, size=48)
    assert "anime" not in unpaired.preview(1)  # it would pass for the truth
    with pytest.raises(AnimegenError, match="truth=true is for evaluation"):
        StyledClipView(world, truth, truth=True)
    with pytest.raises(AnimegenError, match="too few for windows of 9"):
        _ = StyledClipView(world, truth, length=9, size=48)[0]
    with pytest.raises(AnimegenError, match="must be a source of windows"):
        StyledClipView(world, ImageFolder("x"))  # type: ignore[arg-type]
    with pytest.raises(AnimegenError, match="MovingStills as photo has no motion"):
        StyledClipView(MovingStills(truth), truth)  # type: ignore[arg-type]


def test_of_several_looks_the_still_decides(world: ToonWorldWindows, drawn: ToonWorldWindows) -> None:
    looks = in_looks(drawn, ["meadow", "dusk", "print"])
    assert looks[0] is drawn
    view = StyledClipView(world, looks, length=2, size=48, seed=1)
    view.prepare()
    seen = set()
    for number in range(12):
        sample = view[number]
        look = int(sample["look"])
        seen.add(look)
        pictures = [looks[look].image(index) for index in range(12)]
        assert any(torch.equal(sample["style"], picture) for picture in pictures)
        assert any(torch.equal(sample["anime"][0], picture) for picture in pictures)
        assert torch.equal(sample["photo"], StyledClipView(world, drawn, length=2, size=48, seed=1)[number]["photo"])
    assert seen == {0, 1, 2}
    truths = in_looks(world.in_look("meadow"), ["meadow", "dusk"])
    held = StyledClipView(world, truths, truth=True, length=4, size=48, shuffle=False)
    for number, truth in enumerate(truths):
        sample = held[number]
        assert int(sample["look"]) == number
        assert torch.equal(sample["anime"], truth.window(number, 4, 48, None)[1])
        assert torch.equal(sample["style"], truth.image(4 * (1 - number)))  # of the other scene, in the same look
    assert held.preview(2)["style"].shape == (2, 3, 48, 48)
    batch = {key: torch.stack([view[n][key] for n in range(3)]) for key in view[0]}
    assert torch.equal(StyledClipAugment(32)(batch)["look"], batch["look"])
    with pytest.raises(AnimegenError, match=r"data.styles=\['dusk', 'dusk'\] must list"):
        in_looks(drawn, ["dusk", "dusk"])
    with pytest.raises(AnimegenError, match="Several looks take stills"):
        StyledClipView(world, looks, drawn)
    with pytest.raises(AnimegenError, match="clips of the same scenes"):
        StyledClipView(world, [drawn, world.in_look("dusk")])


def test_mirroring_turns_the_flow_round(world: ToonWorldWindows, drawn: ToonWorldWindows) -> None:
    view = StyledClipView(world, drawn, length=2, size=48, seed=1)
    samples = [view[n] for n in range(8)]
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    out = StyledClipAugment(32)(batch, view.aligned)
    plain = StyledClipAugment(32, flip=False)(batch, view.aligned)
    mirrored = [not torch.equal(a, b) for a, b in zip(out["photo"], plain["photo"], strict=True)]
    assert 0 < sum(mirrored) < 8
    for n, turned in enumerate(mirrored):
        photo, flow, valid = (plain[key][n].flip(-1) if turned else plain[key][n] for key in ("photo", "flow", "valid"))
        if turned:
            flow = flow * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
        assert torch.equal(out["photo"][n], photo)
        assert torch.equal(out["flow"][n], flow)
        assert torch.equal(out["valid"][n], valid)
    assert out["photo"].dtype == torch.float32
    assert out["style"].shape == (8, 3, 32, 32)


class Ramp:
    """One still whose colours tell the place."""

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return "ramp"

    def image(self, index: int) -> Tensor:
        rows, columns = torch.meshgrid(torch.arange(96), torch.arange(120), indexing="ij")
        return torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)


def test_stills_move_smoothly() -> None:
    source = MovingStills(Ramp(), reach=1.5, pan=0.5, zoom=0.2)
    draws = {"zoom": 2**16 - 1, "pan y": 0, "pan x": 2**16 - 1, "row": 2**15, "column": 2**15}
    _, frames = source.window(0, 5, 64, lambda count, purpose: draws[purpose])
    assert frames.shape == (5, 3, 64, 64)
    middle = frames[:, :2, 31:33, 31:33].float().mean((2, 3))
    steps = middle[1:] - middle[:-1]
    # Half a side of 64 pixels per 6 frames, over 5 frames in 4 steps: up, and to the right.
    assert steps[:, 0].mean().item() == pytest.approx(-64 * 0.5 * 5 / 6 / 4, abs=0.4)
    assert steps[:, 1].mean().item() == pytest.approx(64 * 0.5 * 5 / 6 / 4, abs=0.4)
    assert (steps - steps.mean(0)).abs().max() <= 1  # evenly
    widths = (frames[:, 1, 32, -1].float() - frames[:, 1, 32, 0].float()).tolist()
    assert widths == sorted(widths)  # the view widens
    assert widths[-1] / widths[0] == pytest.approx((1 + 0.2 * 5 / 12) / (1 - 0.2 * 5 / 12), rel=0.05)
    still = source.window(0, 3, 64, None)[1]
    assert torch.equal(still[0], still[2])
    with pytest.raises(AnimegenError, match="reach >= 1"):
        MovingStills(Ramp(), reach=0.5)
    assert isinstance(anime_windows(Ramp()), MovingStills)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with one cut: noise that moves right by two pixels, then another that moves down."""
    folder = tmp_path_factory.mktemp("films")
    generator = torch.Generator().manual_seed(0)
    small = [torch.rand(1, 3, 8, 10, generator=generator) * shade for shade in (120.0, 255.0)]
    looks = [
        torch.nn.functional.interpolate(s, (64, 80), mode="bicubic").clamp(0, 255)[0].to(torch.uint8) for s in small
    ]
    with create_video(folder / "film.mp4", VideoInfo(80, 64, Fraction(24))) as writer:
        for n in range(24):
            picture = looks[0].roll(2 * n, -1) if n < 12 else looks[1].roll(2 * n, -2)
            writer.write(picture, Fraction(n, 24))
        writer.close(Fraction(1))
    return folder


def test_videos_become_shots_with_dis_flow(films: Path, tmp_path: Path) -> None:
    source = VideoWindows(films, size=64, length=6, part="all", cache=tmp_path)
    assert source.clips == 2
    assert [source.clip_name(n) for n in range(2)] == ["film.mp4-0", "film.mp4-12"]
    start, frames = source.window(0, 4, 64, lambda count, purpose: count - 1)
    assert (start, frames.shape) == (8, (4, 3, 64, 80))
    flow, valid = source.motion(0, 5, 4)
    inner = flow[:, 16:-16, 16:-16]
    assert inner[0].median().item() == pytest.approx(-2, abs=0.3)
    assert inner[1].median().item() == pytest.approx(0, abs=0.3)
    assert valid[:, 16:-16, 16:-16].float().mean() > 0.9
    assert torch.equal(source.motion(0, 5, 4)[0], flow)  # kept
    assert len(source._flows) == 1
    sides = [VideoWindows(films, size=64, part=part, cache=tmp_path) for part in ("train", "heldout")]
    assert sorted(side.clip_name(0) for side in sides) == ["film.mp4-0", "film.mp4-12"]
    assert [side.clips for side in sides] == [1, 1]
    assert source.image(0).shape == (3, 64, 80)
    assert torch.equal(next_good([source], 1)[0], source.load(1, 6))  # as an image: the middle frame


def test_videos_that_cannot_be_used_are_reported(films: Path, tmp_path: Path) -> None:
    for settings, message in (
        ({"folder": films / "none"}, "does not exist"),
        ({"folder": tmp_path}, "There are no videos"),
        ({"folder": films, "length": 13, "cache": tmp_path / "c"}, "has 13 frames"),
    ):
        with pytest.raises(AnimegenError, match=message):
            VideoWindows(**settings).prepare()
    with pytest.raises(AnimegenError, match="part=test"):
        VideoWindows(films, part="test")
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    settings: dict[str, Any] = {"size": 32, "length": 4}
    assert isinstance(anime_windows(ImageFolder(tmp_path), films, **settings), VideoWindows)
