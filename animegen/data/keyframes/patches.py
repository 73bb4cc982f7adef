"""Patches cropped from images on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.sampler import counter_hash, counter_hash_tensor, permutation, random_bits, uniform
from animegen.errors import AnimegenError

EROSION = 3
"""Erosion in pixels of the masks of patch centres, as in the released code of Texler et al. 2020."""

BALANCE = ("round_robin", "by_area")


class PatchBank:
    """Images of one size on a device, from which square patches are cropped with one gather.

    Borders are padded by reflection, so that patches can be centred on any pixel.

    Args:
        images: (N, C, H, W), of any type.
        patch: side of the patches in pixels.
        context: additional pixels on every side.

    Raises:
        AnimegenError: if the images are too small for the padding.
    """

    def __init__(self, images: Tensor, patch: int, context: int = 0) -> None:
        margin = patch // 2 + context
        height, width = images.shape[-2:]
        if patch < 1 or context < 0 or margin >= min(height, width):
            raise AnimegenError(
                f"Patches of {patch} pixels with {context} pixels of context do not fit into frames of"
                f" {width}x{height}: set a smaller data.patch or data.context."
            )
        if images.is_floating_point():
            padded = F.pad(images, (margin,) * 4, mode="reflect")
        else:
            padded = F.pad(images.float(), (margin,) * 4, mode="reflect").to(images.dtype)
        self.side = patch + 2 * context
        self.height, self.width = padded.shape[-2:]
        self.channels = padded.shape[1]
        # One row per pixel, so that a patch is a gather of rows.
        self._pixels = padded.permute(0, 2, 3, 1).reshape(-1, self.channels).contiguous()
        self._offsets = self._make_offsets()

    def _make_offsets(self) -> Tensor:
        steps = torch.arange(self.side, device=self._pixels.device)
        return (steps[:, None] * self.width + steps).flatten()

    def to(self, device: torch.device) -> PatchBank:
        """Move to a device and return self."""
        if self._pixels.device != device:
            self._pixels, self._offsets = self._pixels.to(device), self._offsets.to(device)
        return self

    def cut(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return patches (B, C, side, side), channels-last, centred on the pixels given by int64 (B,) each.

        A patch of even side has one pixel more before its centre than after it.
        """
        # The padding is half a patch: the coordinates of the centre are those of the first pixel in the padded image.
        first = (image * self.height + row) * self.width + column
        rows = self._pixels.index_select(0, (first[:, None] + self._offsets).flatten())
        return rows.view(len(first), self.side, self.side, self.channels).permute(0, 3, 1, 2)


