"""Reading and writing image files."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from animegen.errors import AnimegenError, did_you_mean
from animegen.files import completed, existing_folder, io_error_message, read_bytes, translate_io_errors
from animegen.outputs import STATE, OutputFolder

#: Suffixes listed by :func:`list_images`. Pillow reads them; HEIC needs the package pillow-heif.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"),
    *(".jp2", ".avif", ".tga", ".heic", ".heif"),
)
#: Brands of HEIC files (ISO 23008-12, annex B).
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

#: Pixels converted at a time.
STRIP_PIXELS = 2**20

# No chroma subsampling, which blurs the saturated edges of drawings.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"subsampling": 0}, "WEBP": {"method": 4}}
_LOSSY = ("JPEG", "WEBP", "AVIF")


def read_image(path: str | Path) -> Tensor:
    """Read an image file in any of the formats of :func:`image_formats`.

    The EXIF orientation is applied, transparency is composited on white, 16-bit grey is scaled to 8 bit, floating-point
    grey is expected in [0, 1], and the first frame of an animation is read. Colour profiles are ignored: values are
    taken as sRGB.

    Returns:
        uint8 tensor ``(3, H, W)``, RGB.

    Raises:
        AnimegenError: if the file is missing, broken, truncated, no image, or above Pillow's limit for decompression
            bombs (about 179 megapixels).
    """
    return load_image(path, convert=to_rgb).values.contiguous()


@dataclass(frozen=True)
class Loaded:
    """The content of an image file.

    Attributes:
        values: uint8 ``(C, H, W)``, upright; a view of ``(H, W, C)``.
        exif: EXIF block as stored; ``None`` if there is none.
        profile: ICC profile.
    """

    values: Tensor
    exif: bytes | None
    profile: bytes | None


def load_image(path: str | Path, convert: Callable[[Image.Image], Image.Image]) -> Loaded:
    """Read an image file.

    Peak memory is that of Pillow's image, at most 4 bytes per pixel, and that of the result.

    Args:
        path: the file.
        convert: applied to strips of the upright image; returns mode RGB or RGBA.

    Raises:
        AnimegenError: see :func:`read_image`.
    """
    image = open_image(path)
    exif = _exif(image)
    try:
        image.load()
        profile = image.info.get("icc_profile")
        ImageOps.exif_transpose(image, in_place=True)
        width, height = image.size
        rows = max(1, STRIP_PIXELS // width)
        managed = _from_cmyk(image.mode, profile)
        values: np.ndarray | None = None
        for top in range(0, height, rows):
            strip = np.asarray(convert(managed(image.crop((0, top, width, min(top + rows, height))))))
            if values is None:
                values = np.empty((height, *strip.shape[1:]), np.uint8)
            values[top : top + rows] = strip
    except AnimegenError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every kind of exception
        raise AnimegenError(
            f"The image '{path}' is broken or truncated ({_reason(error)}): replace or remove it."
        ) from error
    assert values is not None
    return Loaded(torch.from_numpy(values).permute(2, 0, 1), exif, profile)


def _from_cmyk(mode: str, profile: bytes | None) -> Callable[[Image.Image], Image.Image]:
    """Return the conversion of CMYK to sRGB by a colour profile; without a usable one nothing changes."""
    if mode == "CMYK" and profile:
        with suppress(ImageCms.PyCMSError, OSError):
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            transform = ImageCms.buildTransform(source, target, "CMYK", "RGB")
            return lambda strip: ImageCms.applyTransform(strip, transform) or strip
    return lambda strip: strip


def _exif(image: Image.Image) -> bytes | None:
    try:
        exif = image.getexif()
        return exif.tobytes() if len(exif) else None
    except Exception:  # an image with a broken EXIF block is usable
        return None


def write_image(path: str | Path, image: Tensor, quality: int = 95, overwrite: bool = True) -> None:
    """Write an image atomically.

    Args:
        path: the file; the suffix selects the format, missing folders are created.
        image: uint8 ``(3, H, W)``, RGB.
        quality: 1 to 100, for the lossy formats JPEG, WebP and AVIF.
        overwrite: replace an existing file.

    Raises:
        AnimegenError: for an unknown suffix, a folder that is not writable, or an existing file.
    """
    path = Path(path)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise TypeError(f"write_image needs uint8 (3, H, W), not {image.dtype} {tuple(image.shape)}")
    format_name = writable_format(path)
    options: dict[str, Any] = dict(_SAVE_OPTIONS.get(format_name, {}))
    if format_name in _LOSSY:
        options["quality"] = quality
    save(path, Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()), options, overwrite)


def save(path: Path, image: Image.Image, options: Mapping[str, Any], overwrite: bool) -> None:
    """Write an image atomically in the format of the suffix, with options of Pillow."""
    # Pillow raises ValueError for sizes and modes that a format does not support.
    with (
        completed(path, overwrite=overwrite) as hidden,
        translate_io_errors(path, "written", also=(ValueError,)),
        open(hidden, "xb") as file,
    ):
        image.save(file, format=writable_format(path), **options)


@lru_cache
def image_formats() -> tuple[str, ...]:
    """Return the names of the supported input formats; EPS is excluded, since reading it starts a program."""
    Image.init()
    wanted = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "TGA", "ICO")
    with suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in (*wanted, "HEIF") if name in Image.OPEN)


def is_heic(head: bytes) -> bool:
    """Tell by its first bytes whether a file is a HEIC image. FFmpeg shows a tile of it as a video."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC


