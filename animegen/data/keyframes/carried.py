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


class Match(NamedTuple):
    """Motion from a frame to a key: flow (1, 2, H, W), confidence (1, 1, H, W), and weight of the whole key."""

    flow: Tensor
    confidence: Tensor
    weight: Tensor


class FlowKeys(Guide):
    """The key frames' drawings, each carried to the frame along its flow, blended.

    Channels: the blended drawing (3), its confidence, and with ``position`` the coordinates in the first key (2),
    carried alike.

    The confidence of a key at a pixel is ``exp(-gap - residual / 4)``: the gap is the squared distance in pixels
    between the pixel and the end of the flow forth and back, the residual the difference between frame and carried
    photo in grey levels. Keys are blended by confidence, and by its mean over the frame to the power of 8, which
    favours similar frames as the distance in time does. So a frame needs no number, and frames may be in any order.

    Without keys, the carried drawing is the frame itself, with confidence 0.

    Args:
        position: carry coordinates, too.
        candidates: number of keys to carry, those most similar to the frame.
        rehearsals: see :meth:`views`.
        blanks: see :meth:`views`.
        flow: optical flow estimator; DIS by default.

    Raises:
        AnimegenError: for numbers that are too small.
    """

    def __init__(
        self,
        position: bool = True,
        candidates: int = 3,
        rehearsals: int = 6,
        blanks: int = 2,
        flow: FlowEstimator | None = None,
    ) -> None:
        super().__init__()
        if candidates < 1 or rehearsals < 0 or blanks < 0:
            raise AnimegenError(
                "A flow_keys guide needs candidates >= 1, rehearsals >= 0 and blanks >= 0, not"
                f" {candidates}, {rehearsals} and {blanks}."
            )
        self.channels = 6 if position else 4
        self.position, self.candidates, self.rehearsals, self.blanks = position, candidates, rehearsals, blanks
        self.flow = flow or DISFlow()
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
        """Return the key frames in the size of a frame, on its device, in [-1, 1]: photos, and images to carry."""
        size = (int(frame.shape[-2]), int(frame.shape[-1]))
        if not self._scaled or self._scaled["photos"].shape[-2:] != size:
            keys = {name: scaled(to_float(images), size) for name, images in self._keys.items()}
            self._scaled = {"photos": keys["photos"], "masks": (keys["masks"][:, :1] > 0).float()}
            images = [keys["drawings"]]
            if self.position:
                images.append(self._positions(keys["photos"]))
            self._scaled["images"] = torch.cat(images, 1)
        return {name: values.to(frame.device) for name, values in self._scaled.items()}

    def _positions(self, photos: Tensor) -> Tensor:
        """Return the coordinates (K, 2, H, W) of the keys' pixels in the first key, or in their own frame if lost."""
        rows, columns = (torch.linspace(-1, 1, side) for side in photos.shape[-2:])
        own = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1])[None]
        found = [own]
        for photo in photos[1:]:
            flow, confidence, _ = self.match(photo[None], photos[:1])
            found.append(torch.lerp(own, backward_warp(own, flow), confidence))
        return torch.cat(found)

    # --- carrying -------------------------------------------------------------------------------------

    def draw(self, state: Any, frame: Tensor) -> Tensor:
        """Return the guide of a frame, uint8 (channels, H, W)."""
        return self.carry(frame)

    def carry(self, frame: Tensor, without: int | None = None) -> Tensor:
        """Return the guide of a frame (1, 3, H, W) in [-1, 1] from all keys but one, uint8 (channels, H, W)."""
        if not self._keys:
            return self.blank(frame)
        matches = self._matches(frame, without)
        return self._blend(frame, matches)

    def blank(self, frame: Tensor) -> Tensor:
        """Return the guide of a frame without keys, uint8 (channels, H, W): the frame itself, with confidence 0."""
        others = frame.new_zeros(self.channels - 3, *frame.shape[-2:])
        others[0] = -1
        return to_uint8(torch.cat([frame[0], others]))

    def match(self, frame: Tensor, photo: Tensor, flow: FlowEstimator | None = None) -> Match:
        """Estimate the motion from a frame to the photo of a key, (1, 3, H, W) in [-1, 1] each."""
        estimate = flow or self.flow
        there, back = estimate(frame, photo), estimate(photo, frame)
        gap = (there + backward_warp(back, there)).square().sum(1, keepdim=True)
        residual = (backward_warp(photo, there) - frame).abs().mean(1, keepdim=True) * 127.5
        residual = F.avg_pool2d(residual, 5, 1, 2, count_include_pad=False)
        confidence = inside(there) * torch.exp(-gap - residual / 4)
        return Match(there, confidence, confidence.mean() ** 8)

    def _matches(self, frame: Tensor, without: int | None = None) -> dict[int, Match]:
        """Match a frame with the keys that are most similar to it."""
        photos = self._at(frame)["photos"]
        others = [number for number in range(len(photos)) if number != without]
        if len(others) > self.candidates:
            small = F.adaptive_avg_pool2d(torch.cat([frame, photos]), 16)
            differences = (small[1:] - small[:1]).abs().mean((1, 2, 3)).tolist()
            others = sorted(sorted(others, key=lambda number: differences[number])[: self.candidates])
        return {number: self.match(frame, photos[number : number + 1]) for number in others}

    def _blend(self, frame: Tensor, matches: dict[int, Match]) -> Tensor:
        """Carry the keys along their flows and blend them, uint8 (channels, H, W)."""
        keys = self._at(frame)
        total = frame.new_zeros(1, self.channels, *frame.shape[-2:])
        weights = frame.new_zeros(1, 1, *frame.shape[-2:])
        for number, (flow, confidence, weight) in matches.items():
            confidence = confidence * backward_warp(keys["masks"][number : number + 1], flow)
            images = backward_warp(keys["images"][number : number + 1], flow)
            images = torch.cat([images[:, :3], 2 * confidence - 1, images[:, 3:]], 1)
            share = (confidence + 1e-4) * (weight + 1e-6)
            total, weights = total + share * images, weights + share
        return to_uint8((total / weights)[0])

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
            matches = {
                n: Match(
                    leg.flow + backward_warp(flow, leg.flow),
                    leg.confidence * backward_warp(confidence, leg.flow),
                    weight,
                )
                for n, (flow, confidence, weight) in self._matches(frame).items()
            }
            found.append(self._blend(own, matches))
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
