"""Photos with what belongs to them besides the colours: transparency, EXIF block, colour profile.

For pictures that are only looked at, as in training, :mod:`animegen.media.images` is enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.files import completed, translate_io_errors
from animegen.media.images import read_exif, read_image

#: Suffixes that keep their format when a photo is written again; others become ``.png``.
KEPT_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif")

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    # Colour at full resolution: subsampling smears the saturated edges of drawings.
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 95},
}
_WITH_ALPHA = ("PNG", "WEBP", "TIFF", "AVIF")
_WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")

#: Tags that say how a TIFF file stores its pixels. They are no facts about the photo, and wrong for another file.
_STORAGE_TAGS = (
    *(ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength, ExifTags.Base.BitsPerSample, ExifTags.Base.Compression),
    *(ExifTags.Base.PhotometricInterpretation, ExifTags.Base.StripOffsets, ExifTags.Base.SamplesPerPixel),
    *(ExifTags.Base.RowsPerStrip, ExifTags.Base.StripByteCounts, ExifTags.Base.PlanarConfiguration),
    *(ExifTags.Base.TileWidth, ExifTags.Base.TileLength, ExifTags.Base.TileOffsets, ExifTags.Base.TileByteCounts),
    *(ExifTags.Base.Predictor, ExifTags.Base.ColorMap, ExifTags.Base.ExtraSamples, ExifTags.Base.SampleFormat),
    *(ExifTags.Base.JPEGTables, ExifTags.Base.InterColorProfile),
)


@dataclass(frozen=True)
class Photo:
    """A picture as it is meant to be seen, and what its file says about it.

    Attributes:
        pixels: uint8 ``(3,H,W)``, RGB, upright; white where ``alpha`` is 0.
        alpha: uint8 ``(H,W)``, 0 is transparent; ``None`` for a picture without transparency.
        exif: EXIF block as :func:`~animegen.media.images.read_exif` gives it.
        profile: ICC profile for RGB.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    exif: bytes | None = None
    profile: bytes | None = None


def read_photo(path: str | Path) -> Photo:
    """Read a photo.

    Raises:
        AnimegenError: names a file that is missing, broken, or no picture.
    """
    pixels = read_image(path)
    with Image.open(path) as picture:
        profile = picture.info.get("icc_profile")
        alpha = None
        if picture.has_transparency_data:
            values = np.array(ImageOps.exif_transpose(picture).convert("RGBA"))
            if values[..., 3].min() < 255:
                straight = torch.from_numpy(values).permute(2, 0, 1)
                alpha = straight[3].contiguous()
                # The colours themselves, not mixed with a background; what nobody sees may hold anything.
                pixels = torch.where(alpha > 0, straight[:3], 255).contiguous()
    # A profile of grey or CMYK does not fit the RGB values that we have made of them.
    keep = isinstance(profile, bytes) and profile[16:20] == b"RGB "
    return Photo(pixels, alpha, read_exif(path), profile if keep else None)


def write_photo(path: str | Path, photo: Photo, overwrite: bool = True) -> None:
    """Write a photo; it appears under its name only when it is complete.

    Missing folders are created. What the format cannot hold is left out; transparency then becomes white. The EXIF
    block says that the pixels are upright.

    Args:
        path: of the file; the suffix selects the format.
        photo: what to write.
        overwrite: replace a file of that name.

    Raises:
        AnimegenError: for an unknown suffix, a folder that cannot be written, or a file that must not be replaced.
    """
    path = Path(path)
    format_name = format_of(path)
    if format_name is None:
        raise AnimegenError(f"'{path}' has no suffix of a picture format that can be written: use .png, .jpg or .webp.")
    options = dict(_SAVE_OPTIONS.get(format_name, {}))
    if photo.profile is not None:
        options["icc_profile"] = photo.profile
    if photo.exif is not None and format_name in _WITH_EXIF:
        options["exif"] = _upright(photo.exif)
    picture = Image.fromarray(photo.pixels.permute(1, 2, 0).contiguous().numpy())
    if photo.alpha is not None:
        alpha = Image.fromarray(photo.alpha.numpy())
        if format_name in _WITH_ALPHA:
            picture.putalpha(alpha)
        else:
            picture = Image.composite(picture, Image.new("RGB", picture.size, "white"), alpha)
    # Pillow raises ValueError for sizes and modes that a format does not have.
    with (
        completed(path, overwrite=overwrite) as hidden,
        translate_io_errors(path, "written", also=(ValueError,)),
        open(hidden, "xb") as file,
    ):
        picture.save(file, format=format_name, **options)


def format_of(path: str | Path) -> str | None:
    """Return Pillow's name of the format in which a file of this name is written, or ``None`` if in none."""
    name = Image.registered_extensions().get(Path(path).suffix.lower())
    return name if name in Image.SAVE else None


def shrink(photo: Photo, max_side: int) -> Photo:
    """Scale a photo down so that its longer side has ``max_side`` pixels; smaller ones stay as they are."""
    height, width = photo.pixels.shape[-2:]
    if max(height, width) <= max_side:
        return photo
    size = [max(1, round(side * max_side / max(height, width))) for side in (height, width)]
    alpha = None if photo.alpha is None else resize(photo.alpha[None], *size)[0]
    return replace(photo, pixels=resize(photo.pixels, *size), alpha=alpha)


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Scale uint8 ``(C,H,W)`` to ``height`` and ``width``, bicubic and smoothed where it gets smaller."""
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    size = [height, width]
    scaled = F.interpolate(pixels[None].float(), size=size, mode="bicubic", antialias=True, align_corners=False)
    return scaled[0].round_().clamp_(0, 255).to(torch.uint8)


def _upright(exif: bytes) -> bytes:
    block = Image.Exif()
    block.load(exif)
    for tag in _STORAGE_TAGS:
        block.pop(tag, None)
    if ExifTags.Base.Orientation in block:
        block[ExifTags.Base.Orientation] = 1
    return block.tobytes()