class WholeImages:
    """Whole images in place of the patches of :class:`PatchBank`, as a baseline.

    Args:
        images: (N, C, H, W), of any type, cropped to multiples of ``factor``.
        factor: divisor of the sides.
    """

    def __init__(self, images: Tensor, factor: int = 4) -> None:
        height, width = (side // factor * factor for side in images.shape[-2:])
        self._images = images[..., :height, :width].contiguous(memory_format=torch.channels_last)

    def to(self, device: torch.device) -> WholeImages:
        """Move to a device and return self."""
        self._images = self._images.to(device)
        return self

    def cut(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the images (B, C, H, W) of the given numbers, int64 (B,); rows and columns are ignored."""
        return self._images.index_select(0, image)


class Centres:
    """Patch centres as a function of seed and sample number.

    In every epoch each pixel is the centre once, in a new random order.

    Args:
        masks: (K, H, W) bool, the possible centres after erosion by :data:`EROSION` pixels.
        seed: seed of the order.
        balance: ``round_robin`` alternates between the K images, ``by_area`` draws them in proportion to their pixels.

    Raises:
        AnimegenError: if a mask is empty after erosion, or for an unknown balance.
    """

    def __init__(self, masks: Tensor, seed: int = 0, balance: str = "round_robin") -> None:
        if balance not in BALANCE:
            raise AnimegenError(f"data.balance={balance} is unknown: use {' or '.join(BALANCE)}.")
        valid = erode(masks)
        empty = (~valid.flatten(1).any(1)).nonzero().flatten().tolist()
        if empty:
            raise AnimegenError(f"The mask of key frame number {empty[0]} leaves no position for a patch: enlarge it.")
        self.seed = seed
        self.height, self.width = valid.shape[-2:]
        places = valid.flatten().nonzero().flatten()
        each = self.height * self.width
        groups = [places[places // each == k] for k in range(len(valid))] if balance == "round_robin" else [places]
        #: Linear indices (V,) of the pixels of each group; sample n belongs to group n modulo their number.
        self.groups = groups
        self._orders: dict[int, tuple[int, Tensor]] = {}

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)

    def __call__(self, numbers: Sequence[int]) -> Tensor:
        """Return the linear indices (B,) int64 of the centres of samples; see :meth:`split`."""
        return torch.stack([self._place(number) for number in numbers])

    def _place(self, number: int) -> Tensor:
        count = len(self.groups)
        turn, which = divmod(number, count)
        group = self.groups[which]
        epoch, position = divmod(turn, len(group))
        if self._orders.get(which, (None,))[0] != epoch:
            self._orders[which] = (epoch, permutation(self.seed, f"patches/{which}", epoch, len(group)))
        return group[self._orders[which][1][position]]

    def elsewhere(self, numbers: Sequence[int]) -> Tensor:
        """Return a second random centre (B,) in the same group for each sample number."""
        count = len(self.groups)
        bits = random_bits(counter_hash_tensor(counter_hash(self.seed, "elsewhere"), torch.tensor(numbers)))
        places = []
        for number, bit in zip(numbers, bits.tolist(), strict=True):
            group = self.groups[number % count]
            places.append(group[(bit * len(group)) >> 24])
        return torch.stack(places)

    def split(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return image, row and column, (B,) each, of linear indices."""
        each = self.height * self.width
        return places // each, places % each // self.width, places % self.width


class HardPlaces:
    """Hard example mining: draws centres in proportion to the error in their surroundings.

    The frames are divided into cells, each with a running mean of the errors of the patches centred in it, initially 1.

    Args:
        centres: possible centres.
        cell: side of the cells in pixels.
        memory: decay of the running mean.
    """

    def __init__(self, centres: Centres, cell: int = 8, memory: float = 0.9) -> None:
        self.memory = memory
        places = torch.cat(centres.groups).sort().values
        image, row, column = centres.split(places)
        down, across = -(-centres.height // cell), -(-centres.width // cell)
        cells = (image * down + row // cell) * across + column // cell
        order = cells.argsort(stable=True)
        #: Centres sorted by cell, and the start and number of the centres of each used cell.
        self._places = places[order]
        used, self._counts = torch.unique_consecutive(cells[order], return_counts=True)
        self._begins = self._counts.cumsum(0) - self._counts
        self._cell_of = torch.full((int(places.max()) + 1,), -1)
        self._cell_of[places] = torch.searchsorted(used, cells)
        self.seed = centres.seed
        #: Running mean of the error per used cell, float64. The only state, saved in checkpoints.
        self.error = torch.ones(len(used), dtype=torch.float64)

    def observe(self, places: Tensor, errors: Tensor) -> None:
        """Update the running means by the errors (B,) of patches centred at ``places`` (B,)."""
        cells = self._cell_of[places.cpu()].tolist()
        for cell, error in zip(cells, errors.double().cpu().tolist(), strict=True):
            self.error[cell] = self.memory * self.error[cell] + (1 - self.memory) * error

    def __call__(self, numbers: Sequence[int]) -> Tensor:
        """Return a centre (B,) for each sample number: a cell in proportion to error and size, then a pixel in it."""
        draws = uniform(
            counter_hash_tensor(counter_hash(self.seed, "hard"), torch.tensor(numbers)[:, None], torch.arange(2))
        ).double()
        heap = (self.error * self._counts).cumsum(0)
        cell = torch.searchsorted(heap, draws[:, 0] * heap[-1], right=True).clamp_max(len(heap) - 1)
        return self._places[self._begins[cell] + (draws[:, 1] * self._counts[cell]).long()]


def erode(masks: Tensor, radius: int = EROSION) -> Tensor:
    """Erode masks (K, H, W) bool by squares of side ``2 * radius + 1``; the outside of the image counts as mask."""
    outside = F.pad((~masks).float()[:, None], (radius,) * 4)
    return F.max_pool2d(outside, 2 * radius + 1, stride=1)[:, 0] == 0


def normal_noise(shape: Sequence[int], numbers: Tensor, seed: int) -> Tensor:
    """Return standard normal noise (B, ...) as a function of seed and sample numbers (B,)."""
    count = int(torch.Size(shape[1:]).numel())
    places = torch.arange(count, device=numbers.device)
    draws = uniform(counter_hash_tensor(counter_hash(seed, "noise"), numbers[:, None], places))
    # Half a step away from 0, where the inverse of the distribution function is infinite.
    return torch.erfinv(2 * draws - 1 + 2.0**-24).mul(2**0.5).view(tuple(shape))
