"""Anime made to look a little like a photo, so that a generator can learn the way back from pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.colour import LinearColourTransfer


class PhotoDegradation(nn.Module):
    """Give anime pictures the colours, texture, shading, blur and grain of photos, at random.

    An identity term (generator(anime) = anime) teaches the generator what anime is, but not how to get
    there. The same term on degraded anime teaches it to flatten texture, to redraw blurred lines and to
    bring the colours back, all under supervision and still without a single pair of photo and anime. The
    domain gap that remains is the discriminator's.

    Amplitudes are in units of the intensity range [0,1].

    Args:
        texture: largest strength of multiplicative texture; each picture draws its own, strong in some
            places and weak in others, from noise with grains of 1, 2, 4 and 8 pixels.
        hue: strength of coloured texture, as a share of that of gray texture.
        shading: standard deviation of slow multiplicative changes of brightness.
        cast: standard deviation of multiplicative changes of brightness, and of each channel by itself, that are the
            same all over a picture: the light of another hour.
        blur: largest share of a 3x3 binomial blur.
        grain: standard deviation of additive noise per pixel and channel.
    """

    kernel: Tensor

    def __init__(
        self,
        texture: float = 0.5,
        hue: float = 0.3,
        shading: float = 0.2,
        cast: float = 0.08,
        blur: float = 1.0,
        grain: float = 0.02,
    ) -> None:
        super().__init__()
        self.texture, self.hue, self.shading, self.cast = texture, hue, shading, cast
        self.blur, self.grain = blur, grain
        kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(kernel, kernel).expand(3, 1, 3, 3).clone(), persistent=False)

    @torch.no_grad()
    def forward(self, anime: Tensor, colours: LinearColourTransfer) -> Tensor:
        """Return degraded pictures of the same shape and range.

        Args:
            anime: ``(B,3,H,W)`` in [-1,1].
            colours: the map from photo to anime colours, used backwards.
        """
        with torch.autocast(anime.device.type, enabled=False):
            image = (colours.reverse(anime.float()) + 1) / 2
            one, three = (len(image), 1, 1, 1), (len(image), 3, 1, 1)
            device = image.device
            strength = 2 * self.texture * torch.rand(one, device=device) * self._noise(image, 4, torch.rand)
            grains = sum(
                amplitude * (self._noise(image, cells) + self.hue * self._noise(image, cells, channels=3))
                for cells, amplitude in self._octaves(image)
            )
            light = 1 + self.cast * (torch.randn(one, device=device) + torch.randn(three, device=device))
            image = image * (1 + strength * grains) * (1 + self.shading * self._noise(image, 6)) * light
            blurred = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), self.kernel, groups=3)
            image = torch.lerp(image, blurred, self.blur * torch.rand(one, device=device))
            image = image + self.grain * torch.randn_like(image)
        return (image.clamp(0, 1) * 2 - 1).to(anime)

    @staticmethod
    def _octaves(image: Tensor) -> list[tuple[int, float]]:
        """Return (cells along the shorter side, amplitude) of each size of grain."""
        side = min(image.shape[-2:])
        return [(max(side // grain, 2), amplitude) for grain, amplitude in ((1, 0.35), (2, 0.5), (4, 0.5), (8, 0.5))]

    @staticmethod
    def _noise(image: Tensor, cells: int, draw: Callable[..., Tensor] = torch.randn, channels: int = 1) -> Tensor:
        """Return smooth noise ``(B,channels,H,W)`` with about ``cells`` cells along the shorter side."""
        height, width = image.shape[-2:]
        unit = min(height, width) / cells
        shape = (len(image), channels, max(round(height / unit), 1), max(round(width / unit), 1))
        noise = draw(shape, device=image.device)
        return F.interpolate(noise, size=(height, width), mode="bilinear")
