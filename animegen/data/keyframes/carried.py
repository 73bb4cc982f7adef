"""Guide that carries the drawings of the key frames to each frame along the optical flow."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from animegen.data.keyframes.guides import Guide
from animegen.errors import AnimegenError
from animegen.media.images import scaled, to_float, to_uint8
from animegen.media.video.flow import DISFlow, FlowEstimator
from animegen.nn.warp import backward_warp, inside

SLOT = 7
"""Channels of a carried key, see :class:`FlowKeys`."""


class Match(NamedTuple):
    """Motion from a frame to a key.

    Attributes:
        flow: (1, 2, H, W) in pixels.
        gap: squared distance (1, 1, H, W) between a pixel and the end of the flow forth and back.
        seen: (1, 1, H, W), 1 where the flow ends inside the key, else 0.
    """

    flow: Tensor
    gap: Tensor
    seen: Tensor


class FlowKeys(Guide):
    """The drawings of the key frames, each carried to the frame along its flow.

    Channels: :data:`SLOT` for each of the ``candidates`` keys that are most similar to the frame, in their order:

    - the drawing (3);
    - its confidence, ``exp(-gap - residual / 4)``, from the gap (:class:`Match`) and the difference between frame and
      carried photo in grey levels, a mean of 5x5 pixels (residual);
    - ``exp(-gap / 4)``, and the residual of the pixel alone, up to 16 levels;
    - the share of the key: its mean confidence to the power of 8, over the sum of all. This favours similar frames as
      the distance in time does, but a frame needs no number, and frames may be in any order.

    With fewer keys, the others are the frame itself, with confidence 0, and so are all without keys.

    Args:
        candidates: number of keys to carry.
        rehearsals: see :meth:`views`.
        blanks: see :meth:`views`.
        flow: optical flow estimator; by default DIS with twice the usual descent, since keys are far apart.

    Raises:
        AnimegenError: for numbers that are too small.
    """

    def __init__(
        self, candidates: int = 2, rehearsals: int = 8, blanks: int = 2, flow: FlowEstimator | None = None
    ) -> None:
        super().__init__()
        if candidates < 1 or rehearsals < 0 or blanks < 0:
            raise AnimegenError(
                "A flow_keys guide needs candidates >= 1, rehearsals >= 0 and blanks >= 0, not"
                f" {candidates}, {rehearsals} and {blanks}."
            )
        self.channels = SLOT * candidates
        self.candidates, self.rehearsals, self.blanks = candidates, rehearsals, blanks
        self.flow = flow or DISFlow(descent=50)
        self._keys: dict[str, Tensor] = {}
        self._files: dict[str, list[str]] = {}
        self._scaled: dict[str, Tensor] = {}

    # --- keys -----------------------------------------------------------------------------------------

    def learn(self, photos: Tensor, drawings: Tensor, masks: Tensor) -> None:
        """Set the key frames: photos and drawings uint8 (K, 3, H, W), masks bool (K, H, W) of the valid drawings."""
        areas = (masks * 255).to(torch.uint8)[:, None].expand_as(photos)
        self._keys = {"photos": photos.cpu(), "drawings": drawings.cpu(), "masks": areas.cpu()}
        self._files, self._scaled = {}, {}

    def get_extra_state(self) -> dict[str, list[str]]:
        """Return the key frames for the checkpoint, as PNG files in base64."""
        if not self._files:
            self._files = {name: [_encoded(image) for image in images] for name, images in self._keys.items()}
        return self._files

    def set_extra_state(self, state: dict[str, list[str]]) -> None:
        """Restore the key frames of a checkpoint."""
        self._keys = {name: torch.stack([_decoded(text) for text in state[name]]) for name in sorted(state)}
        self._files, self._scaled = dict(state), {}

    def _at(self, frame: Tensor) -> dict[str, Tensor]:
        """Return the key frames in the size of a frame, on its device: photos and drawings in [-1, 1], masks."""
        size = (int(frame.shape[-2]), int(frame.shape[-1]))
        if not self._scaled or self._scaled["photos"].shape[-2:] != size:
            self._scaled = {name: scaled(to_float(images), size) for name, images in self._keys.items()}
            self._scaled["masks"] = (self._scaled["masks"][:, :1] > 0).float()
        return {name: values.to(frame.device) for name, values in self._scaled.items()}

    # --- carrying -------------------------------------------------------------------------------------

    def draw(self, state: Any, frame: Tensor) -> Tensor:
        """Return the guide of a frame, uint8 (channels, H, W)."""
        return self.carry(frame)

    def carry(self, frame: Tensor, without: int | None = None) -> Tensor:
        """Return the guide of a frame (1, 3, H, W) in [-1, 1] from all keys but one, uint8 (channels, H, W)."""
        return self._guide(frame, self._matches(frame, without) if self._keys else {})

    def blank(self, frame: Tensor) -> Tensor:
        """Return the guide of a frame without keys, uint8 (channels, H, W): the frame itself, with confidence 0."""
        return self._guide(frame, {})

    def match(self, frame: Tensor, photo: Tensor, flow: FlowEstimator | None = None) -> Match:
        """Estimate the motion from a frame to the photo of a key, (1, 3, H, W) in [-1, 1] each."""
        estimate = flow or self.flow
        there, back = estimate(frame, photo), estimate(photo, frame)
        gap = (there + backward_warp(back, there)).square().sum(1, keepdim=True)
        return Match(there, gap, inside(there).float())

    def _matches(self, frame: Tensor, without: int | None = None) -> dict[int, Match]:
        """Match a frame with the keys that are most similar to it."""
        photos = self._at(frame)["photos"]
        others = [number for number in range(len(photos)) if number != without]
        if len(others) > self.candidates:
            small = F.adaptive_avg_pool2d(torch.cat([frame, photos]), 16)
            differences = (small[1:] - small[:1]).abs().mean((1, 2, 3)).tolist()
            others = sorted(sorted(others, key=lambda number: differences[number])[: self.candidates])
        return {number: self.match(frame, photos[number : number + 1]) for number in others}

    def _guide(self, frame: Tensor, matches: dict[int, Match]) -> Tensor:
        """Carry the keys along their flows, uint8 (channels, H, W)."""
        slots = [self._slot(frame, number, match) for number, match in matches.items()]
        weights = [float((slot[:, 3] + 1).mean() / 2) ** 8 + 1e-6 for slot in slots]
        shares = [weight / sum(weights) for weight in weights]
        unknown = frame.new_tensor([-1, -1, 1]).view(1, 3, 1, 1).expand(-1, -1, *frame.shape[-2:])
        for _ in range(self.candidates - len(slots)):
            slots.append(torch.cat([frame, unknown], 1))
            shares.append(0.0)
        parts = [(slot, torch.full_like(slot[:, :1], 2 * s - 1)) for slot, s in zip(slots, shares, strict=True)]
        return to_uint8(torch.cat([part for pair in parts for part in pair], 1)[0])

    def _slot(self, frame: Tensor, number: int, match: Match) -> Tensor:
        """Return a carried key without its share, (1, 6, H, W) in [-1, 1]."""
        keys = {name: images[number : number + 1] for name, images in self._at(frame).items()}
        images = backward_warp(torch.cat([keys["drawings"], keys["photos"], keys["masks"]], 1), match.flow)
        residual = (images[:, 3:6] - frame).abs().mean(1, keepdim=True) * 127.5
        around = F.avg_pool2d(residual, 5, 1, 2, count_include_pad=False)
        seen = match.seen * images[:, 6:]
        confidence, agreement = seen * torch.exp(-match.gap - around / 4), seen * torch.exp(-match.gap / 4)
        return torch.cat(
            [images[:, :3], *(2 * x - 1 for x in (confidence, agreement, (residual / 16).clamp(max=1)))], 1
        )

    # --- training -------------------------------------------------------------------------------------

    def views(self, number: int, frames: Iterable[Tensor]) -> list[Tensor]:
        """Return the guides with which the drawing of key ``number`` is learnt, uint8 (channels, H, W) each.

        The key carried to itself would be perfect, and the network would learn to copy. So the guides are:

        - the other keys carried to this one;
        - guides of ``frames``, (1, 3, H, W) without a drawing each, transported to the key by a second flow, with the
          errors, gaps and confidence that they have there;
        - ``blanks`` guides without keys, where the network has to draw.
        """
        photos = self._at(to_float(self._keys["photos"][:1]))["photos"]
        own = photos[number : number + 1]
        found = [self.carry(own, without=number)] if len(photos) > 1 else []
        other = DISFlow("fast")  # the same estimator would cancel its own errors
        for frame in frames:
            leg = self.match(own, frame, other)
            matches = {}
            for key, (flow, gap, seen) in self._matches(frame).items():
                flow, gap, seen = backward_warp(torch.cat([flow, gap, seen], 1), leg.flow).split([2, 1, 1], 1)
                matches[key] = Match(leg.flow + flow, leg.gap + gap, leg.seen * seen)
            found.append(self._guide(own, matches))
        return found + [self.blank(own)] * (self.blanks if found else 1)


def _encoded(image: Tensor) -> str:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _decoded(text: str) -> Tensor:
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (OSError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError("a key frame is damaged") from error


def blended(guide: Tensor) -> tuple[Tensor, Tensor]:
    """Blend carried keys by confidence and share.

    Args:
        guide: (B, N * SLOT, H, W) in [-1, 1], the channels of a :class:`FlowKeys` guide.

    Returns:
        the blended drawings (B, 3, H, W) in [-1, 1], and the weights of the keys (B, N, 1, H, W), which sum to 1.
    """
    slots = guide.unflatten(1, (-1, SLOT))
    confidence, share = (slots[:, :, 3:4] + 1) / 2, (slots[:, :, 6:] + 1) / 2
    weights = (confidence + 1e-4) * (share + 1e-4)
    weights = weights / weights.sum(1, keepdim=True)
    return (weights * slots[:, :, :3]).sum(1), weights
