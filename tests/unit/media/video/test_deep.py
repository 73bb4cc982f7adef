"""Ten bits per colour: values that eight bits cannot hold come into a video and out of it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame

from animegen.errors import AnimegenError
from animegen.media.video.deep import FromDeep, ToDeep, is_deep
from animegen.media.video.encoding import Encoding, usual_format
from animegen.media.video.frames import BT2020, Colour, VideoInfo
from animegen.media.video.pixels import FromFrames, ToFrames, rows
from animegen.media.video.reader import VideoReader
from animegen.media.video.writer import VideoWriter
from tests.video_support import deep_film, deep_planes


def stored(codes: Sequence[int], pix_fmt: str = "yuv420p10le") -> VideoFrame:
    """Return a frame of one colour."""
    frame = VideoFrame(32, 16, pix_fmt)
    for plane, code in zip(frame.planes, codes, strict=True):
        rows(plane, plane.height, np.uint16)[:] = code
    return frame


@pytest.mark.parametrize(
    ("colour", "pix_fmt", "codes", "rgb"),
    [
        # Limited range: (Y - 64) / 876, (C - 512) / 896; R = Y + 2 (1 - K_R) Cr, B = Y + 2 (1 - K_B) Cb, by hand.
        (Colour(), "yuv420p10le", (64, 512, 512), (0, 0, 0)),
        (Colour(), "yuv420p10le", (940, 512, 512), (1, 1, 1)),
        (Colour(), "yuv420p10le", (503, 512, 512), (439 / 876,) * 3),
        (Colour(), "yuv420p12le", (2009, 2048, 2048), (1753 / 3504,) * 3),
        (Colour(), "yuv420p10le", (250, 409, 960), (1.0001, 0.0000, -0.0010)),
        (Colour(BT2020), "yuv422p10le", (294, 387, 960), (0.9999, 0.0000, 0.0000)),
        (Colour(1, True), "yuv444p10le", (0, 512, 512), (0, 0, 0)),
        (Colour(1, True), "yuv444p10le", (1023, 512, 512), (1, 1, 1)),
        (Colour(), "yuv420p10le", (1019, 512, 512), (955 / 876,) * 3),  # whiter than white
    ],
)
def test_values_by_hand(colour: Colour, pix_fmt: str, codes: Sequence[int], rgb: Sequence[float]) -> None:
    found = FromDeep(colour)(stored(codes, pix_fmt))
    assert found.dtype == torch.float32
    assert ((found[:, 5, 5] + 1) / 2).tolist() == pytest.approx(rgb, abs=2e-3)
    back = ToDeep(pix_fmt, colour)(found)
    assert [int(rows(plane, plane.height, np.uint16)[3, 3]) for plane in back.planes] == list(codes)


def test_every_grey_of_1024_comes_back() -> None:
    frame = VideoFrame(1024, 2, "yuv444p10le")
    for plane, codes in zip(frame.planes, (np.arange(1024), 512, 512), strict=True):
        rows(plane, 2, np.uint16)[:, :1024] = codes
    for colour in (Colour(), Colour(BT2020, True)):
        back = ToDeep("yuv444p10le", colour)(FromDeep(colour)(frame))
        assert (rows(back.planes[0], 2, np.uint16)[0, :1024] == np.arange(1024)).all()


@pytest.mark.parametrize("pix_fmt", ["yuva444p10le", "yuva444p12le", "yuva420p10le"])
def test_every_alpha_comes_back(pix_fmt: str) -> None:
    bits = 12 if "12" in pix_fmt else 10
    frame, codes = VideoFrame(2**bits, 2, pix_fmt), np.arange(2**bits)
    for plane, values in zip(frame.planes, (2 ** (bits - 1),) * 3 + (codes,), strict=True):
        rows(plane, plane.height, np.uint16)[:, : plane.width] = values
    values = FromDeep(Colour(), True)(frame)
    assert values.shape == (4, 2, 2**bits)
    assert values[3, 0, [0, -1]].tolist() == [-1, 1]
    assert (values[:3, :, 0] == 1).all()  # what is invisible is white
    back = ToDeep(pix_fmt, Colour())(values)
    assert (rows(back.planes[3], 2, np.uint16)[:, : 2**bits] == codes).all()
    opaque = ToDeep(pix_fmt, Colour())(values[:3])
    assert (rows(opaque.planes[3], 2, np.uint16)[:, : 2**bits] == 2**bits - 1).all()
    white = FromDeep(Colour())(frame)
    assert white.shape == (3, 2, 2**bits)
    assert white[0, 0, [0, -1]].tolist() == pytest.approx([1, float(values[0, 0, -1])], abs=1e-6)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuva420p", "yuva444p", "bgra"])
def test_alpha_with_eight_bits_comes_back(pix_fmt: str, full: bool) -> None:
    pixels = torch.full((4, 2, 256), 90, dtype=torch.uint8)
    pixels[3] = torch.arange(256)
    colour = Colour(full_range=full)
    back = FromFrames(colour, True)(ToFrames(pix_fmt, colour)(pixels))
    assert torch.equal(back[3], pixels[3])
    assert (back[:3, :, 1:].int() - 90).abs().max() <= 1
    assert (FromFrames(colour, True)(ToFrames(pix_fmt, colour)(pixels[:3]))[3] == 255).all()


def test_which_formats_are_deep() -> None:
    deep = {name: is_deep(name) for name in ("yuv420p10le", "p010le", "yuv444p12le", "yuv420p", "rgb24", "gbrp10le")}
    assert [name for name, is_it in deep.items() if is_it] == ["yuv420p10le", "p010le", "yuv444p12le"]
    assert is_deep("yuva444p10le")
    assert not is_deep("gray10le")
    assert usual_format("libx264", True) == usual_format("libsvtav1", True) == "yuv420p10le"
    assert usual_format("libx264", False) == usual_format("libvpx-vp9", True) == usual_format("none", True) == "yuv420p"


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "ffv1"])
def test_a_video_of_ten_bits_gives_originals_that_are_copied(codec: str, tmp_path: Path) -> None:
    colour = Colour(BT2020, False, 9, 16)
    film = deep_film(tmp_path / "in.mkv", codec, colour=colour)
    reader = VideoReader(film)
    assert reader.info.pix_fmt == "yuv420p10le"
    assert reader.info.colour == colour
    originals = list(reader.originals())
    assert [time for _, time in originals] == [time for _, time in reader]
    pixels = next(iter(reader))[0]
    assert torch.equal(originals[0][0].pixels, pixels)
    values = originals[0][0].values
    assert len(values[0].unique()) > 400  # a ramp of more than 256 levels
    assert (values - (pixels.float() / 127.5 - 1)).abs().mean() < 1 / 100
    info = VideoInfo(reader.info.width, reader.info.height, Fraction(24), Fraction(1, 24), colour=colour)
    with VideoWriter(tmp_path / "out.mkv", info, Encoding("ffv1", pix_fmt="yuv420p10le")) as writer:
        assert writer.deep
        for number, (original, _) in enumerate(originals):
            writer.copy(original, Fraction(2 * number, 24))
            writer.write(original.values, Fraction(2 * number + 1, 24))
    before, after = deep_planes(film), deep_planes(tmp_path / "out.mkv")
    for number, planes in enumerate(before):
        # The codec loses nothing: copies are the same to the bit, and what went through RGB nearly.
        assert all((a == b).all() for a, b in zip(planes, after[2 * number], strict=True))
        assert np.abs(planes[0].astype(int) - after[2 * number + 1][0]).max() <= 1
        assert all(abs(a.astype(int) - b).mean() < 2 for a, b in zip(planes, after[2 * number + 1], strict=True))
    assert VideoReader(tmp_path / "out.mkv").info.colour == colour


def test_floats_are_for_deep_videos_alone(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "x.mp4", VideoInfo(24, 16)) as writer:
        with pytest.raises(ValueError, match="uint8"):
            writer.write(torch.zeros(3, 16, 24), Fraction(0))
        writer.write(torch.zeros(3, 16, 24, dtype=torch.uint8), Fraction(0))
    with pytest.raises(AnimegenError, match="yuv420p10le"):
        VideoWriter(tmp_path / "y.mp4", VideoInfo(24, 16), Encoding(pix_fmt="yuv420p10"))
