"""A model applied to one frame of any size, within the memory that there is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.media.images import to_float, to_uint8
from animegen.tasks.protocols import Stylizer
from animegen.tasks.stylize import pad_and_crop
from animegen.tiling.receptive_field import inference
from animegen.tiling.recorder import TilingError
from animegen.tiling.tiles import tileable, tiled

#: Largest side computed in one piece with ``tile=auto``. On a CPU small tiles are also the fastest: their maps
#: stay in the cache, and the allocator hands out the same memory again instead of asking the system.
AUTO_TILE = {"cpu": 256}
AUTO_TILE_ELSEWHERE = 1024
SMALLEST_TILE = 64


class NoMemoryError(AnimegenError):
    """A frame is too large for the memory of the device."""


class _Network:
    """The model as a network, for tiled inference."""

    def __init__(self, model: Stylizer, style: Any = None) -> None:
        self.model, self.style = model, style
        self.size_divisor = model.size_divisor
        self.tileable = getattr(model, "tileable", True)

    def __call__(self, images: Tensor) -> Tensor:
        return self.model.stylize(images, None, self.style)[0]


class Stylist:
    """Applies a model to photos, and to the frames of films one after the other.

    Args:
        model: in eval mode, on ``device``.
        device: where to compute.
        tile: largest side computed in one piece, 0 for any, ``None`` for the model's attribute ``tile``, or the
            usual of the device. Models that remember earlier frames always compute in one piece.
        dtype: autocast type, ``None`` for full precision.
        strength: 0 returns the photo, 1 the drawing, between them their linear blend.
        note: is told in a sentence what else the user should know.
        style: what the model makes of the stills of a look (:class:`~animegen.tasks.protocols.Styled`); ``None`` is the
            model's own choice.
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
    ) -> None:
        self.device = torch.device(device)
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
        """Stylise a photo, uint8 ``(3,H,W)`` to the same shape and type.

        Raises:
            NoMemoryError: if the memory does not suffice.
        """
        photo = self._photo(pixels)
        return self._pixels(photo, self._draw(photo))

    def follow(self, pixels: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Stylise the next frame of a film, uint8 ``(3,H,W)`` to the same shape and type.

        Args:
            pixels: the frame.
            state: what the call for the frame before returned; ``None`` at the beginning of a shot.

        Returns:
            the frame, and the state for the next one: ``None`` if the model remembers nothing.

        Raises:
            NoMemoryError: if the memory does not suffice.
        """
        if not self.remembers:
            return self(pixels), None
        photo = self._photo(pixels)
        after: list[Any] = []

        def network(images: Tensor) -> Tensor:
            drawn, new_state = self.model.stylize(images, state, self.style)
            after.append(new_state)
            return drawn

        try:
            with inference(self.device, self.dtype):
                drawing = pad_and_crop(network, photo, self.model.size_divisor).to(photo.dtype)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise self._no_memory(" ".join(str(error).split())[:120]) from error
        return self._pixels(photo, drawing), after[-1]

    @cached_property
    def remembers(self) -> bool:
        """Whether the model remembers earlier frames, found out by giving it a grey one."""
        factor = self.model.size_divisor
        side = -(-max(64, 2 * factor) // factor) * factor
        with inference(self.device, self.dtype):
            return self.model.stylize(torch.zeros(1, 3, side, side, device=self.device), None)[1] is not None

    def _photo(self, pixels: Tensor) -> Tensor:
        return to_float(pixels)[None].to(self.device).contiguous(memory_format=self._order)

    def _pixels(self, photo: Tensor, drawing: Tensor) -> Tensor:
        return to_uint8(torch.lerp(photo, drawing, self.strength)[0]).cpu().contiguous()

    def _draw(self, photo: Tensor) -> Tensor:
        """Run the model; when the memory does not suffice, again in smaller tiles."""
        while True:
            tile = self._usable_tile(photo)
            try:
                network = partial(tiled, self._network, tile=tile, dtype=self.dtype)
                return pad_and_crop(network, photo, self._network.size_divisor)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:120]
            # Only now, without the exception, are the tensors of the failed attempt gone.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._take_smaller_tiles(tile or max(photo.shape[-2:]), reason)

    def _take_smaller_tiles(self, tile: int, reason: str) -> None:
        smaller = tile // 2
        if self._whole_only or smaller < SMALLEST_TILE:
            raise self._no_memory(reason)
        self.tile = smaller
        self.note(f"The memory of {self.device} did not suffice; going on in tiles of {smaller} pixels.")

    def _no_memory(self, reason: str) -> NoMemoryError:
        return NoMemoryError(
            f"the memory of {self.device} does not suffice ({reason}): set max_side= to scale it down,"
            " or choose another device="
        )

    def _usable_tile(self, photo: Tensor) -> int:
        if self.tile == 0 or max(photo.shape[-2:]) <= self.tile or self._whole_only:
            return 0
        try:
            tileable(self._network, photo.shape[1], self.device, self.dtype)
        except TilingError as reason:
            self._whole_only = True
            self.note(f"This model cannot be run in tiles, since {reason}; large pictures take more memory.")
            return 0
        return self.tile


def _out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch means that memory ran out; on the CPU it has no class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)
