"""Photos keep what belongs to them: orientation, EXIF, profile, transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms

from animegen.errors import AnimegenError
from animegen.media.images import format_of
from animegen.media.photos import Photo, read_photo, shrink, write_photo

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(orientation: int, tmp_path: Path) -> None:
    seen = np.zeros((6, 10, 3), np.uint8)
    seen[0, 0] = (255, 0, 0)  # top left of the image as it is meant to be seen
    seen[0, -1] = (0, 255, 0)  # top right
    # How a camera stores it: undo what a viewer does for this tag.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Camera"
    Image.fromarray(np.ascontiguousarray(undo(seen))).save(tmp_path / "in.png", exif=exif)
    photo = read_photo(tmp_path / "in.png")
    assert np.array_equal(photo.pixels.permute(1, 2, 0).numpy(), seen)
    write_photo(tmp_path / "out.png", photo)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (10, 6)
        assert picture.getexif()[ExifTags.Base.Orientation] == 1
        assert picture.getexif()[ExifTags.Base.Make] == "Camera"
        assert np.array_equal(np.array(picture), seen)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_and_profile_stay(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.5
    Image.fromarray(pixels(8, 9)).save(tmp_path / f"in{suffix}", exif=exif, icc_profile=PROFILE)
    write_photo(tmp_path / f"out{suffix}", read_photo(tmp_path / f"in{suffix}"))
    with Image.open(tmp_path / f"out{suffix}") as picture:
        assert picture.getexif()[ExifTags.Base.Artist] == "somebody"
        if suffix != ".tif":  # Pillow writes no nested block into TIFF, not even into the input of this test
            assert picture.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.5
        assert picture.info["icc_profile"] == PROFILE


def test_a_compressed_tiff_does_not_pass_on_how_it_was_stored(tmp_path: Path) -> None:
    values = pixels(40, 30)
    Image.fromarray(values).save(tmp_path / "in.tif", compression="tiff_lzw", description="words")
    photo = read_photo(tmp_path / "in.tif")
    write_photo(tmp_path / "out.tif", photo)
    write_photo(tmp_path / "out.png", photo)
    for name in ("out.tif", "out.png"):
        with Image.open(tmp_path / name) as picture:
            assert np.array_equal(np.array(picture), values)
            assert picture.getexif()[ExifTags.Base.ImageDescription] == "words"
            if name == "out.png":
                assert ExifTags.Base.StripOffsets not in picture.getexif()


def test_grey_profile_is_dropped(tmp_path: Path) -> None:
    profile = bytearray(PROFILE)
    profile[16:20] = b"GRAY"
    Image.fromarray(pixels(4, 4)[..., 0]).save(tmp_path / "in.png", icc_profile=bytes(profile))
    assert read_photo(tmp_path / "in.png").profile is None


def test_transparency(tmp_path: Path) -> None:
    values = np.dstack([pixels(4, 5), np.full((4, 5), 255, np.uint8)])
    values[0, :, 3] = 0
    values[1, :, 3] = 100
    Image.fromarray(values).save(tmp_path / "in.png")
    photo = read_photo(tmp_path / "in.png")
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha.numpy(), values[..., 3])
    colours = photo.pixels.permute(1, 2, 0).numpy()
    assert np.array_equal(colours[1:], values[1:, :, :3])  # not mixed with a background
    assert (colours[0] == 255).all()
    write_photo(tmp_path / "out.png", photo)
    with Image.open(tmp_path / "out.png") as picture:
        assert np.array_equal(np.array(picture)[1:], values[1:])
        assert (np.array(picture)[0, :, 3] == 0).all()
    write_photo(tmp_path / "out.bmp", photo)  # knows no transparency: on white
    with Image.open(tmp_path / "out.bmp") as picture:
        flat = np.array(picture).astype(float)
    assert (flat[0] == 255).all()
    expected = values[1, :, :3] * (100 / 255) + 255 * (155 / 255)
    assert np.abs(flat[1] - expected).max() <= 1


def test_an_alpha_channel_that_hides_nothing_is_no_transparency(tmp_path: Path) -> None:
    Image.fromarray(pixels(4, 4)).convert("RGBA").save(tmp_path / "in.png")
    assert read_photo(tmp_path / "in.png").alpha is None


def test_palette_with_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (3, 2))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((0, 0), 1)
    picture.save(tmp_path / "in.png", transparency=0)
    photo = read_photo(tmp_path / "in.png")
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[255, 0, 0], [0, 0, 0]]
    assert photo.pixels[:, 0, 0].tolist() == [200, 100, 50]


def test_shrink() -> None:
    photo = Photo(
        torch.full((3, 40, 100), 7, dtype=torch.uint8), torch.full((40, 100), 9, dtype=torch.uint8), b"x", b"y"
    )
    small = shrink(photo, 50)
    assert small.pixels.shape == (3, 20, 50)
    assert small.alpha is not None
    assert small.alpha.shape == (20, 50)
    assert (small.pixels == 7).all()
    assert (small.alpha == 9).all()
    assert (small.exif, small.profile) == (b"x", b"y")
    assert shrink(photo, 100) is photo
    assert shrink(photo, 1).pixels.shape == (3, 1, 1)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"old")

    def full(self: Image.Image, file: object, **options: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(AnimegenError, match=r"a.png' cannot be written \(No space left on device\)"):
        write_photo(tmp_path / "a.png", Photo(torch.zeros(3, 4, 4, dtype=torch.uint8)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    photo = Photo(torch.zeros(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(AnimegenError, match="cannot be written"):
        write_photo(tmp_path / "file" / "a.png", photo)
    with pytest.raises(AnimegenError, match="not have the suffix of"):
        write_photo(tmp_path / "a.txt", photo)
    assert format_of("a.JPG") == "JPEG"
    assert format_of("a.mp4") is None
