"""A key-frame project: a clip, the drawings of a few of its frames, and what else is known about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.media.images import read_image
from animegen.toonworld import Scene
from animegen.toonworld.palettes import STYLES
from animegen.toonworld.scene import check_choice


class Frames(Protocol):
    """Numbered images of one size."""

    def __len__(self) -> int:
        """Return their number."""
        ...

    def __getitem__(self, number: int) -> Tensor:
        """Return frame ``number`` as uint8 (C, H, W)."""
        ...


class FrameFiles:
    """Frames that lie in files and are read when asked for.

    Args:
        files: one file per frame.
        size: (height, width) to which images of another size are scaled; ``None`` leaves them.
    """

    def __init__(self, files: Sequence[Path], size: tuple[int, int] | None = None) -> None:
        self.files, self.size = list(files), size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor:
        picture = read_image(self.files[number])
        return picture if self.size is None else resized(picture, self.size)


class KeyframeProject:
    """What few-shot training starts from.

    Args:
        photo: the frames of the clip, uint8 (3, H, W) each.
        keys: frame number -> its drawing, uint8 (3, H, W).
        masks: frame number of a key -> bool (H, W), where its drawing is to be learnt; a key without one is learnt
            everywhere.
        guides: name -> ready-made guide of every frame, uint8 (C, H, W) each.
        truth: the drawing of every frame, where it is known.
        names: a name per frame; numbers unless given.
        held: keys that are kept from training, to score what was learnt.

    Raises:
        AnimegenError: if there is no key to train on, or a key is not in the clip.
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
        #: The files that it was read from.
        self.files: list[Path] = []
        #: The scene of the generated world that the clip shows, if it does: it knows the true motion.
        self.scene: Scene | None = None
        outside = [n for n in [*keys, *held] if not 0 <= n < len(photo)]
        if outside:
            raise AnimegenError(f"Key frame {outside[0]} is not in the clip, whose frames are 0 to {len(photo) - 1}.")
        #: Numbers of the keys to train on.
        self.keys = sorted(set(keys) - set(held))
        self.held = sorted(set(held) & set(keys))
        if not self.keys:
            raise AnimegenError("A project needs at least one key frame to train on: draw one, or hold fewer out.")

    def __len__(self) -> int:
        return len(self.photo)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        height, width = self.photo[self.keys[0]].shape[-2:]
        return height, width

    @property
    def scored(self) -> list[int]:
        """Frames that are not trained on and whose drawing is known."""
        return self.held if self.truth is None else [n for n in range(len(self)) if n not in self.keys]

    def answer(self, number: int) -> Tensor:
        """Return the drawing of a frame of :attr:`scored` or :attr:`keys`, uint8 (3, H, W)."""
        return self.drawings[number] if self.truth is None else self.truth[number]

    def nearest_key(self, number: int) -> int:
        """Return the number of the key to train on that is nearest in time."""
        return min(self.keys, key=lambda key: (abs(key - number), key))


def spread(count: int, total: int) -> list[int]:
    """Return up to ``count`` of the numbers below ``total``, each in the middle of its share."""
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
    """Return a clip of the generated world whose drawing is given at a few frames and known at all of them.

    Args:
        style: meadow, dusk or print.
        keys: number of key frames, each in the middle of its share of the clip.
        frames: length of the clip.
        size: side of the frames in pixels.
        scene: which scene.
        world_seed: which world.
        split: which part of the world.
        at: frame numbers of the keys, instead of ``keys``.

    Raises:
        AnimegenError: for values that do not exist, or more keys than frames.
    """
    check_choice("style", style, STYLES)
    if at is None and not 1 <= keys < frames:
        raise AnimegenError(f"A clip of {frames} frames cannot have {keys} key frames: choose 1 to {frames - 1}.")
    drawn = Scene(seed=world_seed, split=split, index=scene, size=size, frames=frames)
    pictures = {
        look: torch.stack(
            [
                torch.from_numpy(drawn.photo(t) if look == "photo" else drawn.anime(t, look)).permute(2, 0, 1)
                for t in range(frames)
            ]
        )
        for look in ("photo", style)
    }
    chosen = spread(keys, frames) if at is None else sorted(set(at))
    truth = pictures[style]
    outside = [n for n in chosen if not 0 <= n < frames]
    if outside:
        raise AnimegenError(f"Key frame {outside[0]} is not in the clip, whose frames are 0 to {frames - 1}.")
    project = KeyframeProject(pictures["photo"], {n: truth[n] for n in chosen}, truth=truth)
    project.scene = drawn
    return project


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale uint8 (C, H, W) to (height, width), anti-aliased; an image of that size is returned as it is."""
    if tuple(picture.shape[-2:]) == tuple(size):
        return picture
    return torch.nn.functional.interpolate(picture[None], size, mode="bilinear", antialias=True)[0]
