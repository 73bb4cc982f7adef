"""Clips for models that draw whole clips: single frames first, then nothing but numbers; folders split by episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.clips.sources import ClipSource, TripletFolders
from animegen.data.clips.view import ClipView
from animegen.data.sampler import counter_hash, draw_integer, stream_index
from animegen.errors import AnimegenError

Shape = int | Sequence[int]


class ClipsView(ClipView):
    """Frames to learn codes from, then the numbers of clips whose codes are kept; whole clips in evaluation.

    Training: a sample below :attr:`frames_until` is ``frame``, uint8 (3,H,W), any frame of any clip; with
    :attr:`with_ends` also ``first``, ``last`` and ``t`` of a piece of a clip in which it lies. One above says
    which frames of which clip: ``clip`` (its number), ``frames`` (T,), the numbers of its frames in the order in which
    they are shown, and ``mirror`` (0 or 1), all int64. No image is read for it. T is the same in all samples of a
    batch, so nothing has to be padded, and no device has to be asked for it.

    Evaluation: ``first``, ``last`` (3,H,W), ``truth`` (T,3,H,W), all frames between, and ``t``, as `ClipView` with
    ``middle=all``; so the scores are those of the task *in-between*.

    Args:
        clips: where the clips come from.
        shape: side of the frames, or (height, width). Frames are scaled so that they cover it, and the rest is cut off.
        lengths: frames of training clips, with both ends; a batch has one of these. Those that no clip has are
            left out.
        strides: frames from one to the next, drawn per sample: clips at several speeds. ``[2]`` is every second frame.
        reverse: play half of the training clips backwards.
        mirror: show half of the training samples mirrored left to right.
        zoom: scale training frames up to so many times the shape, at random, and cut at random places; 1 does neither.
        batch: samples per batch.
        gap: evaluation: frames from first to last.
        pairs: evaluation: pieces per clip, spread over it.
        seed: selects all draws.
        shuffle: see :class:`~animegen.data.views.View`.

    Raises:
        AnimegenError: for values that contradict each other, and, when first used, for clips that are too short.
    """

    def __init__(
        self,
        clips: ClipSource,
        shape: Shape = 64,
        lengths: Sequence[int] = (5,),
        strides: Sequence[int] = (1,),
        reverse: bool = False,
        mirror: bool = True,
        zoom: float = 1.0,
        batch: int = 1,
        gap: int = 4,
        pairs: int = 1,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.shape = (shape, shape) if isinstance(shape, int) else (int(shape[0]), int(shape[1]))
        super().__init__(clips, min(self.shape), gap, "all", pairs, seed, shuffle)
        self.lengths, self.strides = sorted(set(lengths)), sorted(set(strides))
        if not self.lengths or self.lengths[0] < 3 or not self.strides or self.strides[0] < 1:
            raise AnimegenError(
                f"lengths={list(lengths)} must be 3 frames or more, first and last included, and"
                f" strides={list(strides)} at least 1."
            )
        if zoom < 1 or batch < 1:
            raise AnimegenError(f"zoom={zoom} and batch={batch} must be at least 1.")
        self.reverse, self.mirror, self.zoom, self.batch = reverse, mirror, zoom, batch
        #: Training samples below this number are frames, all others are numbers of clips; ``None``: all are frames.
        #: The model sets it, since it knows for how long the tokenizer learns.
        self.frames_until: int | None = None
        #: Whether training frames come with the ends of a clip round them; the model sets this, too.
        self.with_ends = False
        self._long: dict[int, list[int]] | None = None

    def prepare(self) -> None:
        """Let the source do its costly work, and check that clips are long enough, before workers start."""
        if not self.shuffle:
            super().prepare()
            return
        prepare = getattr(self.clips, "prepare", None)
        if prepare is not None:
            prepare()
        self._fitting()

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return sample ``number``."""
        if not self.shuffle:
            return super().__getitem__(number)
        if number < 0:
            raise IndexError(f"sample {number}")
        if self.frames_until is None or number < self.frames_until:
            sample = self._frame_with_ends(number) if self.with_ends else self._frame(number)
        else:
            clip, frames, mirror = self._piece(number)
            sample = {"clip": torch.tensor(clip), "frames": torch.tensor(frames), "mirror": torch.tensor(mirror)}
        return sample | {"sample": torch.tensor(number)}

    def name(self, number: int) -> str:
        """Return the name of sample ``number``: that of its clip, and, in evaluation, of its piece."""
        if not self.shuffle:
            return super().name(number)
        return self.clips.name(stream_index(self.seed, "clips", number, len(self.clips)))

    def frame(self, index: int, number: int) -> Tensor | None:
        """Return frame ``number`` of clip ``index`` as evaluation sees it: uint8 (3,H,W); ``None`` if it is broken."""
        picture = self.clips.load(index, number)
        return None if picture is None else crop(cover(picture, self.shape), self.shape)

    def _frame(self, number: int) -> dict[str, Tensor]:
        count = len(self.clips)
        index = stream_index(self.seed, "clips", number, count)
        for step in range(count):
            clip = (index + step) % count
            picture = self.clips.load(clip, draw_integer(self.clips.length(clip), self.seed, "frame", number))
            if picture is not None:
                return {"frame": self._varied(picture, number)}
        raise self._unusable()

    def _frame_with_ends(self, number: int) -> dict[str, Tensor]:
        """Return a frame between the ends of a piece; broken images are replaced by another piece."""
        for step in range(8 * len(self.clips)):  # pieces are drawn at random, so some of them more than once
            clip, shown, _ = self._piece(number + step * self.batch)
            place = 1 + draw_integer(len(shown) - 2, self.seed, "between", number)
            found = [self.clips.load(clip, shown[n]) for n in (place, 0, -1)]
            good = [self._varied(picture, number) for picture in found if picture is not None]
            if len(good) == len(found):
                sample = dict(zip(("frame", "first", "last"), good, strict=True))
                return sample | {"t": torch.tensor(place / (len(shown) - 1))}
        raise self._unusable()

    def _unusable(self) -> AnimegenError:
        return AnimegenError(
            f"None of the {len(self.clips)} clips beginning with '{self.clips.name(0)}' can be used: the warnings above"
            " say what is wrong with each."
        )

    def _varied(self, picture: Tensor, number: int) -> Tensor:
        """Scale, cut and mirror a training frame by the hash of its number."""
        share = draw_integer(2**16, self.seed, "zoom", number) / 2**16 if self.zoom > 1 else 0.0
        sides = [round(side * (1 + share * (self.zoom - 1))) for side in self.shape]
        scaled = cover(picture, sides)
        if self.zoom > 1:
            places = [a - b + 1 for a, b in zip(scaled.shape[-2:], self.shape, strict=True)]
            top, left = (
                draw_integer(n, self.seed, what, number) for n, what in zip(places, ("top", "left"), strict=True)
            )
            scaled = scaled[:, top : top + self.shape[0], left : left + self.shape[1]]
        else:
            scaled = crop(scaled, self.shape)
        mirrored = self.mirror and draw_integer(2, self.seed, "mirror", number)
        return scaled.flip(-1) if mirrored else scaled.contiguous()

    def _piece(self, number: int) -> tuple[int, list[int], int]:
        """Return which clip sample ``number`` is, which of its frames, and whether it is mirrored."""
        turn = number // self.batch
        pieces = self._fitting()
        length = list(pieces)[draw_integer(len(pieces), self.seed, "length", turn)]
        fitting = pieces[length]
        clip = fitting[stream_index(self.seed, f"clips of {length}", number, len(fitting))]
        frames = self.clips.length(clip)
        strides = [stride for stride in self.strides if (length - 1) * stride < frames]
        stride = strides[draw_integer(len(strides), self.seed, "stride", number)]
        span = (length - 1) * stride
        start = draw_integer(frames - span, self.seed, "start", number)
        shown = list(range(start, start + span + 1, stride))
        if self.reverse and draw_integer(2, self.seed, "reverse", number):
            shown.reverse()
        return clip, shown, draw_integer(2, self.seed, "mirror", number) if self.mirror else 0

    def _fitting(self) -> dict[int, list[int]]:
        """Return for each length the clips from which so many frames can be taken."""
        if self._long is None:
            frames = [self.clips.length(index) for index in range(len(self.clips))]
            spans = {length: (length - 1) * self.strides[0] for length in self.lengths}
            found = {length: [i for i, n in enumerate(frames) if n > span] for length, span in spans.items()}
            self._long = {length: clips for length, clips in found.items() if clips}
            if not self._long:
                raise AnimegenError(
                    f"No clip has the {min(spans.values()) + 1} frames that lengths={self.lengths} and strides="
                    f"{self.strides} need; the longest has {max(frames)}: set smaller ones."
                )
        return self._long

    def _cut(self, frames: Tensor, number: int | None) -> Tensor:
        return crop(torch.stack([cover(frame, self.shape) for frame in frames]), self.shape).contiguous()


