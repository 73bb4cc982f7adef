"""Pairs of frames in overlapping tiles, for frames that do not fit into memory in one piece."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.media.images import to_float, to_uint8
from animegen.media.video.frames import Original
from animegen.tasks.protocols import Interpolator, NeighbourInterpolator
from animegen.tiling.memory import shortage

#: Share of a tile that overlaps each neighbour. A motion within a tile can be about that long.
OVERLAP = 0.25
#: Encoded tiles kept for further frames of the same pair. The others are encoded again for each frame.
KEPT = 8

#: Top, bottom, left and right of a tile.
Place = tuple[int, int, int, int]


class TiledPair:
    """A pair of frames, interpolated tile by tile and blended with raised cosines.

    Beside the frames, the memory for :data:`KEPT` encoded tiles and for one row of tiles is needed.

    Args:
        model: interpolates each tile.
        first: the frame at t = 0.
        last: the frame at t = 1, of the same size.
        tile: side of the tiles in pixels; 0: one piece.
        device: device of the model.
    """

    def __init__(self, model: Interpolator, first: Original, last: Original, tile: int, device: torch.device) -> None:
        self.model, self.pair, self.device = model, (first, last), device
        self.deep = first.refine is not None
        self.height, self.width = first.pixels.shape[1:]
        self.rows, self.columns = (_tiles(side, tile, device) for side in (self.height, self.width))
        self._kept: dict[tuple[int, int], Any] = {}
        self._among: dict[tuple[int, int], Any] = {}  # the same, with what the neighbours tell

    def check_memory(self, dtype: torch.dtype | None = None) -> None:
        """Check that the main memory suffices for a tile.

        Raises:
            AnimegenError: if it does not.
        """
        height, width = self.rows[0][1], self.columns[0][1]

        def network(pair: Tensor) -> Tensor:
            encoded = self.model.encode_pair(pair[:, :3], pair[:, 3:])
            return self.model.synthesize(encoded, torch.tensor([0.5], device=self.device))

        if short := shortage(network, (1, 6, height, width), self.device, dtype):
            raise AnimegenError(
                f"{width}x{height} pixels in one piece need {short[0] / 1e9:.1f} GB of memory, and"
                f" {short[1] / 1e9:.1f} GB are available: set a smaller tile=."
            )

    def at(self, t: float, before: Beside | None = None, after: Beside | None = None) -> Tensor:
        """Return the frame at time t on the CPU, ``(3,H,W)``: uint8, or float in [-1,1] for more than eight bits.

        Args:
            t: in (0, 1).
            before: the pair before, for models that learn from it
                (:class:`~animegen.tasks.protocols.NeighbourInterpolator`), with its length in units of this one's.
            after: the pair after. Both are the same for all times, until :meth:`forget` is called.

        Raises:
            AnimegenError: if the model returns values that are not finite.
        """
        frame = torch.empty(3, self.height, self.width, dtype=torch.float32 if self.deep else torch.uint8)
        tile_height = self.rows[0][1]
        band = torch.zeros(3, tile_height, self.width, device=self.device)
        for number, (top, bottom, falloff) in enumerate(self.rows):
            for left, right, weights in self.columns:
                tile = self._tile((top, bottom, left, right), t, before, after)
                band[..., left:right] += tile * (falloff[:, None] * weights)
            # The rows above the next tiles are complete.
            done = (self.rows[number + 1][0] if number + 1 < len(self.rows) else self.height) - top
            frame[:, top : top + done] = band[:, :done] if self.deep else to_uint8(band[:, :done])
            band = band.roll(-done, 1)
            band[:, tile_height - done :] = 0
        return frame

    def forget(self) -> None:
        """Drop what is known from the pairs before and after; the pair itself stays encoded."""
        self._among.clear()

    def _tile(self, place: Place, t: float, before: Beside | None, after: Beside | None) -> Tensor:
        encoded = self._encoded_among(place, before, after)
        tile = self.model.synthesize(encoded, torch.tensor([t], device=self.device))[0].float()
        if not tile.isfinite().all():
            raise AnimegenError("The model returns NaN or infinity: use another checkpoint, or precision=fp32.")
        return tile

    def _encoded_among(self, place: Place, before: Beside | None, after: Beside | None) -> Any:
        if before is None and after is None:
            return self._encoded(place)
        assert isinstance(self.model, NeighbourInterpolator)
        corner = place[0], place[2]
        encoded = self._among.get(corner)
        if encoded is None:
            beside = [None if pair is None else (pair[0]._encoded(place), pair[1]) for pair in (before, after)]
            encoded = self.model.encode_among(self._encoded(place), *beside)
            if len(self._among) < KEPT:
                self._among[corner] = encoded
        return encoded

    def _encoded(self, place: Place) -> Any:
        corner = place[0], place[2]
        encoded = self._kept.get(corner)
        if encoded is None:
            encoded = self.model.encode_pair(*(self._crop(frame, *place) for frame in self.pair))
            if len(self._kept) < KEPT:
                self._kept[corner] = encoded
        return encoded

    def _crop(self, frame: Original, top: int, bottom: int, left: int, right: int) -> Tensor:
        """Return a part of a frame for the model; eight bits per colour travel to the device as such."""
        values = (frame.values[:3] if self.deep else frame.pixels)[None, :, top:bottom, left:right].to(self.device)
        return (values if self.deep else to_float(values)).contiguous()


#: A neighbouring pair with the time between its frames, in units of that of the pair in question.
Beside = tuple[TiledPair, float]


def _tiles(length: int, tile: int, device: torch.device) -> list[tuple[int, int, Tensor]]:
    """Return start, end and blend weights of the tiles along a side; the weights of each position sum to 1.

    The tiles are evenly spread; each shares at least `OVERLAP` of it with the next.
    """
    if tile == 0 or length <= tile:
        return [(0, length, torch.ones(length, device=device))]
    count = 1 + math.ceil((length - tile) / (tile * (1 - OVERLAP)))
    starts = [round((length - tile) * n / (count - 1)) for n in range(count)]
    ramp = max(1, round(tile * OVERLAP))
    rise = torch.ones(tile)
    rise[:ramp] = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(ramp) + 0.5) / ramp)
    windows, total = torch.ones(count, tile), torch.zeros(length)
    windows[1:] *= rise
    windows[:-1] *= rise.flip(0)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + tile] += window
    return [(s, s + tile, (w / total[s : s + tile]).to(device)) for s, w in zip(starts, windows, strict=True)]
