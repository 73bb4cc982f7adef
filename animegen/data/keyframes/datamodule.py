"""Data module of key-frame projects."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from animegen.data.datamodule import AnimeDataModule
from animegen.data.keyframes.guides import Guide
from animegen.data.keyframes.prefilter import BilateralFilter
from animegen.data.keyframes.project import KeyframeProject, spread
from animegen.data.keyframes.views import KeyframeClip, KeyPatches, WholeFrames
from animegen.errors import AnimegenError


class KeyframeData(AnimeDataModule):
    """Patches of the key frames for training, whole frames for validation and evaluation.

    Images stay on the device, where patches are cropped. A sample is a function of its number; the only state is that
    of hard mining, which is saved in checkpoints.

    Args:
        project: the clip and its key frames.
        guides: name -> guide of the model.
        prefilter: denoises the frames.
        patch: side of the patches in pixels; ``None`` for whole frames.
        batch_size: patches per process and step.
        context: see :class:`~animegen.data.keyframes.views.KeyPatches`, like the arguments up to ``unlabelled_frames``.
        balance: see there.
        hard_mining: see there.
        flip: see there.
        noise: see there.
        unlabelled: see there.
        unlabelled_frames: see there.
        val_frames: number of evenly spaced validation and preview frames, not used for training.
        val_batch_size: frames per batch of validation and evaluation.
        seed: seed of the patches.
        repeat_first_batch: train on the first batch only.
        settings: further plain values, see :class:`~animegen.data.datamodule.AnimeDataModule`.
    """

    def __init__(
        self,
        project: KeyframeProject,
        guides: dict[str, Guide] | None = None,
        prefilter: BilateralFilter | None = None,
        patch: int | None = 36,
        batch_size: int = 40,
        context: int = 0,
        balance: str = "round_robin",
        hard_mining: float = 0.0,
        flip: bool = False,
        noise: float = 0.0,
        unlabelled: bool = False,
        unlabelled_frames: int = 16,
        val_frames: int = 8,
        val_batch_size: int = 4,
        seed: int = 0,
        repeat_first_batch: bool = False,
        **settings: Any,
    ) -> None:
        clip = KeyframeClip(project, guides, prefilter)
        scored = project.scored
        others = scored or [n for n in range(len(project)) if n not in project.keys] or project.keys
        if val_frames < 1:
            raise AnimegenError(f"data.val_frames must be at least 1, not {val_frames}.")
        super().__init__(
            train=KeyPatches(
                clip, patch, context, balance, hard_mining, flip, noise, unlabelled, unlabelled_frames, seed
            ),
            val=WholeFrames(clip, [others[k] for k in spread(val_frames, len(others))]),
            test=WholeFrames(clip, scored) if scored else None,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            repeat_first_batch=repeat_first_batch,
            **settings,
        )
        self.project, self.clip = project, clip

    @property
    def patches(self) -> KeyPatches:
        """The view for training."""
        assert isinstance(self.train, KeyPatches)
        return self.train

    def finish_training(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Crop the patches of a batch of sample numbers."""
        return self.patches.finish(batch["sample"])

    def observe(self, places: Tensor, errors: Tensor) -> None:
        """Update hard mining by the errors (B,) of the patches at ``places`` (B,)."""
        if self.patches.hard is not None:
            self.patches.hard.observe(places, errors)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of hard mining."""
        hard = self.patches.hard
        return {} if hard is None else {"hard_mining": hard.error.clone()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of hard mining."""
        self.patches.prepare()
        if self.patches.hard is not None and "hard_mining" in state_dict:
            self.patches.hard.error.copy_(state_dict["hard_mining"])
