"""Training frames and clips for generators of whole clips, and clip folders split by episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.clips.sources import ClipSource, TripletFolders
from animegen.data.clips.truth import Box, MovingSource, knows_motion
from animegen.data.clips.view import ClipView
from animegen.data.sampler import counter_hash, draw_integer, stream_index
from animegen.data.sources import prepare_source
from animegen.errors import AnimegenError

Shape = int | Sequence[int]


class ClipsView(ClipView):
    """Frames for the tokenizer, then frame numbers of clips with cached codes; whole clips in evaluation.

    Training: a sample below :attr:`frames_until` has ``frame``, uint8 (3,H,W), any frame of any clip; with
    :attr:`with_ends` also ``first``, ``last`` and ``t`` of a piece of the clip around it. A later sample identifies a
    piece of a clip: ``clip`` (its number), ``frames`` (T,), the numbers of its frames in order of presentation, and
    ``mirror`` (0 or 1), all int64. T is the same in all samples of a batch. Images are read for it only as
    :attr:`piece_images` says.

    Evaluation: ``first``, ``last`` (3,H,W), ``truth`` (T,3,H,W), all frames between them, and ``t``, as `ClipView` with
    ``middle=all``.

    Args:
        clips: source of the clips.
        shape: side of the frames, or (height, width). Frames are scaled to cover it, and cropped.
        lengths: numbers of frames of training clips, with both ends; one is drawn per batch. Lengths that no clip has
            are ignored.
        strides: frame strides, drawn per sample; ``[2]`` is every second frame.
        reverse: reverse half of the training clips in time.
        mirror: flip half of the training samples horizontally.
        zoom: scale training frames to up to this multiple of the shape and crop them, both at random; 1 disables it.
        batch: samples per batch.
        gap: evaluation: frames from first to last.
        pairs: evaluation: evenly spaced pieces per clip.
        seed: seed of the random numbers.
        shuffle: see :class:`~animegen.data.views.View`.

    Raises:
        AnimegenError: for invalid values, and, on first use, for clips that are too short.
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
                f"lengths={list(lengths)} must be at least 3, first and last frame included, and"
                f" strides={list(strides)} at least 1."
            )
        if zoom < 1 or batch < 1:
            raise AnimegenError(f"zoom={zoom} and batch={batch} must be at least 1.")
        self.reverse, self.mirror, self.zoom, self.batch = reverse, mirror, zoom, batch
        #: Training samples below this number are frames, all others pieces of clips; ``None``: all are frames. Set by
        #: the model.
        self.frames_until: int | None = None
        #: Whether training frames come with the ends of a piece around them; set by the model.
        self.with_ends = False
        #: Images of training pieces of clips: ``none``, ``ends`` (``first`` and ``last``) or ``all`` (also ``truth``,
        #: the frames between); set by the model.
        self.piece_images = "none"
        self._long: dict[int, list[int]] | None = None

    def prepare(self) -> None:
        """Prepare the source and check the lengths of clips, before workers start."""
        if not self.shuffle:
            super().prepare()
            return
        prepare_source(self.clips)
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
            sample |= self._images_of(clip, frames, mirror)
        return sample | {"sample": torch.tensor(number)}

    def name(self, number: int) -> str:
        """Return the name of the clip of sample ``number``, in evaluation of its piece."""
        if not self.shuffle:
            return super().name(number)
        return self.clips.name(stream_index(self.seed, "clips", number, len(self.clips)))

    def frame(self, index: int, number: int) -> Tensor | None:
        """Return frame ``number`` of clip ``index`` as in evaluation: uint8 (3,H,W), or ``None`` if it is broken."""
        image = self.clips.load(index, number)
        return None if image is None else crop(cover(image, self.shape), self.shape)

    def motion(self, batch: Mapping[str, Tensor], places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the true motion from frames between to both ends of a batch of training pieces.

        Args:
            batch: with ``clip``, ``frames`` and ``mirror`` of B pieces, see the class.
            places: positions of F frames in the pieces.

        Returns:
            Flow (B F,4,H,W) in pixels, to the first and to the last frame of the piece, and whether the place is in
            sight there, (B F,2,H,W) bool.

        Raises:
            AnimegenError: for clips without known motion, or in another size than their frames.
        """
        if not isinstance(self.clips, MovingSource) or not knows_motion(self.clips):
            raise AnimegenError(
                "The true motion is known of data=clips/toonworld only: delete the loss terms that read true_flow, or"
                " set their weight to 0."
            )
        flows: list[Tensor] = []
        sights: list[Tensor] = []
        pieces = zip(batch["clip"].tolist(), batch["frames"].tolist(), batch["mirror"].tolist(), strict=True)
        for clip, frames, mirror in pieces:
            for place in places:
                found = [self.clips.motion(clip, frames[place], frames[end]) for end in (0, -1)]
                flow, seen = torch.cat([pair[0] for pair in found]), torch.stack([pair[1] for pair in found])
                if mirror:
                    flow, seen = flow.flip(-1) * flow.new_tensor([-1, 1, -1, 1]).view(4, 1, 1), seen.flip(-1)
                flows.append(flow)
                sights.append(seen)
        if flows[0].shape[1:] != self.shape:
            raise AnimegenError(
                f"The true motion is known in frames of {flows[0].shape[1]}x{flows[0].shape[2]}, and the view shows"
                f" {self.shape[0]}x{self.shape[1]}: set data.image_size to that size."
            )
        return torch.stack(flows), torch.stack(sights)

    def _frame(self, number: int) -> dict[str, Tensor]:
        count = len(self.clips)
        index = stream_index(self.seed, "clips", number, count)
        for step in range(count):
            clip = (index + step) % count
            image = self.clips.load(clip, draw_integer(self.clips.length(clip), self.seed, "frame", number))
            if image is not None:
                return {"frame": self._varied(image, number)}
        raise self._unusable()

    def _frame_with_ends(self, number: int) -> dict[str, Tensor]:
        """Return a frame and the ends of a piece around it; a piece with broken images is replaced by another."""
        for step in range(8 * len(self.clips)):  # pieces are drawn with replacement
            clip, shown, _ = self._piece(number + step * self.batch)
            place = 1 + draw_integer(len(shown) - 2, self.seed, "between", number)
            found = [self.clips.load(clip, shown[n]) for n in (place, 0, -1)]
            good = [self._varied(image, number) for image in found if image is not None]
            if len(good) == len(found):
                sample = dict(zip(("frame", "first", "last"), good, strict=True))
                return sample | {"t": torch.tensor(place / (len(shown) - 1))}
        raise self._unusable()

    def _images_of(self, clip: int, frames: list[int], mirror: int) -> dict[str, Tensor]:
        """Return the images of a piece, as `frame` shows them; a broken one shows what is before it."""
        if self.piece_images == "none":
            return {}
        numbers = frames if self.piece_images == "all" else [frames[0], frames[-1]]
        found = torch.stack([self._good_frame(clip, number) for number in numbers])
        found = found.flip(-1) if mirror else found
        ends = {"first": found[0], "last": found[-1]}
        return ends | {"truth": found[1:-1]} if self.piece_images == "all" else ends

    def _good_frame(self, clip: int, number: int) -> Tensor:
        for other in [*range(number, -1, -1), *range(number + 1, self.clips.length(clip))]:
            image = self.frame(clip, other)
            if image is not None:
                return image
        raise self._unusable()

    def _unusable(self) -> AnimegenError:
        return AnimegenError(
            f"None of the {len(self.clips)} clips beginning with '{self.clips.name(0)}' can be used: see the warnings"
            " above."
        )

    def _varied(self, image: Tensor, number: int) -> Tensor:
        """Scale, crop and flip a training frame by hashes of its number."""
        share = draw_integer(2**16, self.seed, "zoom", number) / 2**16 if self.zoom > 1 else 0.0
        sides = [round(side * (1 + share * (self.zoom - 1))) for side in self.shape]
        scaled = cover(image, sides)
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
        """Return clip, frame numbers and mirror flag of sample ``number``."""
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
        """Return length -> clips that are long enough for it."""
        if self._long is None:
            frames = [self.clips.length(index) for index in range(len(self.clips))]
            spans = {length: (length - 1) * self.strides[0] for length in self.lengths}
            found = {length: [i for i, n in enumerate(frames) if n > span] for length, span in spans.items()}
            self._long = {length: clips for length, clips in found.items() if clips}
            if not self._long:
                raise AnimegenError(
                    f"No clip has the {min(spans.values()) + 1} frames needed for lengths={self.lengths} and strides="
                    f"{self.strides}; the longest has {max(frames)}: set smaller values."
                )
        return self._long

    def _cut(self, frames: Tensor, number: int | None) -> Tensor:
        return crop(torch.stack([cover(frame, self.shape) for frame in frames]), self.shape).contiguous()

    def _box(self, frames: Tensor, number: int | None) -> Box:
        height, width = frames.shape[-2:]
        rows, columns = covering_shape(height, width, self.shape)
        top, left = (rows - self.shape[0]) // 2, (columns - self.shape[1]) // 2
        down, across = height / rows, width / columns
        return Box(top * down, left * across, self.shape[0] * down, self.shape[1] * across)


def covering_shape(height: int, width: int, shape: Sequence[int]) -> tuple[int, int]:
    """Return the smallest height and width with the aspect ratio of an image that cover ``shape``."""
    scale = max(shape[0] / height, shape[1] / width)
    return max(shape[0], round(height * scale)), max(shape[1], round(width * scale))


def cover(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Scale uint8 (3,H,W) to the smallest size that covers (height, width), with its aspect ratio (bilinear)."""
    sides = covering_shape(image.shape[-2], image.shape[-1], shape)
    if sides == image.shape[-2:]:
        return image
    return F.interpolate(image[None], sides, mode="bilinear", antialias=True)[0]


def crop(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the centre (...,height,width) of images (...,H,W)."""
    top, left = ((side - wanted) // 2 for side, wanted in zip(images.shape[-2:], shape, strict=True))
    return images[..., top : top + shape[0], left : left + shape[1]]


class EpisodeFolders(TripletFolders):
    """Clips as folders of frames in folders of episodes: ``<episode>/<clip>/<frame>.png``.

    Splits never share an episode, since its scenes have common places and persons. Episodes are assigned by the hashes
    of their names, so adding or removing one does not move others, unless a split would be empty. Clips without an
    episode folder are episodes of their own.

    Args:
        folder: folder of the episodes.
        split: ``train``, ``val`` or ``test``.
        holdout: fraction of the episodes for validation, and the same for test; at least one each.
        on_error: see `TripletFolders`.

    Raises:
        AnimegenError: on first use, if there are no clips, or fewer than three episodes.
    """

    def __init__(self, folder: str | Path, split: str = "train", holdout: float = 0.1, on_error: str = "skip") -> None:
        super().__init__(folder, "folders", split, holdout, on_error)
        if holdout >= 0.5:
            raise AnimegenError(f"holdout={holdout} for val and test leaves nothing for train: use less than 0.5.")

    def episode(self, index: int) -> str:
        """Return the episode of a clip."""
        return self.name(index).split("/")[0]

    def _side(self, clips: list[tuple[str, list[Path]]]) -> list[tuple[str, list[Path]]]:
        episodes = sorted({name.split("/")[0] for name, _ in clips}, key=lambda e: counter_hash("episode", e) % 2**64)
        if len(episodes) < 3:
            raise AnimegenError(
                f"'{self.folder}' has {len(episodes)} episodes, but training, validation and test need one each: put"
                " the clips of each video into a separate folder, or add clips."
            )
        places = [counter_hash("episode", episode) % 2**64 / 2**64 for episode in episodes]
        # Leave at least one episode for each of the other splits.
        held = min(max(1, sum(place < self.holdout for place in places)), len(places) - 2)
        more = max(1, sum(self.holdout <= place < 2 * self.holdout for place in places))
        more = min(more, len(places) - held - 1)
        sides = {"val": episodes[:held], "test": episodes[held : held + more], "train": episodes[held + more :]}
        wanted = set(sides[self.split])
        return [clip for clip in clips if clip[0].split("/")[0] in wanted]
