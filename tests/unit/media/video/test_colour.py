"""Colours survive the way into a video and back, by every matrix and in both ranges."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame

from animegen.media.video.encoding import Encoding
from animegen.media.video.frames import BT709, SMPTE170M, Colour
from animegen.media.video.pixels import FromFrames, ToFrames, colour_of, usual_colour
from animegen.media.video.reader import VideoReader
from tests.video_support import level, write_film

COLOURS = [Colour(matrix, full) for matrix in (1, 6, 9) for full in (False, True)]


@pytest.mark.parametrize("colour", COLOURS, ids=str)
def test_a_frame_of_one_colour_stays_one(colour: Colour) -> None:
    to, back = ToFrames("yuv420p", colour), FromFrames(colour)
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 3)).astype(np.uint8))
    differences = []
    for value in values:
        result = back(to(value[:, None, None].expand(3, 14, 34).contiguous()))
        assert (result == result[:, :1, :1]).all()
        differences.append(result[:, 0, 0].int() - value.int())
    difference = torch.stack(differences).float()
    assert difference.abs().max() <= 2
    assert difference.mean(0).abs().max() < 0.35  # rounding, not truncation: half a code would be 0.5


@pytest.mark.parametrize(
    ("colour", "rgb", "expected"),
    [
        # Y' = 16 + 219 (K_R R + K_G G + K_B B), Cb = 128 + 224 (B - Y') / (2 - 2 K_B), worked out by hand.
        (Colour(BT709), (255, 0, 0), (63, 102, 240)),
        (Colour(SMPTE170M), (255, 0, 0), (81, 90, 240)),
        (Colour(SMPTE170M, True), (255, 0, 0), (76, 85, 255)),
        (Colour(BT709), (255, 255, 255), (235, 128, 128)),
        (Colour(BT709, True), (0, 0, 0), (0, 128, 128)),
    ],
)
def test_values_in_the_video(colour: Colour, rgb: tuple[int, ...], expected: tuple[int, ...]) -> None:
    frame = ToFrames("yuv444p", colour)(
        torch.tensor(rgb, dtype=torch.uint8)[:, None, None].expand(3, 4, 4).contiguous()
    )
    assert [np.frombuffer(plane, np.uint8)[0] for plane in frame.planes] == pytest.approx(expected, abs=1)


def test_greys_keep_their_mean() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).repeat_interleave(2)[None, None].expand(3, 8, 512).contiguous()
    for colour in COLOURS:
        result = FromFrames(colour)(ToFrames("yuv444p", colour)(ramp))
        assert (result.float() - ramp.float()).mean().abs() < 0.1, colour


@pytest.mark.parametrize("colour", COLOURS, ids=str)
def test_tags_and_values_in_a_file(colour: Colour, tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", [level(200), level(200)], colour=colour)
    reader = VideoReader(path)
    assert reader.info.colour == colour
    for pixels, _ in reader:
        assert (pixels.int() - 200).abs().max() <= 2


def test_transparency_becomes_white() -> None:
    values = np.zeros((4, 4, 4), np.uint8)
    values[0] = (10, 20, 30, 255)
    values[1] = (10, 20, 30, 51)
    frame = VideoFrame.from_ndarray(values, "rgba")
    result = FromFrames(colour_of(frame))(frame)
    assert result[:, 0, 0].tolist() == [10, 20, 30]
    assert result[:, 1, 0].tolist() == [206, 208, 210]  # 0.2 of it, 0.8 of white
    assert result[:, 2, 0].tolist() == [255, 255, 255]


def test_what_players_assume() -> None:
    sizes = {(854, 480): SMPTE170M, (1280, 720): BT709, (720, 1280): BT709, (1280, 544): BT709, (480, 854): SMPTE170M}
    assert {size: usual_colour(*size).matrix for size in sizes} == sizes
    untagged = VideoFrame(64, 64, "yuvj420p")
    assert colour_of(untagged) == Colour(SMPTE170M, True)


@pytest.mark.parametrize("codec", ["ffv1", "mpeg4", "libx264"])
def test_tags_of_codecs_that_store_none_are_kept(codec: str, tmp_path: Path) -> None:
    """MP4, which holds the segments, keeps a matrix only together with primaries and a curve."""
    path = write_film(tmp_path / "film.mkv", [level(90, 64, 64)] * 2, encoding=Encoding(codec), colour=Colour(BT709))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (1, 1)
