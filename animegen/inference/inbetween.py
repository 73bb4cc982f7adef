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
from animegen.inference.inbetweener import Inbetweener, mask_of
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
        neighbours: give the model the frames before and after each pair
            (:class:`~animegen.tasks.protocols.NeighbourInterpolator`).
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
    neighbours: bool = False


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
    drawn = None if frame.last is None else draw(frame.first, frame.last, float(frame.t), frame.before, frame.after)
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
    masks = mask_of(first).pixels, mask_of(second).pixels
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
        neighbours=plan.neighbours,
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
        "neighbours": plan.neighbours,
        "versions": [__version__, av.__version__],
        **plan.identity,
    }
