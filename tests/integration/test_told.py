"""What a video loses is reported; interlaced frames, colour profiles and parts of videos are right."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type as SideDataType
from PIL import Image

from animegen.cli import interpolate as interpolate_verb
from animegen.cli import stylize as stylize_verb
from animegen.media.video.frames import BT2020, Colour
from tests.integration.test_odd_films import FAST, _model
from tests.odd_films import FLASH, OddFilm, measure
from tests.support import refused
from tests.video_support import deep_film, deep_planes

__all__ = ["_model"]  # a fixture
MAIN = {"stylize": stylize_verb.main, "interpolate": interpolate_verb.main}


def interlaced(path: Path, count: int = 12) -> Path:
    """Write a video of a bar whose two fields are apart."""
    with av.open(str(path), "w") as container:
        options = {"x264-params": "interlaced=1:tff=1", "crf": "5"}
        stream = container.add_stream("libx264", rate=25, width=64, height=64, options=options)
        for number in range(count):
            image = np.zeros((64, 64, 3), np.uint8)
            image[0::2, 4 * number : 4 * number + 12] = 255
            image[1::2, 4 * number + 2 : 4 * number + 14] = 255
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def combing(path: Path) -> float:
    """Return by how much neighbouring rows differ more than rows two apart, mean over the frames."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="gray").astype(float) for frame in container.decode(video=0)]
    return float(np.mean([np.abs(f[1:-1] - (f[:-2] + f[2:]) / 2).mean() for f in frames]))


