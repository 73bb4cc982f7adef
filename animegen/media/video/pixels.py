"""Conversion of FFmpeg's frames to uint8 RGB and back, by the matrix and range of the video's tags.

FFmpeg's swscale converts. Its flags ask for rounding instead of truncation and for colour at every pixel: with its
defaults a frame of one colour can come back in two. For writing full range its chroma is half a code too low on average
(measured with libswscale 9.5), so there the matrix is applied here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from torch import Tensor

from animegen.media.video.frames import BT709, RGB, SMPTE170M, Colour, VideoInfo

#: For swscale: rounding, and chroma at every pixel.
FLAGS = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
#: Matrix of H.273 -> swscale's number and (K_R, K_B). 4 is FCC, 5 and 6 are BT.601, 7 is SMPTE 240M.
_MATRICES = {
    1: (Colorspace.ITU709, (0.2126, 0.0722)),
    4: (Colorspace.FCC, (0.30, 0.11)),
    5: (Colorspace.ITU601, (0.299, 0.114)),
    6: (Colorspace.ITU601, (0.299, 0.114)),
    7: (Colorspace.SMPTE240M, (0.212, 0.087)),
    9: (Colorspace.BT2020, (0.2627, 0.0593)),
    10: (Colorspace.BT2020, (0.2627, 0.0593)),
}
#: The planes of FFmpeg's gbrp and gbrap, as channels of RGB with alpha.
_PLANES = (1, 2, 0, 3)


def colour_of(frame: VideoFrame) -> Colour:
    """Return the colour space of a decoded frame.

    Without a matrix it is that of :func:`usual_colour`; without a range it is limited, except for the JPEG formats.
    """
    name = frame.format.name
    full = frame.color_range == ColorRange.JPEG or name.startswith("yuvj")
    matrix = frame.colorspace
    if frame.format.is_rgb or name in ("pal8", "monob", "monow"):
        matrix, full = RGB, True
    elif matrix not in _MATRICES:
        matrix = usual_colour(frame.width, frame.height).matrix
    return Colour(matrix, full, frame.color_primaries, frame.color_trc)


def has_alpha(pix_fmt: str) -> bool:
    """Tell whether a pixel format stores transparency, other than by a palette."""
    return any(part.is_alpha for part in VideoFormat(pix_fmt, 2, 2).components)


class FromFrames:
    """Convert decoded frames to tensors; one object per video and thread.

    Args:
        colour: matrix and range of the video.
        straight: keep colours and alpha apart, in place of showing transparent frames on white.
    """

    def __init__(self, colour: Colour, straight: bool = False) -> None:
        self._converter, self._straight = VideoReformatter(), straight
        self._matrix = _MATRICES.get(colour.matrix, _MATRICES[BT709])[0]
        self._range = ColorRange.JPEG if colour.full_range else ColorRange.MPEG

    def __call__(self, frame: VideoFrame) -> Tensor:
        """Return uint8 ``(3,H,W)``, RGB, deeper formats rounded to 8 bit.

        With ``straight`` a frame with alpha is ``(4,H,W)``, white where it is invisible.
        """
        alpha = frame.format.name == "pal8" or has_alpha(frame.format.name)
        planar = self._converter.reformat(
            frame,
            format="gbrap" if alpha else "gbrp",
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=self._range,
            dst_color_range=ColorRange.JPEG,
            interpolation=FLAGS,
            threads=1,
        )
        height, width = planar.height, planar.width
        values = np.empty((len(planar.planes), height, width), np.uint8)
        for channel, plane in zip(_PLANES, planar.planes, strict=False):
            values[channel] = rows(plane, height)[:, :width]
        if alpha and self._straight:
            values[:3, values[3] == 0] = 255
        elif alpha:
            opaque = values[3].astype(np.uint16)
            values = ((values[:3] * opaque + 255 * (255 - opaque) + 127) // 255).astype(np.uint8)
        return torch.from_numpy(values)


def is_transparent(frame: VideoFrame) -> bool:
    """Tell whether a frame has pixels that are not opaque."""
    if frame.format.name != "pal8" and not has_alpha(frame.format.name):
        return False
    alpha = frame.reformat(format="gbrap").planes[3]
    return bool(rows(alpha, frame.height)[:, : frame.width].min() < 255)


class ToFrames:
    """Convert tensors to frames for an encoder; one object per video and thread.

    Args:
        pix_fmt: FFmpeg's name of the encoder's pixel format.
        colour: matrix and range to write.

    Attributes:
        rgb: whether the pixel format is one of RGB, so that there is no matrix.
    """

    def __init__(self, pix_fmt: str, colour: Colour) -> None:
        self._converter = VideoReformatter()
        self._format = pix_fmt
        self._matrix = _MATRICES.get(colour.matrix, _MATRICES[BT709])[0]
        self._range = ColorRange.JPEG if colour.full_range else ColorRange.MPEG
        form = VideoFormat(pix_fmt, 2, 2)
        self.rgb = form.is_rgb
        deep = any(part.bits > 8 for part in form.components)
        own = colour.full_range and not (self.rgb or deep)
        self._own_matrix = luma_and_chroma_matrix(*coefficients_of(colour)) if own else None

    def __call__(self, pixels: Tensor) -> VideoFrame:
        """Return the frame for uint8 ``(3,H,W)``, RGB, or ``(4,H,W)`` with alpha, on the CPU."""
        if self._own_matrix is not None:
            source, source_range = self._luma_and_chroma(pixels[:3]), self._range
        else:
            source, source_range = _planar(pixels, "gbrap" if len(pixels) == 4 else "gbrp", _PLANES), ColorRange.JPEG
        frame = self._converter.reformat(
            source,
            format=self._format,
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            src_color_range=source_range,
            dst_color_range=ColorRange.JPEG if self.rgb else self._range,
            interpolation=FLAGS,
            threads=1,
        )
        if self._own_matrix is not None and has_alpha(self._format):
            rows(frame.planes[3], frame.height)[:, : frame.width] = pixels[3].numpy() if len(pixels) == 4 else 255
        return frame

    def _luma_and_chroma(self, pixels: Tensor) -> VideoFrame:
        values = torch.einsum("ij,jhw->ihw", self._own_matrix, pixels.float())
        values[1:] += 128
        return _planar(values.round_().clamp_(0, 255).to(torch.uint8), "yuv444p", (0, 1, 2))


def tag(target: VideoFrame | VideoCodecContext, colour: Colour, rgb: bool) -> None:
    """Write the tags of a video on a frame or its encoder; ``rgb`` tells that the pixel format is one of RGB."""
    target.colorspace = RGB if rgb else colour.matrix
    target.color_range = ColorRange.JPEG if rgb or colour.full_range else ColorRange.MPEG
    target.color_primaries, target.color_trc = colour.primaries, colour.transfer


def usual_colour(width: int, height: int) -> Colour:
    """Return the colour space that players assume for this size without tags; videos made of images are written in it.

    BT.709 for high definition (a side of 1280, or both of 720 pixels), BT.601 below, in limited range.
    """
    return Colour(BT709 if max(width, height) >= 1280 or min(width, height) >= 720 else SMPTE170M)


def written_colour(info: VideoInfo) -> Colour:
    """Return the colour space in which a video is written: its own, or the usual one for videos made of images."""
    return usual_colour(info.width, info.height) if info.colour.matrix == RGB else info.colour


def coefficients_of(colour: Colour) -> tuple[float, float]:
    """Return K_R and K_B, the shares of red and blue in luma."""
    return _MATRICES.get(colour.matrix, _MATRICES[BT709])[1]


def luma_and_chroma_matrix(red: float, blue: float) -> Tensor:
    """Return the matrix (3,3) from RGB to luma and chroma in full range, by ITU-R BT.709 section 3, BT.601 2.5.1.

    RGB and luma lie in [0,1], chroma in [-1/2,1/2], or all in 255 times that.
    """
    luma = torch.tensor([red, 1 - red - blue, blue])
    b = (torch.tensor([0.0, 0.0, 1.0]) - luma) / (2 * (1 - blue))
    r = (torch.tensor([1.0, 0.0, 0.0]) - luma) / (2 * (1 - red))
    return torch.stack([luma, b, r])


def _planar(values: Tensor, name: str, channels: Sequence[int]) -> VideoFrame:
    _, height, width = values.shape
    frame = VideoFrame(width, height, name)
    for channel, plane in zip(channels, frame.planes, strict=False):
        rows(plane, height)[:, :width] = values[channel].numpy()
    return frame


def rows(plane: Any, height: int, kind: type[np.generic] = np.uint8) -> np.ndarray:
    """Return the memory of a plane as (height, line size), which may be longer than its width, as numbers of a kind."""
    return np.frombuffer(plane, kind).reshape(height, -1)


def plain_name(frame: VideoFrame) -> str:
    """Return the name of a frame's pixel format; JPEG formats are named like their counterparts with full range."""
    return frame.format.name.replace("yuvj", "yuv")


def same_values(frame: VideoFrame) -> VideoFrame:
    """Return a frame with the same values and nothing else: no kind of image, no time, no side data."""
    clean = VideoFrame(frame.width, frame.height, plain_name(frame))
    for source, target in zip(frame.planes, clean.planes, strict=True):
        width = min(source.line_size, target.line_size)
        rows(target, target.height)[:, :width] = rows(source, source.height)[:, :width]
    return clean
