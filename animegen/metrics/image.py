"""Metrics on single images and pairs of images; each returns one value per image.

Images are float RGB of shape (B, 3, H, W) in [-1, 1], results are float32 of shape (B,) on the same device.
Nothing is averaged over the batch, so that a benchmark can report mean, standard deviation and count. Metrics in 8-bit
levels first round the image to the 256 levels of an image file.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.media.images import to_uint8
from animegen.nn.colour import luma, rgb_to_lab, rgb_to_yuv, to_unit

PSNR_CEILING = 100.0
"""dB given to identical images instead of infinity, so that means stay finite."""

CANNY_LOW, CANNY_HIGH = 100.0, 200.0
"""Hysteresis thresholds of `edge_f_score` on 8-bit luma: the pair with which CartoonGAN finds the edges to smooth."""

CHROMA_FLOOR = 1e-3
"""Smallest chroma spread of the reference in `chroma_ratio`: below it the reference counts as grey."""

_BLOCK = 32  # side of the windows of the power spectrum in pixels; periods 2 and 4 fall on whole bins
_TWO, _FOUR = _BLOCK // 2, _BLOCK // 4  # bins of these periods
# The spectrum of a real signal is point-symmetric, so half of it is enough.
_GRID_POINTS = (
    *((0, _TWO), (_TWO, 0), (_TWO, _TWO), (0, _FOUR), (_FOUR, 0)),
    *((_FOUR, _FOUR), (_FOUR, _BLOCK - _FOUR), (_FOUR, _TWO), (_TWO, _FOUR)),
)
_ROUNDING = (2 / 255) ** 2 / 12  # variance of rounding to 8 bits, the noise floor of the spectrum


def psnr(output: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, higher is better: 10 log10(2^2 / MSE) over all pixels and channels.

    The data range of [-1, 1] is 2, which gives the same figure as a range of 255 on 8-bit levels. Identical
    images give `PSNR_CEILING`.
    """
    _check_pair(output, truth)
    error = (output.float() - truth.float()).square().flatten(1).mean(1)
    floor = 4 / 10 ** (PSNR_CEILING / 10)
    return 10 * torch.log10(4 / error.clamp_min(floor))


