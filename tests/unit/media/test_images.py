"""Images in every form in which people keep them, and the broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from animegen.errors import AnimegenError
from animegen.media.images import list_images, natural_key, read_image, to_float, to_uint8, write_image

ORIENTATION = 0x0112


def gradient(height: int = 20, width: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 8, x * 5, (y + x) * 3], axis=-1).astype(np.uint8)


def as_array(image: torch.Tensor) -> np.ndarray:
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_round_trip(tmp_path: Path, suffix: str) -> None:
    picture = torch.from_numpy(gradient()).permute(2, 0, 1)
    write_image(tmp_path / f"a{suffix}", picture)
    assert torch.equal(read_image(tmp_path / f"a{suffix}"), picture)


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy_round_trip_is_near(tmp_path: Path, suffix: str) -> None:
    picture = torch.from_numpy(gradient()).permute(2, 0, 1)
    write_image(tmp_path / f"a{suffix}", picture)
    assert (read_image(tmp_path / f"a{suffix}").int() - picture.int()).abs().float().mean() < 3


def test_quality_matters(tmp_path: Path) -> None:
    picture = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    write_image(tmp_path / "low.jpg", picture, quality=20)
    write_image(tmp_path / "high.jpg", picture, quality=95)
    assert (tmp_path / "low.jpg").stat().st_size * 2 < (tmp_path / "high.jpg").stat().st_size


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a.transpose(1, 0, 2), 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, turned) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(as_array(read_image(tmp_path / "a.png")), turned(gradient()))


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:8, :, 3] = 255
    rgba[8:12, :, 3] = 51  # a fifth
    Image.fromarray(rgba).save(tmp_path / "a.png")
    picture = as_array(read_image(tmp_path / "a.png"))
    assert picture[0, 0].tolist() == [200, 0, 0]
    assert picture[8, 0].tolist() == [244, 204, 204]  # 0.2 * 200 + 0.8 * 255, 0.8 * 255
    assert picture[15, 0].tolist() == [255, 255, 255]


def test_grey_with_alpha(tmp_path: Path) -> None:
    la = np.zeros((16, 16, 2), np.uint8)
    la[:8, :, 1] = 255
    Image.fromarray(la).save(tmp_path / "a.png")
    picture = as_array(read_image(tmp_path / "a.png"))
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[15, 0].tolist() == [255, 255, 255]


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    indices = np.zeros((16, 16), np.uint8)
    indices[8:] = 1
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "a.png")
    assert as_array(read_image(tmp_path / "a.png"))[[0, 15], 0].tolist() == [[10, 20, 30], [200, 100, 50]]
    picture.save(tmp_path / "b.png", transparency=1)
    assert as_array(read_image(tmp_path / "b.png"))[[0, 15], 0].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.full((16, 16), 65535, np.uint16)
    values[0, :4] = [0, 257, 32768, 1000]
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    picture = read_image(tmp_path / f"a{suffix}")
    assert picture[0, 0, :5].tolist() == [0, 1, 128, 4, 255]  # value / 257, rounded
    assert torch.equal(picture[0], picture[2])


def test_floating_point_grey(tmp_path: Path) -> None:
    values = np.zeros((16, 16), np.float32)
    values[0, :3] = [1.0, 0.5, 0.25]
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[1, 0, :4].tolist() == [255, 128, 64, 0]
    Image.fromarray(values * 300).save(tmp_path / "b.tif")
    with pytest.raises(AnimegenError, match=r"b\.tif.*white level is unknown"):
        read_image(tmp_path / "b.tif")


def test_cmyk_grey_and_one_bit(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    assert read_image(tmp_path / "cmyk.tif")[:, 0, 0].tolist() == [255, 0, 0]
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    red = read_image(tmp_path / "cmyk.jpg")[:, 8, 8].tolist()
    assert red[0] > 250
    assert max(red[1:]) < 5
    Image.new("L", (16, 16), 77).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png")[:, 3, 3].tolist() == [77, 77, 77]
    bits = np.zeros((16, 16), bool)
    bits[0, 0] = True
    Image.fromarray(bits).save(tmp_path / "bits.png")
    assert read_image(tmp_path / "bits.png")[0, 0, :2].tolist() == [255, 0]


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[:, 5, 5].tolist() == [255, 0, 0]


def test_broken_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "webp", "gif"):
        Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
        data = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
        with pytest.raises(AnimegenError, match=rf"cut\.{suffix}.*replace or remove it"):
            read_image(tmp_path / f"cut.{suffix}")
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(AnimegenError, match=r"text\.jpg' is not an image"):
        read_image(tmp_path / "text.jpg")
    (tmp_path / "empty.png").touch()
    with pytest.raises(AnimegenError, match=r"empty\.png' is empty"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(AnimegenError, match=r"none\.png' does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(AnimegenError, match="is a folder, not a file"):
        read_image(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(AnimegenError, match=r"whole\.png.*decompression bomb"):
        read_image(tmp_path / "whole.png")


def test_write_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_image(tmp_path / "new" / "a.png", torch.zeros(3, 8, 8, dtype=torch.uint8))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_write_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.png", torch.zeros(3, 8, 8, dtype=torch.uint8))
    before = (tmp_path / "a.png").read_bytes()

    def full(self: Image.Image, file, **_: object) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(AnimegenError, match=r"a\.png' cannot be written \(No space left on device\)"):
        write_image(tmp_path / "a.png", torch.ones(3, 8, 8, dtype=torch.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_write_mistakes(tmp_path: Path) -> None:
    picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
    with pytest.raises(AnimegenError, match=r"use \.png, \.jpg or \.webp\. Did you mean '\.png'"):
        write_image(tmp_path / "a.pngg", picture)
    with pytest.raises(AnimegenError, match="not have the suffix"):
        write_image(tmp_path / "a", picture)
    (tmp_path / "file").touch()
    with pytest.raises(AnimegenError, match="cannot be written"):
        write_image(tmp_path / "file" / "a.png", picture)
    with pytest.raises(TypeError, match="uint8"):
        write_image(tmp_path / "a.png", picture.float())


def test_list_is_natural_recursive_and_ignores_the_hidden(tmp_path: Path) -> None:
    names = ["10.png", "2.png", "a/1.jpg", "B/1.JPG", "a10b2.png", "a9b11.png", ".hidden.png", ".git/x.png", "note.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["2.png", "10.png", "a/1.jpg", "a9b11.png", "a10b2.png", "B/1.JPG"]
    assert [path.name for path in list_images(tmp_path, recursive=False)] == [
        "2.png",
        "10.png",
        "a9b11.png",
        "a10b2.png",
    ]


def test_natural_order() -> None:
    names = ["1", "10a", "a", "a01", "a1", "A2", "a2", "a2b", "a10", "b", "x1y2", "x1y10"]
    assert sorted(sorted(names), key=natural_key) == names


def test_list_follows_links_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").touch()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    assert [path.name for path in list_images(tmp_path / "data")] == ["1.png"]


def test_list_mistakes(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(AnimegenError, match=r"photo' does not exist.*Did you mean 'photos'"):
        list_images(tmp_path / "photo")
    with pytest.raises(AnimegenError, match=r"no images in the folder .*photos', nothing"):
        list_images(tmp_path / "photos")
    (tmp_path / "photos" / "x.txt").touch()
    with pytest.raises(AnimegenError, match="only 1 other files"):
        list_images(tmp_path / "photos")
    with pytest.raises(AnimegenError, match="is a file"):
        list_images(tmp_path / "photos" / "x.txt")


def test_conversion_rounds_and_clamps() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_float(levels)
    assert floats[[0, 255]].tolist() == [-1.0, 1.0]
    assert torch.equal(to_uint8(floats), levels)
    assert torch.equal(to_uint8(floats + 0.49 / 127.5), levels)
    assert torch.equal(to_uint8(floats - 0.49 / 127.5), levels)
    assert to_uint8(torch.tensor([-3.0, 1.5, 0.0])).tolist() == [0, 255, 128]
    half = to_float(levels).to(torch.bfloat16)
    assert (to_uint8(half).int() - levels.int()).abs().max() <= 1


def test_conversion_leaves_its_input_alone() -> None:
    floats = torch.full((2, 2), 0.5)
    to_uint8(floats)
    to_float(floats)
    assert floats.eq(0.5).all()
