"""Application of GANime: clip generation, frame interpolation, previews and validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.metrics.image import psnr, ssim
from animegen.models.ganime.motion import known_motion
from animegen.models.ganime.networks.tokenizer import Tokenizer
from animegen.models.ganime.networks.transformer import CodeTransformer
from animegen.models.ganime.rendering import (
    EncodedPair,
    accuracies,
    decode,
    expected_clip,
    fit_to_tokenizer,
    intervals_for,
    predicted_motion,
    render,
)
from animegen.tasks.inbetween import InbetweenModule, padded
from animegen.tasks.protocols import Sampling


class GanimeGenerator(InbetweenModule):
    """A tokenizer and a transformer as a clip generator and as a frame interpolator.

    Without a trained transformer it interpolates by the cross-fade of the reconstructed frames.

    Args:
        tokenizer: images to codes and back.
        transformer: predicts codes; a partial that lacks ``codes`` and ``grid`` gets them from tokenizer and
            ``frame_size``; ``None`` for a tokenizer alone.
        frame_size: (height, width) of the frames that the tokenizer is trained on.
        sampling: default settings of :class:`~animegen.tasks.protocols.Sampling`.
        expected_guide: render the most likely clip from the expected code vectors with their confidence.
        **settings: see :class:`~animegen.engine.module.AnimeModule`.

    Raises:
        AnimegenError: if the parts do not fit together.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        transformer: CodeTransformer | Callable[..., CodeTransformer] | None = None,
        frame_size: Sequence[int] = (64, 64),
        sampling: Mapping[str, Any] | None = None,
        expected_guide: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.tokenizer = tokenizer
        self.frame_size = (int(frame_size[0]), int(frame_size[1]))
        divisor = tokenizer.size_divisor
        if any(side % divisor for side in self.frame_size):
            raise AnimegenError(
                f"Frames of {self.frame_size[0]}x{self.frame_size[1]} pixels cannot be divided into codes of {divisor}"
                " pixels: set data.image_size to a multiple."
            )
        if transformer is not None and not isinstance(transformer, CodeTransformer):
            grid = (self.frame_size[0] // divisor, self.frame_size[1] // divisor)
            transformer = transformer(codes=tokenizer.codes, grid=grid, divisor=divisor)
        self.transformer: CodeTransformer | None = transformer
        if transformer is not None and transformer.codes != tokenizer.codes:
            raise AnimegenError(
                f"The transformer has {transformer.codes} codes and the tokenizer {tokenizer.codes}: set the same"
                " number."
            )
        self.expected_guide = expected_guide
        self.sampling = Sampling(**(dict(sampling) if sampling else {}))
        #: Train step from which the transformer was trained, with the tokenizer frozen; -1 before. Saved.
        self.transformer_start = -1

    @property
    def tokenizer_frozen(self) -> bool:
        """Whether the training of the tokenizer is complete and that of the transformer has begun."""
        return self.transformer_start >= 0

    @property
    def size_divisor(self) -> int:
        """Frames whose sides are multiples of this number need no padding."""
        return self.tokenizer.size_divisor * (1 if self.transformer is None else self.transformer.merge)

    @property
    def max_frames(self) -> int:
        """Length of the longest clip that can be generated at once, including both given frames."""
        return 2 if self.transformer is None else self.transformer.max_frames

    @property
    def max_size(self) -> tuple[int, int] | None:
        """Largest height and width of generated frames; ``None`` with a renderer, which has no limit."""
        return None if self.has_renderer else self.frame_size

    @property
    def follows_motion(self) -> bool:
        """Whether frames are rendered from a motion, the predicted one or another."""
        return self.has_renderer and self.transformer is not None and self.transformer.motion is not None

    @property
    def has_renderer(self) -> bool:
        """Whether generated frames are rendered with the pixels of the given ones."""
        return self.tokenizer.renderer is not None

    def encode_pair(self, first: Tensor, last: Tensor) -> EncodedPair:
        """Encode pairs of frames (B,3,H,W) in [-1,1] of any size; consecutive equal pairs are encoded once."""
        return EncodedPair.encode(
            self.tokenizer, first, last, self.size_divisor, self.frame_size if self.has_renderer else None
        )

    def synthesize(self, encoded: EncodedPair, t: Tensor) -> Tensor:
        """Return the frames (B,3,H,W) at time ``t`` (B,), of the shortest clip with frames at all these times."""
        if self.transformer is None or not self.tokenizer_frozen:
            return encoded.cross_fade(self.tokenizer, t)
        frames = intervals_for(t, self.max_frames) + 1
        if frames not in encoded.clips:
            ends = (0, frames - 1)
            codes, images, small = (
                dict(zip(ends, pair, strict=True))
                for pair in ((encoded.first, encoded.last), encoded.images, encoded.small)
            )
            encoded.clips[frames] = self._drawn(self.transformer, codes, small, images, self.sampling)
        number = (t * (frames - 1)).round().long().clamp(1, frames - 2)
        return encoded.crop(encoded.clips[frames][encoded.group, number])

    def between(self, first: Tensor, last: Tensor, times: Tensor) -> Tensor:
        """Return the frames at the times (B,T) between first and last (B,3,H,W), (B,T,3,H,W), of one clip."""
        count = times.shape[1]
        pairs = [frame.repeat_interleave(count, 0) for frame in (first, last)]
        return self.synthesize(self.encode_pair(*pairs), times.flatten()).unflatten(0, times.shape)

    def generate(
        self,
        first: Tensor,
        last: Tensor,
        frames: int,
        sampling: Sampling | None = None,
        keys: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Generate a clip (B,frames,3,H,W), see :class:`~animegen.tasks.protocols.ClipGenerator`.

        The given frames are copied to the clip, not reconstructed by the tokenizer.

        Raises:
            AnimegenError: for an invalid number of frames, and without a trained transformer.
        """
        if self.transformer is None or not self.tokenizer_frozen:
            raise AnimegenError(
                "This checkpoint holds a tokenizer without a trained transformer: it cannot generate clips."
            )
        given = {0: first, frames - 1: last, **(keys or {})}
        limit = self.frame_size if self.has_renderer else None
        fitted = {t: fit_to_tokenizer(frame, self.size_divisor, limit) for t, frame in given.items()}
        encoded = {t: self.tokenizer.encode(small) for t, (_, small) in fitted.items()}
        whole, small = ({t: pair[n] for t, pair in fitted.items()} for n in (0, 1))
        clip = self._drawn(self.transformer, encoded, small, whole, sampling or self.sampling)
        clip = clip[..., : first.shape[-2], : first.shape[-1]].to(first.dtype)
        for t, frame in given.items():
            clip[:, t] = frame
        return clip

    def _drawn(
        self,
        transformer: CodeTransformer,
        codes: Mapping[int, Tensor],
        small: Mapping[int, Tensor],
        images: Mapping[int, Tensor],
        sampling: Sampling,
    ) -> Tensor:
        """Return clips (B,T,3,H,W) between given frames: their codes, in the size for the tokenizer, and as they are.

        The most likely clip is rendered from the expected code vectors with their confidence, if the renderer was
        trained for it. All others are rendered from their codes, as a true clip would be, and from the same motion, if
        the transformer predicts it.
        """
        frames = max(codes) + 1
        if self.expected_guide and sampling.greedy and sampling.guidance == 1:
            decoded, confidence, motion = expected_clip(self.tokenizer, transformer, codes, small)
            return render(self.tokenizer, decoded, images, confidence, motion)
        middle = {t: value for t, value in codes.items() if 0 < t < frames - 1}
        found = transformer.generate(codes[0], codes[frames - 1], frames, sampling, middle, small)
        motion = predicted_motion(transformer, codes, small) if self.has_renderer else None
        return render(self.tokenizer, decode(self.tokenizer, found), images, motion=motion)

    def render(
        self,
        decoded: Tensor,
        given: Mapping[int, Tensor],
        confidence: float = 1.0,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Redraw decoded clips (B,T,3,H,W) with the pixels of given frames, see :func:`.rendering.render`.

        ``known`` takes the place of the predicted motion: the flow of the T - 2 frames between to the first and to the
        last one, (B,T-2,4,H,W) in pixels, and whether their places are in sight there, (B,T-2,2,H,W) bool.
        """
        motion = None
        if known is not None:
            count = decoded.shape[1] - 1
            motion = {n: known_motion(known[0][:, n - 1], known[1][:, n - 1], n / count) for n in range(1, count)}
        return render(self.tokenizer, decoded, given, confidence, motion)

    def reconstruct(self, frames: Tensor) -> Tensor:
        """Encode and decode frames (N,3,H,W) in [-1,1] of any size."""
        codes = self.tokenizer.encode(padded(frames, self.size_divisor))
        decoded = decode(self.tokenizer, codes.unsqueeze(1))[:, 0, :, : frames.shape[-2], : frames.shape[-1]]
        return decoded.clamp(-1, 1).to(frames.dtype)

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return frames and their reconstructions, or clips and the true ones once the transformer is trained."""
        if self.transformer is None or not self.tokenizer_frozen:
            frames = batch["first"] if "first" in batch else batch["frame"]
            return {"frame": frames, "reconstruction": self.tokenizer(frames).image.clamp(-1, 1)}
        return super().preview(batch)

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return scores of reconstructions, predicted codes and generated frames, compared with the cross-fades."""
        if "truth" not in batch:
            return {}
        clip = torch.cat([batch["first"].unsqueeze(1), batch["truth"], batch["last"].unsqueeze(1)], 1).float()
        real = clip.flatten(0, 1)
        codes = self.tokenizer.encode(real)
        decoded = decode(self.tokenizer, codes.unflatten(0, clip.shape[:2]))
        usage = self.tokenizer.quantizer.usage(codes)
        with torch.autocast(clip.device.type, enabled=False):
            scores = {
                "reconstruction_psnr": psnr(decoded.flatten(0, 1), real),
                "reconstruction_ssim": ssim(decoded.flatten(0, 1), real),
                "perplexity": usage.perplexity,
                "codes_used": usage.used,
            }
            if self.has_renderer:
                rendered = self.render(decoded, {0: clip[:, 0], decoded.shape[1] - 1: clip[:, -1]})[:, 1:-1]
                scores["rendered_psnr"] = psnr(rendered.flatten(0, 1), batch["truth"].float().flatten(0, 1))
        if self.transformer is None or not self.tokenizer_frozen:
            return scores
        ends = (clip[:, 0], clip[:, -1])
        predictions = self.transformer(codes.unflatten(0, clip.shape[:2]), self.train_step, ends)
        logits, targets = predictions["logits"].float(), predictions["targets"]
        scores["cross_entropy"] = nn.functional.cross_entropy(logits, targets)
        scores |= accuracies(predictions)
        scores |= super().validate(batch)
        t = batch["t"].float().unflatten(1, (-1, 1, 1, 1))
        blend = torch.lerp(decoded[:, :1], decoded[:, -1:], t).flatten(0, 1)
        with torch.autocast(clip.device.type, enabled=False):
            scores["gain_over_coded_blend"] = scores["psnr"] - psnr(blend, batch["truth"].float().flatten(0, 1))
        return scores