def ssim(output: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity in [-1, 1], higher is better, 1 = identical; mean over the three RGB channels.

    Wang et al. 2004 on RGB in [0, 1] (its luminance term needs positive values): Gaussian window of 11 pixels with
    sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1, averaged over all pixels of the image, mirrored at its edges.

    Raises:
        AnimegenError: if a side is shorter than the window.
    """
    _check_pair(output, truth)
    if min(output.shape[-2:]) < 11:
        raise AnimegenError(f"SSIM needs images of at least 11x11 pixels, not {_size(output)}: evaluate larger images.")
    from torchmetrics.functional.image import structural_similarity_index_measure  # imports Lightning's dependencies

    value = structural_similarity_index_measure(
        to_unit(output.float()), to_unit(truth.float()), sigma=1.5, kernel_size=11, data_range=1.0, reduction="none"
    )
    assert isinstance(value, Tensor)
    return value.reshape(-1)


def canny_edges(image: Tensor) -> Tensor:
    """Return the Canny edges of the 8-bit BT.601 luma as a bool mask (B, H, W), computed by OpenCV on the CPU.

    Sobel aperture 3, Euclidean gradient, thresholds `CANNY_LOW` and `CANNY_HIGH`.
    """
    masks = [cv2.Canny(grey, CANNY_LOW, CANNY_HIGH, L2gradient=True) > 0 for grey in _greys(image)]
    return torch.from_numpy(np.stack(masks)).to(image.device)


def edge_f_score(output: Tensor, truth: Tensor, tolerance: int = 1) -> Tensor:
    """F-score of the edges in [0, 1], higher is better: harmonic mean of precision and recall of Canny edges.

    Precision is the share of the output's edge pixels that have an edge pixel of the truth within `tolerance` pixels
    (Chebyshev distance), recall the same the other way round. Two images without edges score 1; if only one
    of them has edges the score is 0. The measure follows the boundary benchmark of Martin et al. 2004, with
    dilation in place of a one-to-one assignment.
    """
    _check_pair(output, truth)
    found, wanted = canny_edges(output), canny_edges(truth)
    precision = _share_near(found, wanted, tolerance)
    recall = _share_near(wanted, found, tolerance)
    score = 2 * precision * recall / (precision + recall).clamp_min(1e-12)
    empty_found, empty_wanted = ~found.flatten(1).any(1), ~wanted.flatten(1).any(1)
    score = torch.where(empty_found | empty_wanted, torch.zeros_like(score), score)
    return torch.where(empty_found & empty_wanted, torch.ones_like(score), score)


def flatness(image: Tensor) -> Tensor:
    """Share in [0, 1] of neighbouring pixels that are equal within one 8-bit level in all three channels.

    Neighbours are horizontal and vertical pairs, equally weighted. Flat cels score far above photographs, and no colour
    mapping can turn one into the other.
    """
    levels = to_uint8(image).to(torch.int16)
    across = (levels[..., :, 1:] - levels[..., :, :-1]).abs().amax(1) <= 1
    down = (levels[..., 1:, :] - levels[..., :-1, :]).abs().amax(1) <= 1
    return torch.cat([across.flatten(1), down.flatten(1)], 1).float().mean(1)


def colour_distance(output: Tensor, truth: Tensor) -> Tensor:
    """Mean CIE 1976 colour difference (Delta E*ab) over the pixels, lower is better; about 2 is just noticeable."""
    _check_pair(output, truth)
    return (rgb_to_lab(output.float()) - rgb_to_lab(truth.float())).norm(dim=1).flatten(1).mean(1)


def chroma_ratio(output: Tensor, reference: Tensor) -> Tensor:
    """Spread of the output's chroma over the reference's: sqrt(var U + var V) of each, in YUV.

    1 = as colourful as the reference; below 0.5 the output is collapsing to grey.
    """
    _check_pair(output, reference)

    def spread(image: Tensor) -> Tensor:
        return rgb_to_yuv(image.float())[:, 1:].flatten(2).var(2, correction=0).sum(1).sqrt()

    return spread(output) / spread(reference).clamp_min(CHROMA_FLOOR)


def clipped(image: Tensor) -> Tensor:
    """Share in [0, 1] of channel values that are 0 or 255 in 8-bit levels; high values indicate lost highlights."""
    levels = to_uint8(image)
    return ((levels == 0) | (levels == 255)).flatten(1).float().mean(1)


def ink(image: Tensor) -> Tensor:
    """Share in [0, 1] of pixels whose 8-bit luma is below the median of the 11x11 pixels around by more than 25 levels.

    Lines thinner than about 5 pixels that are darker than both sides; borders are replicated.
    """
    shares = [float((cv2.medianBlur(grey, 11).astype(np.int16) - grey > 25).mean()) for grey in _greys(image)]
    return torch.tensor(shares, device=image.device)


def texture(image: Tensor) -> Tensor:
    """Mean distance in 8-bit levels between the luma and its Gaussian blur of sigma 1.5 pixels: detail of any kind.

    Together with `flatness` it distinguishes a drawing, which is flat between sharp lines, from a blurred photo.
    """
    greys = [grey.astype(np.float32) for grey in _greys(image)]
    return torch.tensor(
        [float(np.abs(x - cv2.GaussianBlur(x, (0, 0), 1.5)).mean()) for x in greys], device=image.device
    )


def colour_change(output: Tensor, photo: Tensor) -> Tensor:
    """`colour_distance` (Delta E*ab) of both images after a Gaussian blur of sigma 6 pixels.

    The blur removes lines and texture, so that only colours of areas count.
    """
    _check_pair(output, photo)
    return colour_distance(_blurred(output, 6.0), _blurred(photo, 6.0))


def _greys(image: Tensor) -> Iterator[np.ndarray]:
    """Yield the 8-bit BT.601 luma (H, W) of each image."""
    for picture in to_uint8(image).permute(0, 2, 3, 1).cpu().numpy():
        yield cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    pictures = image.float().permute(0, 2, 3, 1).cpu().numpy()
    blurred = [cv2.GaussianBlur(np.ascontiguousarray(picture), (0, 0), sigma) for picture in pictures]
    return torch.from_numpy(np.stack(blurred)).permute(0, 3, 1, 2).to(image.device)


def high_frequency_ratio(output: Tensor, reference: Tensor) -> Tensor:
    """Luma energy at periods shorter than 4 px in the output over that in the reference, in [0, inf).

    1 = as much fine detail as the reference, far above 1 = noise and ringing, far below = blur. Periods count
    per axis: a wave belongs to the band if it is shorter than 4 px across or down.
    """
    _check_pair(output, reference)
    frequency = torch.fft.fftfreq(_BLOCK, device=output.device).abs()
    band = torch.maximum(frequency[:, None], frequency[None, :]) > 0.25
    energy = [_power_spectrum(image)[:, band].mean(1) + _ROUNDING for image in (output, reference)]
    return energy[0] / energy[1]


def checkerboard(image: Tensor) -> Tensor:
    """Height in dB of the tallest spectral peak at a period of 2 or 4 px over its surroundings, lower is better.

    Upsampling layers leave grids of exactly these periods (Odena et al. 2016). The luma power spectrum is averaged
    over half-overlapping Hann windows of 32 px (Welch), and each of the points (fy, fx) with components 0, 1/4, 1/2
    cycles/px is compared with the median of the bins at a distance of 2 to 4. Images without a grid are at
    2 to 4 dB, seldom above 6.
    """
    spectrum = _power_spectrum(image) + _ROUNDING
    offsets = range(-4, 5)
    ring = [(dy, dx) for dy in offsets for dx in offsets if max(abs(dy), abs(dx)) >= 2]
    heights = []
    for y, x in _GRID_POINTS:
        # Vertical and horizontal edges raise the axes of the spectrum, so a point on an axis is compared along it.
        near = [(dy, dx) for dy, dx in ring if (y or not dy) and (x or not dx)]
        around = torch.stack([spectrum[:, (y + dy) % _BLOCK, (x + dx) % _BLOCK] for dy, dx in near], 1)
        heights.append(10 * torch.log10(spectrum[:, y, x] / around.median(1).values))
    return torch.stack(heights, 1).amax(1)


def _power_spectrum(image: Tensor) -> Tensor:
    """Return the Welch power spectrum (B, 32, 32) of the luma: mean |FFT|^2 over windows, 1/energy of the window.

    White noise of variance v has the value v in every bin.
    """
    if min(image.shape[-2:]) < _BLOCK:
        raise AnimegenError(
            f"The spectrum of an image needs at least {_BLOCK}x{_BLOCK} pixels, not {_size(image)}: "
            "evaluate larger images."
        )
    patches = F.unfold(luma(image), _BLOCK, stride=_BLOCK // 2)
    patches = patches.transpose(1, 2).reshape(len(image), -1, _BLOCK, _BLOCK)
    patches = patches - patches.mean((2, 3), keepdim=True)
    hann = torch.hann_window(_BLOCK, periodic=True, device=image.device)
    window = hann[:, None] * hann[None, :]
    return torch.fft.fft2(patches * window).abs().square().mean(1) / window.square().sum()


def _share_near(points: Tensor, others: Tensor, tolerance: int) -> Tensor:
    """Return the share of `points` (B, H, W) that have one of `others` within `tolerance`; 0 without points."""
    side = 2 * tolerance + 1
    near = F.max_pool2d(others.float().unsqueeze(1), side, stride=1, padding=tolerance).squeeze(1) > 0
    return (points & near).flatten(1).sum(1) / points.flatten(1).sum(1).clamp_min(1)


def _check_pair(output: Tensor, truth: Tensor) -> None:
    if output.shape != truth.shape or output.ndim != 4 or output.shape[1] != 3:
        raise AnimegenError(
            f"Images of shapes {tuple(output.shape)} and {tuple(truth.shape)} cannot be compared: "
            "give two batches of shape (B, 3, H, W)."
        )


def _size(image: Tensor) -> str:
    return f"{image.shape[-2]}x{image.shape[-1]}"
