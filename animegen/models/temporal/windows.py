"""Training windows: how long and large they are at which step, and how they are disturbed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean

#: Entries with one value per frame but the first, and their channels.
MOTION = {"flow": 2, "valid": 1, "flow_first": 2, "valid_first": 1}


class Stage(nn.Module):
    """A part of the training.

    Args:
        start: train step from which it lasts, until the next one starts.
        frames: frames per window; ``None`` for all.
        size: side of the crops (of the clips; stills stay whole); ``None`` for all.
        samples: windows per batch; ``None`` for all.
        only: the part of the generator that learns, such as ``memory``; ``None``: all of it. The others stay as they
            are, and what the memory adds is then its own work: emptied, it leaves what single frames had learned.
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
            raise AnimegenError("A stage needs a start that is not negative; its other settings must be at least 1.")
        self.start, self.frames, self.size, self.samples, self.only = start, frames, size, samples, only


def in_order(stages: Mapping[str, Stage | None] | None) -> list[Stage]:
    """Return the stages of a configuration in their order; of two that start together the one named later counts.

    Raises:
        AnimegenError: if one is no stage.
    """
    for name, stage in (stages or {}).items():
        if stage is not None and not isinstance(stage, Stage):
            raise AnimegenError(
                f"model.stages.{name} must say what it is: {{_target_: {Stage.__module__}.Stage, start: ...}}."
            )
    return sorted((stage for stage in (stages or {}).values() if stage is not None), key=lambda stage: stage.start)


def stage_at(stages: list[Stage], step: int) -> Stage | None:
    """Return the stage in force at a step, if any."""
    return next((stage for stage in reversed(stages) if stage.start <= step), None)


def learning_part(generator: nn.Module, stage: Stage | None) -> None:
    """Let that part of the generator learn that the stage wants, and nothing else of it.

    Raises:
        AnimegenError: if it has no such part.
    """
    only = stage.only if stage is not None else None
    try:
        part = generator if only is None else generator.get_submodule(only)
    except AttributeError as error:
        known = [name for name, _ in generator.named_children()]
        raise AnimegenError(
            f"model.stages: the generator has no part '{only}' that could learn alone: use {', '.join(known)}."
            + did_you_mean(str(only), known)
        ) from error
    learning = {id(parameter) for parameter in part.parameters()}
    for parameter in generator.parameters():
        parameter.requires_grad_(id(parameter) in learning)


def staged(batch: dict[str, Tensor], stage: Stage | None) -> dict[str, Tensor]:
    """Return what a stage leaves of a batch: its first frames, samples, and rows and columns.

    A single frame is taken from anywhere in the window, drawn from torch's generator.
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
    """What windows must survive: cuts that are told and cuts that are not, and a memory that starts in mid-film.

    Each happens to a window with the given chance, before a frame drawn at random. Where the film does not go
    on, nothing is asked of the motion.

    Args:
        splice: the window goes on as that of another sample, and the memory is reset there.
        silent_splice: the same, untold: the network has to see for itself that the film is another.
        cold: the memory is emptied although the film goes on.
        still: nothing moves: the first frame is held. Drawn for photos and for anime each by itself, and before the
            others. What changes then is the noise that is put on frames, and the memory learns that it is none of the
            picture.
    """

    def __init__(self, splice: float = 0.0, silent_splice: float = 0.0, cold: float = 0.0, still: float = 0.0) -> None:
        super().__init__()
        if min(splice, silent_splice, cold, still) < 0 or max(splice + silent_splice + cold, still) > 1:
            raise AnimegenError(
                "The chances splice, silent_splice and cold, and still, must not be negative, nor more than 1 in all."
            )
        self.splice, self.silent_splice, self.cold, self.still = splice, silent_splice, cold, still

    def forward(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Return a batch with disturbed windows, and where the memory is reset, bool (B,T); ``None`` for nowhere."""
        batch = self._held(batch)
        photo = batch["photo"]
        count, length = photo.shape[:2]
        chances = self.splice + self.silent_splice + self.cold
        if length < 2 or chances == 0:
            return batch, None
        luck = torch.rand(count, device=photo.device)
        place = torch.randint(1, length, (count,), device=photo.device)
        frame = torch.arange(length, device=photo.device)
        struck = luck < chances
        spliced = luck < self.splice + self.silent_splice
        told = struck & ~(spliced & (luck >= self.splice))
        after = frame >= place[:, None]  # (B,T)
        out = dict(batch)
        elsewhere = (after & spliced[:, None])[..., None, None, None]
        out["photo"] = torch.where(elsewhere, photo.roll(1, 0), photo)
        for key, gone in (("valid", frame == place[:, None]), ("valid_first", after)):
            if key in batch:
                kept = ~(gone & struck[:, None])[:, 1:, None, None, None]
                out[key] = batch[key] * kept
        for key in ("flow", "flow_first"):
            if key in batch:  # behind the splice the film of the other sample moves
                moved = torch.where(elsewhere[:, 1:], batch[key].roll(1, 0), batch[key])
                out[key] = moved if key == "flow" else batch[key]
        if "valid" in batch:
            later = elsewhere[:, 1:] & (frame > place[:, None])[:, 1:, None, None, None]
            out["valid"] = torch.where(later, batch["valid"].roll(1, 0), out["valid"])
        return out, (frame == place[:, None]) & told[:, None]

    def _held(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Hold the first frame of some windows."""
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
    """Return the motion that a batch has; between the frames of a window of one frame there is none."""
    if batch["photo"].shape[1] > 1:
        return {name: batch[name] for name in MOTION if name in batch}
    return {name: batch["photo"][:, :0, :count] for name, count in MOTION.items()}


def estimated_flow(clips: Tensor) -> Tensor:
    """Return the DIS flow (B,T,2,H,W) of clips (B,T,3,H,W) from each frame into the one before; 0 at the first."""
    from animegen.media.video.flow import DISFlow  # on demand: few need it

    later, earlier = clips[:, 1:].flatten(0, 1).float(), clips[:, :-1].flatten(0, 1).float()
    flow = torch.zeros_like(clips[:, :, :2])
    if len(later):
        flow[:, 1:] = DISFlow()(later, earlier).unflatten(0, (len(clips), -1)).to(flow.dtype)
    return flow


def as_windows(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch with time: pictures become windows of one frame, and anime pictures serve as stills."""
    out = dict(batch)
    for key in ("photo", "anime"):
        if key not in batch:
            raise AnimegenError(f"The model learns from photos and anime, and these data have no '{key}'.")
        if batch[key].ndim == 4:
            out[key] = batch[key].unsqueeze(1)
    if "style" not in batch:
        # That of another sample: the style must not tell what the picture shows.
        out["style"] = out["anime"][:, 0].roll(1, 0)
    return out
