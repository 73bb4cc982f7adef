"""Key-frame projects: a clip, the drawings of a few of its frames, masks and guides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.media.images import open_image, read_image
from animegen.toonworld import Scene
from animegen.toonworld.palettes import STYLES
from animegen.toonworld.scene import check_choice

_CHANNELS = {"1": 1, "L": 1, "I": 1, "F": 1, "I;16": 1, "LA": 2, "RGBA": 4}


class Frames(Protocol):
    """Numbered images of one size."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, number: int) -> Tensor:
        """Return frame ``number`` as uint8 (C, H, W)."""
        ...


class FrameFiles:
    """Frames in files, read on demand.

    Args:
        files: one file per frame.
        size: (height, width) to which images are scaled; ``None`` keeps their sizes.
    """

    def __init__(self, files: Sequence[Path], size: tuple[int, int] | None = None) -> None:
        self.files, self.size = list(files), size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor:
        image = read_image(self.files[number])
        return image if self.size is None else resized(image, self.size)


class GuideFiles:
    """The images of a guide, read with their own number of channels."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor:
        return read_channels(self.files[number])


def read_channels(path: Path) -> Tensor:
    """Return an image as uint8 (C, H, W) with its own channels: 1, 2 (grey and alpha), 3 or 4."""
    with open_image(path) as image:
        if image.mode in ("L", "LA", "RGB", "RGBA"):
            values = torch.from_numpy(np.array(image)).view(image.height, image.width, -1)
            return values.permute(2, 0, 1).contiguous()
        # Other modes (palettes, 16 bits, CMYK) are converted like any image.
        return read_image(path)[: _CHANNELS.get(image.mode, 3)]


class KeyframeProject:
    """Data of few-shot training.

    Args:
        photo: the frames of the clip, uint8 (3, H, W) each.
        keys: frame number -> drawing, uint8 (3, H, W).
        masks: frame number of a key -> bool (H, W), where to learn its drawing; by default everywhere.
        guides: name -> precomputed guide of every frame, uint8 (C, H, W) each.
        truth: the drawing of every frame, if known.
        names: names of the frames, by default numbers.
        held: keys excluded from training, for scoring.

    Raises:
        AnimegenError: if there is no key for training, or a key is not in the clip.
    """

    def __init__(
        self,
        photo: Frames,
        keys: Mapping[int, Tensor],
        masks: Mapping[int, Tensor] | None = None,
        guides: Mapping[str, Frames] | None = None,
        truth: Frames | None = None,
        names: Sequence[str] | None = None,
        held: Sequence[int] = (),
    ) -> None:
        self.photo, self.drawings, self.masks, self.guides = photo, dict(keys), dict(masks or {}), dict(guides or {})
        self.truth = truth
        self.names = list(names or (f"{n:06d}" for n in range(len(photo))))
        #: The files of the project.
        self.files: list[Path] = []
        #: The scene of a ToonWorld clip, which has the true motion.
        self.scene: Scene | None = None
        outside = [n for n in [*keys, *held] if not 0 <= n < len(photo)]
        if outside:
            raise AnimegenError(f"Key frame {outside[0]} is not in the clip, whose frames are 0 to {len(photo) - 1}.")
        #: Numbers of the keys to train on.
        self.keys = sorted(set(keys) - set(held))
        self.held = sorted(set(held) & set(keys))
        if not self.keys:
            raise AnimegenError("A project needs at least one key frame for training: draw one, or hold out fewer.")

    def __len__(self) -> int:
        return len(self.photo)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        height, width = self.photo[self.keys[0]].shape[-2:]
        return height, width

    @property
    def areas(self) -> Tensor:
        """Where the drawings of the training keys are learnt, bool (K, H, W)."""
        everywhere = torch.ones(self.size, dtype=torch.bool)
        return torch.stack([self.masks.get(key, everywhere) for key in self.keys])

    @property
    def scored(self) -> list[int]:
        """Frames with known drawings that are not used for training."""
        return self.held if self.truth is None else [n for n in range(len(self)) if n not in self.keys]

    def answer(self, number: int) -> Tensor:
        """Return the drawing of a frame of :attr:`scored` or :attr:`keys`, uint8 (3, H, W)."""
        return self.drawings[number] if self.truth is None else self.truth[number]

    def nearest_key(self, number: int) -> int:
        """Return the number of the nearest training key in time."""
        return min(self.keys, key=lambda key: (abs(key - number), key))


def spread(count: int, total: int) -> list[int]:
    """Return up to ``count`` evenly spaced numbers below ``total``."""
    count = min(count, total)
    return [(2 * k + 1) * total // (2 * count) for k in range(count)]


def toonworld_project(
    style: str = "meadow",
    keys: int = 2,
    frames: int = 48,
    size: int = 128,
    scene: int = 0,
    world_seed: int = 0,
    split: str = "test",
    at: Sequence[int] | None = None,
) -> KeyframeProject:
    """Return a project of a ToonWorld clip with known drawings of all frames.

    Args:
        style: meadow, dusk or print.
        keys: number of evenly spaced key frames.
        frames: length of the clip.
        size: side of the frames in pixels.
        scene: index of the scene.
        world_seed: seed of ToonWorld.
        split: split of ToonWorld.
        at: frame numbers of the keys, instead of ``keys``.

    Raises:
        AnimegenError: for unknown choices, or keys that do not fit the clip.
    """
    check_choice("style", style, STYLES)
    if at is None and not 1 <= keys < frames:
        raise AnimegenError(f"A clip of {frames} frames cannot have {keys} key frames: choose 1 to {frames - 1}.")
    drawn = Scene(seed=world_seed, split=split, index=scene, size=size, frames=frames)
    images = {
        look: torch.stack(
            [
                torch.from_numpy(drawn.photo(t) if look == "photo" else drawn.anime(t, look)).permute(2, 0, 1)
                for t in range(frames)
            ]
        )
        for look in ("photo", style)
    }
    chosen = spread(keys, frames) if at is None else sorted(set(at))
    truth = images[style]
    outside = [n for n in chosen if not 0 <= n < frames]
    if outside:
        raise AnimegenError(f"Key frame {outside[0]} is not in the clip, whose frames are 0 to {frames - 1}.")
    project = KeyframeProject(images["photo"], {n: truth[n] for n in chosen}, truth=truth)
    project.scene = drawn
    return project


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 (C, H, W) to (height, width), bilinear with anti-aliasing."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return torch.nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
