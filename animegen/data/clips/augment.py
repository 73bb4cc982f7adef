"""Augmentation of clips on their device, the same for all frames of a sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from animegen.data.augment import Augment, take
from animegen.data.sampler import counter_hash, counter_hash_tensor, random_bits, uniform
from animegen.errors import AnimegenError

#: Batch keys with frames.
FRAMES = ("first", "last", "truth")
#: Optional flows between the pair, from first to last, then back.
FLOWS = ("flow", "second_flow", "exact_flow")
#: Optional entries of the frames between: the true flow to first and last, and where their places are in sight there.
MOTION = ("exact_between", "exact_sight")


class ClipAugment(Augment):
    """Random crop, flips, time reversal, colour changes and noise of pairs of frames and the frames between them.

    Random numbers are hashes of seed and sample number, see :class:`~animegen.data.augment.Augment`.

    Args:
        image_size: side of the crop in pixels.
        flip: flip half of the samples horizontally.
        upside_down: fraction of the samples that are flipped vertically (IFRNet: 0.3).
        reverse: reverse half of the samples in time: swap ``first`` and ``last`` and replace t by 1 - t.
        jitter: 0 (none) to 1: brightness and saturation are each multiplied by a factor from [1 - jitter, 1 + jitter].
        permute: shuffle the colour channels of each sample (RIFE swaps red and blue).
        exposure: 0 (none) to 1: values in [0,1] are multiplied by a gain from [1 - exposure, 1 + exposure], and an
            offset from [-exposure / 2, exposure / 2] is added, the same for all frames of a sample. In addition the
            gain changes evenly from first to last frame, by at most a fifth of ``exposure``, as in fades.
        noise: 0 (none) to 1: largest standard deviation of Gaussian noise on ``first`` and ``last``, in units of the
            range [0,1]; each sample draws its own from [0, noise]. ``truth`` has none. Flow that comes with the batch
            was estimated before, from frames without noise and change of exposure.
        seed: seed of the random numbers.
    """

    def __init__(
        self,
        image_size: int,
        flip: bool = True,
        upside_down: float = 0.0,
        reverse: bool = True,
        jitter: float = 0.0,
        permute: bool = False,
        exposure: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(image_size, flip, jitter, FRAMES, seed)
        for name, share in (("upside_down", upside_down), ("exposure", exposure), ("noise", noise)):
            if not 0 <= share <= 1:
                key = f"data.augment.{name}" if name == "upside_down" else f"data.{name}"
                raise AnimegenError(f"{key}={share} is not valid: it must be from 0 to 1.")
        self.upside_down, self.reverse, self.permute = upside_down, reverse, permute
        self.exposure, self.noise = exposure, noise

    def __call__(self, batch: dict[str, Tensor], aligned: Sequence[Sequence[str]] = ()) -> dict[str, Tensor]:
        """Augment a training batch.

        Args:
            batch: ``first``, ``last`` uint8 ``(B,3,H,W)``, ``truth`` uint8 ``(B,T,3,H,W)``, ``t`` ``(B,T)``, ``sample``
                int64 ``(B,)``, and optionally ``flow``, ``second_flow`` and ``exact_flow`` float32 ``(B,4,H,W)``, from
                first to last and back, ``exact_between`` float32 ``(B,T,4,H,W)`` and ``exact_sight`` bool
                ``(B,T,2,H,W)``, from the frames between to both.
            aligned: unused; the frames of a sample are always augmented alike.

        Returns:
            a new batch: float32 in [-1, 1], sides ``image_size``, ``truth`` in the order of increasing t.
        """
        out = super().__call__(batch, [list(FRAMES)])
        turned = self._draw("upside_down", batch["sample"]) < self.upside_down
        flows = [name for name in FLOWS if name in batch]
        motion = [name for name in MOTION if name in batch]
        for name in (*flows, *motion):
            out[name] = self._moved(batch, name, turned)
        for key in FRAMES:
            out[key] = _where(turned, out[key].flip(-2), out[key]) if self.upside_down else out[key]
        if self.permute:
            orders = self._draw("permute", batch["sample"], 3).argsort(1)
            for key in FRAMES:
                index = orders.view(len(orders), *(1,) * (out[key].ndim - 4), 3, 1, 1).expand_as(out[key])
                out[key] = out[key].gather(-3, index)
        if self.exposure:
            self._expose(out, batch["sample"])
        if self.noise:
            for key in ("first", "last"):
                out[key] = self._noisy(out[key], batch["sample"], key)
        if self.reverse:
            back = self._draw("reverse", batch["sample"]) < 0.5
            first, last = out["first"], out["last"]
            out["first"], out["last"] = _where(back, last, first), _where(back, first, last)
            out["truth"] = _where(back, out["truth"].flip(1), out["truth"])
            out["t"] = _where(back, 1 - out["t"].flip(1), out["t"])
            for name in flows:
                out[name] = _where(back, out[name].roll(2, 1), out[name])
            for name in motion:  # of the frames in reverse order, with the channels of first and last exchanged
                swapped = out[name].flip(1).roll(out[name].shape[-3] // 2, -3)
                out[name] = _where(back, swapped, out[name])
        return out

    def _moved(self, batch: dict[str, Tensor], name: str, turned: Tensor) -> Tensor:
        """Return a flow or mask in the same window as the frames, with the signs of mirrored directions changed."""
        rows, columns = self._window(batch["first"], batch["sample"], FRAMES[0])
        found = take(batch[name], rows, columns)
        if found.dtype == torch.bool:
            return _where(turned, found.flip(-2), found)
        mirrored = columns[:, 0] > columns[:, -1]
        found = _where(mirrored, found * found.new_tensor([-1, 1, -1, 1]).view(4, 1, 1), found)
        return _where(turned, found.flip(-2) * found.new_tensor([1, -1, 1, -1]).view(4, 1, 1), found)

    def _jittered(self, images: Tensor, sample: Tensor, key: str) -> Tensor:
        return super()._jittered(images, sample, "clip")  # the same for all frames of a sample

    def _expose(self, out: dict[str, Tensor], sample: Tensor) -> None:
        """Change gain and offset of all frames of ``out``."""
        gain, offset, drift = (self.exposure * (2 * self._draw("exposure", sample, 3) - 1)).unbind(1)
        times = {"first": torch.zeros_like(gain), "last": torch.ones_like(gain), "truth": out["t"]}
        for key, time in times.items():
            shape = (len(gain), *(1,) * (time.ndim - 1))
            factor = 1 + gain.view(shape) + drift.view(shape) / 5 * (time - 0.5)
            light = out[key].add(1).mul_(0.5).mul_(factor[..., None, None, None])
            light.add_(offset.view(*shape, 1, 1, 1) / 2)
            out[key] = light.clamp_(0, 1).mul_(2).sub_(1)

    def _noisy(self, images: Tensor, sample: Tensor, key: str) -> Tensor:
        pixel = torch.arange(images[0].numel(), device=images.device)
        bits = random_bits(counter_hash_tensor(counter_hash(self.seed, "noise", key), sample[:, None], pixel)) >> 1
        normal = torch.special.ndtri((bits.float() + 0.5) * 2.0**-23)  # never 0 or 1, whose quantiles are infinite
        deviation = self.noise * self._draw("noise", sample).view(-1, 1, 1, 1)
        return (images + 2 * deviation * normal.view_as(images)).clamp_(-1, 1)

    def _draw(self, purpose: str, sample: Tensor, count: int = 1) -> Tensor:
        draws = torch.arange(count, device=sample.device)
        values = uniform(counter_hash_tensor(counter_hash(self.seed, purpose), sample[:, None], draws))
        return values[:, 0] if count == 1 else values


def _where(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *(1,) * (no.ndim - 1)), yes, no)
