"""The same samples at the same train steps for every model: PNG on disk and TensorBoard."""

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

from animegen.engine.module import AnimeModule
from animegen.engine.sharded import ShardedStrategy
from animegen.errors import AnimegenError
from animegen.files import completed
from animegen.media.images import to_uint8


class Previews(pl.Callback):
    """Show what the model makes of fixed samples, at steps 1, 2, 5, 10, 20, 50, ... and every ``every``.

    One row per sample, one column per entry of ``module.preview`` (photo, output, truth).
    Clips become animated GIFs, which TensorBoard plays (its ``add_video`` writes nothing
    without further packages).

    Args:
        every: train steps between previews, after the early ones.
        samples: number of samples, chosen by name, so that they are the same for all models.
    """

    #: The files that it writes, relative to the run folder.
    writes = ("previews/step-*.png", "previews/step-*.gif")

    def __init__(self, every: int = 500, samples: int = 6) -> None:
        if every < 1 or samples < 1:
            raise AnimegenError("callbacks.previews.every and .samples must be at least 1.")
        self.every, self.samples = every, samples
        self._batch: dict[str, Tensor] | None = None

    def due(self, step: int) -> bool:
        """Tell whether a preview is taken after ``step`` train steps."""
        if step % self.every == 0:
            return True
        digits = str(step)
        return step < self.every and digits[0] in "125" and set(digits[1:]) <= {"0"}

    def on_train_batch_end(self, trainer: pl.Trainer, module: AnimeModule, *_: Any) -> None:
        """Take the preview when due."""
        if self.due(module.train_step) and self._takes_part(trainer):
            self.take(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: AnimeModule) -> None:
        """Take the last preview."""
        if not self.due(module.train_step) and self._takes_part(trainer):
            self.take(trainer, module)

    @staticmethod
    def _takes_part(trainer: pl.Trainer) -> bool:
        # Where each process holds a shard of the weights, all of them have to compute.
        return trainer.is_global_zero or isinstance(trainer.strategy, ShardedStrategy)

    def take(self, trainer: pl.Trainer, module: AnimeModule) -> None:
        """Write the preview of the present step."""
        if self._batch is None:
            self._batch = trainer.datamodule.preview_batch(self.samples)  # type: ignore[attr-defined]
        batch = {name: value.to(module.device) for name, value in self._batch.items()}
        with module.applied(), trainer.precision_plugin.forward_context():
            pictures = {name: value.float().cpu() for name, value in module.preview(batch).items()}
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "previews"
        stem = folder / f"step-{module.train_step:07d}"
        stills = {name: value for name, value in pictures.items() if value.ndim == 4}
        clips = {name: value for name, value in pictures.items() if value.ndim == 5}
        if stills:
            picture = grid(list(stills.values()))
            with completed(stem.with_suffix(".png")) as hidden:
                picture.save(hidden)
            self._publish(trainer, f"preview/{'_'.join(stills)}", picture, encode(picture), module.train_step)
        if clips:
            frames = [grid([clip[:, t] for clip in clips.values()]) for t in range(next(iter(clips.values())).shape[1])]
            data = encode_gif(frames)
            with completed(stem.with_suffix(".gif")) as hidden:
                hidden.write_bytes(data)
            self._publish(trainer, f"preview/{'_'.join(clips)}", frames[0], data, module.train_step)

    def _publish(self, trainer: pl.Trainer, tag: str, picture: Image.Image, data: bytes, step: int) -> None:
        image = Summary.Image(height=picture.height, width=picture.width, colorspace=3, encoded_image_string=data)
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                summary = Summary(value=[Summary.Value(tag=tag, image=image)])
                logger.experiment._get_file_writer().add_summary(summary, step)


def grid(columns: list[Tensor]) -> Image.Image:
    """Return one picture: a row per sample, a column per tensor ``(B,3,H,W)`` in [-1,1]."""
    height, width = columns[0].shape[-2:]
    columns = [
        c if c.shape[-2:] == (height, width) else torch.nn.functional.interpolate(c, (height, width)) for c in columns
    ]
    rows = torch.stack(columns, dim=1).flatten(0, 1)
    tiled = make_grid(to_uint8(rows), nrow=len(columns), padding=2, pad_value=255)
    return Image.fromarray(tiled.permute(1, 2, 0).numpy())


def encode(picture: Image.Image) -> bytes:
    """Return a picture as PNG bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def encode_gif(frames: list[Image.Image], milliseconds: int = 80) -> bytes:
    """Return frames as an endless GIF."""
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()
