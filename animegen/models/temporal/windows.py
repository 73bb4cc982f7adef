"""Training windows: stages of their length and size, disturbances, and their motion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean

#: Batch entries with one map per frame except the first, and their channels.
MOTION = {"flow": 2, "valid": 1, "flow_first": 2, "valid_first": 1}


class TrainingStage(nn.Module):
    """A stage of the training.

    Args:
        start: first train step; the stage lasts until the next one starts.
        frames: frames per window; ``None`` for all.
        size: side of the crops of clips (not of style images); ``None`` for all.
        samples: windows per batch; ``None`` for all.
        only: part of the generator that is trained, such as ``memory``; ``None`` for all. With ``memory`` the output
            for first frames stays that of the stages on single frames.

    Raises:
        AnimegenError: for invalid values.
    """

    def __init__(
        self,
        start: int = 0,
        frames: int | None = None,
        size: int | None = None,
        samples: int | None = None,
        only: str | None = None,
    ) -> None:
        super().__init__()
        if start < 0 or any(value is not None and value < 1 for value in (frames, size, samples)):
            raise AnimegenError("A stage needs start >= 0; its other settings must be at least 1.")
        self.start, self.frames, self.size, self.samples, self.only = start, frames, size, samples, only


def sorted_stages(stages: Mapping[str, TrainingStage | None] | None) -> list[TrainingStage]:
    """Return the stages of a configuration by start; of two with the same start the later one in the file wins.

    Raises:
        AnimegenError: if an entry is not a stage.
    """
    for name, stage in (stages or {}).items():
        if stage is not None and not isinstance(stage, TrainingStage):
            raise AnimegenError(
                f"model.stages.{name} must be a stage: "
                f"{{_target_: {TrainingStage.__module__}.TrainingStage, start: ...}}."
            )
    return sorted((stage for stage in (stages or {}).values() if stage is not None), key=lambda stage: stage.start)


def stage_at(stages: list[TrainingStage], step: int) -> TrainingStage | None:
    """Return the stage at a train step, if any."""
    return next((stage for stage in reversed(stages) if stage.start <= step), None)


def set_trainable_part(generator: nn.Module, stage: TrainingStage | None) -> None:
    """Make the part of the generator trainable that the stage names, and freeze the rest.

    Raises:
        AnimegenError: if there is no such part.
    """
    only = stage.only if stage is not None else None
    try:
        part = generator if only is None else generator.get_submodule(only)
    except AttributeError as error:
        known = [name for name, _ in generator.named_children()]
        raise AnimegenError(
            f"model.stages: the generator has no part '{only}': use {', '.join(known)}."
            + did_you_mean(str(only), known)
        ) from error
    trainable = {id(parameter) for parameter in part.parameters()}
    for parameter in generator.parameters():
        parameter.requires_grad_(id(parameter) in trainable)


def apply_stage(batch: dict[str, Tensor], stage: TrainingStage | None) -> dict[str, Tensor]:
    """Truncate a batch to the first frames, samples, rows and columns of a stage.

    A single frame is taken from a random position in the window.
    """
    if stage is None:
        return batch
    length = batch["photo"].shape[1]
    frames = min(stage.frames or length, length)
    out = {}
    for key, value in batch.items():
        value = value[: stage.samples]
        if key in ("photo", "anime"):
            first = int(torch.randint(length, ())) if frames == 1 < length else 0
            value = value[:, first : first + frames]
        elif key in MOTION:
            value = value[:, : frames - 1]
        if stage.size is not None and key != "style" and value.ndim >= 4:
            value = value[..., : stage.size, : stage.size]
        out[key] = value
    return {key: value for key, value in out.items() if key not in MOTION or frames > 1}


class Disturbance(nn.Module):
    """Random disturbances of training windows: cuts with and without a reset, and a memory that starts mid-clip.

    Each happens with the given probability per window, before a random frame. The validity masks of the motion exclude
    the transition.

    Args:
        splice: continue with the frames of another sample, and reset the memory there.
        silent_splice: the same without a reset: the network has to detect the cut.
        cold: reset the memory although the clip continues.
        still: repeat the first frame, independently for photos and anime, before the other disturbances. The remaining
            changes are the noise that is added to frames, which the memory learns to suppress.

    Raises:
        AnimegenError: for probabilities that are negative or exceed 1 in total.
    """

    def __init__(self, splice: float = 0.0, silent_splice: float = 0.0, cold: float = 0.0, still: float = 0.0) -> None:
        super().__init__()
        if min(splice, silent_splice, cold, still) < 0 or max(splice + silent_splice + cold, still) > 1:
            raise AnimegenError(
                "The probabilities splice, silent_splice, cold and still must not be negative; the first three in sum,"
                " and still, must not exceed 1."
            )
        self.splice, self.silent_splice, self.cold, self.still = splice, silent_splice, cold, still

    def forward(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return the disturbed batch, and where the memory is reset, bool (B,T); ``None`` for nowhere."""
        batch = self._held(batch)
        photo = batch["photo"]
        count, length = photo.shape[:2]
        total = self.splice + self.silent_splice + self.cold
        if length < 2 or total == 0:
            return batch, None
        uniform = torch.rand(count, device=photo.device)
        position = torch.randint(1, length, (count,), device=photo.device)[:, None]
        frame = torch.arange(length, device=photo.device)
        disturbed = uniform < total
        spliced = uniform < self.splice + self.silent_splice
        reset = disturbed & ~(spliced & (uniform >= self.splice))
        after = frame >= position  # (B,T)
        out = dict(batch)
        other = (after & spliced[:, None])[..., None, None, None]
        out["photo"] = torch.where(other, photo.roll(1, 0), photo)
        for key, invalid in (("valid", frame == position), ("valid_first", after)):
            if key in batch:
                kept = ~(invalid & disturbed[:, None])[:, 1:, None, None, None]
                out[key] = batch[key] * kept
        if "flow" in batch:
            out["flow"] = torch.where(other[:, 1:], batch["flow"].roll(1, 0), batch["flow"])
        if "valid" in batch:
            later = other[:, 1:] & (frame > position)[:, 1:, None, None, None]
            out["valid"] = torch.where(later, batch["valid"].roll(1, 0), out["valid"])
        return out, (frame == position) & reset[:, None]

    def _held(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Repeat the first frame of some windows."""
        if not self.still or batch["photo"].shape[1] < 2:
            return batch
        out = dict(batch)
        count, device = len(batch["photo"]), batch["photo"].device
        photos, anime = (torch.rand(2, count, 1, 1, 1, 1, device=device) < self.still).unbind()
        for key, held in (("photo", photos), ("anime", anime)):
            out[key] = torch.where(held, batch[key][:, :1], batch[key])
        for key, value in (("flow", 0), ("valid", 1), ("flow_first", 0), ("valid_first", 1)):
            if key in batch:
                out[key] = torch.where(photos, torch.full_like(batch[key], value), batch[key])
        return out


def motion_of(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the motion entries of a batch; empty maps for windows of one frame."""
    if batch["photo"].shape[1] > 1:
        return {name: batch[name] for name in MOTION if name in batch}
    return {name: batch["photo"][:, :0, :count] for name, count in MOTION.items()}


def estimated_flow(clips: Tensor) -> Tensor:
    """Return the DIS flow (B,T,2,H,W) of clips (B,T,3,H,W) from each frame to the previous one; 0 at the first."""
    flow = torch.zeros_like(clips[:, :, :2])
    if clips.shape[1] > 1:
        moved = flow_between(clips[:, 1:].flatten(0, 1), clips[:, :-1].flatten(0, 1))
        flow[:, 1:] = moved.unflatten(0, (len(clips), -1))
    return flow


def flow_between(frames: Tensor, earlier: Tensor) -> Tensor:
    """Return the DIS flow (N,2,H,W) in pixels of frames (N,3,H,W) to earlier ones."""
    from animegen.media.video.flow import DISFlow  # imports OpenCV

    return DISFlow()(frames, earlier)


def as_windows(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a batch of images to windows of one frame, with the anime images as style images."""
    out = dict(batch)
    for key in ("photo", "anime"):
        if key not in batch:
            raise AnimegenError(
                f"The model is trained on photos and anime, but the data have no '{key}': use data=unpaired/* or"
                " data=styled_clips/*."
            )
        if batch[key].ndim == 4:
            out[key] = batch[key].unsqueeze(1)
    if "style" not in batch:
        # From another sample: the style must not contain the target.
        out["style"] = out["anime"][:, 0].roll(1, 0)
    return out