@pytest.mark.parametrize("verb", ["stylize", "interpolate"])
def test_interlaced_frames(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = interlaced(tmp_path / "in.mp4")
    assert MAIN[verb]([*FAST, f"input={source}", f"output={tmp_path / 'combed.mp4'}"]) == 0
    assert "deinterlace=auto" in capsys.readouterr().err
    assert MAIN[verb]([*FAST, f"input={source}", f"output={tmp_path / 'whole.mp4'}", "deinterlace=auto"]) == 0
    assert "interlaced" not in capsys.readouterr().err
    combed, whole = measure(tmp_path / "combed.mp4"), measure(tmp_path / "whole.mp4")
    assert whole.frames == combed.frames == 12 * (1 + (verb == "interpolate"))
    assert whole.times == combed.times
    assert combing(tmp_path / "whole.mp4") < combing(tmp_path / "combed.mp4") / 4
    # A frame without fields is not touched.
    plain = OddFilm(".mp4", sound=None).write(tmp_path / "plain.mp4")
    assert MAIN[verb]([*FAST, f"input={plain}", f"output={tmp_path / 'same.mp4'}", "deinterlace=auto"]) == 0
    assert measure(tmp_path / "same.mp4").flash == Fraction(FLASH, 24)


@pytest.mark.parametrize("kind", ["prores", "webp", "frames"])
@pytest.mark.parametrize("verb", ["stylize", "interpolate"])
def test_transparency_is_reported(verb: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [Image.new("RGBA", (64, 48), (10 * n, 0, 0, 90)) for n in range(4)]
    if kind == "prores":
        source = tmp_path / "in.mov"
        with av.open(str(source), "w") as container:
            stream = container.add_stream("prores_ks", rate=24, width=64, height=48, pix_fmt="yuva444p10le")
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(np.asarray(image), "rgba").reformat(format="yuva444p10le")
                frame.pts, frame.time_base = number, Fraction(1, 24)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    elif kind == "webp":
        source = tmp_path / "in.webp"
        images[0].save(source, save_all=True, append_images=images[1:], duration=40, lossless=True)
    else:
        source = tmp_path / "in"
        source.mkdir()
        for number, image in enumerate(images):
            image.save(source / f"{number}.png")
    assert MAIN[verb]([*FAST, f"input={source}", f"output={tmp_path / 'out.mp4'}"]) == 0
    assert capsys.readouterr().err.count("Its transparency is not kept: it is shown on white.") == 1


@pytest.mark.parametrize("verb", ["stylize", "interpolate"])
def test_data_of_the_display_is_reported(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """HDR10: the curve stays, the data on the mastering display do not."""
    source = deep_film(tmp_path / "in.mkv", "libx265", colour=Colour(BT2020, False, 9, 16), display=True)
    assert MAIN[verb]([*FAST, f"input={source}", f"output={tmp_path / 'out.mkv'}"]) == 0
    assert capsys.readouterr().err.count("the display it was made on is left out") == 1
    with av.open(str(tmp_path / "out.mkv")) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (BT2020, 9, 16)
    assert SideDataType.MASTERING_DISPLAY_METADATA not in [data.type for data in frame.side_data]


@pytest.mark.parametrize("verb", ["stylize", "interpolate"])
def test_depth_is_kept_or_reported(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = deep_film(tmp_path / "in.mkv")
    assert MAIN[verb]([*FAST, "crf=0", f"input={source}", f"output={tmp_path / 'deep.mkv'}"]) == 0
    assert "bits" not in capsys.readouterr().err
    before, after = deep_planes(source), deep_planes(tmp_path / "deep.mkv")[:: 1 if verb == "stylize" else 2]
    for number, planes in enumerate(after):
        assert len(np.unique(planes[0])) > 400  # a ramp of more than 256 levels
        assert np.abs(planes[0].astype(int) - before[number][0]).mean() < 0.5
    for name in ("out.gif", "out/%d.jpg"):
        assert MAIN[verb]([*FAST, f"input={source}", f"output={tmp_path / name}"]) == 0
        assert "Eight bits per colour are kept of its 10." in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["stylize", "interpolate"])
def test_frames_of_ten_bits_have_sixteen_as_images(verb: str, tmp_path: Path) -> None:
    source, step = deep_film(tmp_path / "in.mkv"), 1 if verb == "stylize" else 2
    assert MAIN[verb]([*FAST, f"input={source}", f"output={tmp_path / 'out'}"]) == 0
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 2 * step + 1  # nothing follows the last frame
    for number, file in enumerate(files):
        with av.open(str(file)) as container:
            frame = next(container.decode(video=0))
        assert frame.format.name == "rgb48be"
        values = frame.to_ndarray()
        assert len(np.unique(values[..., 0])) > 400
        if number % step == 0:  # by ITU-R BT.709
            luma, *chroma = (plane.astype(float) for plane in deep_planes(source)[number // step])
            y, (u, v) = (luma - 64) / 876, ((c.repeat(2, 0).repeat(2, 1) - 512) / 896 for c in chroma)
            stored = np.stack([y + 1.5748 * v, y - 0.1873 * u - 0.4681 * v, y + 1.8556 * u], -1).clip(0, 1)
            assert np.abs(values / 257 - 255 * stored).mean() < 0.5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("verb", ["stylize", "interpolate"])
def test_part_of_a_video(verb: str, suffix: str, tmp_path: Path) -> None:
    film = OddFilm(".ts" if suffix == ".mp4" else ".mkv", offset="5")
    source, target = film.write(tmp_path / f"in{film.suffix}"), tmp_path / f"out{suffix}"
    assert MAIN[verb]([*FAST, f"input={source}", f"output={target}", "start=0.25", "end=1.2"]) == 0
    made = measure(target)
    assert made.times[0] <= Fraction(1, 20)
    assert made.end == pytest.approx(0.95, abs=0.045)
    assert made.tone is not None
    assert made.flash == pytest.approx(0.25, abs=0.045)
    assert made.tone == pytest.approx(float(made.flash), abs=0.03)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("start=2", "end=1"), "start=2 is not before end=1"),
        (("start=100",), "has no frame from start=100 on"),
        (("start=1", "input=one.png"), "start= and end= are for videos"),
    ],
)
def test_parts_that_are_refused(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    OddFilm(".mp4", sound=None).write(tmp_path / "in.mp4")
    Image.new("RGB", (8, 8)).save("one.png")
    given = [] if any(word.startswith("input=") for word in words) else ["input=in.mp4"]
    code = MAIN["stylize"]([*FAST, "output=out.mp4" if given else "output=out.png", "on_error=fail", *given, *words])
    assert message in refused(capsys, code)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "one.png"]


def cmyk_profile() -> bytes:
    """Return an ICC profile (version 2) whose cyan is a middle grey, L* = 50: a table of two values per ink."""

    def tag_text(kind: bytes, text: bytes) -> bytes:
        return kind + bytes(4) + (struct.pack(">I", len(text)) + text if kind == b"desc" else text) + bytes(80)

    identity = struct.pack(">9i", *(65536 if n % 4 == 0 else 0 for n in range(9)))
    curve = bytes(range(256))
    nodes = b""
    for number in range(16):  # the last ink changes fastest
        cyan, black = number >> 3 & 1, number & 1
        nodes += bytes([0 if black else 127 if cyan else 255, 128, 128])
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + curve * 4 + nodes + curve * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {
        b"A2B0": table,
        b"wtpt": white,
        b"desc": tag_text(b"desc", b"test\0"),
        b"cprt": tag_text(b"text", b"none\0"),
    }
    offset, index, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        index += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = b"none" + struct.pack(">I", 0x02400000) + b"prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return (struct.pack(">I", offset + len(body)) + head).ljust(128, b"\0") + index + body


def test_cmyk_profiles_are_applied(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    image.paste((0, 0, 0, 0), (0, 0, 16, 4))
    image.save(tmp_path / "in.tif", icc_profile=cmyk_profile())
    assert MAIN["stylize"]([*FAST, f"input={tmp_path / 'in.tif'}", f"output={tmp_path / 'out.png'}"]) == 0
    with Image.open(tmp_path / "out.png") as made:
        assert made.getpixel((8, 0)) == (255, 255, 255)
        assert np.abs(np.array(made.getpixel((8, 10))) - 119).max() <= 2  # sRGB of L* = 50
        assert "icc_profile" not in made.info
