"""Transparency is kept where the output can; checked with Pillow and PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from animegen.cli import interpolate as interpolate_verb
from animegen.cli import stylize as stylize_verb
from animegen.media.video.frames import Colour
from animegen.media.video.pixels import rows, tag
from tests.integration.test_stylize_films import Inverts, model, run
from tests.support import refused

__all__ = ["model"]  # a fixture

COUNT = 4
SAVED = {".webp": {"lossless": True, "exact": True}, ".apng": {}, ".gif": {"disposal": 2}}


def frame(number: int, levels: bool) -> Image.Image:
    """Return an image with four colours, a moving bar without opacity, and, with ``levels``, one of half opacity."""
    values = np.zeros((32, 48, 4), np.uint8)
    values[:16, :24] = (200, 40, 0, 255)
    values[16:, :24] = (0, 200, 40, 255)
    values[:16, 24:] = (40, 0, 200, 255)
    values[16:, 24:] = (90, 90, 10, 255)
    values[:, 4 * number : 4 * number + 8, 3] = 0
    if levels:
        values[:, 4 * number + 10 : 4 * number + 14, 3] = 100
    return Image.fromarray(values)


#: Suffix -> codec and pixel format of a video with transparency.
CODED = {".mov": ("prores_ks", "yuva444p10le"), ".mkv": ("ffv1", "bgra"), ".webm": ("libvpx-vp9", "yuva420p")}


def write_video(path: Path) -> Path:
    """Write the same with FFmpeg, in high definition's matrix."""
    codec, pix_fmt = CODED[path.suffix]
    options = {"crf": "4"} if codec == "libvpx-vp9" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, width=48, height=32, pix_fmt=pix_fmt, options=options)
        tag(stream.codec_context, Colour(), pix_fmt == "bgra")
        for number in range(COUNT):
            made = av.VideoFrame.from_ndarray(np.asarray(frame(number, True)), "rgba")
            made = made.reformat(format=pix_fmt, dst_colorspace="ITU709")
            if codec == "prores_ks":  # swscale makes 1020 of 255
                rows(made.planes[3], 32, np.uint16)[:, :48] = np.rint(
                    np.asarray(frame(number, True))[..., 3] * 1023.0 / 255
                )
            tag(made, Colour(), pix_fmt == "bgra")
            made.pts, made.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(made))
        container.mux(stream.encode(None))
    return path


