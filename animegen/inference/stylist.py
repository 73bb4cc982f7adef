"""A model applied to single images of any size, within the available memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.inference.enlargement import ROWS, enlarge, usual_width
from animegen.media.images import to_float, to_uint8
from animegen.media.photos import resize
from animegen.nn.precision import inference
from animegen.tasks.protocols import Stylizer
from animegen.tasks.stylize import padding
from animegen.tiling.graph import TilingError
from animegen.tiling.grid import Box, Grid
from animegen.tiling.memory import shortage
from animegen.tiling.tiles import halo_of, run_tiles

#: Largest side computed in one piece with ``tile=auto``. On a CPU small tiles are also the fastest: their maps
#: stay in the cache, and the allocator hands out the same memory again instead of asking the system.
AUTO_TILE = {"cpu": 256}
AUTO_TILE_ELSEWHERE = 1024
SMALLEST_TILE = 64


class NoMemoryError(AnimegenError):
    """An image is too large for the memory of the device."""


class _Network:
    """The model as a network, for tiled inference."""

    def __init__(self, model: Stylizer, style: Any = None) -> None:
        self.model, self.style = model, style
        self.size_divisor = model.size_divisor
        self.tileable = getattr(model, "tileable", True)

    def __call__(self, images: Tensor) -> Tensor:
        return self.model.stylize(images, None, self.style)[0]


class Stylist:
    """Applies a model to photos, and to the frames of videos one after the other.

    In tiles, the memory for a photo, apart from its pixels, does not grow with its size.

    Args:
        model: the model in eval mode, on ``device``.
        device: device of the computation.
        tile: largest side computed in one piece, 0 for any, ``None`` for the model's attribute ``tile``, or the default
            of the device. Models that remember earlier frames always compute in one piece.
        dtype: autocast type, ``None`` for full precision.
        strength: 0 returns the photo, 1 the drawing, values between them their linear blend.
        note: called with sentences for the user.
        style: encoded style images (:class:`~animegen.tasks.protocols.Styled`); ``None`` is the
            model's own choice.
        line_width: width of lines relative to those that the model draws: above 1 it draws at that fraction of the
            size, and the drawing is enlarged. ``None``: by the size of the image, see
            :func:`~animegen.inference.enlargement.usual_width`.
    """

    def __init__(
        self,
        model: Stylizer,
        device: torch.device | str = "cpu",
        tile: int | None = None,
        dtype: torch.dtype | None = None,
        strength: float = 1.0,
        note: Callable[[str], None] = print,
        style: Any = None,
        line_width: float | None = 1.0,
    ) -> None:
        self.device, self.line_width = torch.device(device), line_width
        usual = getattr(model, "tile", None) or AUTO_TILE.get(self.device.type, AUTO_TILE_ELSEWHERE)
        self.tile = usual if tile is None else tile
        self.dtype, self.strength, self.note = dtype, strength, note
        # Convolutions on CPU and CUDA are faster in this order of the values.
        self._order = torch.contiguous_format if self.device.type == "mps" else torch.channels_last
        if isinstance(model, nn.Module):
            model.to(memory_format=self._order)
        self.model, self.style = model, style
        self._network = _Network(model, style)
        self._whole_only = False

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stylise a photo, uint8 ``(3,H,W)``, or float in [-1,1], to the same shape and type.

        Raises:
            NoMemoryError: if the memory does not suffice.
        """
        small = self._small(pixels)
        while True:
            canvas = self._canvas(small, pixels)
            tile = self._usable_tile(canvas)
            if tile == 0:
                self._check_memory(canvas)
            try:
                self._draw(canvas, tile)
                return self._enlarged(canvas.drawn, pixels)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:120]
            # Only now, without the exception, are the tensors of the failed attempt gone.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._take_smaller_tiles(tile or canvas.side, reason)

    def follow(self, pixels: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Stylise the next frame of a video, uint8 ``(3,H,W)``, or float in [-1,1], to the same shape and type.

        Args:
            pixels: the frame.
            state: state after the frame before; ``None`` at the start of a shot.

        Returns:
            the frame, and the state for the next one: ``None`` if the model remembers nothing.

        Raises:
            NoMemoryError: if the memory does not suffice.
        """
        if not self.remembers:
            return self(pixels), None
        canvas = self._canvas(self._small(pixels), pixels)
        if state is None:
            self._check_memory(canvas)
        try:
            with inference(self.device, self.dtype):
                drawing, state = self.model.stylize(canvas.read(canvas.box), state, self.style)
            canvas.write(canvas.box, drawing)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise self._no_memory(" ".join(str(error).split())[:120]) from error
        return self._enlarged(canvas.drawn, pixels), state

    @cached_property
    def remembers(self) -> bool:
        """Whether the model remembers earlier frames, found out with a grey image."""
        divisor = self.model.size_divisor
        side = -(-max(64, 2 * divisor) // divisor) * divisor
        with inference(self.device, self.dtype):
            return self.model.stylize(torch.zeros(1, 3, side, side, device=self.device), None)[1] is not None

    def _small(self, pixels: Tensor) -> Tensor:
        """Return an image at the size at which it is drawn."""
        height, width = pixels.shape[-2:]
        factor = usual_width(height, width) if self.line_width is None else self.line_width
        return resize(pixels, *(max(1, round(side / factor)) for side in (height, width)))

    def _canvas(self, small: Tensor, pixels: Tensor) -> _Canvas:
        """Return the canvas of an image; a drawing that will be enlarged is blended only then."""
        strength = self.strength if small.shape == pixels.shape else 1.0
        return _Canvas(small, self.model.size_divisor, self.device, self._order, strength)

    def _enlarged(self, drawing: Tensor, pixels: Tensor) -> Tensor:
        """Return a drawing at the size of its image, blended with it if that was not done before."""
        if drawing.shape == pixels.shape:
            return drawing
        enlarged = enlarge(drawing, *pixels.shape[-2:])
        if self.strength < 1:
            for drawn, given in zip(enlarged.split(ROWS, 1), pixels.split(ROWS, 1), strict=True):
                blended = torch.lerp(given.float(), drawn.float(), self.strength)
                drawn.copy_(blended if drawn.is_floating_point() else blended.round())
        return enlarged

    def _draw(self, canvas: _Canvas, tile: int) -> None:
        if tile == 0:
            with inference(self.device, self.dtype):
                canvas.write(canvas.box, self._network(canvas.read(canvas.box)))
            return
        halo = halo_of(self._network, 3, self.device, self.dtype)
        grid = Grid(canvas.box.bottom, canvas.box.right, tile, halo, self._network.size_divisor)
        run_tiles(self._network, grid, canvas.read, canvas.write, self.device, self.dtype)

    def _usable_tile(self, canvas: _Canvas) -> int:
        """Return the side of the tiles, or 0 if the image is computed in one piece."""
        if self.tile == 0 or canvas.side <= self.tile or self._whole_only:
            return 0
        try:
            halo_of(self._network, 3, self.device, self.dtype)
        except TilingError as reason:
            self._whole_only = True
            self.note(f"This model cannot be run in tiles, since {reason}; large images take more memory.")
            return 0
        return self.tile

    def _take_smaller_tiles(self, tile: int, reason: str) -> None:
        smaller = tile // 2
        if self._whole_only or smaller < SMALLEST_TILE:
            raise self._no_memory(reason)
        self.tile = smaller
        self.note(f"The memory of {self.device} did not suffice; continuing in tiles of {smaller} pixels.")

    def _check_memory(self, canvas: _Canvas) -> None:
        """Check that the main memory suffices for an image in one piece.

        Raises:
            NoMemoryError: if it does not.
        """
        height, width = canvas.box.bottom, canvas.box.right
        short = shortage(self._network, (1, 3, height, width), self.device, self.dtype)
        if short is None:
            return
        needed, available = short
        side = math.floor(math.sqrt(0.7 * available / needed) * canvas.side / 100) * 100
        tiles = "" if self._whole_only or self._network.tileable is False else " or a tile="
        raise NoMemoryError(
            f"{width}x{height} pixels in one piece need {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB"
            f" are available: set max_side={max(side, 100)} or smaller{tiles}"
        )

    def _no_memory(self, reason: str) -> NoMemoryError:
        return NoMemoryError(
            f"the memory of {self.device} does not suffice ({reason}): set max_side= to scale it down,"
            " or choose another device="
        )


class _Canvas:
    """An image that is read and drawn in boxes; only its pixels exist as a whole.

    Boxes are in the padded image, see :func:`~animegen.tasks.stylize.padding`.

    Args:
        pixels: uint8 ``(3,H,W)``, or float in [-1,1].
        divisor: the sides of the padded image are multiples of this.
        device: device of the results.
        order: memory format of the results.
        strength: share of the drawing; the rest is the photo.
    """

    def __init__(
        self, pixels: Tensor, divisor: int, device: torch.device, order: torch.memory_format, strength: float
    ) -> None:
        self.pixels, self.device, self.order, self.strength = pixels, device, order, strength
        height, width = pixels.shape[-2:]
        right, bottom, mode = padding(height, width, divisor)
        self.rows, self.columns = _padded(height, bottom, mode), _padded(width, right, mode)
        self.box = Box(0, height + bottom, 0, width + right)
        #: The result so far, of the same shape and type.
        self.drawn = torch.empty(height, width, 3, dtype=pixels.dtype).permute(2, 0, 1)

    @property
    def side(self) -> int:
        """The longer side of the padded image."""
        return max(self.box.bottom, self.box.right)

    def read(self, box: Box) -> Tensor:
        """Return a part of the photo, (1,3,h,w) in [-1,1]."""
        rows, columns = self.rows[box.top : box.bottom], self.columns[box.left : box.right]
        top, left = int(rows.min()), int(columns.min())
        pixels = self.pixels[:, top : int(rows.max()) + 1, left : int(columns.max()) + 1]
        if pixels.shape[1:] != (len(rows), len(columns)):  # at a padded border
            pixels = pixels[:, (rows - top)[:, None], columns - left]
        pixels = pixels[None].to(self.device)
        values = pixels if pixels.is_floating_point() else to_float(pixels)
        return values.contiguous(memory_format=self.order)

    def write(self, box: Box, drawing: Tensor) -> None:
        """Draw (1,3,h,w) in [-1,1], blended with the photo."""
        if self.strength < 1:
            drawing = torch.lerp(self.read(box), drawing.float(), self.strength)
        target = self.drawn[:, box.top : box.bottom, box.left : box.right]
        drawing = drawing[0, :, : target.shape[1], : target.shape[2]]
        target.copy_(drawing if target.is_floating_point() else to_uint8(drawing))


def _padded(length: int, pad: int, mode: str) -> Tensor:
    """Return the positions in a side whose values the padded side has."""
    positions = torch.arange(length, dtype=torch.float64)[None, None]
    return F.pad(positions, (0, pad), mode=mode)[0, 0].long()


def _out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch means out of memory; on the CPU it has no separate class."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)
