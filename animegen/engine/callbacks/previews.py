"""Previews of fixed samples at fixed train steps, as image files and in TensorBoard."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torchvision.utils import make_grid

from animegen.engine.lightning import LightningAdapter
from animegen.engine.sharded import ShardedStrategy
from animegen.errors import AnimegenError
from animegen.files import completed
from animegen.media.images import to_uint8


class Previews(pl.Callback):
    """Save the outputs for fixed samples at steps 1, 2, 5, 10, 20, 50, ..., then at an interval.

    One row per sample, one column per entry of ``module.preview`` (photo, output, truth). Clips are saved as animated
    GIFs, which TensorBoard plays (its ``add_video`` needs further packages).

    Args:
        every: interval of previews in train steps, after the early ones.
        samples: number of samples, selected by name, so that they are the same for all models.

    Raises:
        AnimegenError: if one of them is not positive.
    """

    #: Patterns of the files of this callback, relative to the run folder.
    writes = ("previews/step-*.png", "previews/step-*.gif")

    def __init__(self, every: int = 500, samples: int = 6) -> None:
        if every < 1 or samples < 1:
            raise AnimegenError("callbacks.previews.every and .samples must be at least 1.")
        self.every, self.samples = every, samples
        self._batch: dict[str, Tensor] | None = None

    def due(self, step: int) -> bool:
        """Return whether a preview is due after ``step`` train steps."""
        if step % self.every == 0:
            return True
        digits = str(step)
        return step < self.every and digits[0] in "125" and set(digits[1:]) <= {"0"}

    def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        """Save a preview if it is due."""
        if self.due(module.train_step) and self._participates(trainer):
            self.save(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Save the last preview."""
        if not self.due(module.train_step) and self._participates(trainer):
            self.save(trainer, module)

    @staticmethod
    def _participates(trainer: pl.Trainer) -> bool:
        # With sharded weights, all processes take part in forward passes.
        return trainer.is_global_zero or isinstance(trainer.strategy, ShardedStrategy)

    def save(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Save the preview of the current step."""
        if self._batch is None:
            self._batch = trainer.datamodule.preview_batch(self.samples)  # type: ignore[attr-defined]
        batch = {name: value.to(module.device) for name, value in self._batch.items()}
        with module.model.applied(), trainer.precision_plugin.forward_context():
            images = {name: value.float().cpu() for name, value in module.model.preview(batch).items()}
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "previews"
        stem = folder / f"step-{module.train_step:07d}"
        batches = {name: value for name, value in images.items() if value.ndim == 4}
        clips = {name: value for name, value in images.items() if value.ndim == 5}
        if batches:
            image = grid(list(batches.values()))
            with completed(stem.with_suffix(".png")) as hidden:
                image.save(hidden)
            self._publish(trainer, f"preview/{'_'.join(batches)}", image, encode(image), module.train_step)
        if clips:
            frames = [grid([clip[:, t] for clip in clips.values()]) for t in range(next(iter(clips.values())).shape[1])]
            data = encode_gif(frames)
            with completed(stem.with_suffix(".gif")) as hidden:
                hidden.write_bytes(data)
            self._publish(trainer, f"preview/{'_'.join(clips)}", frames[0], data, module.train_step)

    def _publish(self, trainer: pl.Trainer, tag: str, image: Image.Image, data: bytes, step: int) -> None:
        encoded = Summary.Image(height=image.height, width=image.width, colorspace=3, encoded_image_string=data)
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                summary = Summary(value=[Summary.Value(tag=tag, image=encoded)])
                logger.experiment._get_file_writer().add_summary(summary, step)


def grid(columns: list[Tensor]) -> Image.Image:
    """Return one image with a row per sample and a column per tensor ``(B,3,H,W)`` in [-1,1]."""
    height, width = columns[0].shape[-2:]
    columns = [
        c if c.shape[-2:] == (height, width) else torch.nn.functional.interpolate(c, (height, width)) for c in columns
    ]
    rows = torch.stack(columns, dim=1).flatten(0, 1)
    tiled = make_grid(to_uint8(rows), nrow=len(columns), padding=2, pad_value=255)
    return Image.fromarray(tiled.permute(1, 2, 0).numpy())


def encode(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def encode_gif(frames: list[Image.Image], milliseconds: int = 80) -> bytes:
    """Encode frames as a looping GIF."""
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()
