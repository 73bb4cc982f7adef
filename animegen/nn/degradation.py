"""Anime made to look a little like a photo, so that a generator can learn the way back from pairs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.colour import LinearColourTransfer


class PhotoDegradation(nn.Module):
    """Give anime pictures the colours, texture, shading, blur and grain of photos, at random, and take their ink away.

    An identity term (generator(anime) = anime) teaches the generator what anime is, but not how to get
    there. The same term on degraded anime teaches it to flatten texture, to draw lines where two areas meet and to
    bring the colours back, all under supervision and still without a single pair of photo and anime. The
    domain gap that remains is the discriminator's.

    In a drawing one material has one colour. So texture and tint are random smooth functions of the *colour*: leaves
    become rough while the sky stays smooth, and the border of the roughness is the border of the leaves.

    Amplitudes are in units of the intensity range [0,1].

    Args:
        recolour: how far the colours go to those of the photos, 0 to 1. Less than 1 where the photos' colours are to
            be kept: what is taken away here, the generator learns to give to every photo.
        ink: dark lines narrower than this many pixels are closed; 1 closes none.
        kept_ink: share of the pictures that keep their lines. Where photos have thin dark lines of their own (branches,
            mortar), a generator that never saw any makes something of them, such as white blotches.
        texture: largest standard deviation of multiplicative texture, with grains of 1, 2, 4 and 8 pixels.
        hue: strength of coloured texture, as a share of that of gray texture.
        tint: largest multiplicative change of a colour, its own for every colour and channel.
        shading: strength of the light that falls from one side on the borders of areas, as if they were cushions.
        light: standard deviation of multiplicative changes of brightness, and of each channel by itself, that are the
            same all over a picture: the light of another hour.
        blur: largest share of a 3x3 binomial blur.
        grain: standard deviation of additive noise per pixel and channel.
        borrowed: largest share of the fine detail of photos that is laid over the pictures. Detail beyond
            a tenth of the range is cut: an edge of the photo is no texture, and has no business there.
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
        """Return degraded pictures of the same shape and range.

        Args:
            anime: ``(B,3,H,W)`` in [-1,1].
            colours: the map from photo to anime colours, used backwards.
            frames: each picture is that many frames of a clip below each other. They meet the same fate, and have the
                same texture, which would be noise if it changed from frame to frame; only grain does.
            photos: ``(N,3,H,W)`` in [-1,1], to borrow detail from.
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
        """Return noise of several sizes of grain, mixed differently for each picture, ``(B,3,H,W)``."""
        image = image[..., : image.shape[-2] // frames, :]
        side, grains = min(image.shape[-2:]), (1, 2, 4, 8)
        shares = F.normalize(torch.rand(len(image), len(grains), 1, 1, 1, device=image.device), dim=1)
        total = torch.zeros_like(image)
        for number, grain in enumerate(grains):
            cells = max(side // grain, 2)
            total += shares[:, number] * (_noise(image, cells) + self.hue * _noise(image, cells, channels=3))
        return total.repeat(1, 1, frames, 1)


def without_lines(anime: Tensor, width: int) -> Tensor:
    """Close dark lines narrower than ``width`` (odd): the brightest, then the darkest value of each neighbourhood."""
    return -_brightest(-_brightest(anime, width // 2), width // 2)


def _brightest(image: Tensor, reach: int) -> Tensor:
    """Return the largest value up to ``reach`` pixels away, along rows and then along columns."""
    for dim in (2, 3):
        for _ in range(reach):
            first, last = image.narrow(dim, 0, 1), image.narrow(dim, -1, 1)
            longer = torch.cat([first, image, last], dim)
            middle = torch.maximum(longer.narrow(dim, 0, image.shape[dim]), longer.narrow(dim, 2, image.shape[dim]))
            image = torch.maximum(image, middle)
    return image


def blurred(image: Tensor, times: int = 1) -> Tensor:
    """Blur by a 3x3 binomial kernel, so many times."""
    line = torch.tensor([0.25, 0.5, 0.25], device=image.device)
    kernel = torch.outer(line, line).expand(image.shape[1], 1, 3, 3)
    for _ in range(times):
        image = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), kernel, groups=image.shape[1])
    return image


def _normal(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.randn(shape, device=like.device)


def _function_of_colour(areas: Tensor, channels: int) -> Tensor:
    """Return a random smooth function of the colour at each pixel, another one for each picture, in [-1,1]."""
    waves = _normal((len(areas), channels, 3), areas) * 3.0  # about one period over the range of colours
    phases = torch.rand(len(areas), channels, 1, 1, device=areas.device) * 2 * math.pi
    return torch.sin(torch.einsum("bkc,bchw->bkhw", waves, areas) + phases)


def _relief(areas: Tensor) -> Tensor:
    """Return how much brighter light from one side makes each pixel, ``(B,1,H,W)``, if colours were heights."""
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
