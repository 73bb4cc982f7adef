"""How the temporal generator is applied, shown and scored: films frame after frame, with the memory that goes along."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from animegen.models.temporal.networks.generator import TemporalGenerator, fits, without_memory
from animegen.models.temporal.networks.state import Style, TemporalState
from animegen.models.temporal.networks.style import blend, scaled
from animegen.models.temporal.visualization import attention_picture, clip_scores, frame_scores, mask_picture
from animegen.models.temporal.windows import MOTION, estimated_flow
from animegen.tasks.stylize import StyliseModule, pad_and_crop


class TemporalStyliser(StyliseModule):
    """A model of the task *stylise* that remembers, whatever it learns from."""

    generator: TemporalGenerator
    #: Shorter side to which stills are scaled.
    still_size: int = 256
    #: What is drawn depends on the frames before.
    remembers = True

    def encode_style(self, stills: Sequence[Tensor], weights: Sequence[float] | None = None) -> Style:
        """Encode a style for :meth:`stylize`, once for any number of frames.

        Args:
            stills: pictures (3,H,W) in [-1,1] of any sizes.
            weights: how much each counts; all alike without.

        Raises:
            AnimegenError: if stills and weights do not belong together.
        """
        encoder = self.generator.style
        home = encoder.default_code
        styles = [encoder(scaled(still.to(home.device, home.dtype)[None], self.still_size)) for still in stills]
        return blend(styles, [1.0] * len(styles) if weights is None else list(weights))

    def stylize(
        self, frames: Tensor, state: TemporalState | None = None, style: Style | Tensor | None = None
    ) -> tuple[Tensor, TemporalState]:
        """Stylise the next frame of each of B streams, of any size.

        Args:
            frames: ``(B,3,H,W)`` in [-1,1].
            state: what the call for the frame before returned; ``None`` starts the memory anew. Frames of another size
                do so, too.
            style: what :meth:`encode_style` returned, or stills ``(S,3,h,w)`` that count alike; ``None`` is the style
                of the state, or else the learned default.

        Returns:
            Pictures of the same shape and range, and the state.
        """
        if isinstance(style, Tensor):
            style = self.encode_style(list(style))
        if style is not None and len(style.code) != len(frames):
            style = style.expanded(len(frames))
        after: list[TemporalState] = []

        def network(images: Tensor) -> Tensor:
            before = state
            if before is not None and not fits(before, images, self.generator.memory.levels):
                before = without_memory(before)
            drawn, new = self.generator(images.unsqueeze(1), style, before, None, self._estimated(images, before))
            after.append(new)
            return drawn.squeeze(1)

        output = pad_and_crop(network, frames, self.factor).clamp(-1, 1)
        return output, after[-1]

    def _estimated(self, images: Tensor, state: TemporalState | None) -> Tensor | None:
        """Return the DIS flow (B,1,2,H,W) into the frame before, if something follows it."""
        if not self.generator.needs_flow:
            return None
        if state is None or state.previous is None:
            return torch.zeros_like(images[:, :2]).unsqueeze(1)
        return estimated_flow(torch.stack([state.previous, images], 1))[:, 1:]

    def draw_clips(self, clips: Tensor, stills: Tensor | None = None) -> Tensor:
        """Draw whole clips (B,T,3,H,W) in [-1,1] of any size, frame after frame.

        Each in the style of its still (B,3,h,w), or all in the default style.
        """
        style = None if stills is None else self.generator.style(scaled(stills, self.still_size))
        state, frames = None, []
        for frame in clips.unbind(1):
            drawn, state = self.stylize(frame, state, style)
            frames.append(drawn)
        return torch.stack(frames, 1)

    def example_batch(self, size: int, height: int, width: int, device: torch.device) -> dict[str, Tensor]:
        """Return windows of noise of five frames with all that a batch holds, to measure speed with."""
        clips = torch.rand(2, size, 5, 3, height, width, device=device) * 2 - 1
        motion = {name: clips[0, :, 1:, :count] for name, count in MOTION.items()}
        return {"photo": clips[0], "anime": clips[1], "style": clips[1, :, 0], **motion}

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Show photo, output and truth, as clips and one frame of each; what attention reads, and what is new."""
        if batch["photo"].ndim == 4:
            return super().preview(batch)
        still = batch["style"] if "look" in batch else None
        clips = {"photo_clip": batch["photo"], "output_clip": self.draw_clips(batch["photo"], still)}
        if "anime" in batch:
            clips["truth_clip"] = batch["anime"]
        last = {name.removesuffix("_clip"): clip[:, -1] for name, clip in clips.items()}
        if "look" in batch:
            last["style"] = batch["style"]
        seen = attention_picture(self.generator, batch["photo"][:, -1]) | mask_picture(self.generator, batch["photo"])
        return {**last, **seen, **clips}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Score pictures as every model of the task, and clips frame by frame and along their motion."""
        if batch["photo"].ndim == 4:
            return super().validate(batch)
        output = self.draw_clips(batch["photo"], batch["style"] if "look" in batch else None).float()
        with torch.autocast(output.device.type, enabled=False):
            truth = batch["anime"].float() if "anime" in batch else None
            frames = {} if truth is None else frame_scores(output, truth)
            return {**frames, **clip_scores(output, truth, batch)}
