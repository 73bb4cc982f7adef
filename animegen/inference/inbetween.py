"""Frame interpolation of images and videos: plans of interpolated and copied frames, and their output."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from animegen import __version__
from animegen.errors import AnimegenError
from animegen.inference.beside import beside, doubled
from animegen.inference.confidence import Confidence
from animegen.inference.pair_tiles import TiledPair
from animegen.inference.partial import Partial, begun
from animegen.inference.segments import Segments
from animegen.inference.timegrid import Between, Grid, between_frames
from animegen.inference.videos import assemble, identity, pixels_ahead, read_ahead
from animegen.media.images import to_uint8
from animegen.media.photos import read_photo
from animegen.media.video.cadence import rhythm, same_drawing
from animegen.media.video.copies import Copies
from animegen.media.video.encoding import Encoding
from animegen.media.video.frames import (
    DEFAULT_RATE,
    RGB,
    TRANSPARENT,
    Colour,
    FrameReader,
    FrameWriter,
    Original,
    VideoInfo,
)
from animegen.media.video.opening import WRITTEN_SUFFIXES, create_video
from animegen.media.video.sequences import SequenceReader
from animegen.nn.precision import inference
from animegen.tasks.protocols import Interpolator

#: Largest side that is computed in one piece with ``tile=auto``.
AUTO_TILE = 1536
SMALLEST_TILE = 128


class ImageReader(SequenceReader):
    """Images as a video, of equal duration each.

    Args:
        files: the images, all of one size.
        fps: images per second.
        straight: see :class:`~animegen.media.video.sequences.SequenceReader`.

    Raises:
        AnimegenError: if one cannot be read, or they differ in size.
    """

    def __init__(self, files: list[Path], fps: Fraction | None = None, straight: bool = False) -> None:
        self.path, self.files, self.straight = files[0], files, straight
        self.problems, self.end = [], Fraction(0)
        photos = {file: read_photo(file) for file in files}
        shapes = {file: tuple(photo.pixels.shape[1:]) for file, photo in photos.items()}
        transparent = any(photo.alpha is not None for photo in photos.values())
        if len(set(shapes.values())) > 1:
            sizes = ", ".join(f"'{file}' {shape[1]}x{shape[0]}" for file, shape in shapes.items())
            raise AnimegenError(f"Images of different sizes cannot be interpolated: {sizes}.")
        height, width = shapes[files[0]]
        rate = fps or DEFAULT_RATE
        self.info = VideoInfo(
            width,
            height,
            rate,
            time_base=1 / rate,
            duration=len(files) / rate,
            frames=len(files),
            codec=files[0].suffix.lower()[1:],
            colour=Colour(RGB, full_range=True),
            alpha=transparent and straight,
            remarks=(TRANSPARENT,) if transparent and not straight else (),
        )


class Inbetweener:
    """A model that draws the frames between two frames, one pair after the other.

    Alpha that changes goes through the model as a grey image, so that it moves as outlines do.

    Args:
        model: the model in eval mode, on ``device``.
        device: device of the computation.
        dtype: autocast type, ``None`` for full precision.
        tile: largest side that is computed in one piece; 0: everything; ``None``: `AUTO_TILE`, and smaller ones when
            the memory does not suffice.
        confidence: pairs that match less than this share (:class:`~animegen.inference.confidence.Confidence`) are not
            drawn between: the first frame is held. 0 draws between all.

    Attributes:
        drawn: frames drawn.
        held: frames that were not drawn, since the two of their pair match too little.
    """

    def __init__(
        self,
        model: Interpolator,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        tile: int | None = None,
        confidence: float = 0.0,
    ) -> None:
        self.model, self.device, self.dtype = model, torch.device(device), dtype
        self.tile, self._may_shrink = AUTO_TILE if tile is None else tile, tile is None
        self.least, self._match = confidence, Confidence() if confidence > 0 else None
        self._pair: tuple[Original, Original] | None = None
        self._encoded: TiledPair | None = None
        self._mask: TiledPair | None = None  # of alpha that changes
        self.drawn = self.held = 0

    def __call__(self, first: Original, last: Original, t: float) -> Tensor | None:
        """Draw the frame at time t between two frames; a pair is encoded once.

        Returns:
            ``(3,H,W)``, or ``(4,H,W)`` with alpha: float in [-1,1] if the frames have more than eight bits per colour,
            else uint8. ``None`` if they match too little, so that the first is to be held.

        Raises:
            AnimegenError: if the memory does not suffice, or the model returns invalid images.
        """
        while True:
            try:
                image = self._draw(first, last, t)
                break
            except torch.OutOfMemoryError as error:
                _, height, width = first.pixels.shape
                smaller = min(self.tile or max(height, width), max(height, width)) // 2
                if not self._may_shrink or smaller < SMALLEST_TILE:
                    raise AnimegenError(
                        f"The memory of the device is too small for frames of {width}x{height}: use"
                        " a smaller tile=, precision=bf16, or device=cpu."
                    ) from error
                self._pair = self._encoded = self._mask = None
                self.tile = smaller
            torch.cuda.empty_cache()
        if image is None:
            self.held += 1
        else:
            self.drawn += 1
        return image

    def _draw(self, first: Original, last: Original, t: float) -> Tensor | None:
        with inference(self.device, self.dtype):
            if self._pair is None or self._pair[0] is not first or self._pair[1] is not last:
                self._encoded = self._mask = None  # before the next pair takes its place in memory
                if self._match is None or self._match(first.pixels, last.pixels) >= self.least:
                    self._encoded = TiledPair(self.model, first, last, self.tile, self.device)
                    if self._pair is None and not self._may_shrink:
                        self._encoded.check_memory(self.dtype)
                    masks = _mask(first), _mask(last)
                    if not torch.equal(masks[0].pixels, masks[1].pixels):
                        self._mask = TiledPair(self.model, *masks, self.tile, self.device)
                self._pair = first, last
            if self._encoded is None:
                return None
            pixels = self._encoded.at(t)
            if first.alpha is None and last.alpha is None:
                return pixels
            deep = pixels.is_floating_point()
            mask = _mask(first).at(deep)[:1] if self._mask is None else self._mask.at(t).float().mean(0, keepdim=True)
            return torch.cat([pixels, mask if deep else mask.round().to(torch.uint8)])


def _mask(frame: Original) -> Original:
    """Return the alpha of a frame as a grey image."""
    alpha = torch.full_like(frame.pixels[0], 255) if frame.alpha is None else frame.alpha
    fine = None if frame.refine is None else lambda: frame.values[3:].expand(3, -1, -1)
    return Original(alpha.expand(3, -1, -1), refine=fine)


@dataclass(frozen=True)
class VideoPlan:
    """Settings of the interpolation of a video.

    Attributes:
        grid: times of the output frames.
        holds: treatment of held drawings: ``keep``; ``smooth`` spreads motion over them; ``auto`` does so in shots that
            are drawn on twos, threes or fours throughout.
        cuts: detect cuts, and do not interpolate across them.
        encoding: encoding of a video file, or of the segments of other outputs.
        suffix: format of frames that are written to a folder.
        identity: model and options that the result depends on, compared when a run is resumed.
        overwrite: replace existing files, also those created during the run.
        copies: streams copied from the source of a video file.
        compare: put the frame of the source that is shown at the same time to the left of each frame.
    """

    grid: Grid
    holds: str = "keep"
    cuts: bool = True
    encoding: Encoding = field(default_factory=Encoding)
    suffix: str = ".png"
    identity: dict[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    copies: Copies | None = None
    compare: bool = False


def interpolate_video(
    reader: FrameReader, target: Path, draw: Inbetweener, plan: VideoPlan, note: Callable[[str], None] = print
) -> Iterator[Between[Original]]:
    """Write a video with more frames; yield after each of them.

    The video passes twice if cuts or rhythms are looked for. Times are exact, sound and subtitles are copied, duration
    and the frames of the source stay as they are. The result appears under its name when it is complete; until then its
    shots are in ``<target>.partial``, and an interrupted run continues after its last finished shot. (Images that
    are given one by one are too few for that.)

    Args:
        reader: the video.
        target: a video or a folder for images.
        draw: draws frames.
        plan: how.
        note: gets sentences that the user should know.
    """
    info, is_file = _info(reader.info, plan), target.suffix.lower() in WRITTEN_SUFFIXES
    if isinstance(reader, ImageReader):
        frames = _between(reader, plan, *look_at(reader, plan), is_file)
        with create_video(target, info, plan.encoding, None, plan.suffix, plan.overwrite) as writer:
            for frame in frames:
                _write(writer, frame, draw, frame.time, plan.compare)
                yield frame
            writer.close(reader.end)
        return
    with begun(target, _facts(reader, plan), note) as partial:
        reader.problems.extend(partial.problems)
        if partial.shots is None:
            partial.shots, partial.smooth, partial.flashes = look_at(reader, plan)
            partial.save()
        yield from _segments(reader, partial, draw, plan, info, is_file, note)
        for sentence in assemble(partial, target, plan.suffix, info, plan.copies, plan.overwrite):
            note(sentence)
        partial.remove()


def look_at(reader: FrameReader, plan: VideoPlan) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Return the plan of a video.

    Returns:
        The shots, as (first frame, stop); the first frames of those whose drawings are spread over holds; the frames
        with which a flash begins, and the image after it.
    """
    changes: list[bool] = []
    flashes: list[int] = []

    def seen() -> Iterator[Tensor]:
        known: Tensor | None = None
        with closing(pixels_ahead(reader)) as frames:
            for pixels in frames:
                new = known is None or not (plan.holds == "auto" and same_drawing(known, pixels))
                known = pixels if new else known
                changes.append(new)
                yield pixels

    if plan.cuts and len_at_least(reader, 3):
        from animegen.media.video.shots import detect_shots  # on demand: pairs of images need no detector

        shots = detect_shots(seen(), flashes=flashes)
    elif plan.holds == "auto":
        deque(seen(), maxlen=0)
        shots = [(0, len(changes))]
    else:
        shots = [(0, reader.info.expected_frames or 1)]
    if plan.holds != "auto":
        return shots, [first for first, _ in shots] if plan.holds == "smooth" else [], flashes
    return shots, [first for first, stop in shots if (rhythm(changes[first:stop]) or 1) > 1], flashes


