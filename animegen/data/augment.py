"""Augmentation of batches on their device; randomness depends on the sample number only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from animegen.data.sampler import counter_hash, counter_hash_tensor, random_bits, uniform
from animegen.errors import AnimegenError
from animegen.media.images import to_float

# Weights of red, green and blue in luma, ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)


class Augment:
    """Random crop, horizontal flip and colour jitter of uint8 batches, converted to float in [-1, 1].

    Every random number is a hash of (seed, key, sample number), so it is the same on every device, in every batch and
    after a resume.

    Args:
        image_size: side of the crop in pixels; images must be at least as large.
        flip: mirror half of the samples.
        jitter: colour jitter of the entries in ``jitter_keys``, 0 (none) to 1: brightness and saturation are
            each multiplied by a factor from [1 - jitter, 1 + jitter].
        jitter_keys: batch keys to jitter. Do not include anime, whose colours are the target.
        seed: seed of the random numbers.
    """

    def __init__(
        self,
        image_size: int,
        flip: bool = True,
        jitter: float = 0.0,
        jitter_keys: Sequence[str] = ("photo",),
        seed: int = 0,
    ) -> None:
        if image_size < 1 or not 0 <= jitter <= 1:
            raise AnimegenError(
                f"Augment needs image_size >= 1 and jitter from 0 to 1, not {image_size} and {jitter}: correct them."
            )
        self.image_size, self.flip, self.jitter, self.seed = image_size, flip, jitter, seed
        self.jitter_keys = tuple(jitter_keys)

    def __call__(self, batch: dict[str, Tensor], aligned: Sequence[Sequence[str]] = ()) -> dict[str, Tensor]:
        """Augment a training batch.

        Args:
            batch: images and clips, uint8 ``(B, ..., 3, H, W)``, and ``sample``, int64 ``(B,)``. The frames
                of a clip are augmented alike. Entries of other types pass through.
            aligned: groups of keys that share crop and flip; other keys are independent.

        Returns:
            a new batch: float32 in [-1, 1], sides ``image_size``.
        """
        leaders = {key: group[0] for group in aligned for key in group}
        windows: dict[str, tuple[Tensor, Tensor]] = {}
        out = dict(batch)
        for key, images in batch.items():
            if not is_image(images):
                continue
            leader = leaders.get(key, key)
            if leader not in windows:
                windows[leader] = self._window(images, batch["sample"], leader)
            out[key] = to_float(take(images, *windows[leader]))
            if self.jitter and key in self.jitter_keys:
                out[key] = self._jittered(out[key], batch["sample"], key)
        return out

    def _window(self, images: Tensor, sample: Tensor, key: str) -> tuple[Tensor, Tensor]:
        """Return the rows and columns of the random crop of each sample, int64 ``(B, image_size)`` each."""
        size = self.image_size
        height, width = images.shape[-2:]
        if min(height, width) < size:
            raise AnimegenError(
                f"The images '{key}' have {width}x{height} pixels, too few for crops of {size}:"
                f" set data.load_size to at least {size}."
            )
        draws = torch.arange(3, device=sample.device)
        bits = random_bits(
            counter_hash_tensor(counter_hash(self.seed, "window", key), sample[:, None], draws)
        )  # (B, 3)
        # In integers, since a float32 product may round up to the first index outside.
        top = (bits[:, 0:1] * (height - size + 1)) >> 24
        left = (bits[:, 1:2] * (width - size + 1)) >> 24
        steps = torch.arange(size, device=sample.device)
        columns = left + steps
        if self.flip:
            columns = torch.where(bits[:, 2:3] < 2**23, left + (size - 1) - steps, columns)
        return top + steps, columns

    def _jittered(self, images: Tensor, sample: Tensor, key: str) -> Tensor:
        prefix = counter_hash(self.seed, "jitter", key)
        draws = uniform(counter_hash_tensor(prefix, sample[:, None], torch.arange(2, device=sample.device)))
        factors = 1 + self.jitter * (2 * draws - 1)
        shape = (len(images),) + (1,) * (images.ndim - 1)
        brightness, saturation = factors[:, 0].view(shape), factors[:, 1].view(shape)
        light = images.add(1).mul_(0.5)
        red, green, blue = light.unbind(-3)
        luma = (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).unsqueeze(-3)
        return luma.lerp(light, saturation).mul_(brightness).clamp_(0, 1).mul_(2).sub_(1)


def is_image(value: Tensor) -> bool:
    """Return whether an entry of a batch is uint8 images ``(B, 3, H, W)`` or clips ``(B, T, 3, H, W)``."""
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.ndim >= 4


def take(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``images[b, ..., rows[b], columns[b]]``, with different rows and columns for each sample.

    Args:
        images: ``(B, ..., H, W)``.
        rows: int64 ``(B, h)``.
        columns: int64 ``(B, w)``.

    Returns:
        ``(B, ..., h, w)``, contiguous.
    """
    batch, *channels, height, width = images.shape
    places = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    flat = images.reshape(batch, -1, height * width)
    # One gather for crop and flip is four times as fast as indexing with [b, :, rows, columns].
    taken = flat.gather(2, places[:, None].expand(-1, flat.shape[1], -1))
    return taken.view(batch, *channels, rows.shape[1], columns.shape[1])