def list_images(folder: str | Path, recursive: bool = True, extensions: tuple[str, ...] = EXTENSIONS) -> list[Path]:
    """List the images of a folder in natural order (``2.png`` before ``10.png``).

    Hidden files and folders are excluded; links to folders are followed.

    Raises:
        AnimegenError: if the folder does not exist, is a file, cannot be read or holds no images.
    """
    folder = Path(folder)
    existing_folder(folder)
    wanted = {extension.lower() for extension in extensions}
    found: list[Path] = []
    others = 0
    for name in visible_files(folder, recursive):
        if name.suffix.lower() in wanted:
            found.append(name)
        else:
            others += 1
    if not found:
        inside = f"only {others} other files" if others else "nothing"
        deeper = "" if recursive else " itself (subfolders are not searched)"
        raise AnimegenError(
            f"There are no images in the folder '{folder}'{deeper}, {inside}:"
            f" put images ({', '.join(sorted(wanted))}) there or choose another folder."
        )
    # By path components, so that the images of a folder stay together.
    return sorted(found, key=lambda path: [natural_key(name) for name in path.relative_to(folder).parts])


def natural_key(name: str) -> tuple[tuple[int | str, ...], str]:
    """Return a sort key that compares numbers in names by value."""
    pieces = re.split(r"([0-9]+)", name.lower())
    # Odd pieces are the digits; the name itself breaks ties.
    return tuple(int(piece) if place % 2 else piece for place, piece in enumerate(pieces)), name


def to_float(image: Tensor) -> Tensor:
    """Map uint8 [0, 255] to float32 [-1, 1], any shape."""
    return image.float().div(127.5).sub_(1.0)


def to_uint8(image: Tensor) -> Tensor:
    """Map float [-1, 1] to uint8 [0, 255], any shape, with rounding and clamping."""
    return image.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def open_image(path: str | Path) -> Image.Image:
    """Open an image file in memory; only its header is decoded.

    Raises:
        AnimegenError: if it cannot be read, is no regular file, or is no image.
    """
    data = read_bytes(path)
    try:
        return Image.open(io.BytesIO(data), formats=image_formats())
    except Image.DecompressionBombError as error:
        raise AnimegenError(
            f"The image '{path}' is so large that it may be a decompression bomb ({error}): scale it down."
        ) from error
    except Exception as error:  # Pillow's plug-ins raise nearly every kind of exception
        if is_heic(data):
            raise AnimegenError(f"'{path}' is a HEIC image: pip install 'animegen[heic]' to read it.") from error
        kind = "empty" if not data else "not an image, or its header is broken"
        raise AnimegenError(f"The file '{path}' is {kind}: replace or remove it.") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB without clipping."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_deep_grey(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return image.convert("RGB")


def _deep_grey(values: np.ndarray) -> np.ndarray:
    """Scale 16-bit grey, or floating-point grey in [0, 1], to uint8."""
    white = 1.0 if values.dtype.kind == "f" else 65535.0
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= white):
        raise ValueError(f"its {values.dtype} values are not in [0, {white:g}], so the white level is unknown")
    return np.rint(values.astype(np.float64) * (255.0 / white)).astype(np.uint8)


def format_of(path: str | Path) -> str | None:
    """Return Pillow's name of the writable format of a file name's suffix, or ``None``."""
    name = Image.registered_extensions().get(Path(path).suffix.lower())
    return name if name in Image.SAVE else None


def writable_format(path: Path) -> str:
    """Return Pillow's name of the writable format of a file name's suffix.

    Raises:
        AnimegenError: for any other suffix.
    """
    name = format_of(path)
    if name is None:
        raise AnimegenError(
            f"'{path.name}' does not have the suffix of a writable image format:"
            f" use .png, .jpg or .webp.{did_you_mean(path.suffix.lower(), EXTENSIONS)}"
        )
    return name


def visible_files(folder: Path, recursive: bool = True) -> list[Path]:
    """Return all visible files below a folder.

    Subfolders with a run or an evaluation of animegen are excluded, and so are the files in ``folder`` recorded as
    output of such a command. Every folder is visited once, even if links lead to it repeatedly.
    """
    files: list[Path] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise AnimegenError(io_error_message(error, error.filename))

    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if folder != Path(place) and (STATE in names or "run.json" in names):
            folders.clear()
            continue
        # Sorted, so that of two links to one folder always the same one is used.
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX"))) if recursive else []
        files += [Path(place, name) for name in names if not name.startswith(".")]
    written = set(OutputFolder(folder).files())
    return [file for file in files if file.relative_to(folder).as_posix() not in written] if written else files


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def scaled(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images (N,3,H,W) in [-1,1] to ``size`` (height, width), bicubic with anti-aliasing."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images.float(), size=size, mode="bicubic", antialias=True).clamp(-1, 1)