def len_at_least(reader: FrameReader, count: int) -> bool:
    """Return whether a video has that many frames according to its header."""
    expected = reader.info.expected_frames
    return expected is None or expected >= count


def _write(
    writer: FrameWriter | Segments,
    frame: Between[Original],
    draw: Inbetweener,
    time: Fraction,
    compare: bool = False,
) -> None:
    """Append a frame: drawn, or a copy of the source's; with ``compare`` beside the latter."""
    drawn = None if frame.last is None else draw(frame.first, frame.last, float(frame.t))
    if compare:
        shown = frame.first.at(writer.deep)
        right = shown if drawn is None else drawn if drawn.dtype == shown.dtype else to_uint8(drawn)
        pair = beside(shown, right)
        writer.write(pair if writer.alpha else pair[:3], time)
    elif drawn is None:
        writer.copy(frame.first, time)
    elif drawn.is_floating_point() and not writer.deep:
        writer.write(to_uint8(drawn), time)
    else:
        writer.write(drawn, time)


def _same(first: Original, second: Original) -> bool:
    masks = _mask(first).pixels, _mask(second).pixels
    return same_drawing(first.pixels, second.pixels) and (torch.equal(*masks) or same_drawing(*masks))


def _between(
    reader: FrameReader,
    plan: VideoPlan,
    shots: list[tuple[int, int]],
    spread: list[int],
    flashes: list[int],
    hold_last: bool,
    frames: Iterator[tuple[Original, Fraction]] | None = None,
    first: int = 0,
    origin: Fraction | None = None,
) -> Iterator[Between[Original]]:
    begins = [begin for begin, _ in shots]
    spread_shots = set(spread)

    def smooth(number: int) -> bool:
        return max((b for b in begins if b <= number), default=0) in spread_shots

    return between_frames(
        *(frames or reader.originals(), lambda: reader.end, plan.grid, _same, [*begins[1:], *flashes]),
        smooth=smooth if 0 < len(spread) < len(shots) else bool(spread),
        hold_last=hold_last,
        first=first,
        origin=origin,
    )


