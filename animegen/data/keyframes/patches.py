"""Patches cut from images that stay on the device: no workers, no copies, and no state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.sampler import counter_hash, counter_hash_tensor, permutation, random_bits, uniform
from animegen.errors import AnimegenError

EROSION = 3
"""Pixels by which masks shrink before patches are centred on them, as in the released code of Texler et al. 2020."""

BALANCE = ("round_robin", "by_area")


class PatchBank:
    """Images of one size, resident on a device, from which square patches are cut with one gather.

    The borders are reflected, so that a patch may be centred on any pixel.

    Args:
        images: (N, C, H, W), of any type.
        patch: side of the patches in pixels.
        context: so many more pixels are cut on every side.

    Raises:
        AnimegenError: if the images are too small to be reflected that far.
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

    def cut(self, picture: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return patches (B, C, side, side) centred on pixels, int64 (B,) each; in channels-last order.

        A patch of even side has one pixel more before its centre than behind it.
        """
        # The margin before the first pixel is half a patch: the patch begins where its centre is counted.
        first = (picture * self.height + row) * self.width + column
        rows = self._pixels.index_select(0, (first[:, None] + self._offsets).flatten())
        return rows.view(len(first), self.side, self.side, self.channels).permute(0, 3, 1, 2)


class WholePictures:
    """Gives whole images where :class:`PatchBank` gives patches: the baseline that patches are compared with.

    Args:
        pictures: (N, C, H, W), of any type. Right and below they are cut to multiples of ``size_divisor``.
        factor: by what the sides must be divisible.
    """

    def __init__(self, pictures: Tensor, factor: int = 4) -> None:
        height, width = (side // factor * factor for side in pictures.shape[-2:])
        self._pictures = pictures[..., :height, :width].contiguous(memory_format=torch.channels_last)

    def to(self, device: torch.device) -> WholePictures:
        """Move to a device and return self."""
        self._pictures = self._pictures.to(device)
        return self

    def cut(self, picture: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the images (B, C, H, W) of those numbers, int64 (B,); rows and columns do not matter."""
        return self._pictures.index_select(0, picture)


class Centres:
    """Which patch a sample number means: a function of seed and number alone.

    Every run of as many numbers as there are pixels to centre on takes each of them once, in an order of its own.

    Args:
        masks: (K, H, W) bool, where patches may be centred after shrinking by :data:`EROSION` pixels.
        seed: selects the order.
        balance: ``round_robin`` takes the K images in turn, ``by_area`` as often as they have pixels.

    Raises:
        AnimegenError: if a mask has no pixel left, or there is no such balance.
    """

    def __init__(self, masks: Tensor, seed: int = 0, balance: str = "round_robin") -> None:
        if balance not in BALANCE:
            raise AnimegenError(f"data.balance={balance} is unknown: use {' or '.join(BALANCE)}.")
        valid = erode(masks)
        empty = (~valid.flatten(1).any(1)).nonzero().flatten().tolist()
        if empty:
            raise AnimegenError(f"The mask of key frame number {empty[0]} leaves no place for a patch: enlarge it.")
        self.seed = seed
        self.height, self.width = valid.shape[-2:]
        places = valid.flatten().nonzero().flatten()
        each = self.height * self.width
        groups = [places[places // each == k] for k in range(len(valid))] if balance == "round_robin" else [places]
        #: (linear places (V,) in all images together) of each group; sample n belongs to group n mod their number.
        self.groups = groups
        self._orders: dict[int, tuple[int, Tensor]] = {}

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups)

    def __call__(self, numbers: Sequence[int]) -> Tensor:
        """Return the places (B,) int64 of sample numbers; see :meth:`split`."""
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
        """Return for each sample number another place (B,) in the same group, at random."""
        count = len(self.groups)
        bits = random_bits(counter_hash_tensor(counter_hash(self.seed, "elsewhere"), torch.tensor(numbers)))
        places = []
        for number, bit in zip(numbers, bits.tolist(), strict=True):
            group = self.groups[number % count]
            places.append(group[(bit * len(group)) >> 24])
        return torch.stack(places)

    def split(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return image, row and column, (B,) each, of places."""
        each = self.height * self.width
        return places // each, places % each // self.width, places % self.width


class HardPlaces:
    """Remembers where the error is large, and draws places there more often.

    The frames are divided into cells; each keeps a running mean of the errors of the patches centred in it. It
    begins at 1 for all, so that cells not yet seen are drawn as well.

    Args:
        centres: where patches may be centred.
        cell: side of the cells in pixels.
        memory: the running mean keeps this share at each new error.
    """

    def __init__(self, centres: Centres, cell: int = 8, memory: float = 0.9) -> None:
        self.memory = memory
        places = torch.cat(centres.groups).sort().values
        picture, row, column = centres.split(places)
        down, across = -(-centres.height // cell), -(-centres.width // cell)
        cells = (picture * down + row // cell) * across + column // cell
        order = cells.argsort(stable=True)
        #: Places sorted by their cell, and for each used cell where its places begin and how many they are.
        self._places = places[order]
        used, self._counts = torch.unique_consecutive(cells[order], return_counts=True)
        self._begins = self._counts.cumsum(0) - self._counts
        self._cell_of = torch.full((int(places.max()) + 1,), -1)
        self._cell_of[places] = torch.searchsorted(used, cells)
        self.seed = centres.seed
        #: Running mean of the error per used cell, float64: the only state, saved in checkpoints.
        self.error = torch.ones(len(used), dtype=torch.float64)

    def observe(self, places: Tensor, errors: Tensor) -> None:
        """Take note of the errors (B,) of patches centred at ``places`` (B,)."""
        cells = self._cell_of[places.cpu()].tolist()
        for cell, error in zip(cells, errors.double().cpu().tolist(), strict=True):
            self.error[cell] = self.memory * self.error[cell] + (1 - self.memory) * error

    def __call__(self, numbers: Sequence[int]) -> Tensor:
        """Return a place (B,) for each sample number: a cell in proportion to error and size, then any place in it."""
        draws = uniform(
            counter_hash_tensor(counter_hash(self.seed, "hard"), torch.tensor(numbers)[:, None], torch.arange(2))
        ).double()
        heap = (self.error * self._counts).cumsum(0)
        cell = torch.searchsorted(heap, draws[:, 0] * heap[-1], right=True).clamp_max(len(heap) - 1)
        return self._places[self._begins[cell] + (draws[:, 1] * self._counts[cell]).long()]


def erode(masks: Tensor, radius: int = EROSION) -> Tensor:
    """Return the pixels of masks (K, H, W) bool whose whole square of side ``2 * radius + 1`` lies in the mask.

    What lies outside the image counts as mask: a mask that covers everything loses nothing.
    """
    outside = F.pad((~masks).float()[:, None], (radius,) * 4)
    return F.max_pool2d(outside, 2 * radius + 1, stride=1)[:, 0] == 0


def normal_noise(shape: Sequence[int], numbers: Tensor, seed: int) -> Tensor:
    """Return standard normal noise (B, ...) that is a function of seed and sample numbers (B,) alone."""
    count = int(torch.Size(shape[1:]).numel())
    places = torch.arange(count, device=numbers.device)
    draws = uniform(counter_hash_tensor(counter_hash(seed, "noise"), numbers[:, None], places))
    # Half a step off 0, where the inverse of the distribution is infinite.
    return torch.erfinv(2 * draws - 1 + 2.0**-24).mul(2**0.5).view(tuple(shape))
