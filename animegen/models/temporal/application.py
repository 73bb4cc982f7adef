"""Application of the temporal generator: streaming, previews and validation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from animegen.models.temporal.networks.generator import TemporalGenerator
from animegen.models.temporal.networks.state import Style, TemporalState
from animegen.models.temporal.networks.style import blend_styles, resize_shorter_side
from animegen.models.temporal.visualization import attention_image, clip_scores, frame_scores, mask_image
from animegen.models.temporal.windows import MOTION, flow_between
from animegen.tasks.stylize import StyliseModule, pad_and_crop


class TemporalStyliser(StyliseModule):
    """A model of the task *stylise* with a memory."""

    generator: TemporalGenerator
    #: Shorter side to which style images are resized.
    still_size: int = 256
    #: Whether the output depends on earlier frames.
    remembers = True

    def encode_style(self, stills: Sequence[Tensor], weights: Sequence[float] | None = None) -> Style:
        """Encode a style for :meth:`stylize`.

        Args:
            stills: style images (3,H,W) in [-1,1] of any sizes.
            weights: weight of each image; ``None`` for equal weights.

        Raises:
            AnimegenError: if there is not one weight per image, one is negative, or all are 0.
        """
        encoder = self.generator.style
        like = encoder.default_code
        styles = [
            encoder(resize_shorter_side(still.to(like.device, like.dtype)[None], self.still_size)) for still in stills
        ]
        return blend_styles(styles, [1.0] * len(styles) if weights is None else list(weights))

    def stylize(
        self, frames: Tensor, state: TemporalState | None = None, style: Style | Tensor | None = None
    ) -> tuple[Tensor, TemporalState]:
        """Stylise the next frame of each of B streams, of any size.

        Args:
            frames: ``(B,3,H,W)`` in [-1,1].
            state: state after the previous frame; ``None`` resets the memory, and so do frames of another size.
            style: return value of :meth:`encode_style`, or style images ``(S,3,h,w)`` with equal weights; ``None`` for
                the style of the state, or the default style.

        Returns:
            images of the same shape and range, and the state.
        """
        if isinstance(style, Tensor):
            style = self.encode_style(list(style))
        if style is not None and len(style.code) != len(frames):
            style = style.expanded(len(frames))
        states: list[TemporalState] = []

        def network(images: Tensor) -> Tensor:
            before = state
            if before is not None and not before.fits(images, self.generator.memory.levels):
                before = before.without_memory()
            output, after = self.generator(images.unsqueeze(1), style, before, None, self._flow(images, before))
            states.append(after)
            return output.squeeze(1)

        output = pad_and_crop(network, frames, self.size_divisor).clamp(-1, 1)
        return output, states[-1]

    def _flow(self, images: Tensor, state: TemporalState | None) -> Tensor | None:
        """Return the DIS flow (B,1,2,H,W) to the previous frame, if the model needs it."""
        if not self.generator.needs_flow:
            return None
        if state is None or state.previous is None:
            return torch.zeros_like(images[:, :2]).unsqueeze(1)
        return flow_between(images, state.previous).unsqueeze(1)

    def stylize_clips(self, clips: Tensor, stills: Tensor | None = None) -> Tensor:
        """Stylise clips (B,T,3,H,W) in [-1,1] of any size frame by frame.

        ``stills`` (B,3,h,w) are the style images of the clips; ``None`` for the default style.
        """
        style = None if stills is None else self.generator.style(resize_shorter_side(stills, self.still_size))
        state, frames = None, []
        for frame in clips.unbind(1):
            output, state = self.stylize(frame, state, style)
            frames.append(output)
        return torch.stack(frames, 1)

    def example_batch(self, size: int, height: int, width: int, device: torch.device) -> dict[str, Tensor]:
        """Return a training batch of random windows of five frames, for benchmarks of speed."""
        clips = torch.rand(2, size, 5, 3, height, width, device=device) * 2 - 1
        motion = {name: clips[0, :, 1:, :count] for name, count in MOTION.items()}
        return {"photo": clips[0], "anime": clips[1], "style": clips[1, :, 0], **motion}

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return photo, output and truth, as clips and their last frames; attention and composition mask as images."""
        if batch["photo"].ndim == 4:
            return super().preview(batch)
        still = batch["style"] if "look" in batch else None
        clips = {"photo_clip": batch["photo"], "output_clip": self.stylize_clips(batch["photo"], still)}
        if "anime" in batch:
            clips["truth_clip"] = batch["anime"]
        last = {name.removesuffix("_clip"): clip[:, -1] for name, clip in clips.items()}
        if "look" in batch:
            last["style"] = batch["style"]
        maps = attention_image(self.generator, batch["photo"][:, -1]) | mask_image(self.generator, batch["photo"])
        return {**last, **maps, **clips}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return scores of images, or of clips: per frame, and warping errors along their motion."""
        if batch["photo"].ndim == 4:
            return super().validate(batch)
        output = self.stylize_clips(batch["photo"], batch["style"] if "look" in batch else None).float()
        with torch.autocast(output.device.type, enabled=False):
            truth = batch["anime"].float() if "anime" in batch else None
            frames = {} if truth is None else frame_scores(output, truth)
            return {**frames, **clip_scores(output, truth, batch)}
