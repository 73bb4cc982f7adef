"""From codes to frames: pairs of frames as codes, the times of a clip, frames that carry gradients, and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.media.images import scaled
from animegen.models.ganime.networks.tokenizer import Tokenizer
from animegen.models.interpolation.networks.base import Drawn
from animegen.nn.warp import backward_warp, resize_flow
from animegen.tasks.inbetween import padded

#: Frames that go through the decoder at a time.
_CHUNK = 64
Size = tuple[int, int]
#: Times this close to a frame of a clip are taken for it.
_NEAR = 1e-3


@dataclass
class Pair:
    """Two frames as codes, and the clips between them that were drawn.

    Attributes:
        first, last: (U,h,w) codes of the pairs that differ.
        pictures: the frames themselves, (U,3,H,W) each; padded, where they were not scaled for the tokenizer.
        group: (B,) which of these each pair of the batch is.
        height, width: of the frames.
        clips: number of frames -> (U,T,3,H,W).
    """

    first: Tensor
    last: Tensor
    pictures: tuple[Tensor, Tensor]
    group: Tensor
    height: int
    width: int
    clips: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: Tokenizer, first: Tensor, last: Tensor, limit: Size | None = None) -> Pair:
        """Encode pairs (B,3,H,W) in [-1,1]; neighbours in the batch that are the same are encoded once.

        ``limit``: see `sized`.
        """
        new = (first[1:] != first[:-1]).flatten(1).any(1) | (last[1:] != last[:-1]).flatten(1).any(1)
        new = torch.cat([new.new_ones(1), new])
        pictures, small = sized(torch.cat([first[new], last[new]]), tokenizer.factor, limit)
        height, width = first.shape[-2:]
        early, late = tokenizer.encode(small).chunk(2)
        before, after = pictures.chunk(2)
        return cls(early, late, (before, after), new.long().cumsum(0) - 1, height, width)

    def cropped(self, frames: Tensor) -> Tensor:
        """Return frames (B,3,H,W) without what they were padded with."""
        return frames[..., : self.height, : self.width]

    def faded(self, tokenizer: Tokenizer, t: Tensor) -> Tensor:
        """Return the cross-fade of both reconstructions at the times (B,)."""
        first, last = (tokenizer.decode(codes)[self.group] for codes in (self.first, self.last))
        return self.cropped(torch.lerp(first, last, t.to(first.dtype).view(-1, 1, 1, 1)))


def span_of(t: Tensor, max_frames: int) -> int:
    """Return the smallest n such that all times (B,) are multiples of 1/n, for a clip of n + 1 frames.

    If no clip of up to ``max_frames`` has frames at all these times, the longest one has the nearest.
    """
    for n in range(2, max_frames - 1):
        if bool(((t * n - (t * n).round()).abs() < _NEAR * n).all()):
            return n
    return max_frames - 1


def decode(tokenizer: Tokenizer, codes: Tensor) -> Tensor:
    """Return the clips (B,T,3,H,W) of codes (B,T,h,w)."""
    frames = torch.cat([tokenizer.decode(chunk) for chunk in codes.flatten(0, 1).split(_CHUNK)])
    return frames.unflatten(0, codes.shape[:2])


def sized(pictures: Tensor, factor: int, limit: Size | None = None) -> tuple[Tensor, Tensor]:
    """Return pictures (N,3,H,W) as a renderer takes them, and as a tokenizer takes them.

    Within ``limit`` (height, width) both are the pictures, padded to multiples of ``factor``. Beyond it the tokenizer
    sees them scaled down, as large as the limit allows and nearly in their proportions, and the renderer as they are.
    """
    height, width = pictures.shape[-2:]
    scale = min(limit[0] / height, limit[1] / width) if limit is not None else 1.0
    if scale >= 1:
        whole = padded(pictures, factor)
        return whole, whole
    rows, columns = (max(2, round(side * scale / factor)) * factor for side in (height, width))
    return pictures, scaled(pictures, (rows, columns))


def render(tokenizer: Tokenizer, codes: Tensor, given: Mapping[int, Tensor]) -> Tensor:
    """Return the clips of codes (B,T,h,w), drawn with the pixels of given frames; see `rendered`."""
    return rendered(tokenizer, decode(tokenizer, codes), given)


def rendered(tokenizer: Tokenizer, coded: Tensor, given: Mapping[int, Tensor]) -> Tensor:
    """Draw coded clips anew, each stretch between two given frames with the pixels of both.

    Args:
        tokenizer: without a renderer clips remain as they are.
        coded: (B,T,3,H,W), as the tokenizer draws them; the given frames, too.
        given: number of a frame -> (B,3,H,W), the first and the last among them. They may be larger than the coded
            frames: then motion and mask are found in the size of these, and move the pixels of the given ones.

    Returns:
        the clips (B,T,3,H,W) in [-1,1] in the size of the given frames, which stand in them as they are.
    """
    network = tokenizer.renderer
    if network is None:
        return coded
    size = (coded.shape[-2], coded.shape[-1])
    clip = torch.stack([given.get(number, given[0]) for number in range(coded.shape[1])], 1)
    for early, late in pairwise(sorted(given)):
        ends = given[early], given[late]
        pair = network.encode_pair(*(padded(scaled(end, size), network.factor) for end in ends))
        for number in range(early + 1, late):
            t = torch.full((len(coded),), (number - early) / (late - early), device=coded.device)
            guide = padded(coded[:, [number, early, late]].flatten(1, 2), network.factor)
            drawn = _enlarged(network.synthesize(pair, t, guide), *ends, coded)
            clip[:, number] = drawn.clamp(-1, 1).to(clip.dtype)
    return clip


def _enlarged(drawn: Drawn, first: Tensor, last: Tensor, coded: Tensor) -> Tensor:
    """Return what was drawn in the size of coded frames in that of the given ones: flow, mask and retouching grow."""
    height, width = coded.shape[-2:]
    small = {name: drawn.extra[name][..., :height, :width].float() for name in ("flow", "mask", "merged")}
    image = drawn.image[..., :height, :width]
    if first.shape[-2:] == (height, width):
        return image
    size = first.shape[-2:]
    flows = [resize_flow(flow, *size) for flow in small["flow"].split(2, 1)]
    early, late = (backward_warp(end.float(), flow) for end, flow in zip((first, last), flows, strict=True))
    mask, retouched = (
        F.interpolate(part, size, mode="bilinear", align_corners=False)
        for part in (small["mask"], image.float() - small["merged"])
    )
    return mask * early + (1 - mask) * late + retouched


def soft_frames(tokenizer: Tokenizer, clips: Tensor, found: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Draw random frames from the probabilities of their codes, so that losses on pictures teach the transformer.

    Where nothing was predicted (a code that a masked layout shows) the true code stands.

    Args:
        tokenizer: fixed.
        clips: (B,T,h,w) the true codes.
        found: what the transformer returns: ``logits`` (M,K), ``clip``, ``frame``, ``place`` (M,).
        count: how many frames; fewer if there are not so many.

    Returns:
        ``soft`` (n,3,H,W) with gradients to the logits, and ``soft_truth``, what the tokenizer makes of the true codes.
    """
    frames = clips.shape[1]
    number = found["clip"] * frames + found["frame"]
    numbers = number.unique()
    numbers = numbers[torch.randperm(len(numbers), device=numbers.device)[:count]]
    truth = clips.flatten(0, 1)[numbers]
    probabilities = F.one_hot(truth.flatten(1), found["logits"].shape[-1]).float()  # (n,hw,K)
    which, which_of = (number.unsqueeze(0) == numbers.unsqueeze(1)).nonzero(as_tuple=True)
    predicted = found["logits"][which_of].float().softmax(-1)
    probabilities = probabilities.index_put((which, found["place"][which_of]), predicted)
    soft = tokenizer.decode_soft(probabilities.unflatten(1, truth.shape[1:]))
    return {"soft": soft, "soft_truth": tokenizer.decode(truth)}


def accuracies(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return how many codes are right, and of those that differ from the frame before; copying scores 0 there."""
    right = (found["logits"].detach().argmax(-1) == found["targets"]).float()
    changed = (~found["copies"]).float()
    return {"accuracy": right.mean(), "changed_accuracy": (right * changed).sum() / changed.sum().clamp_min(1)}
