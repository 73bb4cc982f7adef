"""Training and application of the generator of films as cels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.engine.module import Updates
from animegen.errors import AnimegenError
from animegen.models.temporal.networks.film import FilmGenerator, FilmState
from animegen.models.temporal.windows import MOTION, Disturbance
from animegen.nn.inked import InkedUNet
from animegen.nn.warp import backward_warp, consistent
from animegen.tasks.stylize import StyliseModule, pad_and_crop

#: Colours that differ by less, of a range of 2, may be those of the same point.
_SAME = 0.2


class FilmStyliser(StyliseModule):
    """The film version of a look for photos: it learns to draw as the look does, and the same in every frame.

    The teacher is the look itself, which draws the frames without the noise that the input of the generator has.
    Context entries that loss terms may read (frames are (B*T,3,H,W) in [-1,1]):

    =======================  =========================================================================================
    ``fake``, ``photo``      frames: generated, given
    ``fake_ink``             logits of ink (B*T,1,H,W) of the generated frames
    ``drawn``                the generator's drawings of each frame alone; ``drawn_ink``: their logits of ink
    ``anime``, ``ink``       the teacher's drawings, and its lines alone, black on white
    ``clip``, ``drawn_clip``  windows (B,T,3,H,W): generated, and drawn frame by frame
    ``photo_clip``           the given windows
    ``flow``, ``valid``      motion to the previous frame, estimated on the photos without noise; ``flow_first``,
                             ``valid_first``: to the first one
    =======================  =========================================================================================

    Args:
        generator: a :class:`~animegen.models.temporal.networks.film.FilmGenerator`.
        teacher: name of the look, or path of a checkpoint, whose generator is an
            :class:`~animegen.nn.inked.InkedUNet`.
        disturbance: random cuts and resets within windows.
        grain: largest standard deviation of noise in the input, as a fraction of the intensity range: a random strength
            per window and independent noise per frame, fine and coarse.
        **settings: see :class:`~animegen.engine.module.AnimeModule`.
    """

    generator: FilmGenerator
    remembers = True
    training_only = ("teacher", "disturbance", "grain")

    def __init__(
        self,
        generator: FilmGenerator,
        teacher: str = "cel",
        disturbance: Disturbance | None = None,
        grain: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if grain < 0:
            raise AnimegenError(f"model.grain={grain} must be at least 0.")
        self.generator, self.teacher = generator, teacher
        self.disturbance, self.grain = disturbance or Disturbance(), grain
        self._drawing: list[InkedUNet] = []  # in a list, so that it is not saved with the model

    def load_pretrained(self) -> None:
        """Load the teacher; a drawing part of the same width begins with its weights.

        Raises:
            AnimegenError: if the teacher does not draw areas and ink.
        """
        from animegen.engine.checkpoint import load_model  # which builds models of this file, too

        teacher = load_model(self.teacher, "cpu").generator
        if not isinstance(teacher, InkedUNet):
            raise AnimegenError(
                f"model.teacher={self.teacher} does not draw areas and ink: use a look of animegan, such as cel."
            )
        self._drawing = [teacher]
        mine, given = self.generator.drawing.state_dict(), teacher.state_dict()
        if all(mine[name].shape == weight.shape for name, weight in given.items()):
            self.generator.drawing.load_state_dict(given)

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the update of the generator."""
        if batch["photo"].ndim == 4:
            batch = {**batch, "photo": batch["photo"].unsqueeze(1)}  # images are windows of one frame
        moves = motion(batch["photo"])
        batch, reset = self.disturbance({**batch, **moves, "anime": batch["photo"]})
        photo = batch["photo"]
        noisy = self._with_grain(photo)
        aux: dict[str, Tensor] = {}
        clip, _ = self.generator(noisy, *tracked(noisy), None, reset, aux)
        anime, ink = self._taught(photo.flatten(0, 1))
        yield (
            "generator",
            self.objectives["generator"](
                fake=clip.flatten(0, 1),
                fake_ink=aux["logits"].flatten(0, 1),
                drawn=aux["drawn"].flatten(0, 1),
                drawn_ink=aux["drawn_logits"].flatten(0, 1),
                photo=photo.flatten(0, 1),
                anime=anime,
                ink=ink,
                clip=clip,
                drawn_clip=aux["drawn"],
                photo_clip=photo,
                **{name: batch[name] for name in moves},
            ),
        )

    @torch.no_grad()
    def _taught(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's drawings (N,3,H,W) and lines, black on white, like them."""
        teacher = self._drawing[0].to(photos.device)
        drawing, logits = teacher.draw(photos)
        return drawing.clamp(-1, 1), (1 - 2 * torch.sigmoid(logits)).expand(-1, 3, -1, -1)

    def _with_grain(self, clip: Tensor) -> Tensor:
        """Add noise to clips (B,T,3,H,W): fine, and half of the time also of two pixels, as compression makes it."""
        if not self.grain:
            return clip
        batch, length, _, height, width = clip.shape
        fine, coarse = 2 * self.grain * torch.rand(2, batch, 1, 1, 1, 1, device=clip.device).square()
        coarse = coarse * (torch.rand(batch, 1, 1, 1, 1, device=clip.device) < 0.5)
        patches = torch.randn(batch * length, 3, height // 2, width // 2, device=clip.device)
        patches = F.interpolate(patches, (height, width), mode="bilinear").view_as(clip)
        return (clip + fine * torch.randn_like(clip) + coarse * patches).clamp(-1, 1)

    # --- application -----------------------------------------------------------------------------------

    def stylize(self, frames: Tensor, state: FilmState | None = None, style: None = None) -> tuple[Tensor, FilmState]:
        """Draw the next frame of each of B streams, of any size.

        Args:
            frames: ``(B,3,H,W)`` in [-1,1].
            state: state after the previous frame; ``None`` resets the memory, and so do frames of another size.
            style: ignored.

        Returns:
            images of the same shape and range, and the state.
        """
        states: list[FilmState] = []

        def network(images: Tensor) -> Tensor:
            before = state if state is not None and state.frame.shape == images.shape else None
            flow, seen = torch.zeros_like(images[:, None, :2]), None
            if before is not None and self.generator.compose != "none":
                flow, seen = (value.unsqueeze(1) for value in flow_and_visibility(images, before.frame))
            output, after = self.generator(images.unsqueeze(1), flow, seen, before)
            states.append(after)
            return output.squeeze(1)

        output = pad_and_crop(network, frames, self.size_divisor).clamp(-1, 1)
        return output, states[-1]

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return photos and drawings, as clips and their last frames."""
        if batch["photo"].ndim == 4:
            return super().preview(batch)
        clip, state = [], None
        for frame in batch["photo"].unbind(1):
            output, state = self.stylize(frame, state)
            clip.append(output)
        clips = {"photo_clip": batch["photo"], "output_clip": torch.stack(clip, 1)}
        return {name.removesuffix("_clip"): frames[:, -1] for name, frames in clips.items()} | clips

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return no scores, since films have no truth."""
        return {}


def tracked(clips: Tensor) -> tuple[Tensor, Tensor]:
    """Return the DIS flow of clips (B,T,3,H,W) to the previous frame, and where it agrees with the flow back.

    Returns:
        (B,T,2,H,W) in pixels, and bool (B,T,1,H,W); 0 and false at the first frame.
    """
    flow, seen = torch.zeros_like(clips[:, :, :2]), torch.zeros_like(clips[:, :, :1], dtype=torch.bool)
    if clips.shape[1] > 1:
        moved = flow_and_visibility(clips[:, 1:].flatten(0, 1), clips[:, :-1].flatten(0, 1))
        flow[:, 1:], seen[:, 1:] = (value.unflatten(0, (len(clips), -1)) for value in moved)
    return flow, seen


def flow_and_visibility(frames: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor]:
    """Return the DIS flow (N,2,H,W) of frames (N,3,H,W) to earlier ones, and where the flow back agrees with it."""
    from animegen.media.video.flow import DISFlow  # imports OpenCV

    estimate = DISFlow()
    flow = estimate(frames, earlier)
    return flow, consistent(flow, estimate(earlier, frames))


def motion(clips: Tensor) -> dict[str, Tensor]:
    """Return the DIS flow of clips (B,T,3,H,W), and where it can be trusted.

    Returns:
        ``flow`` (B,T-1,2,H,W) from each frame to the previous one, and ``valid``, bool (B,T-1,1,H,W): the flow there
        and back agree, and the colours differ by less than a tenth of the range. ``flow_first`` and ``valid_first``:
        from each frame to the first one.
    """
    from animegen.media.video.flow import DISFlow  # imports OpenCV

    estimate, shape = DISFlow(), (len(clips), clips.shape[1] - 1)
    if not shape[1]:
        return {name: clips[:, :0, :channels] for name, channels in MOTION.items()}
    moves, now = {}, clips[:, 1:].flatten(0, 1).float()
    for name, earlier in (("", clips[:, :-1]), ("_first", clips[:, :1].expand_as(clips[:, 1:]))):
        then = earlier.flatten(0, 1).float()
        flow = estimate(now, then)
        same = (now - backward_warp(then, flow)).abs().mean(1, keepdim=True) < _SAME
        moves[f"flow{name}"] = flow.unflatten(0, shape)
        moves[f"valid{name}"] = (consistent(flow, estimate(then, now)) & same).unflatten(0, shape)
    return moves