def cover(picture: Tensor, shape: Sequence[int]) -> Tensor:
    """Scale uint8 (3,H,W) so that it just covers (height, width), keeping its proportions (bilinear, anti-aliased)."""
    height, width = picture.shape[-2:]
    scale = max(shape[0] / height, shape[1] / width)
    sides = [max(wanted, round(side * scale)) for wanted, side in zip(shape, (height, width), strict=True)]
    if sides == [height, width]:
        return picture
    return F.interpolate(picture[None], sides, mode="bilinear", antialias=True)[0]


def crop(pictures: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the centre (...,height,width) of images (...,H,W)."""
    top, left = ((side - wanted) // 2 for side, wanted in zip(pictures.shape[-2:], shape, strict=True))
    return pictures[..., top : top + shape[0], left : left + shape[1]]


class EpisodeFolders(TripletFolders):
    """Clips as folders of frames below folders of episodes: ``<episode>/<clip>/<frame>.png``.

    Train, validation and test never share an episode: whole episodes are held out, by the hashes of their names, so an
    episode stays on its side when others come or go. An episode is the uppermost folder; where clips lie side by side
    without one, each clip is its own episode. Neighbouring scenes of a video have the same rooms and persons: held-out
    clips of an episode that was trained on would flatter.

    Args:
        folder: what holds the episodes.
        split: ``train``, ``val`` or ``test``.
        holdout: share of the episodes that is kept for validation, and as much again for test; at least one each.
        on_error: see `TripletFolders`.

    Raises:
        AnimegenError: when first used, if there are no clips, or fewer than three episodes.
    """

    def __init__(self, folder: str | Path, split: str = "train", holdout: float = 0.1, on_error: str = "skip") -> None:
        super().__init__(folder, "folders", split, holdout, on_error)
        if holdout >= 0.5:
            raise AnimegenError(f"holdout={holdout} twice leaves nothing to train on: use less than 0.5.")

    def episode(self, index: int) -> str:
        """Return the episode of a clip."""
        return self.name(index).split("/")[0]

    def _side(self, clips: list[tuple[str, list[Path]]]) -> list[tuple[str, list[Path]]]:
        episodes = sorted({name.split("/")[0] for name, _ in clips}, key=lambda e: counter_hash("episode", e) % 2**64)
        if len(episodes) < 3:
            raise AnimegenError(
                f"'{self.folder}' has {len(episodes)} episodes, and training, validation and test need one each: put"
                " the clips of each video into a folder of its own, or give more clips."
            )
        places = [counter_hash("episode", episode) % 2**64 / 2**64 for episode in episodes]
        # However the hashes fall, one episode at least remains for each of the sides that follow.
        held = min(max(1, sum(place < self.holdout for place in places)), len(places) - 2)
        more = max(1, sum(self.holdout <= place < 2 * self.holdout for place in places))
        more = min(more, len(places) - held - 1)
        sides = {"val": episodes[:held], "test": episodes[held : held + more], "train": episodes[held + more :]}
        wanted = set(sides[self.split])
        return [clip for clip in clips if clip[0].split("/")[0] in wanted]
