"""A model that draws the frames between two frames of a video, one pair after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.inference.confidence import Confidence
from animegen.inference.pair_tiles import Beside, TiledPair
from animegen.inference.timegrid import Neighbour
from animegen.media.video.frames import Original
from animegen.nn.precision import inference
from animegen.tasks.protocols import Interpolator

#: Largest side that is computed in one piece with ``tile=auto``.
AUTO_TILE = 1536
SMALLEST_TILE = 128


@dataclass(eq=False)
class _Pair:
    """Two frames that follow each other, encoded as far as needed.

    Attributes:
        first: the frame at t = 0.
        last: the frame at t = 1.
        colours: the pair for the model; ``None`` if the frames match too little.
        alpha: the same of their alpha, once it is needed.
    """

    first: Original
    last: Original
    colours: TiledPair | None
    alpha: TiledPair | None = None

    def shows(self, first: Original, last: Original) -> bool:
        """Return whether these are its frames."""
        return self.first is first and self.last is last


class Inbetweener:
    """A model that draws the frames between two frames, one pair after the other.

    Alpha that changes goes through the model as a grey image, so that it moves as outlines do.

    Args:
        model: the model in eval mode, on ``device``.
        device: device of the computation.
        dtype: autocast type, ``None`` for full precision.
        tile: largest side that is computed in one piece; 0: everything; ``None``: `AUTO_TILE`, and smaller ones when
            the memory does not suffice.
        confidence: pairs that match less than this share (:class:`~animegen.inference.confidence.Confidence`) are not
            drawn between: the first frame is held. 0 draws between all.

    Attributes:
        drawn: frames drawn.
        held: frames that were not drawn, since the two of their pair match too little.
    """

    def __init__(
        self,
        model: Interpolator,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        tile: int | None = None,
        confidence: float = 0.0,
    ) -> None:
        self.model, self.device, self.dtype = model, torch.device(device), dtype
        self.tile, self._may_shrink = AUTO_TILE if tile is None else tile, tile is None
        self.least, self._match = confidence, Confidence() if confidence > 0 else None
        self._pairs: list[_Pair] = []  # the current one and its neighbours
        self._current: _Pair | None = None
        self._checked = False
        self.drawn = self.held = 0

    def __call__(
        self,
        first: Original,
        last: Original,
        t: float,
        before: Neighbour[Original] | None = None,
        after: Neighbour[Original] | None = None,
    ) -> Tensor | None:
        """Draw the frame at time t between two frames; a pair is encoded once, also as a neighbour of other pairs.

        Args:
            first: the frame at t = 0.
            last: the frame at t = 1.
            t: in (0, 1).
            before: the frame before ``first``, for a model that learns from it
                (:class:`~animegen.tasks.protocols.NeighbourInterpolator`).
            after: the frame after ``last``. Both are the same for all times of a pair.

        Returns:
            ``(3,H,W)``, or ``(4,H,W)`` with alpha: float in [-1,1] if the frames have more than eight bits per colour,
            else uint8. ``None`` if they match too little, so that the first is to be held.

        Raises:
            AnimegenError: if the memory does not suffice, or the model returns invalid images.
        """
        while True:
            try:
                image = self._draw(first, last, t, before, after)
                break
            except torch.OutOfMemoryError as error:
                _, height, width = first.pixels.shape
                smaller = min(self.tile or max(height, width), max(height, width)) // 2
                if not self._may_shrink or smaller < SMALLEST_TILE:
                    raise AnimegenError(
                        f"The memory of the device is too small for frames of {width}x{height}: use"
                        " a smaller tile=, precision=bf16, or device=cpu."
                    ) from error
                self._pairs, self._current = [], None
                self.tile = smaller
            torch.cuda.empty_cache()
        if image is None:
            self.held += 1
        else:
            self.drawn += 1
        return image

    def _draw(
        self,
        first: Original,
        last: Original,
        t: float,
        before: Neighbour[Original] | None,
        after: Neighbour[Original] | None,
    ) -> Tensor | None:
        with inference(self.device, self.dtype):
            pair = self._current
            if pair is None or not pair.shows(first, last):
                pair = self._next(first, last, before, after)
            if pair.colours is None:
                return None
            early = None if before is None else (self._pair(before.frame, first), before.length)
            late = None if after is None else (self._pair(last, after.frame), after.length)
            pixels = pair.colours.at(t, _colours(early), _colours(late))
            if first.alpha is None and last.alpha is None:
                return pixels
            deep = pixels.is_floating_point()
            if pair.alpha is None:
                mask = mask_of(first).at(deep)[:1]
            else:
                drawn = pair.alpha.at(t, self._alpha(early), self._alpha(late))
                mask = drawn.float().mean(0, keepdim=True)
            return torch.cat([pixels, mask if deep else mask.round().to(torch.uint8)])

    def _next(
        self,
        first: Original,
        last: Original,
        before: Neighbour[Original] | None,
        after: Neighbour[Original] | None,
    ) -> _Pair:
        """Return the pair to draw from now on; forget the others but its neighbours."""
        self._current = None
        self._pairs = [
            pair
            for pair in self._pairs
            if pair.shows(first, last)
            or (before is not None and pair.shows(before.frame, first))
            or (after is not None and pair.shows(last, after.frame))
        ]
        for known in self._pairs:
            for tiled in (known.colours, known.alpha):
                if tiled is not None:
                    tiled.forget()
        pair = self._pair(first, last)
        if pair.colours is not None:
            if not self._checked and not self._may_shrink:
                pair.colours.check_memory(self.dtype)
            self._checked = True
            masks = mask_of(first), mask_of(last)
            if torch.equal(masks[0].pixels, masks[1].pixels):
                pair.alpha = None  # an unchanged mask stays as it is, whatever moves before and after
            else:
                self._with_alpha(pair)
        self._current = pair
        return pair

    def _pair(self, first: Original, last: Original) -> _Pair:
        for pair in self._pairs:
            if pair.shows(first, last):
                return pair
        matches = self._match is None or self._match(first.pixels, last.pixels) >= self.least
        colours = TiledPair(self.model, first, last, self.tile, self.device) if matches else None
        self._pairs.append(_Pair(first, last, colours))
        return self._pairs[-1]

    def _with_alpha(self, pair: _Pair) -> TiledPair:
        if pair.alpha is None:
            masks = mask_of(pair.first), mask_of(pair.last)
            pair.alpha = TiledPair(self.model, *masks, self.tile, self.device)
        return pair.alpha

    def _alpha(self, beside: tuple[_Pair, float] | None) -> Beside | None:
        if beside is None or beside[0].colours is None:
            return None
        return self._with_alpha(beside[0]), beside[1]


def _colours(beside: tuple[_Pair, float] | None) -> Beside | None:
    return None if beside is None or beside[0].colours is None else (beside[0].colours, beside[1])


def mask_of(frame: Original) -> Original:
    """Return the alpha of a frame as a grey image."""
    alpha = torch.full_like(frame.pixels[0], 255) if frame.alpha is None else frame.alpha
    fine = None if frame.refine is None else lambda: frame.values[3:].expand(3, -1, -1)
    return Original(alpha.expand(3, -1, -1), refine=fine)
