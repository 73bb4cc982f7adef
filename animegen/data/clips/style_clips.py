"""View and augmentation for temporal stylisation: live clips with motion, and clips and stills in the style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from animegen.data.augment import Augment, take
from animegen.data.clips.moving import Draw, MotionSource, WindowSource, named_windows
from animegen.data.sampler import counter_hash, draw_integer, stream_index
from animegen.data.sources import ImageSource, prepare_source
from animegen.data.views import View, scale_short_side
from animegen.errors import AnimegenError

#: Entries on the grid of the photos, which are cropped and flipped with them.
MOTION = ("flow", "valid", "flow_first", "valid_first")


class StyledClipView(View):
    """Windows of live video and of unpaired anime.

    ======================  =========================================================================================
    ``photo``               uint8 ``(T,3,size,size)``
    ``flow``                float32 ``(T-1,2,size,size)`` in pixels, from frame t + 1 to frame t
    ``valid``               bool ``(T-1,1,size,size)``: frame t shows the same point
    ``flow_first``          with ``long``: the flow to frame 0; likewise ``valid_first``
    ``anime``               uint8 ``(T,3,size,size)``: another clip, or with ``truth`` the drawing of ``photo``
    ``style``               uint8 ``(3,size,size)``: a still in the style, of a third scene
    ``look``                with several looks: the look of ``anime`` and ``style``, drawn per sample
    ``sample``              the number of the sample
    ======================  =========================================================================================

    Args:
        photo: live clips with their motion.
        anime: clips in the style; ``None`` omits ``anime``. A list has the clips of several looks, one of which is
            drawn per sample; then evaluation with ``truth`` has ``style``, too.
        style: stills in the style, for one look; ``None`` uses the sources of ``anime`` as images.
        truth: ``anime`` is the drawing of ``photo``, frame by frame.
        length: T.
        single_until: samples below this number have one frame, without motion.
        long: include the flow to the first frame.
        size: side of the squares in pixels.
        seed: seed of order, windows and crops.
        shuffle: see :class:`~animegen.data.views.View`.
    """

    def __init__(
        self,
        photo: MotionSource,
        anime: WindowSource | Sequence[WindowSource] | None = None,
        style: ImageSource | None = None,
        truth: bool = False,
        length: int = 6,
        single_until: int = 0,
        long: bool = False,
        size: int = 128,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        super().__init__([], size, seed, shuffle)
        if length < 1:
            raise AnimegenError(f"data.length={length} must be at least 1.")
        if truth and (anime is None or shuffle):
            raise AnimegenError(
                "truth=true is for evaluation: set shuffle=false, and the drawings of the clips as anime."
            )
        self.photo: Any = named_windows(photo, "photo")
        given = anime if isinstance(anime, Sequence) else [] if anime is None else [anime]
        #: The clips of each look.
        self.looks: list[Any] = [named_windows(source, "anime") for source in given]
        self.anime: Any = self.looks[0] if self.looks else None
        if len(self.looks) > 1 and style is not None:
            raise AnimegenError("Several looks take stills from their clips: remove style, or use one look.")
        if len({source.clips for source in self.looks}) > 1:
            raise AnimegenError("Several looks need clips of the same scenes: use the same number of clips.")
        if not isinstance(photo, MotionSource):
            raise AnimegenError(f"{type(photo).__name__} as photo has no motion: use another source.")
        self.style: Any = self.anime if style is None else style
        self.truth, self.length, self.single_until, self.long = truth, length, single_until, long

    @property
    def sources(self) -> dict[str, Any]:
        """The sources of images by batch key."""
        return {"photo": self.photo} if self.anime is None else {"photo": self.photo, "anime": self.anime}

    @property
    def aligned(self) -> list[list[str]]:
        """Groups of batch keys with aligned images: with truth, the photos and their drawings."""
        return [["photo", "anime"]] if self.truth else [[key] for key in self.sources]

    @property
    def skipped(self) -> int:
        """Number of broken files met so far."""
        return sum(getattr(source, "skipped", 0) for source in {id(s): s for s in self._all()}.values())

    def _all(self) -> list[Any]:
        return [source for source in (self.photo, *self.looks, self.style) if source is not None]

    def prepare(self) -> None:
        """Prepare the sources, before workers start."""
        for source in self._all():
            prepare_source(source)

    def __len__(self) -> int:
        """Return the number of samples: one per live clip; for training, the size of the larger set."""
        if not self.shuffle or self.anime is None:
            return self.photo.clips
        return max(self.photo.clips, self.anime.clips)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return a sample."""
        if number < 0 or (not self.shuffle and number >= len(self)):
            raise IndexError(f"sample {number} of {len(self)}")
        return self._sample(self._index("photo", self.photo.clips, number), number) | {"sample": torch.tensor(number)}

    def name(self, number: int) -> str:
        """Return the name of the live clip of sample ``number``."""
        return self.photo.clip_name(self._index("photo", self.photo.clips, number))

    def preview(self, count: int) -> dict[str, Tensor]:
        """Return up to ``count`` fixed samples as one batch, chosen by the hashes of their names."""
        order = sorted(range(self.photo.clips), key=lambda i: counter_hash("preview", self.photo.clip_name(i)) % 2**64)
        samples = [self._sample(index, None) | {"sample": torch.tensor(index)} for index in order[:count]]
        return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}

    def _index(self, stream: str, count: int, number: int) -> int:
        return stream_index(self.seed, stream, number, count) if self.shuffle else number % count

    def _sample(self, index: int, number: int | None) -> dict[str, Tensor]:
        training = self.shuffle and number is not None
        length = 1 if self.shuffle and number is not None and number < self.single_until else self.length
        start, photo = self.photo.window(index, length, self.size, self._draw("photo", number))
        top, left = self._corner(photo, "photo", number if training else None)
        sample = {"photo": self._cut(photo, top, left)}
        pairs = {"": [(t, t - 1) for t in range(1, length)], "_first": [(t, 0) for t in range(1, length)]}
        for key in ("", "_first") if self.long else ("",):
            if pairs[key]:
                found = [self.photo.motion(index, start + now, start + then) for now, then in pairs[key]]
                sample[f"flow{key}"] = self._cut(torch.stack([flow for flow, _ in found]), top, left)
                sample[f"valid{key}"] = self._cut(torch.stack([valid for _, valid in found]), top, left)
        if not self.looks or not (self.truth or training):  # unpaired anime could be mistaken for the truth
            return sample
        several = len(self.looks) > 1
        # Evaluation cycles through the looks, so that all have equal weight in the scores.
        look = self._draw("look", number)(len(self.looks), "look") if training else index % len(self.looks)  # type: ignore[misc]
        clips, stills = (self.looks[look], self.looks[look]) if several else (self.anime, self.style)
        if several:
            sample["look"] = torch.tensor(look)
        if self.truth:
            _, anime = clips.window(index, length, self.size, None)
            sample["anime"] = self._cut(anime, top, left)
            if several:  # the still is the first frame of the next scene
                still = stills.image((index + 1) % stills.clips * (len(stills) // stills.clips))
                still = scale_short_side(still, self.size)
                sample["style"] = self._cut(still, *self._corner(still, "style", None))
            return sample
        other = self._index("anime", self.anime.clips, number)  # type: ignore[arg-type]
        _, anime = clips.window(other, length, self.size, self._draw("anime", number))
        sample["anime"] = self._cut(anime, *self._corner(anime, "anime", number))
        still = stills.image(self._index("style", len(stills), number))  # type: ignore[arg-type]
        still = scale_short_side(still, self.size)
        return sample | {"style": self._cut(still, *self._corner(still, "style", number))}

    def _draw(self, stream: str, number: int | None) -> Draw | None:
        if not self.shuffle or number is None:
            return None
        return lambda count, purpose: draw_integer(count, self.seed, purpose, stream, number)

    def _corner(self, frames: Tensor, stream: str, number: int | None) -> tuple[int, int]:
        rows, columns = (side - self.size + 1 for side in frames.shape[-2:])
        draw = self._draw(stream, number)
        return ((rows - 1) // 2, (columns - 1) // 2) if draw is None else (draw(rows, "top"), draw(columns, "left"))

    def _cut(self, values: Tensor, top: int, left: int) -> Tensor:
        return values[..., top : top + self.size, left : left + self.size].contiguous()


class StyledClipAugment(Augment):
    """Random crop and horizontal flip of styled clips, independent for photos (with their motion), anime and stills.

    Args:
        image_size: side of the crop in pixels.
        flip: flip half of the samples, including the x component of the flow.
        jitter: colour jitter of the photos, see :class:`~animegen.data.augment.Augment`.
        seed: seed of the random numbers.
    """

    def __init__(self, image_size: int, flip: bool = True, jitter: float = 0.0, seed: int = 0) -> None:
        super().__init__(image_size, flip, jitter, ("photo",), seed)

    def __call__(self, batch: dict[str, Tensor], aligned: Any = ()) -> dict[str, Tensor]:
        """Augment a training batch; see :meth:`Augment.__call__`."""
        out = super().__call__({key: value for key, value in batch.items() if key not in MOTION}, aligned)
        rows, columns = self._window(batch["photo"], batch["sample"], "photo")
        mirrored = (columns[:, 1] < columns[:, 0]) if columns.shape[1] > 1 else torch.zeros_like(columns[:, 0]).bool()
        sign = torch.where(mirrored, -1.0, 1.0)
        for key in MOTION:
            if key not in batch:
                continue
            taken = take(batch[key], rows, columns)
            if key.startswith("flow"):
                direction = torch.stack([sign, torch.ones_like(sign)], 1).view(-1, 1, 2, 1, 1)
                taken = taken * direction
            out[key] = taken
        return out
