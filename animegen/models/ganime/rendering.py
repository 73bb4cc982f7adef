"""From codes to frames: encoded pairs, decoding, the renderer, and frames that carry gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.media.images import scaled
from animegen.models.ganime.motion import make_start
from animegen.models.ganime.networks.tokenizer import Tokenizer
from animegen.models.ganime.networks.transformer import CodeTransformer
from animegen.nn.inbetween import IFNet, InbetweenOutput
from animegen.nn.inbetween.base import blend
from animegen.nn.warp import backward_warp, resize_flow
from animegen.tasks.inbetween import padded

#: Frames per pass through the decoder.
_CHUNK = 64
#: Channels of a guide without confidence.
CODED_CHANNELS = 9
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
        small: the same frames in the size for the tokenizer.
        group: (B,) index of the distinct pair for each pair of the batch.
        height: height of the frames.
        width: width of the frames.
        clips: number of frames -> generated clips (U,T,3,H,W).
    """

    first: Tensor
    last: Tensor
    images: tuple[Tensor, Tensor]
    small: tuple[Tensor, Tensor]
    group: Tensor
    height: int
    width: int
    clips: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def encode(
        cls, tokenizer: Tokenizer, first: Tensor, last: Tensor, divisor: int, limit: Size | None = None
    ) -> EncodedPair:
        """Encode pairs (B,3,H,W) in [-1,1]; consecutive equal pairs of the batch are encoded once.

        ``divisor`` and ``limit``: see :func:`fit_to_tokenizer`.
        """
        new = (first[1:] != first[:-1]).flatten(1).any(1) | (last[1:] != last[:-1]).flatten(1).any(1)
        new = torch.cat([new.new_ones(1), new])
        images, small = fit_to_tokenizer(torch.cat([first[new], last[new]]), divisor, limit)
        height, width = first.shape[-2:]
        first_codes, last_codes = tokenizer.encode(small).chunk(2)
        first_images, last_images = images.chunk(2)
        first_small, last_small = small.chunk(2)
        pairs = (first_images, last_images), (first_small, last_small)
        return cls(first_codes, last_codes, *pairs, new.long().cumsum(0) - 1, height, width)

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


def make_guide(network: IFNet, decoded: Tensor, ends: Sequence[Tensor], confidence: Tensor | float) -> Tensor:
    """Return the guide of the renderer (B,9 or 10,H,W): the decoded frame, both given frames as decoded, confidence.

    Args:
        network: the renderer; with a guide of 10 channels it reads the confidence.
        decoded: (B,3,H,W), the frame as decoded from its codes, or an estimate of it.
        ends: both given frames as decoded from their codes, (B,3,H,W) each.
        confidence: (B,1,h,w) in [0,1], how sure each code is, in the resolution of the codes; or one number for all.
            1 for true codes, 0 for a cross-fade, which knows nothing of the frame.
    """
    parts = [decoded, *ends]
    if network.guide > CODED_CHANNELS:
        if isinstance(confidence, Tensor):
            parts.append(F.interpolate(confidence.to(decoded.dtype), decoded.shape[-2:], mode="bilinear"))
        else:
            parts.append(torch.full_like(decoded[:, :1], confidence))
    return torch.cat(parts, 1)


def expected_clip(
    tokenizer: Tokenizer, transformer: CodeTransformer, codes: Mapping[int, Tensor], images: Mapping[int, Tensor]
) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """Return the clip decoded from the expected code vectors, the confidence in them, and the motion of its frames.

    These are (B,T,3,H,W), (B,T,h,w), and (B,5,h',w') by frame number, for frames between of a transformer with motion.

    Args:
        tokenizer: decodes.
        transformer: predicts.
        codes: codes (B,h,w) of the given frames by number, including the first and the last frame.
        images: the given frames (B,3,H,W) in the size for the tokenizer.
    """
    moved: dict[int, Tensor] = {}
    parts, sure = [tokenizer.decode(codes[0]).unsqueeze(1)], [torch.ones_like(codes[0], dtype=torch.float).unsqueeze(1)]
    for begin, end in pairwise(sorted(codes)):
        if end - begin > 1:
            probabilities, motion = _expected(transformer, codes, images, begin, end)
            chunks = [tokenizer.decode_soft(chunk) for chunk in probabilities.flatten(0, 1).split(_CHUNK)]
            parts.append(torch.cat(chunks).clamp(-1, 1).unflatten(0, probabilities.shape[:2]))
            sure.append(confidence_of(probabilities))
            moved |= motion
        parts.append(tokenizer.decode(codes[end]).unsqueeze(1))
        sure.append(sure[0])
    return torch.cat(parts, 1), torch.cat(sure, 1), moved


