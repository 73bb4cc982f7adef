"""Curricula: crop and batch sizes that change at given steps.

The stage of a step or sample is a pure function of its number, so sampler, view and augmentation agree without
communication, and a resumed run sees the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from animegen.data.clips.augment import ClipAugment
from animegen.data.clips.truth import Box
from animegen.data.clips.view import ClipView
from animegen.data.datamodule import AnimeDataModule
from animegen.data.sampler import ResumableBatchSampler, counter_hash, counter_hash_tensor, draw_integer, random_bits
from animegen.errors import AnimegenError


@dataclass(frozen=True)
class CurriculumStage:
    """A stage of a curriculum.

    Attributes:
        size: (height, width) of the crops.
        batch_size: samples per process and step.
        steps: number of steps; ``None`` for the last stage.
        accumulate: number of micro-batches per step.
    """

    size: tuple[int, int]
    batch_size: int
    steps: int | None = None
    accumulate: int = 1


class Curriculum:
    """A sequence of stages.

    Args:
        stages: ``{size, batch_size, steps, accumulate}`` each; size is a side or [height, width]. Stages of 0 steps
            are skipped; the ``steps`` of the last one are ignored.
        multiple: sizes are rounded up to multiples of this.

    Raises:
        AnimegenError: for invalid values.
    """

    def __init__(self, stages: Sequence[dict[str, Any]], multiple: int = 1) -> None:
        made = [_stage(stage, multiple) for stage in stages]
        self.stages = [stage for stage in made[:-1] if stage.steps != 0] + made[-1:]
        if not self.stages:
            raise AnimegenError("data.stages is empty: a curriculum needs at least one stage.")
        if any(stage.steps is None for stage in self.stages[:-1]):
            raise AnimegenError("data.stages: every stage but the last needs steps.")
        #: First step of each stage.
        self.begins = [sum(stage.steps or 0 for stage in self.stages[:n]) for n in range(len(self.stages))]
        #: First sample of each stage, for one process.
        self.samples = [
            sum((stage.steps or 0) * stage.batch_size for stage in self.stages[:n]) for n in range(len(self.stages))
        ]

    def at_step(self, step: int) -> int:
        """Return the number of the stage of a step."""
        return sum(begin <= step for begin in self.begins) - 1

    def of_sample(self, sample: int, world_size: int = 1) -> int:
        """Return the number of the stage of a sample."""
        return sum(first * world_size <= sample for first in self.samples) - 1

    def first_sample(self, step: int, world_size: int = 1) -> int:
        """Return the number of the first sample of a step over all processes."""
        number = self.at_step(step)
        stage = self.stages[number]
        return (self.samples[number] + (step - self.begins[number]) * stage.batch_size) * world_size


class CurriculumBatchSampler(ResumableBatchSampler):
    """Endless batches of sample numbers with the batch size of their stage; see `ResumableBatchSampler`."""

    def __init__(self, curriculum: Curriculum, *arguments: Any, **settings: Any) -> None:
        super().__init__(1, *arguments, **settings)
        self.curriculum = curriculum

    def __iter__(self) -> Iterator[list[int]]:
        step = self._start_step() if callable(self._start_step) else self._start_step
        while True:
            now = 0 if self.repeat else step
            size = self.curriculum.stages[self.curriculum.at_step(now)].batch_size
            first = self.curriculum.first_sample(now, self.world_size) + self.rank * size
            yield list(range(first, first + size))
            step += 1


class CurriculumView(ClipView):
    """Training view of pairs of frames and the frames between them, cropped to the size of the sample's stage.

    Frames are scaled to between 1 and ``zoom`` times the smallest size that covers the crop, then cropped at random.

    Args:
        clips: source of the clips.
        stages: see `Curriculum`.
        multiple: see `Curriculum`.
        zoom: largest scale.
        settings: see `ClipView`.
    """

    def __init__(
        self,
        clips: Any,
        stages: Sequence[dict[str, Any]],
        multiple: int = 1,
        zoom: float = 1.5,
        **settings: Any,
    ) -> None:
        super().__init__(clips, **settings)
        if zoom < 1:
            raise AnimegenError(f"zoom={zoom} must be at least 1.")
        self.curriculum, self.zoom = Curriculum(stages, multiple), zoom
        #: Number of processes that share the samples; the data module sets it.
        self.world_size = 1

    def _cut(self, frames: Tensor, number: int | None) -> Tensor:
        stage, sides, (top, left) = self._layout(frames, number)
        scaled = F.interpolate(frames, sides, mode="bilinear", antialias=True)
        return scaled[..., top : top + stage.size[0], left : left + stage.size[1]].contiguous()

    def _box(self, frames: Tensor, number: int | None) -> Box:
        stage, sides, (top, left) = self._layout(frames, number)
        down, across = (side / scaled for side, scaled in zip(frames.shape[-2:], sides, strict=True))
        return Box(top * down, left * across, stage.size[0] * down, stage.size[1] * across)

    def _layout(self, frames: Tensor, number: int | None) -> tuple[CurriculumStage, list[int], tuple[int, int]]:
        """Return the stage of a sample, the sides to which its frames are scaled, and the corner of the crop."""
        stages = self.curriculum.stages
        stage = stages[-1] if number is None else stages[self.curriculum.of_sample(number, self.world_size)]
        draws = (
            [0] * 3 if number is None else [draw_integer(2**16, self.seed, w, number) for w in ("zoom", "top", "left")]
        )
        scale = max(wanted / side for wanted, side in zip(stage.size, frames.shape[-2:], strict=True))
        scale *= 1 + (self.zoom - 1) * draws[0] / 2**16
        sides = [max(wanted, round(side * scale)) for wanted, side in zip(stage.size, frames.shape[-2:], strict=True)]
        top, left = (
            (side - wanted + 1) * draw >> 16 for side, wanted, draw in zip(sides, stage.size, draws[1:], strict=True)
        )
        return stage, sides, (top, left)


class CurriculumAugment(ClipAugment):
    """Augmentation of clips without the crop, which the view does."""

    def _window(self, images: Tensor, sample: Tensor, key: str) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=sample.device).expand(len(sample), -1)
        columns = torch.arange(width, device=sample.device).expand(len(sample), -1)
        if self.flip:
            bits = random_bits(counter_hash_tensor(counter_hash(self.seed, "flip", key), sample[:, None]))
            columns = torch.where(bits < 2**23, columns.flip(1), columns)
        return rows, columns


class CurriculumDataModule(AnimeDataModule):
    """Data module with a curriculum.

    Args:
        train: the training view.
        settings: see `AnimeDataModule`; ``batch_size`` only applies to validation.
    """

    def __init__(self, train: CurriculumView, **settings: Any) -> None:
        super().__init__(train, **settings)
        if not isinstance(train, CurriculumView):
            raise AnimegenError("data.train of a curriculum must be an animegen.data.clips.CurriculumView.")
        self.train: CurriculumView = train

    def train_dataloader(self) -> DataLoader:
        """Return the endless loader, starting at the current batch of the training."""
        rank, world_size = self._place()
        self.train.world_size = world_size
        sampler = CurriculumBatchSampler(
            self.train.curriculum, self._train_step, rank, world_size, repeat=self.repeat_first_batch
        )
        return self._loader(self.train, sampler, self.num_workers)


def _stage(given: dict[str, Any], multiple: int) -> CurriculumStage:
    if unknown := set(given) - {"size", "batch_size", "steps", "accumulate"}:
        raise AnimegenError(
            f"A stage has size, batch_size, steps and accumulate, not {', '.join(sorted(unknown))}: see data.stages."
        )
    size = given.get("size", 0)
    sides = [size, size] if isinstance(size, int | float) else list(size)
    if len(sides) != 2:
        raise AnimegenError(f"size={size} of a stage is not valid: use a side, or [height, width].")
    steps = given.get("steps")
    stage = CurriculumStage(
        (_rounded(sides[0], multiple), _rounded(sides[-1], multiple)),
        max(1, round(given.get("batch_size", 1))),
        None if steps is None else int(steps),
        int(given.get("accumulate", 1)),
    )
    if min(stage.size) < 1 or stage.accumulate < 1 or (stage.steps or 0) < 0:
        raise AnimegenError(f"The stage {given} is not valid: sizes, steps and accumulate must be positive.")
    return stage


def _rounded(side: float, multiple: int) -> int:
    return math.ceil(side / multiple) * multiple
