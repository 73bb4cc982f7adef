"""Previews: when, what is in the files, and what TensorBoard gets."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.plugins import Precision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from animegen.engine import AnimegenError
from animegen.engine.callbacks import Previews, TensorBoardLogger
from animegen.engine.callbacks.previews import CLIP_BYTES, STILL_BYTES
from animegen.engine.environment import Environment
from animegen.engine.lightning import LightningAdapter
from tests.unit.engine.callbacks.small import Small


class Shows(Small):
    """Shows what it is asked for, and remembers in which state it was asked."""

    def __init__(self, shown: dict[str, Tensor], **settings) -> None:
        super().__init__(**settings)
        self.shown_pictures = shown
        self.asked: list[tuple[bool, float]] = []

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.asked.append((self.training, self.generator.weight.item()))
        return self.shown_pictures


def take(model: Shows, folder: Path, samples: int = 2) -> EventAccumulator:
    logger = TensorBoardLogger(str(folder))
    data = SimpleNamespace(preview_batch=lambda count: {"photo": torch.zeros(count, 3, 4, 4)})
    trainer = SimpleNamespace(
        default_root_dir=str(folder),
        datamodule=data,
        loggers=[logger],
        precision_plugin=Precision(),
        is_global_zero=True,
    )
    Previews(every=500, samples=samples).save(trainer, LightningAdapter(model))
    logger.finalize("success")
    return EventAccumulator(str(folder)).Reload()


def test_due_steps() -> None:
    previews = Previews(every=300)
    due = [step for step in range(1, 1300) if previews.due(step)]
    assert due == [1, 2, 5, 10, 20, 50, 100, 200, 300, 600, 900, 1200]


def test_a_row_per_sample_and_a_column_per_image(tmp_path: Path) -> None:
    photo = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 0.0)])
    output = torch.stack([torch.full((3, 4, 4), value) for value in (1.0, 2.0)])
    model = Shows({"photo": photo, "output": output})
    model.train_step = 20
    events = take(model, tmp_path)
    picture = np.asarray(Image.open(tmp_path / "previews" / "step-0000020.png"))
    assert picture.shape == (2 * (4 + 2) + 2, 2 * (4 + 2) + 2, 3)
    centres = picture[[4, 10]][:, [4, 10], 0]
    assert centres.tolist() == [[0, 255], [128, 255]]  # what is out of range is clamped
    (event,) = events.Images("preview/photo_output")
    assert event.step == 20
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string))), picture)


def test_a_clip_becomes_a_gif_of_all_its_frames(tmp_path: Path) -> None:
    clip = torch.linspace(-1, 1, 5)[None, :, None, None, None].expand(2, 5, 3, 6, 8)
    model = Shows({"clip": clip})
    model.train_step = 7
    events = take(model, tmp_path)
    data = (tmp_path / "previews" / "step-0000007.gif").read_bytes()
    with Image.open(io.BytesIO(data)) as gif:
        assert gif.n_frames == 5
        assert gif.size == (8 + 4, 2 * (6 + 2) + 2)
    (event,) = events.Images("preview/clip")
    assert event.step == 7
    assert event.encoded_image_string == data


def test_event_files_hold_small_copies_of_large_previews(tmp_path: Path) -> None:
    noise = torch.rand(4, 3, 300, 300, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moving = torch.rand(4, 8, 3, 120, 120, generator=torch.Generator().manual_seed(0)) * 2 - 1
    events = take(Shows({"photo": noise, "clip": moving}), tmp_path, samples=4)
    still, clip = (events.Images(f"preview/{tag}")[0].encoded_image_string for tag in ("photo", "clip"))
    assert (tmp_path / "previews" / "step-0000000.png").stat().st_size > STILL_BYTES >= len(still) > STILL_BYTES / 3
    assert (tmp_path / "previews" / "step-0000000.gif").stat().st_size > CLIP_BYTES >= len(clip) > CLIP_BYTES / 3
    with Image.open(io.BytesIO(clip)) as gif:
        assert gif.n_frames == 8


def test_previews_show_the_averaged_weights_and_leave_the_model_as_it_was(tmp_path: Path) -> None:
    model = Shows({"photo": torch.zeros(1, 3, 4, 4)}, ema={"networks": ["generator"], "decay": 0.5})
    model.start_training(Environment())
    model.generator.weight.data.fill_(9.0)
    model.train()
    model.objectives.eval()
    take(model, tmp_path, samples=1)
    assert model.asked == [(False, 1.0)]
    assert model.generator.weight.item() == 9.0
    assert model.training
    assert not model.objectives.training


def test_wrong_settings() -> None:
    with pytest.raises(AnimegenError, match="must be at least 1"):
        Previews(every=0)
