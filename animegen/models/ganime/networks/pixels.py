"""Features of the pixels of both given frames, from which the transformer reads the motion between them."""

from __future__ import annotations

from math import log2
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.ganime.networks.blocks import ResBlock
from animegen.models.ganime.networks.tokens import FIRST, LAST, MASKED

#: Segment -> index in :attr:`PixelContext.maps`.
_KINDS = {FIRST: 0, LAST: 1, MASKED: 2}


class PairMaps(NamedTuple):
    """Features of both given frames (B,C,h,w), by place of the frame.

    Attributes:
        early: of the first frame at 1/4 of its size, from its pixels alone.
        late: likewise of the last one.
        first: of the first frame at 1/4 of its size, compared with the last one.
        last: likewise of the last one.
        fine_early: of the first frame at 1/2 of its size, from its pixels alone.
        fine_late: likewise of the last one.
    """

    early: Tensor
    late: Tensor
    first: Tensor
    last: Tensor
    fine_early: Tensor
    fine_late: Tensor


class PairFeatures(nn.Module):
    """What each given frame shows around a code, and where the other frame shows the same.

    Frames are known exactly, codes are a coarse summary of them: a figure is two or three codes wide, and a shift by
    less than a code rarely changes any. So motion is read from the pixels. Both frames are embedded at 1/4 of their
    size, and the features of each place are compared with those of the other frame in a window around it, as FlowNet
    and PWC-Net do for optical flow.

    Args:
        dim: output channels.
        divisor: side of the square of pixels that one code represents, a power of 2, at least 4.
        channels: channels of the features at 1/4 of the size.
        hidden: channels of the layers behind the comparison.
        radius: of the window, in steps of 4 pixels.

    Raises:
        AnimegenError: for a divisor that is too small or no power of 2.
    """

    def __init__(self, dim: int, divisor: int, channels: int = 48, hidden: int = 96, radius: int = 4) -> None:
        super().__init__()
        levels = int(log2(divisor))
        if divisor < 4 or 2**levels != divisor:
            raise AnimegenError(
                f"The transformer reads pixels in steps of 4, but the codes represent {divisor}x{divisor} pixels: set"
                " model.transformer.pixels=null, or use a tokenizer with larger codes."
            )
        self.channels, self.hidden, self.radius = channels, hidden, radius
        self.fine = nn.Sequential(nn.Conv2d(3, channels // 2, 4, 2, 1), nn.SiLU())
        self.stem = nn.Sequential(
            nn.Conv2d(channels // 2, channels, 4, 2, 1), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )
        inputs = 2 * channels + (2 * radius + 1) ** 2
        self.compare = nn.Sequential(nn.Conv2d(inputs, hidden, 3, padding=1), ResBlock(hidden, hidden, 8))
        self.body = nn.Sequential(
            *(
                layer
                for _ in range(levels - 2)
                for layer in (nn.Conv2d(hidden, hidden, 4, 2, 1), ResBlock(hidden, hidden, 8))
            )
        )
        self.to_given, self.to_between = nn.Conv2d(hidden, dim, 1), nn.Conv2d(2 * (hidden + dim), dim, 1)

    def forward(self, first: Tensor, last: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor, PairMaps]:
        """Return features (B,dim,h,w) for the codes of the first and the last frame, and for those between; and maps.

        Args:
            first: (B,3,H,W) in [-1,1].
            last: likewise.
            codes: (B,2 dim,h,w), the embeddings of the codes of both. Those between get them directly, since most
                codes are those of a given frame at the same place.
        """
        fine = self.fine(torch.cat([first, last]))
        early, late = self.stem(fine).chunk(2)
        matched = [
            torch.cat([own, other, correlation(own, other, self.radius)], 1)
            for own, other in ((early, late), (late, early))
        ]
        compared = self.compare(torch.cat(matched))
        maps = self.body(compared)
        from_first, from_last = self.to_given(maps).chunk(2)
        between = self.to_between(torch.cat([*maps.chunk(2), codes.to(maps.dtype)], 1))
        return from_first, from_last, between, PairMaps(early, late, *compared.chunk(2), *fine.chunk(2))


def correlation(own: Tensor, other: Tensor, radius: int) -> Tensor:
    """Return the similarity of each vector of a map to those of another around the same place.

    Args:
        own: (B,C,h,w).
        other: (B,C,h,w).
        radius: of the window; outside of the map the similarity is 0.

    Returns:
        (B,(2 radius + 1)^2,h,w): cosine similarities times the square root of C, by row and then column of the shift.
    """
    height, width = own.shape[-2:]
    own, other = (F.normalize(x.float(), dim=1).to(x.dtype).flatten(2) for x in (own, other))
    # All pairs are a single matrix product, faster than products of windows for maps of up to about 32x32.
    scores = own.transpose(1, 2) @ other * own.shape[1] ** 0.5
    places, inside = _windows(height, width, radius, own.device)
    found = scores.gather(2, places.expand(len(scores), -1, -1)) * inside
    return found.transpose(1, 2).unflatten(2, (height, width))


def _windows(height: int, width: int, radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the places (h w,n) in the windows around all places of a map, and whether they are inside of it."""
    shift = torch.arange(-radius, radius + 1, device=device)
    row = torch.arange(height, device=device).view(-1, 1, 1, 1) + shift.view(-1, 1)
    column = torch.arange(width, device=device).view(-1, 1, 1) + shift
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    places = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    side = (2 * radius + 1) ** 2
    return places.reshape(-1, side), inside.reshape(-1, side)


class PixelContext:
    """The features of a batch of pairs as token vectors.

    Args:
        first: (B,dim,h,w) for the codes of the first frame.
        last: likewise for the last one.
        between: likewise for those between.
        pair: maps of the features of both frames.
    """

    def __init__(self, first: Tensor, last: Tensor, between: Tensor, pair: PairMaps) -> None:
        self.pair = pair
        self.width = first.shape[-1]
        #: (3,B,h w,dim).
        self.maps = torch.stack([part.flatten(2).transpose(1, 2) for part in (first, last, between)])

    def at(self, positions: Tensor, segments: Tensor, rows: int) -> Tensor:
        """Return the vectors (rows,S,dim) of tokens; those of the length token are 0.

        Args:
            positions: (S,3), frame, row and column.
            segments: (S,).
            rows: number of sequences, a multiple of B.
        """
        cells = positions[:, 1] * self.width + positions[:, 2]
        found = self.maps.new_zeros((self.maps.shape[1], len(cells), self.maps.shape[-1]))
        for segment, kind in _KINDS.items():
            chosen = segments == segment
            found[:, chosen] = self.maps[kind][:, cells[chosen]]
        return found.repeat(rows // len(found), 1, 1)
