"""Conversion of frames with more than eight bits per colour to float RGB and back, by matrix and range of the tags.

FFmpeg's swscale only brings chroma to every pixel and back, which it does exactly in 16 bit. Its own way to deep RGB
takes 65280 for white (measured with libswscale 9.5: four codes of 1023), so the matrices are applied here.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
import torch
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from torch import Tensor

from animegen.media.video.frames import Colour
from animegen.media.video.pixels import FLAGS, coefficients_of, has_alpha, luma_and_chroma_matrix, rows

#: Luma and chroma of every pixel in 16 bits; formats with n bits use the n highest.
_WIDE = "yuv444p16le"


def is_deep(pix_fmt: str) -> bool:
    """Tell whether a pixel format has luma and chroma with more than eight bits."""
    form = VideoFormat(pix_fmt, 2, 2)
    return len(form.components) >= 3 and not form.is_rgb and form.components[0].bits > 8


class FromDeep:
    """Convert decoded frames of a deep format to tensors, in any thread.

    Arguments are those of :class:`~animegen.media.video.pixels.FromFrames`.
    """

    def __init__(self, colour: Colour, straight: bool = False) -> None:
        self._converter, self._straight = VideoReformatter(), straight
        self._alone = Lock()  # a frame is refined where it is first needed: for a network, or to be encoded
        self._full = colour.full_range
        self._matrix = torch.linalg.inv(luma_and_chroma_matrix(*coefficients_of(colour)))

    def __call__(self, frame: VideoFrame) -> Tensor:
        """Return float32 ``(3,H,W)``, RGB; black is -1 and white 1; values beyond them are kept.

        With ``straight`` a frame with alpha is ``(4,H,W)``; opaque is 1, and what is invisible is white.
        """
        with self._alone:
            wide = _moved(self._converter, frame, _WIDE, self._full)
        planes = [rows(plane, wide.height, np.uint16)[:, : wide.width].astype(np.float32) for plane in wide.planes]
        bits = frame.format.components[0].bits
        scale, offset = _codes(bits, self._full)
        values = (torch.from_numpy(np.stack(planes)) - offset) / scale
        colours = torch.einsum("ij,jhw->ihw", self._matrix, values).mul_(2).sub_(1)
        if not has_alpha(frame.format.name):
            return colours
        # swscale's own way loses the lowest bits of alpha, and with them full opacity.
        alpha = rows(frame.planes[3], wide.height, np.uint16)[None, :, : wide.width].astype(np.float32)
        opaque = torch.from_numpy(alpha).div_(2.0**bits - 1)
        if not self._straight:
            return torch.lerp(torch.ones(()), colours, opaque)
        return torch.cat([torch.where(opaque > 0, colours, 1.0), opaque.mul_(2).sub_(1)])


class ToDeep:
    """Convert tensors to frames of a deep format for an encoder; one object per video and thread.

    Args:
        pix_fmt: FFmpeg's name of the encoder's pixel format.
        colour: matrix and range to write.
    """

    def __init__(self, pix_fmt: str, colour: Colour) -> None:
        self._converter = VideoReformatter()
        self._format, self._full = pix_fmt, colour.full_range
        self._matrix = luma_and_chroma_matrix(*coefficients_of(colour))
        self._bits = VideoFormat(pix_fmt, 2, 2).components[0].bits
        self._scale, self._offset = _codes(self._bits, self._full)

    def __call__(self, pixels: Tensor) -> VideoFrame:
        """Return the frame for float ``(3,H,W)`` or ``(4,H,W)`` as :class:`FromDeep` gives it, on the CPU, rounded."""
        shares = pixels.float().add(1).div_(2)
        values = torch.einsum("ij,jhw->ihw", self._matrix, shares[:3])
        codes = values.mul_(self._scale).add_(self._offset).round_().clamp_(0, 65535).numpy().astype(np.uint16)
        _, height, width = codes.shape
        wide = VideoFrame(width, height, _WIDE)
        for plane, channel in zip(wide.planes, codes, strict=True):
            rows(plane, height, np.uint16)[:, :width] = channel
        frame = _moved(self._converter, wide, self._format, self._full)
        if has_alpha(self._format):
            alpha = shares[3] if len(shares) == 4 else torch.ones(height, width)
            codes = alpha.mul(2**self._bits - 1).round_().clamp_(0, 2**self._bits - 1).numpy()
            rows(frame.planes[3], height, np.uint16)[:, :width] = codes.astype(np.uint16)
        return frame


def _moved(converter: VideoReformatter, frame: VideoFrame, pix_fmt: str, full: bool) -> VideoFrame:
    """Return a frame with another chroma layout or bit depth; colours are unchanged."""
    same_range = ColorRange.JPEG if full else ColorRange.MPEG
    return converter.reformat(
        frame,
        format=pix_fmt,
        src_color_range=same_range,
        dst_color_range=same_range,
        interpolation=FLAGS,
        threads=1,
    )


def _codes(bits: int, full: bool) -> tuple[Tensor, Tensor]:
    """Return scale and offset (3,1,1) from luma in [0,1] and chroma in [-1/2,1/2] to the codes of 16 bit.

    ITU-T H.273, equations 20 to 31, for ``bits``, which are the highest of the 16.
    """
    step, rest = 2.0 ** (bits - 8), 2.0 ** (16 - bits)
    most = 2.0**bits - 1
    scale = (most, most, most) if full else (219 * step, 224 * step, 224 * step)
    offset = (0.0 if full else 16 * step, 128 * step, 128 * step)
    return torch.tensor(scale).view(3, 1, 1) * rest, torch.tensor(offset).view(3, 1, 1) * rest
