"""The data module, for any views and any model."""

from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Iterator
from typing import Any

import cv2
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from animegen.data.augment import Augment, is_image
from animegen.data.edge_smoothing import edge_smooth
from animegen.data.sampler import ResumableBatchSampler, ShardedBatchSampler
from animegen.data.views import View
from animegen.errors import AnimegenError, did_you_mean
from animegen.media.images import to_float

log = logging.getLogger(__name__)

SMOOTH_MODES = ("none", "online", "disk")


class AnimeDataModule(pl.LightningDataModule):
    """Data loaders over views; batches are converted to float in [-1, 1] and augmented on the device.

    It has no state. The position of a resumed training follows from the ``train_step`` of the module, and all random
    numbers follow from the sample numbers. So neither the number of workers nor of processes changes the samples: n
    processes with batch size B train on the same global batches as one with n * B.

    Args:
        train: endless view for training, ``shuffle=True``.
        val: finite view for validation and previews, ``shuffle=False``; ``None``: no validation, and previews show
            training samples.
        test: finite view for the final evaluation.
        stills: finite view of images ``anime`` in the style, with which evaluation compares the set of outputs; the
            only reference if the photos have no drawings.
        batch_size: samples per process and training step.
        val_batch_size: samples per batch of validation and test; by default ``batch_size``.
        num_workers: processes that load training data; 0 loads in the main process.
        augment: augmentation on the device; ``None`` only converts to [-1, 1].
        smooth: edge-smoothed anime, the entry ``smooth`` of a training batch: ``none``, ``online`` (made from the
            augmented anime on the device) or ``disk`` (the training view reads it).
        pin_memory: ``None`` decides by the device.
        repeat_first_batch: train on the first batch only, a check that a model can overfit.
        settings: further plain values, not used here. Nested configuration nodes interpolate them (``data.style``,
            ``data.photos``, ...), so that users set one short key. They are kept in :attr:`settings`.

    Raises:
        AnimegenError: for invalid values, and for a setting whose name resembles an argument.
    """

    def __init__(
        self,
        train: View,
        val: View | None = None,
        test: View | None = None,
        stills: View | None = None,
        batch_size: int = 4,
        val_batch_size: int | None = None,
        num_workers: int = 0,
        augment: Augment | None = None,
        smooth: str = "none",
        pin_memory: bool | None = None,
        repeat_first_batch: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__()
        _check_settings(settings)
        if smooth not in SMOOTH_MODES:
            raise AnimegenError(
                f"data.smooth={smooth} is unknown: use {', '.join(SMOOTH_MODES)}.{did_you_mean(smooth, SMOOTH_MODES)}"
            )
        if batch_size < 1 or num_workers < 0 or (val_batch_size is not None and val_batch_size < 1):
            raise AnimegenError(
                f"data.batch_size ({batch_size}) and data.val_batch_size ({val_batch_size}) must be at least 1 and"
                f" data.num_workers ({num_workers}) at least 0."
            )
        self.train, self.val, self.test, self.stills = train, val, test, stills
        self.batch_size, self.val_batch_size = batch_size, val_batch_size or batch_size
        self.num_workers, self.augment, self.smooth = num_workers, augment, smooth
        self.pin_memory, self.repeat_first_batch = pin_memory, repeat_first_batch
        self.settings = settings

    def setup(self, stage: str) -> None:
        """Prepare and check the views of a stage (``fit``, ``validate``, ``test``)."""
        views = {
            "fit": {"train": self.train, "val": self.val},
            "validate": {"val": self.val},
            "test": {"test": self.test},
        }
        for name, view in views.get(stage, {}).items():
            if view is not None:
                self._check_view(name, view)
                view.prepare()
        if stage == "fit":
            self._check_smooth(self.train.sources)

    def teardown(self, stage: str) -> None:
        """Log the number of broken files."""
        views = [view for view in (self.train, self.val, self.test, self.stills) if view is not None]
        count = sum(view.skipped for view in views)
        if count:
            log.warning("%d broken image files were skipped; each was named above.", count)

    def train_dataloader(self) -> DataLoader:
        """Return the endless loader, starting at the current batch of the training."""
        rank, world_size = self._place()
        sampler = ResumableBatchSampler(
            self.batch_size, self._train_step, rank, world_size, repeat=self.repeat_first_batch
        )
        return self._loader(self.train, sampler, self.num_workers)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of the validation view; empty if there is none."""
        return self._finite(self.val)

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the loader of the test view; empty if there is none."""
        return self._finite(self.test)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Augment a training batch on its device and convert uint8 to [-1, 1]."""
        trainer = self.trainer
        training = trainer is not None and trainer.training
        batch = self.finish_training(batch) if training else self.finish(batch)
        # Lightning converts the precision before this hook, when the batch has no floats yet.
        return batch if trainer is None else trainer.precision_plugin.convert_input(batch)

    def finish_training(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a uint8 training batch augmented, in [-1, 1], with ``smooth`` if it is computed online."""
        batch = self.augment(batch, self.train.aligned) if self.augment else _convert(batch)
        if self.smooth == "online":
            batch["smooth"] = edge_smooth(batch["anime"])
        return batch

    def finish(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a uint8 batch for evaluation: whole images, in [-1, 1]."""
        return _convert(batch)

    def preview_batch(self, count: int) -> dict[str, Tensor]:
        """Return up to ``count`` fixed samples as a batch in [-1, 1] on the CPU, see :meth:`View.preview`."""
        return self.finish((self.train if self.val is None else self.val).preview(count))

    def _finite(self, view: View | None) -> DataLoader | list[DataLoader]:
        if view is None:
            return []
        sampler = ShardedBatchSampler(len(view), self.val_batch_size, *self._place())
        # Without workers, which would hold memory between validations; reading takes little of the time.
        return self._loader(view, sampler, workers=0)

    def _loader(self, view: View, sampler: Sampler[list[int]], workers: int) -> DataLoader:
        # A loader draws a seed for its workers at the start of every iteration. It has its own generator, so that a
        # resumed run draws as many numbers from the global generator as an uninterrupted one.
        generator = torch.Generator()
        generator.manual_seed(0)
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return _Loader(
            view,
            batch_sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_one_thread,
            pin_memory=on_cuda if self.pin_memory is None else self.pin_memory,
            generator=generator,
        )

    def _train_step(self) -> int:
        """Return the number of batches trained so far."""
        module = None if self.trainer is None else self.trainer.lightning_module
        return int(getattr(module, "train_step", 0))

    def _place(self) -> tuple[int, int]:
        """Return the rank of this process and the number of processes."""
        if self.trainer is None or self.trainer.world_size == 1:
            return 0, 1
        if getattr(self.trainer._accelerator_connector, "use_distributed_sampler", False):
            raise AnimegenError(
                "The data module distributes samples over processes itself: set trainer.use_distributed_sampler=false."
            )
        return self.trainer.global_rank, self.trainer.world_size

    def _check_view(self, name: str, view: View) -> None:
        if view.shuffle != (name == "train"):
            word = "true" if name == "train" else "false"
            raise AnimegenError(f"data.{name} must be a view with shuffle={word}: set data.{name}.shuffle={word}.")
        if self.augment is not None and view.size < self.augment.image_size:
            raise AnimegenError(
                f"data.{name} yields images of {view.size} pixels, smaller than data.image_size"
                f"={self.augment.image_size}: set data.load_size to at least {self.augment.image_size}."
            )

    def _check_smooth(self, sources: dict[str, Any]) -> None:
        if self.smooth == "online" and "anime" not in sources:
            raise AnimegenError(
                f"data.smooth=online needs anime to smooth, but the training view has {', '.join(sources)}:"
                " set data.smooth=none."
            )
        if ("smooth" in sources) != (self.smooth == "disk"):
            has = "reads" if "smooth" in sources else "does not read"
            raise AnimegenError(
                f"data.smooth={self.smooth}, but the training view {has} smoothed images: set data.smooth="
                f"{'disk' if 'smooth' in sources else 'online'}."
            )


def _convert(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: to_float(value) if is_image(value) else value for key, value in batch.items()}


class _Loader(DataLoader):
    """Data loader whose workers may use OpenCV, and whose error messages do not depend on workers.

    A forked process inherits the state of OpenCV's thread pool but not its threads, and would wait for them forever. So
    the pool is stopped while workers are forked. Each worker uses one thread.
    """

    def __iter__(self) -> Any:
        return _without_traceback(self._start())

    def _start(self) -> Iterator[Any]:
        threads = cv2.getNumThreads()
        if self.num_workers > 0:
            cv2.setNumThreads(1)
        try:
            return super().__iter__()
        finally:
            if self.num_workers > 0:
                cv2.setNumThreads(threads)


def _without_traceback(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield batches; reduce a worker's error, which torch wraps into a traceback, to its message."""
    try:
        yield from batches
    except AnimegenError as error:
        raise AnimegenError(str(error).rpartition("AnimegenError: ")[2].strip()) from error


def _one_thread(worker: int) -> None:
    """Limit OpenCV to one thread in a spawned worker; torch limits itself."""
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)


def _check_settings(settings: dict[str, Any]) -> None:
    known = [
        name for name in inspect.signature(AnimeDataModule.__init__).parameters if name not in ("self", "settings")
    ]
    for name, value in settings.items():
        # Stricter than did_you_mean: load_size is a setting, not a mistyped batch_size.
        if near := difflib.get_close_matches(name, known, n=1, cutoff=0.85):
            raise AnimegenError(f"The data module has no argument '{name}'. Did you mean '{near[0]}'?")
        if not _is_plain(value):
            raise AnimegenError(
                f"The setting 'data.{name}' must be a plain value (text, number, list, ...), not"
                f" {type(value).__name__}: nodes with a _target_ belong in train, val, test, stills or augment."
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, str | int | float | bool)
