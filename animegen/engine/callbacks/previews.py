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

#: Largest picture and clip in an event file, in bytes; TensorBoard reads all of a run at once.
STILL_BYTES, CLIP_BYTES = 150_000, 300_000


class Previews(pl.Callback):
    """Save the outputs for fixed samples at steps 1, 2, 5, 10, 20, 50, ..., then at an interval.

    One row per sample, one column per entry of ``module.preview`` (photo, output, truth). Clips are saved as animated
    GIFs, which TensorBoard plays (its ``add_video`` needs further packages). The event files hold a copy of each that
    has at most `STILL_BYTES` or `CLIP_BYTES`: a smaller JPEG, or fewer samples of a clip.

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
            self._publish(trainer, f"preview/{'_'.join(batches)}", bounded_still(image), module.train_step)
        if clips:
            data = encode_gif(clip_frames(list(clips.values())))
            with completed(stem.with_suffix(".gif")) as hidden:
                hidden.write_bytes(data)
            shown = bounded_clip(list(clips.values()), data)
            self._publish(trainer, f"preview/{'_'.join(clips)}", shown, module.train_step)

    def _publish(self, trainer: pl.Trainer, tag: str, data: bytes, step: int) -> None:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
        encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
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


def bounded_still(image: Image.Image, limit: int = STILL_BYTES) -> bytes:
    """Encode an image as PNG, or as a JPEG that is scaled down until it has at most ``limit`` bytes."""
    data = encode(image)
    while len(data) > limit and min(image.size) > 1:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        data, image = buffer.getvalue(), image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))
    return data


def clip_frames(columns: list[Tensor]) -> list[Image.Image]:
    """Return the frames of clips ``(B,T,3,H,W)`` side by side, with a row per sample."""
    return [grid([clip[:, t] for clip in columns]) for t in range(columns[0].shape[1])]


def bounded_clip(columns: list[Tensor], data: bytes, limit: int = CLIP_BYTES) -> bytes:
    """Return the GIF ``data`` of clips, or one of fewer samples, then of smaller frames, of at most ``limit`` bytes."""
    rows = len(columns[0])
    while len(data) > limit and rows > 1:
        rows = (rows + 1) // 2
        data = encode_gif(clip_frames([clip[:rows] for clip in columns]))
    frames = clip_frames([clip[:rows] for clip in columns]) if len(data) > limit else []
    while len(data) > limit and min(frames[0].size) > 1:
        frames = [f.resize((max(1, f.width * 3 // 4), max(1, f.height * 3 // 4))) for f in frames]
        data = encode_gif(frames)
    return data


def encode_gif(frames: list[Image.Image], milliseconds: int = 80) -> bytes:
    """Encode frames as a looping GIF."""
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()
