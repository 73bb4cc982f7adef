"""Degradation of anime images towards photos, for supervised training of the inverse."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.colour import LinearColourTransfer


class PhotoDegradation(nn.Module):
    """Remove the lines of anime images and add random colours, texture, shading, blur and grain as photos have them.

    A reconstruction term on degraded anime teaches the generator to flatten texture, to draw lines between areas and
    to restore colours, with supervision but without pairs of photos and anime. The remaining domain gap is left to the
    discriminator.

    Drawings use one colour per material. Texture and tint are therefore random smooth functions of the *colour*, so
    that their borders coincide with those of the areas.

    Amplitudes are in units of the intensity range [0,1].

    Args:
        recolour: interpolation towards the colours of photos, 0 to 1. Use less than 1 to keep the photos' colours:
            the generator learns to invert this shift on every photo.
        ink: remove dark lines narrower than this many pixels; 1 removes none.
        kept_ink: fraction of the images that keep their lines, so that the generator also learns to handle the thin
            dark lines of photos, such as branches and mortar.
        texture: largest standard deviation of multiplicative texture, with grains of 1, 2, 4 and 8 pixels.
        hue: strength of coloured texture relative to grey texture.
        tint: largest multiplicative change per colour and channel.
        shading: strength of directional light at the borders of areas.
        light: standard deviation of multiplicative changes of brightness and of colour balance, constant per image.
        blur: largest weight of a 3x3 binomial blur.
        grain: standard deviation of additive noise per pixel and channel.
        borrowed: largest weight of fine detail from photos. Detail is clipped to a tenth of the range, which excludes
            edges.
    """

    def __init__(
        self,
        recolour: float = 1.0,
        ink: int = 3,
        kept_ink: float = 0.0,
        texture: float = 0.5,
        hue: float = 0.2,
        tint: float = 0.15,
        shading: float = 0.5,
        light: float = 0.08,
        blur: float = 1.0,
        grain: float = 0.02,
        borrowed: float = 0.0,
    ) -> None:
        super().__init__()
        self.recolour, self.ink, self.kept_ink = recolour, ink, kept_ink
        self.texture, self.hue, self.tint = texture, hue, tint
        self.shading, self.light, self.blur, self.grain = shading, light, blur, grain
        self.borrowed = borrowed

    @torch.no_grad()
    def forward(
        self, anime: Tensor, colours: LinearColourTransfer, frames: int = 1, photos: Tensor | None = None
    ) -> Tensor:
        """Return degraded images of the same shape and range.

        Args:
            anime: ``(B,3,H,W)`` in [-1,1].
            colours: the map from photo to anime colours, which is inverted.
            frames: number of frames of a clip stacked vertically in each image. All get the same degradation and
                texture; only grain varies.
            photos: ``(N,3,H,W)`` in [-1,1], the source of borrowed detail.
        """
        with torch.autocast(anime.device.type, enabled=False):
            areas = without_lines(anime.float(), self.ink)
            one, three = (len(anime), 1, 1, 1), (len(anime), 3, 1, 1)
            if self.kept_ink:
                areas = torch.where(torch.rand(one, device=anime.device) < self.kept_ink, anime.float(), areas)
            image = (torch.lerp(areas, colours.reverse(areas), self.recolour) + 1) / 2
            rough = self.texture * _function_of_colour(areas, 1).clamp_min(0)
            image = image * (1 + rough * self._texture(image, frames))
            image = image * (1 + self.tint * _function_of_colour(areas, 3))
            image = image * (1 + self.shading * _relief(areas))
            image = image * (1 + self.light * (_normal(one, image) + _normal(three, image)))
            if self.borrowed and photos is not None:
                lent = photos.float()[torch.randint(len(photos), (len(anime),), device=photos.device)]
                detail = ((lent - blurred(lent, times=8)) / 2).clamp(-0.1, 0.1)
                image = image + self.borrowed * torch.rand(one, device=image.device) * detail
            image = torch.lerp(image, blurred(image), self.blur * torch.rand(one, device=image.device))
            image = image + self.grain * torch.randn_like(image)
        return (image.clamp(0, 1) * 2 - 1).to(anime)

    def _texture(self, image: Tensor, frames: int) -> Tensor:
        """Return noise ``(B,3,H,W)`` of several grain sizes, mixed randomly per image."""
        image = image[..., : image.shape[-2] // frames, :]
        side, grains = min(image.shape[-2:]), (1, 2, 4, 8)
        shares = F.normalize(torch.rand(len(image), len(grains), 1, 1, 1, device=image.device), dim=1)
        total = torch.zeros_like(image)
        for number, grain in enumerate(grains):
            cells = max(side // grain, 2)
            total += shares[:, number] * (_noise(image, cells) + self.hue * _noise(image, cells, channels=3))
        return total.repeat(1, 1, frames, 1)


def without_lines(anime: Tensor, width: int) -> Tensor:
    """Remove dark lines narrower than ``width`` (odd) by morphological closing."""
    return -_brightest(-_brightest(anime, width // 2), width // 2)


def _brightest(image: Tensor, reach: int) -> Tensor:
    """Dilate: the maximum over squares of side ``2*reach+1``."""
    for dim in (2, 3):
        for _ in range(reach):
            first, last = image.narrow(dim, 0, 1), image.narrow(dim, -1, 1)
            longer = torch.cat([first, image, last], dim)
            middle = torch.maximum(longer.narrow(dim, 0, image.shape[dim]), longer.narrow(dim, 2, image.shape[dim]))
            image = torch.maximum(image, middle)
    return image


def blurred(image: Tensor, times: int = 1) -> Tensor:
    """Blur by a 3x3 binomial kernel, ``times`` times."""
    line = torch.tensor([0.25, 0.5, 0.25], device=image.device)
    kernel = torch.outer(line, line).expand(image.shape[1], 1, 3, 3)
    for _ in range(times):
        image = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), kernel, groups=image.shape[1])
    return image


def _normal(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.randn(shape, device=like.device)


def _function_of_colour(areas: Tensor, channels: int) -> Tensor:
    """Return a random smooth function of the colour at each pixel, in [-1,1], drawn per image."""
    waves = _normal((len(areas), channels, 3), areas) * 3.0  # about one period over the range of colours
    phases = torch.rand(len(areas), channels, 1, 1, device=areas.device) * 2 * math.pi
    return torch.sin(torch.einsum("bkc,bchw->bkhw", waves, areas) + phases)


def _relief(areas: Tensor) -> Tensor:
    """Return the shading ``(B,1,H,W)`` of light from a random direction on a height map derived from the colours."""
    height = blurred(_function_of_colour(areas, 1), times=6)
    angle = torch.rand(len(areas), 1, 1, 1, device=areas.device) * 2 * math.pi
    down, right = torch.gradient(height, dim=(2, 3))
    slope = torch.cos(angle) * right + torch.sin(angle) * down
    return 2 * blurred(slope, times=2)


def _noise(image: Tensor, cells: int, channels: int = 1) -> Tensor:
    """Return smooth noise ``(B,channels,H,W)`` with about ``cells`` cells along the shorter side."""
    height, width = image.shape[-2:]
    unit = min(height, width) / cells
    shape = (len(image), channels, max(round(height / unit), 1), max(round(width / unit), 1))
    return F.interpolate(_normal(shape, image), size=(height, width), mode="bilinear")
