"""Trivial baselines of stylization: no change, a linear colour map, and the best colour look-up table.

They share one protocol: `fit(photos, animes)` reads two image sources, and calling the baseline maps a float image
(B, 3, H, W) in [-1, 1] to another of the same shape and range, on the image's device. A baseline with
`privileged = True` is fitted to photos *with their drawings*, which an unpaired model never sees. It bounds what any
colour mapping can reach, and is excluded from rankings.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from animegen.data.sources import ImageSource, next_good
from animegen.errors import AnimegenError
from animegen.nn.colour import apply_colour_map, monge_kantorovich

#: Images that colours are sampled of, at most, evenly spread.
FITTED = 1000


class Baseline(Protocol):
    """Protocol of a baseline."""

    name: str
    privileged: bool

    def fit(self, photos: ImageSource, animes: ImageSource) -> Baseline:
        """Fit to two image sources and return self; a privileged baseline needs pairs (same length and order)."""
        ...

    def __call__(self, photo: Tensor) -> Tensor:
        """Map (B, 3, H, W) in [-1, 1] to the same shape and range."""
        ...


class Identity:
    """The unchanged photo."""

    name = "identity"
    privileged = False

    def fit(self, photos: ImageSource, animes: ImageSource) -> Identity:
        """Do nothing."""
        return self

    def __call__(self, photo: Tensor) -> Tensor:
        """Return the photo."""
        return photo


class LinearColourTransfer:
    """Affine colour map that gives the photos the mean and covariance of the anime images.

    Of all such maps it changes colours least (Monge-Kantorovich; Pitie and Kokaram 2007). It needs no pairs.

    Args:
        pixels: number of colours sampled from each set.
    """

    name = "colour_transfer"
    privileged = False

    def __init__(self, pixels: int = 200_000) -> None:
        self.pixels = pixels
        self.matrix: Tensor | None = None
        self.offset: Tensor | None = None

    def fit(self, photos: ImageSource, animes: ImageSource) -> LinearColourTransfer:
        """Estimate the map from two unpaired sources."""
        (source,) = sample_colours([photos], self.pixels)
        (target,) = sample_colours([animes], self.pixels)
        self.matrix, self.offset = monge_kantorovich(source, target)
        return self

    def __call__(self, photo: Tensor) -> Tensor:
        """Apply the map and clip to [-1, 1]."""
        if self.matrix is None or self.offset is None:
            raise _not_fitted(self.name)
        return apply_colour_map(photo, self.matrix, self.offset).clamp(-1, 1)


class BestLookupTable:
    """Best colour mapping: an RGB look-up table fitted to *pairs* of photo and drawing (privileged).

    The table has `size`^3 colours and is read with trilinear interpolation. Its entries minimise the mean squared error
    over the training pixels plus `smoothing` times the mean squared second difference along the three axes, which also
    fills cells without pixels. The problem is linear and sparse (8 weights per pixel), so one factorisation of the
    normal equations gives the exact minimum.

    Args:
        size: nodes per colour axis.
        smoothing: weight of the roughness, for colours in [-1, 1].
        pixels: number of pixel pairs to fit; more of them hardly change the fit.
    """

    name = "lookup_table"
    privileged = True

    def __init__(self, size: int = 17, smoothing: float = 1e-3, pixels: int = 200_000) -> None:
        if size < 3:
            raise AnimegenError(f"A colour table needs at least 3 nodes per axis, not {size}: use 17.")
        self.size, self.smoothing, self.pixels = size, smoothing, pixels
        self.table: Tensor | None = None

    def fit(self, photos: ImageSource, animes: ImageSource) -> BestLookupTable:
        """Fit the table; `animes.image(n)` must be the drawing of `photos.image(n)`.

        Raises:
            AnimegenError: if the two sources differ in length or in the size of an image.
        """
        source, target = sample_colours([photos, animes], self.pixels)
        weights = _trilinear_weights((source.double().numpy() + 1) / 2, self.size)
        roughness = self.smoothing / self.size**3 * _roughness(self.size)
        # The unknowns are differences from the identity table, whose roughness is 0. A small penalty on their squares
        # keeps the system regular when the pixels span less than a cell.
        whisker = 1e-6 * self.smoothing / self.size**3 * sparse.eye_array(self.size**3)
        system = weights.T @ weights / len(source) + roughness + whisker
        right = weights.T @ (target - source).double().numpy() / len(source)
        # Symmetric and positive definite: without pivots, in an order for such matrices, which is faster.
        factors = splu(
            system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        change = factors.solve(right)
        axis = torch.linspace(-1, 1, self.size, dtype=torch.float64)
        unchanged = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        nodes = (unchanged + torch.from_numpy(change).view_as(unchanged)).float()
        # Axes (red, green, blue, channel) -> (channel, blue, green, red): grid_sample's x is the last axis.
        self.table = nodes.permute(3, 2, 1, 0).contiguous()
        return self

    def __call__(self, photo: Tensor) -> Tensor:
        """Apply the table to every pixel and clip to [-1, 1]."""
        if self.table is None:
            raise _not_fitted(self.name)
        volume = self.table.to(photo.device).expand(photo.shape[0], -1, -1, -1, -1)
        # Images in [-1, 1] are already the coordinates that grid_sample expects.
        grid = photo.float().clamp(-1, 1).permute(0, 2, 3, 1).unsqueeze(1)
        colours = F.grid_sample(volume, grid, mode="bilinear", padding_mode="border", align_corners=True)
        return colours.squeeze(2).clamp(-1, 1).to(photo.dtype)


def sample_colours(sources: list[ImageSource], pixels: int) -> list[Tensor]:
    """Sample the same pixels of the same images from aligned sources; deterministic.

    Args:
        sources: sources of equal length whose images of one index have the same size.
        pixels: number of colours, distributed evenly over the images, of which at most `FITTED` are read.

    Returns:
        One float tensor (N, 3) in [-1, 1] per source; N is about `pixels`, or the number of all pixels if there are
        fewer.

    Raises:
        AnimegenError: if a source is empty or the sources are not aligned.
    """
    count = len(sources[0])
    if count == 0:
        raise AnimegenError("A baseline cannot be fitted to an empty source: give it at least one training image.")
    if any(len(source) != count for source in sources):
        lengths = " and ".join(str(len(source)) for source in sources)
        raise AnimegenError(f"Paired sources of {lengths} images do not match: give one drawing per photo.")
    numbers = [(2 * n + 1) * count // (2 * FITTED) for n in range(FITTED)] if count > FITTED else range(count)
    share = max(1, pixels // len(numbers))
    drawn: list[list[Tensor]] = [[] for _ in sources]
    for index in numbers:
        pictures = next_good(sources, index)
        if any(picture.shape != pictures[0].shape for picture in pictures):
            names = " and ".join(f"'{source.name(index)}'" for source in sources)
            raise AnimegenError(f"The paired images {names} differ in size: give drawings of their photo's size.")
        total = pictures[0].shape[-2] * pictures[0].shape[-1]
        if total > share:
            order = torch.randint(total, (share,), generator=torch.Generator().manual_seed(index))
        else:
            order = torch.arange(total)
        for colours, picture in zip(drawn, pictures, strict=True):
            colours.append(picture.flatten(1)[:, order].T.float() / 127.5 - 1)
    return [torch.cat(colours) for colours in drawn]


def _trilinear_weights(colours: np.ndarray, size: int) -> sparse.csr_array:
    """Return the matrix (pixels, size^3) that reads a table, node index (red * size + green) * size + blue.

    Args:
        colours: RGB in [0, 1], shape (pixels, 3).
        size: nodes per axis.
    """
    position = colours * (size - 1)
    low = np.clip(np.floor(position).astype(np.int64), 0, size - 2)
    fraction = position - low
    nodes, weights = [], []
    for corner in np.ndindex(2, 2, 2):
        node = low + np.array(corner)
        nodes.append((node[:, 0] * size + node[:, 1]) * size + node[:, 2])
        weights.append(np.where(np.array(corner) == 1, fraction, 1 - fraction).prod(1))
    starts = np.arange(0, 8 * len(colours) + 1, 8)
    entries = (np.stack(weights, 1).ravel(), np.stack(nodes, 1).ravel(), starts)
    return sparse.csr_array(entries, shape=(len(colours), size**3))


def _roughness(size: int) -> sparse.csr_array:
    """Return the quadratic form of the sum of squared second differences along the three axes of a table."""
    second = sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(size - 2, size))
    along = second.T @ second
    same = sparse.eye_array(size)
    terms = ((along, same, same), (same, along, same), (same, same, along))
    return sum(sparse.kron(sparse.kron(a, b), c) for a, b, c in terms).tocsr()


def _not_fitted(name: str) -> RuntimeError:
    return RuntimeError(f"The baseline '{name}' was called before fit().")