def read_video(path: Path) -> list[np.ndarray]:
    """Return the frames of a video with transparency, RGBA (H,W,4)."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder: Any = stream.codec_context
        assert (stream.metadata.get("alpha_mode") == "1") == (path.suffix == ".webm")
        if path.suffix == ".webm":  # FFmpeg's own decoder leaves alpha out
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        decoded = [
            image for packet in container.demux(stream) for image in decoder.decode(packet if packet.size else None)
        ]
    assert {image.format.name.replace("12", "10") for image in decoded} <= {CODED[path.suffix][1], "yuva444p10le"}
    return [image.to_ndarray(format="rgba", src_colorspace=image.colorspace or "ITU709") for image in decoded]


def write(path: Path, levels: bool = True) -> Path:
    images = [frame(number, levels) for number in range(COUNT)]
    if not path.suffix:
        path.mkdir()
        for number, image in enumerate(images):
            image.save(path / f"{number}.png")
    else:
        kind = "PNG" if path.suffix == ".apng" else None
        images[0].save(path, kind, save_all=True, append_images=images[1:], duration=40, loop=0, **SAVED[path.suffix])
    return path


def read(path: Path) -> list[np.ndarray]:
    """Return the frames of an animation or a folder, RGBA (H,W,4)."""
    if path.is_dir():
        return [np.asarray(Image.open(file).convert("RGBA")) for file in sorted(path.iterdir())]
    with Image.open(path) as image:
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGBA")))
    return frames


@pytest.mark.parametrize("output", ["out", "out.webp", "out.apng", "out.gif"])
@pytest.mark.parametrize("source", ["in", "in.webp", "in.apng", "in.gif"])
def test_transparency_is_kept(
    source: str, output: str, model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = ".gif" not in source + output
    write(tmp_path / source, levels)
    assert run(f"input={tmp_path / source}", f"output={tmp_path / output}", "cuts=false") == 0
    assert "transparency" not in capsys.readouterr().err
    drawn = read(tmp_path / output)
    assert len(drawn) == COUNT
    for number, image in enumerate(drawn):
        before = np.asarray(frame(number, levels))
        assert np.array_equal(image[..., 3], before[..., 3])
        seen = before[..., 3] > 0
        assert np.abs(255 - image[seen][:, :3].astype(int) - before[seen][:, :3]).max() <= (1 if levels else 8)


@pytest.mark.parametrize("verb", ["stylize", "interpolate"])
@pytest.mark.parametrize(
    ("source", "output"),
    [
        *(("in.webp", "out.mov"), ("in.apng", "out.mkv"), ("in", "out.webm")),
        *(("in.mov", "out.mov"), ("in.mkv", "out.mkv"), ("in.webm", "out.webm")),
        *(("in.mov", "out.mkv"), ("in.mov", "out"), ("in.webm", "out.webp"), ("in.mkv", "out.apng")),
    ],
)
def test_transparency_of_videos(
    source: str, output: str, verb: str, model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / source
    _ = write_video(path) if path.suffix in CODED else write(path)
    words = ["checkpoint=some.ckpt", "device=cpu", f"input={path}", f"output={tmp_path / output}", "cuts=false"]
    assert (stylize_verb if verb == "stylize" else interpolate_verb).main(words) == 0
    assert "transparency" not in capsys.readouterr().err
    target = tmp_path / output
    drawn = read_video(target) if target.suffix in CODED else read(target)
    step = 1 if verb == "stylize" else 2
    held = step == 2 and output not in ("out", "out.webp")  # a video keeps its length; equal frames of WebP are one
    assert len(drawn) == (COUNT - 1) * step + 1 + held
    lossy = any(name.endswith(".webm") for name in (source, output))
    for number, image in enumerate(drawn[::step][:COUNT]):
        before = np.asarray(frame(number, True)).astype(int)
        gap = np.abs(image[..., 3].astype(int) - before[..., 3])
        assert gap.mean() < 3 if lossy else gap.max() <= 1
        seen = before[..., 3] == 255
        wanted = before[..., :3] if verb == "interpolate" else 255 - before[..., :3]
        assert np.abs(image[..., :3].astype(int) - wanted)[seen].mean() < (6 if lossy else 3)
    if verb == "interpolate":  # the model blends: alpha went through it
        halfway = (np.asarray(frame(0, True)).astype(int) + np.asarray(frame(1, True)))[..., 3] / 2
        assert np.abs(drawn[1][..., 3] - halfway).mean() < (3 if lossy else 0.7)


def test_containers_without_transparency_say_so(
    model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_video(tmp_path / "in.mov")
    for output, more in {"a.mp4": (), "b.mov": ("codec=libx264",), "c.mkv": ("crf=20",)}.items():
        assert run(f"input={source}", f"output={tmp_path / output}", "cuts=false", *more) == 0
        assert "Its transparency is not kept: it is shown on white." in capsys.readouterr().err
    words = [f"input={source}", f"output={tmp_path / 'd.mp4'}", "codec=libvpx-vp9", "pix_fmt=yuva420p"]
    assert "holds no transparency of codec=libvpx-vp9" in refused(capsys, run(*words))


def test_transparency_of_scaled_frames(model: Inverts, tmp_path: Path) -> None:
    write(tmp_path / "in")
    assert run(f"input={tmp_path / 'in'}", f"output={tmp_path / 'out.webp'}", "max_side=24", "start=0.04") == 0
    drawn = read(tmp_path / "out.webp")
    assert len(drawn) == COUNT - 1  # from the second frame on, whose bar is at 2 to 6
    assert drawn[0].shape == (16, 24, 4)
    assert drawn[0][:, 3:5, 3].max() < 10
    assert drawn[0][:, 10:, 3].min() == 255


def test_an_opaque_animation_has_no_alpha(model: Inverts, tmp_path: Path) -> None:
    images = [frame(number, False).convert("RGB") for number in range(COUNT)]
    images[0].save(tmp_path / "in.apng", "PNG", save_all=True, append_images=images[1:], duration=40)
    assert run(f"input={tmp_path / 'in.apng'}", f"output={tmp_path / 'out.apng'}", "cuts=false") == 0
    with Image.open(tmp_path / "out.apng") as image:
        assert image.mode == "RGB"


def test_formats_without_transparency_say_so(
    model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in")
    words = [f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}/%d.jpg", "cuts=false"]
    assert run(*words) == 0
    assert "Its transparency is not kept: it is shown on white." in capsys.readouterr().err
    assert np.asarray(Image.open(tmp_path / "out" / "1.jpg"))[:, :6].max() < 12  # inverted white
