"""Edge-preserving smoothing filters, as used by AnimeGANv3 and White-box cartoonization.

Images are (B,C,H,W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.nn.precision import at_least_float32


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Return the mean of ``x`` (B,C,H,W) over squares of side ``2*radius+1``, cropped at the image's borders."""
    return F.avg_pool2d(x, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def guided_filter(image: Tensor, guide: Tensor, radius: int, eps: float) -> Tensor:
    """Apply the guided filter (He, Sun, Tang 2010), each channel guided by the same channel of the guide.

    In every square window the output is the best linear function of the guide; the functions of all windows that cover
    a pixel are averaged. Differentiable.

    Args:
        image: (B,C,H,W), at least ``radius + 1`` pixels high and wide.
        guide: (B,C,H,W). With ``guide = image`` variations below about ``sqrt(eps)`` within a window are smoothed and
            larger ones kept.
        radius: the windows have the side ``2*radius+1``.
        eps: penalty on the slope, in squared units of the guide.

    Returns:
        (B,C,H,W), at least float32.
    """
    with torch.autocast(image.device.type, enabled=False):
        image, guide = at_least_float32(image), at_least_float32(guide)
        mean_guide, mean_image = box_mean(guide, radius), box_mean(image, radius)
        variance = (box_mean(guide * guide, radius) - mean_guide * mean_guide).clamp_min(0)
        covariance = box_mean(guide * image, radius) - mean_guide * mean_image
        slope = covariance / (variance + eps)
        offset = mean_image - slope * mean_guide
        return box_mean(slope, radius) * guide + box_mean(offset, radius)


def self_guided(images: Tensor, radius: int = 2, eps: float = 0.01) -> Tensor:
    """Apply :func:`guided_filter` to images in [-1,1] with themselves as guide.

    ``eps`` refers to [0,1]. The defaults are those of AnimeGANv3's support tail.
    """
    return guided_filter(images, images, radius, 4 * eps)


@torch.no_grad()
def l0_smooth(images: Tensor, strength: float = 0.02, kappa: float = 2.0, largest: float = 1e5) -> Tensor:
    """Smooth images by L0 gradient minimisation (Xu et al. 2011). Not differentiable.

    Minimises ``sum (S - I)^2 + strength * #{pixels where any channel of S changes}`` by half-quadratic splitting:
    alternately the gradients of S are thresholded, and S is fitted to image and gradients in the frequency domain, with
    periodic boundaries.

    Args:
        images: (B,C,H,W) in [-1,1]. All channels share their edges.
        strength: for colours in [0,1]; 0.02 in the paper, 0.005 for AnimeGANv3's targets.
        kappa: factor by which the coupling grows per iteration.
        largest: coupling at which to stop, by default after 22 iterations.

    Returns:
        (B,C,H,W) in [-1,1], at least float32.
    """
    with torch.autocast(images.device.type, enabled=False):
        smooth = (at_least_float32(images) + 1) / 2
        height, width = smooth.shape[-2:]
        fitted = torch.fft.rfft2(smooth)
        # |frequency response|^2 of the differences to the right and lower neighbours.
        home = {"dtype": smooth.dtype, "device": smooth.device}
        rows = 2 - 2 * torch.cos(2 * torch.pi * torch.fft.fftfreq(height, **home))
        columns = 2 - 2 * torch.cos(2 * torch.pi * torch.fft.rfftfreq(width, **home))
        response = rows[:, None] + columns
        coupling = 2 * strength
        while coupling < largest:
            across = smooth.roll(-1, -1) - smooth
            down = smooth.roll(-1, -2) - smooth
            kept = ((across.square() + down.square()).sum(1, keepdim=True) >= strength / coupling).to(smooth.dtype)
            across, down = across * kept, down * kept
            divergence = across.roll(1, -1) - across + down.roll(1, -2) - down
            spectrum = (fitted + coupling * torch.fft.rfft2(divergence)) / (1 + coupling * response)
            smooth = torch.fft.irfft2(spectrum, s=(height, width))
            coupling *= kappa
        return smooth.clamp(0, 1) * 2 - 1
