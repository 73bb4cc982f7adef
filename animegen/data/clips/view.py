"""View for frame interpolation: two frames of a clip and the frames between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from animegen.data.clips.sources import ClipSource
from animegen.data.clips.truth import Box, cut_flow, cut_nearest, knows_motion
from animegen.data.sampler import counter_hash, draw_integer, stream_index
from animegen.data.sources import prepare_source
from animegen.data.views import View, scale_short_side, short_side_shape
from animegen.errors import AnimegenError, did_you_mean

MIDDLES = ("centre", "random", "all")


class ClipView(View):
    """Pairs of frames with the true frames between them: keys ``first``, ``last``, ``truth``, ``t``, ``sample``.

    ``truth`` is uint8 ``(T, 3, size, size)`` and ``t`` float32 ``(T,)`` the times of its frames, from 0 at ``first`` to
    1 at ``last``. With ``exact_flow`` there is also the key of this name: the true optical flow, float32
    ``(4, size, size)`` in pixels, from ``first`` to ``last``, then from ``last`` to ``first``. With ``exact_motion``,
    and in evaluation with ``exact_flow``, there are ``exact_between``, float32 ``(T, 4, size, size)``, the flow from
    each frame of ``truth`` to ``first`` and to ``last``, and ``exact_sight``, bool ``(T, 2, size, size)``, whether the
    place is in sight there.

    Args:
        clips: source of the clips.
        size: shorter side of the scaled frames, and side of the crops.
        gap: number of frames from ``first`` to ``last``; of several (training only) one is drawn that fits the clip.
        middle: selects frames of ``truth``: ``centre`` (the earlier of two), ``random`` (one) or ``all``.
        pairs: number of evenly spaced pairs per clip in evaluation.
        seed: seed of order, pairs and crops.
        shuffle: see :class:`~animegen.data.views.View`.
        crop: ``False`` keeps whole frames in evaluation, which must then have equal shapes.
        exact_flow: give the true flow of clips that know it, such as ToonWorld: for baselines of evaluation, and for
            networks with ``prior=exact``. No method for real films has it.
        exact_motion: give the true flow from the frames between to both others, for losses of the predicted flow.

    Raises:
        AnimegenError: for invalid values.
    """

    def __init__(
        self,
        clips: ClipSource,
        size: int = 128,
        gap: int | Sequence[int] = 2,
        middle: str = "centre",
        pairs: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        crop: bool = True,
        exact_flow: bool = False,
        exact_motion: bool = False,
    ) -> None:
        super().__init__([], size, seed, shuffle)
        self.gaps = [gap] if isinstance(gap, int) else list(gap)
        if not isinstance(clips, ClipSource):
            raise AnimegenError(
                f"A clip view needs a source of clips such as animegen.data.clips.TripletFolders, not"
                f" {type(clips).__name__}."
            )
        if not self.gaps or min(self.gaps) < 2:
            raise AnimegenError(f"gap={gap} leaves no frame between first and last: use 2 or more.")
        if middle not in MIDDLES:
            raise AnimegenError(f"middle={middle} is unknown: use {', '.join(MIDDLES)}.{did_you_mean(middle, MIDDLES)}")
        if len(self.gaps) > 1 and (not shuffle or middle == "all"):
            raise AnimegenError(
                f"Several gaps ({self.gaps}) need middle=centre or random: set one gap for evaluation and middle=all."
            )
        if not shuffle and middle == "random":
            raise AnimegenError("middle=random is for training: evaluation needs centre or all.")
        if pairs < 1 or (shuffle and not crop):
            raise AnimegenError(f"pairs must be at least 1, not {pairs}, and training needs crop=true.")
        for name, wanted in (("exact_flow", exact_flow), ("exact_motion", exact_motion)):
            if wanted and not knows_motion(clips):
                raise AnimegenError(
                    f"{name}=true needs clips whose motion is known, ToonWorld or moving layers: leave out other clips"
                    f" (data=triplets/toonworld), or set {name}=false."
                )
        self.clips, self.middle, self.pairs, self.crop = clips, middle, pairs, crop
        self.exact_flow, self.exact_motion = exact_flow, exact_motion or (exact_flow and not shuffle)

    @property
    def sources(self) -> dict[str, Any]:
        """The source by batch key."""
        return {"first": self.clips, "last": self.clips, "truth": self.clips}

    @property
    def aligned(self) -> list[list[str]]:
        """Batch keys that are augmented alike: all frames of a sample."""
        return [["first", "last", "truth"]]

    @property
    def skipped(self) -> int:
        """Number of broken files met so far."""
        return getattr(self.clips, "skipped", 0)

    def prepare(self) -> None:
        """Prepare the source and check the lengths of clips, before workers start."""
        prepare_source(self.clips)
        for index in range(len(self.clips)):
            self._gaps(index)

    def __len__(self) -> int:
        """Return the number of samples; for training, the number of clips."""
        return len(self.clips) if self.shuffle else len(self.clips) * self.pairs

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return a sample; a clip with a broken frame is replaced by the next one."""
        if number < 0 or (not self.shuffle and number >= len(self)):
            raise IndexError(f"sample {number} of {len(self)}")
        count = len(self.clips)
        index = stream_index(self.seed, "clips", number, count) if self.shuffle else number // self.pairs
        for step in range(count):
            sample = self._sample((index + step) % count, number)
            if sample is not None:
                return sample | {"sample": torch.tensor(number)}
        raise AnimegenError(
            f"None of the {count} clips beginning with '{self.clips.name(0)}' can be used: see the warnings above."
        )

    def name(self, number: int) -> str:
        """Return the name of sample ``number``: the name of its clip and the numbers of first and last frame."""
        index = stream_index(self.seed, "clips", number, len(self.clips)) if self.shuffle else number // self.pairs
        first, last, _ = self._frames(index, number)
        return f"{self.clips.name(index)}-{first}-{last}"

    def preview(self, count: int) -> dict[str, Tensor]:
        """Return up to ``count`` fixed samples as one batch: the middle of clips chosen by name hashes."""
        length = len(self.clips)
        order = sorted(range(length), key=lambda i: counter_hash("preview", self.clips.name(i)) % 2**64)
        chosen: list[dict[str, Tensor]] = []
        for index in order:
            sample = self._sample(index, None)
            if sample is not None:
                chosen.append(sample | {"sample": torch.tensor(index)})
            if len(chosen) == count:
                break
        return {key: torch.stack([sample[key] for sample in chosen]) for key in chosen[0]}

    def _gaps(self, index: int) -> list[int]:
        length = self.clips.length(index)
        fitting = [gap for gap in self.gaps if gap < length]
        if not fitting:
            raise AnimegenError(
                f"The clip '{self.clips.name(index)}' has {length} frames, too few for gap={self.gaps}: set a gap of at"
                f" most {length - 1}."
            )
        return fitting

    def _frames(self, index: int, number: int | None) -> tuple[int, int, list[int]]:
        """Return the numbers of first, last and true frames; in the middle of the clip for ``number=None``."""
        gaps, length = self._gaps(index), self.clips.length(index)
        draws = self.shuffle and number is not None
        gap = gaps[draw_integer(len(gaps), self.seed, "gap", number)] if draws and number is not None else gaps[0]
        places = length - gap
        if number is None:
            first = (places - 1) // 2
        elif self.shuffle:
            first = draw_integer(places, self.seed, "start", number)
        else:
            first = (2 * (number % self.pairs) + 1) * places // (2 * self.pairs)
        if self.middle == "all":
            between = list(range(first + 1, first + gap))
        elif self.middle == "random" and draws:
            between = [first + 1 + draw_integer(gap - 1, self.seed, "middle", cast(int, number))]
        else:
            between = [first + gap // 2]
        return first, first + gap, between

    def _sample(self, index: int, number: int | None) -> dict[str, Tensor] | None:
        first, last, between = self._frames(index, number)
        images = [self.clips.load(index, n) for n in (first, last, *between)]
        good = [image for image in images if image is not None]
        if len(good) < len(images):
            return None
        if len({image.shape for image in good}) > 1:
            raise AnimegenError(f"The frames of the clip '{self.clips.name(index)}' differ in size: remove it.")
        frames = torch.stack(good)
        cut = self._cut(frames, number)
        times = torch.tensor([(n - first) / (last - first) for n in between], dtype=torch.float32)
        sample = {"first": cut[0], "last": cut[1], "truth": cut[2:], "t": times}
        if not (self.exact_flow or self.exact_motion):
            return sample
        box, size = self._box(frames, number), cut.shape[-2:]
        source: Any = self.clips
        if self.exact_flow:
            there_and_back = [source.motion(index, *ends)[0] for ends in ((first, last), (last, first))]
            sample["exact_flow"] = cut_flow(torch.cat(there_and_back), box, *size)
        if self.exact_motion:
            motions = [[source.motion(index, n, end) for end in (first, last)] for n in between]
            flows = [cut_flow(torch.cat([flow for flow, _ in pair]), box, *size) for pair in motions]
            sights = [cut_nearest(torch.stack([seen for _, seen in pair]), box, *size) for pair in motions]
            sample |= {"exact_between": torch.stack(flows), "exact_sight": torch.stack(sights)}
        return sample

    def _cut(self, frames: Tensor, number: int | None) -> Tensor:
        """Scale and crop frames (N, 3, H, W) alike: randomly for a training sample, else in the centre."""
        scaled = torch.stack([scale_short_side(frame, self.size) for frame in frames])
        if not self.crop:
            return scaled
        height, width = scaled.shape[-2:]
        top, left = self._corner(height, width, number)
        return scaled[..., top : top + self.size, left : left + self.size].contiguous()

    def _box(self, frames: Tensor, number: int | None) -> Box:
        """Return the part of the frames that :meth:`_cut` shows, in their own pixels."""
        height, width = frames.shape[-2:]
        if not self.crop:
            return Box(0, 0, height, width)
        rows, columns = short_side_shape(height, width, self.size)
        top, left = self._corner(rows, columns, number)
        down, across = height / rows, width / columns
        return Box(top * down, left * across, self.size * down, self.size * across)

    def _corner(self, height: int, width: int, number: int | None) -> tuple[int, int]:
        """Return the upper left corner of the crop of frames that are scaled to this size."""
        rows, columns = height - self.size + 1, width - self.size + 1
        if not self.shuffle or number is None:
            return (rows - 1) // 2, (columns - 1) // 2
        return (
            draw_integer(rows, self.seed, "top", "clips", number),
            draw_integer(columns, self.seed, "left", "clips", number),
        )