def predicted_motion(
    transformer: CodeTransformer, codes: Mapping[int, Tensor], images: Mapping[int, Tensor]
) -> dict[int, Tensor]:
    """Return the motion of the frames between as :func:`expected_clip` does; none for a transformer without motion."""
    moved: dict[int, Tensor] = {}
    if transformer.motion is not None:
        for begin, end in pairwise(sorted(codes)):
            if end - begin > 1:
                moved |= _expected(transformer, codes, images, begin, end)[1]
    return moved


def _expected(
    transformer: CodeTransformer, codes: Mapping[int, Tensor], images: Mapping[int, Tensor], begin: int, end: int
) -> tuple[Tensor, dict[int, Tensor]]:
    """Return the probabilities of all codes between two given frames, and the motion by frame number, if predicted."""
    ends = images[begin], images[end]
    probabilities, motion = transformer.expect(codes[begin], codes[end], end - begin + 1, ends)
    return probabilities, {} if motion is None else dict(enumerate(motion.unbind(1), begin + 1))


def render(
    tokenizer: Tokenizer,
    decoded: Tensor,
    given: Mapping[int, Tensor],
    confidence: Tensor | float = 1.0,
    motion: Mapping[int, Tensor] | None = None,
) -> Tensor:
    """Redraw decoded clips, each segment between two given frames with the pixels of both.

    Args:
        tokenizer: without a renderer the clips are returned unchanged.
        decoded: (B,T,3,H,W), clips decoded from codes, including the given frames.
        given: frame number -> (B,3,H,W), including the first and the last frame. They may be larger than the decoded
            frames: then flow and mask are computed at the decoded size and applied to the given frames.
        confidence: (B,T,h,w) or one number, see :func:`make_guide`.
        motion: frame number -> (B,5,h',w'), from which the renderer starts, for some frames or none.

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
            sure = confidence[:, number : number + 1] if isinstance(confidence, Tensor) else confidence
            guide = make_guide(network, decoded[:, number], (decoded[:, begin], decoded[:, end]), sure)
            guide = padded(guide, network.size_divisor)
            start = None
            if motion is not None and number in motion:
                start = padded(make_start(motion[number], size), network.size_divisor)
            frame = _at_full_size(network.synthesize(pair, t, guide, start), first, last, size)
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


class PredictedFrames(NamedTuple):
    """Random frames of training clips with the predicted probabilities of their codes.

    Attributes:
        clip: (n,) index of the clip in the batch.
        frame: (n,) number of the frame.
        truth: (n,h,w) the true codes.
        probabilities: (n,h,w,K) with gradients to the logits. Codes without a prediction (visible codes of masked
            strategies) are the true ones.
        motion: (n,5,h',w'); ``None`` for a transformer that does not predict it.
    """

    clip: Tensor
    frame: Tensor
    truth: Tensor
    probabilities: Tensor
    motion: Tensor | None

    @classmethod
    def draw(cls, clips: Tensor, predictions: Mapping[str, Any], count: int) -> PredictedFrames:
        """Draw at most ``count`` of the frames with predictions.

        Args:
            clips: (B,T,h,w) the true codes.
            predictions: output of the transformer: ``logits`` (M,K), ``clip``, ``frame``, ``cell`` (M,), and ``motion``
                with ``motion_frames`` if it predicts motion.
            count: number of frames.
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
        motion = None
        if "motion" in predictions:
            place = (numbers % frames).unsqueeze(1) == predictions["motion_frames"]
            motion = predictions["motion"][-1][numbers // frames, place.long().argmax(1)]
        return cls(numbers // frames, numbers % frames, truth, probabilities.unflatten(1, truth.shape[1:]), motion)


def soft_frames(tokenizer: Tokenizer, clips: Tensor, predictions: Mapping[str, Any], count: int) -> dict[str, Tensor]:
    """Decode random frames from the predicted probabilities, so that losses on images can train the transformer.

    Args:
        tokenizer: frozen.
        clips: see :meth:`PredictedFrames.draw`.
        predictions: likewise.
        count: likewise.

    Returns:
        ``soft`` (n,3,H,W) with gradients to the logits, and ``soft_truth``, the same frames from the true codes.
    """
    drawn = PredictedFrames.draw(clips, predictions, count)
    return {"soft": tokenizer.decode_soft(drawn.probabilities), "soft_truth": tokenizer.decode(drawn.truth)}


def confidence_of(probabilities: Tensor) -> Tensor:
    """Return how sure codes are (...), given their probabilities (...,K): exp(-entropy), from 1/K to 1."""
    return torch.special.entr(probabilities).sum(-1).neg().exp()


def predicted_renderings(
    tokenizer: Tokenizer,
    clips: Tensor,
    predictions: Mapping[str, Any],
    images: tuple[Tensor, Tensor, Tensor],
    count: int,
    shares: tuple[float, float],
) -> dict[str, Tensor]:
    """Render random frames from the predicted probabilities, so that renderer and transformer learn together.

    The guide is the expected code vector, decoded, with its confidence, and the renderer starts from the motion. Some
    frames are rendered from the cross-fade of the given frames, and some from the true codes, both without motion, so
    that the renderer stays able to do so.

    Args:
        tokenizer: frozen but for its renderer.
        clips: (B,T,h,w), the true codes.
        predictions: see :meth:`PredictedFrames.draw`.
        images: first and last frames (B,3,H,W), and all between (B,T-2,3,H,W).
        count: number of frames.
        shares: of cross-fades, and of true codes.

    Returns:
        ``rendered`` (n,3,H,W), and ``real``, the true frames.
    """
    network = tokenizer.renderer
    assert network is not None
    first, last, between = images
    clip, frame, truth, probabilities, motion = PredictedFrames.draw(clips, predictions, count)
    draw = torch.rand(len(clip), 1, 1, 1, device=clips.device)
    true = F.one_hot(truth, probabilities.shape[-1]).to(probabilities.dtype)
    given = draw > 1 - shares[1]
    probabilities = torch.where(given, true, probabilities)
    with torch.no_grad():
        early, late = (tokenizer.decode(clips[clip, number]) for number in (0, -1))
    t = frame / (clips.shape[1] - 1)
    faded = draw < shares[0]
    decoded = torch.where(faded, blend(early, late, t), tokenizer.decode_soft(probabilities))
    sure = torch.where(faded, 0.0, confidence_of(probabilities).unsqueeze(1))
    guide = make_guide(network, decoded, (early, late), sure)
    rendered = torch.empty_like(between[clip, 0])
    moved = torch.zeros_like(frame, dtype=torch.bool) if motion is None else ~(faded | given).flatten()
    for chosen, starts in ((moved, motion), (~moved, None)):
        if chosen.any():
            own, start = clip[chosen], None if starts is None else make_start(starts[chosen], first.shape[-2:])
            image = network(first[own], last[own], t[chosen], guide[chosen], start).image
            rendered = rendered.index_put((chosen.nonzero()[:, 0],), image.to(rendered.dtype))
    return {"rendered": rendered, "real": between[clip, frame - 1]}


def accuracies(predictions: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the accuracy of all predictions, and of those whose code differs from the previous frame."""
    right = (predictions["logits"].detach().argmax(-1) == predictions["targets"]).float()
    changed = (~predictions["copies"]).float()
    return {"accuracy": right.mean(), "changed_accuracy": (right * changed).sum() / changed.sum().clamp_min(1)}
