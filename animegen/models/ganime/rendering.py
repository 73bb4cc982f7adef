"""From codes to frames: encoded pairs, decoding, the renderer, and frames that carry gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.media.images import scaled
from animegen.models.ganime.networks.tokenizer import Tokenizer
from animegen.nn.inbetween import InbetweenOutput
from animegen.nn.warp import backward_warp, resize_flow
from animegen.tasks.inbetween import padded

#: Frames per pass through the decoder.
_CHUNK = 64
#: Tolerance on the time of a frame, in units of the clip length.
_TOLERANCE = 1e-3

Size = tuple[int, int]


@dataclass
class EncodedPair:
    """Codes of a batch of frame pairs, with a cache of the clips generated between them.

    Attributes:
        first: (U,h,w) codes of the first frames of the distinct pairs.
        last: (U,h,w) codes of their last frames.
        images: the frames themselves, (U,3,H,W) each; padded unless they were scaled for the tokenizer.
        group: (B,) index of the distinct pair for each pair of the batch.
        height: height of the frames.
        width: width of the frames.
        clips: number of frames -> generated clips (U,T,3,H,W).
    """

    first: Tensor
    last: Tensor
    images: tuple[Tensor, Tensor]
    group: Tensor
    height: int
    width: int
    clips: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def encode(cls, tokenizer: Tokenizer, first: Tensor, last: Tensor, limit: Size | None = None) -> EncodedPair:
        """Encode pairs (B,3,H,W) in [-1,1]; consecutive equal pairs of the batch are encoded once.

        ``limit``: see :func:`fit_to_tokenizer`.
        """
        new = (first[1:] != first[:-1]).flatten(1).any(1) | (last[1:] != last[:-1]).flatten(1).any(1)
        new = torch.cat([new.new_ones(1), new])
        images, small = fit_to_tokenizer(torch.cat([first[new], last[new]]), tokenizer.size_divisor, limit)
        height, width = first.shape[-2:]
        first_codes, last_codes = tokenizer.encode(small).chunk(2)
        first_images, last_images = images.chunk(2)
        return cls(first_codes, last_codes, (first_images, last_images), new.long().cumsum(0) - 1, height, width)

    def crop(self, frames: Tensor) -> Tensor:
        """Remove the padding of frames (B,3,H,W)."""
        return frames[..., : self.height, : self.width]

    def cross_fade(self, tokenizer: Tokenizer, t: Tensor) -> Tensor:
        """Return the cross-fade of both reconstructions at the times (B,)."""
        first, last = (tokenizer.decode(codes)[self.group] for codes in (self.first, self.last))
        return self.crop(torch.lerp(first, last, t.to(first.dtype).view(-1, 1, 1, 1)))


def intervals_for(t: Tensor, max_frames: int) -> int:
    """Return the smallest n such that all times (B,) are multiples of 1/n: a clip of n + 1 frames contains them.

    If no clip of at most ``max_frames`` frames contains all times, return the n of the longest clip.
    """
    for n in range(2, max_frames - 1):
        if bool(((t * n - (t * n).round()).abs() < _TOLERANCE * n).all()):
            return n
    return max_frames - 1


def decode(tokenizer: Tokenizer, codes: Tensor) -> Tensor:
    """Decode codes (B,T,h,w) to clips (B,T,3,H,W)."""
    frames = torch.cat([tokenizer.decode(chunk) for chunk in codes.flatten(0, 1).split(_CHUNK)])
    return frames.unflatten(0, codes.shape[:2])


def fit_to_tokenizer(images: Tensor, divisor: int, limit: Size | None = None) -> tuple[Tensor, Tensor]:
    """Return images (N,3,H,W) in the size for the renderer and in the size for the tokenizer.

    Within ``limit`` (height, width) both are the images padded to multiples of ``divisor``. Larger images stay as they
    are for the renderer; for the tokenizer they are scaled down to fit the limit, with nearly the same aspect ratio.
    """
    height, width = images.shape[-2:]
    scale = min(limit[0] / height, limit[1] / width) if limit is not None else 1.0
    if scale >= 1:
        whole = padded(images, divisor)
        return whole, whole
    rows, columns = (max(2, round(side * scale / divisor)) * divisor for side in (height, width))
    return images, scaled(images, (rows, columns))


def render_codes(tokenizer: Tokenizer, codes: Tensor, given: Mapping[int, Tensor]) -> Tensor:
    """Decode codes (B,T,h,w), and render them with the pixels of given frames; see :func:`render`."""
    return render(tokenizer, decode(tokenizer, codes), given)


def render(tokenizer: Tokenizer, decoded: Tensor, given: Mapping[int, Tensor]) -> Tensor:
    """Redraw decoded clips, each segment between two given frames with the pixels of both.

    Args:
        tokenizer: without a renderer the clips are returned unchanged.
        decoded: (B,T,3,H,W), clips decoded from codes, including the given frames.
        given: frame number -> (B,3,H,W), including the first and the last frame. They may be larger than the decoded
            frames: then flow and mask are computed at the decoded size and applied to the given frames.

    Returns:
        clips (B,T,3,H,W) in [-1,1] with the size of the given frames, which are copied.
    """
    network = tokenizer.renderer
    if network is None:
        return decoded
    size = (decoded.shape[-2], decoded.shape[-1])
    clip = torch.stack([given.get(number, given[0]) for number in range(decoded.shape[1])], 1)
    for begin, end in pairwise(sorted(given)):
        first, last = given[begin], given[end]
        pair = network.encode_pair(*(padded(scaled(frame, size), network.size_divisor) for frame in (first, last)))
        for number in range(begin + 1, end):
            t = torch.full((len(decoded),), (number - begin) / (end - begin), device=decoded.device)
            guide = padded(decoded[:, [number, begin, end]].flatten(1, 2), network.size_divisor)
            frame = _at_full_size(network.synthesize(pair, t, guide), first, last, size)
            clip[:, number] = frame.clamp(-1, 1).to(clip.dtype)
    return clip


def _at_full_size(output: InbetweenOutput, first: Tensor, last: Tensor, size: Size) -> Tensor:
    """Apply the output of the renderer at ``size`` to larger frames: enlarge its flow, mask and residual."""
    height, width = size
    small = {name: output.extra[name][..., :height, :width].float() for name in ("flow", "mask", "merged")}
    image = output.image[..., :height, :width]
    if first.shape[-2:] == size:
        return image
    full = first.shape[-2:]
    flows = [resize_flow(flow, *full) for flow in small["flow"].split(2, 1)]
    early, late = (backward_warp(frame.float(), flow) for frame, flow in zip((first, last), flows, strict=True))
    mask, residual = (
        F.interpolate(part, full, mode="bilinear", align_corners=False)
        for part in (small["mask"], image.float() - small["merged"])
    )
    return mask * early + (1 - mask) * late + residual


def soft_frames(
    tokenizer: Tokenizer, clips: Tensor, predictions: Mapping[str, Tensor], count: int
) -> dict[str, Tensor]:
    """Decode random frames from the predicted probabilities, so that losses on images can train the transformer.

    Codes without a prediction (visible codes of masked strategies) are the true ones.

    Args:
        tokenizer: frozen.
        clips: (B,T,h,w) the true codes.
        predictions: output of the transformer: ``logits`` (M,K), ``clip``, ``frame``, ``cell`` (M,).
        count: number of frames, at most those with predictions.

    Returns:
        ``soft`` (n,3,H,W) with gradients to the logits, and ``soft_truth``, the same frames from the true codes.
    """
    frames = clips.shape[1]
    number = predictions["clip"] * frames + predictions["frame"]
    numbers = number.unique()
    numbers = numbers[torch.randperm(len(numbers), device=numbers.device)[:count]]
    truth = clips.flatten(0, 1)[numbers]
    probabilities = F.one_hot(truth.flatten(1), predictions["logits"].shape[-1]).float()  # (n,hw,K)
    frame, prediction = (number.unsqueeze(0) == numbers.unsqueeze(1)).nonzero(as_tuple=True)
    predicted = predictions["logits"][prediction].float().softmax(-1)
    probabilities = probabilities.index_put((frame, predictions["cell"][prediction]), predicted)
    soft = tokenizer.decode_soft(probabilities.unflatten(1, truth.shape[1:]))
    return {"soft": soft, "soft_truth": tokenizer.decode(truth)}


def accuracies(predictions: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the accuracy of all predictions, and of those whose code differs from the previous frame."""
    right = (predictions["logits"].detach().argmax(-1) == predictions["targets"]).float()
    changed = (~predictions["copies"]).float()
    return {"accuracy": right.mean(), "changed_accuracy": (right * changed).sum() / changed.sum().clamp_min(1)}