def _segments(
    reader: FrameReader,
    partial: Partial,
    draw: Inbetweener,
    plan: VideoPlan,
    info: VideoInfo,
    hold_last: bool,
    note: Callable[[str], None],
) -> Iterator[Between[Original]]:
    """Write the missing segments of the video, one per shot; yield after every frame.

    Frames are decoded in a thread and encoded in another one, while the model draws.
    """
    before = partial.finished[-1] if partial.finished else None
    if before is not None and before.upto is None:
        return
    begin, since = (0, None) if before is None else (before.source or 0, before.upto)
    shots = partial.shots or [(0, 1)]
    cuts = {first for first, _ in shots[1:]}
    ahead: deque[tuple[int, Fraction]] = deque()  # cuts that were read and are not reached yet
    problems: list[str] = []

    def read() -> Iterator[tuple[Original, Fraction]]:
        nonlocal problems
        for number, (original, time, known) in enumerate(frames, begin):
            problems = known
            if number in cuts and number > begin:
                ahead.append((number, time))
            yield original, time

    origin = partial.finished[0].start if partial.finished else None
    with closing(read_ahead(reader, since)) as frames, Segments(partial, info, plan.encoding, note) as segments:
        for frame in _between(reader, plan, shots, partial.smooth, partial.flashes, hold_last, read(), begin, origin):
            passed = None
            while ahead and frame.time >= ahead[0][1]:
                passed = ahead.popleft()
            if passed is not None and segments.present:
                segments.end(frame.time, problems, *passed)
            if not segments.present:
                segments.begin(frame.time)
            _write(segments, frame, draw, frame.time, plan.compare)
            yield frame
        if segments.present:
            segments.end(reader.end, list(reader.problems))


def _info(info: VideoInfo, plan: VideoPlan) -> VideoInfo:
    """Return the facts of the new video; its time base holds all its times exactly."""
    info, grid = doubled(info) if plan.compare else info, plan.grid
    if grid.factor is not None:
        return replace(info, fps=info.fps * grid.factor, time_base=info.time_base / grid.factor.numerator, frames=None)
    assert grid.fps is not None
    return replace(info, fps=grid.fps, time_base=1 / grid.fps, frames=None)


def _facts(reader: FrameReader, plan: VideoPlan) -> dict[str, Any]:
    """Return all that the result depends on."""
    return {
        "input": identity(reader.path),
        "frames": reader.info.expected_frames,
        "rate": str(reader.info.fps),
        "grid": [str(plan.grid.factor), str(plan.grid.fps)],
        "holds": plan.holds,
        "cuts": plan.cuts,
        "encoding": asdict(plan.encoding),
        "suffix": plan.suffix,
        "compare": plan.compare,
        "versions": [__version__, av.__version__],
        **plan.identity,
    }
