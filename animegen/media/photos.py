"""Reading and writing photos with transparency, EXIF block and colour profile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from animegen.media.images import format_of, load_image, save, to_rgb, writable_format

#: Suffixes of the formats in which photos are written; others become ``.png``.
KEPT_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif")

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    # No chroma subsampling, which blurs the saturated edges of drawings.
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 95},
}
_WITH_ALPHA = ("PNG", "WEBP", "TIFF", "AVIF")
_WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")

#: Tags of the pixel storage in a TIFF file, which are wrong for another file.
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
    """An upright image with the metadata of its file.

    Attributes:
        pixels: uint8 ``(3,H,W)``, RGB, upright; white where ``alpha`` is 0.
        alpha: uint8 ``(H,W)``, 0 is transparent; ``None`` for an image without transparency.
        exif: EXIF block as stored.
        profile: ICC profile for RGB.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    exif: bytes | None = None
    profile: bytes | None = None


def read_photo(path: str | Path) -> Photo:
    """Read a photo.

    Raises:
        AnimegenError: if the file is missing, broken, or no image.
    """
    loaded = load_image(path, straight)
    pixels, alpha = loaded.values, None
    if len(pixels) == 4:
        pixels, alpha = pixels[:3], pixels[3] if pixels[3].min() < 255 else None
    # Profiles for grey or CMYK do not apply to the RGB values.
    keep = isinstance(loaded.profile, bytes) and loaded.profile[16:20] == b"RGB "
    return Photo(pixels, alpha, loaded.exif, loaded.profile if keep else None)


def straight(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, or to RGBA with straight alpha.

    Invisible pixels, which may have any colour, become white.
    """
    if not image.has_transparency_data:
        return to_rgb(image)
    image = image.convert("RGBA")
    visible = image.getchannel("A").point(lambda value: 255 if value else 0)
    white = Image.new("RGBA", image.size, (255, 255, 255, 0))
    return Image.composite(image, white, visible)


def keeps_alpha(path: Path) -> bool:
    """Tell whether the format of a file name's suffix stores transparency."""
    return format_of(path) in _WITH_ALPHA


def write_photo(path: str | Path, photo: Photo, overwrite: bool = True) -> None:
    """Write a photo atomically.

    Missing folders are created. Metadata that the format does not support is omitted, transparency becomes white. The
    EXIF orientation is set to upright.

    Args:
        path: the file; the suffix selects the format.
        photo: the photo.
        overwrite: replace an existing file.

    Raises:
        AnimegenError: for an unknown suffix, a folder that is not writable, or an existing file.
    """
    path = Path(path)
    format_name = writable_format(path)
    options = dict(_SAVE_OPTIONS.get(format_name, {}))
    if photo.profile is not None:
        options["icc_profile"] = photo.profile
    if photo.exif is not None and format_name in _WITH_EXIF:
        options["exif"] = _upright(photo.exif)
    image = Image.fromarray(photo.pixels.permute(1, 2, 0).contiguous().numpy())
    if photo.alpha is not None:
        alpha = Image.fromarray(photo.alpha.numpy())
        if keeps_alpha(path):
            image.putalpha(alpha)
        else:
            opaque = Image.new("RGB", image.size, "white")
            opaque.paste(image, mask=alpha)
            image = opaque
    save(path, image, options, overwrite)


def shrink(photo: Photo, max_side: int) -> Photo:
    """Scale a photo down so that its longer side has at most ``max_side`` pixels."""
    height, width = photo.pixels.shape[-2:]
    if max(height, width) <= max_side:
        return photo
    size = [max(1, round(side * max_side / max(height, width))) for side in (height, width)]
    alpha = None if photo.alpha is None else resize(photo.alpha[None], *size)[0]
    return replace(photo, pixels=resize(photo.pixels, *size), alpha=alpha)


def resize(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 or float32 ``(C,H,W)`` to ``height`` and ``width``, bicubic with anti-aliasing."""
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    # By channel, since Pillow stores RGB in four bytes per pixel.
    resized = torch.empty(len(pixels), height, width, dtype=pixels.dtype)
    for band, target in zip(pixels, resized, strict=True):
        image = Image.fromarray(band.contiguous().numpy()).resize((width, height), Image.Resampling.BICUBIC)
        target.copy_(torch.from_numpy(np.array(image)))
    return resized


def _upright(exif: bytes) -> bytes:
    block = Image.Exif()
    block.load(exif)
    for tag in _STORAGE_TAGS:
        block.pop(tag, None)
    if ExifTags.Base.Orientation in block:
        block[ExifTags.Base.Orientation] = 1
    return block.tobytes()
