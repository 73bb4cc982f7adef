"""Stylize videos frame by frame and shot by shot: constant memory, exact times, copied sound, resumable."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from av.video.format import VideoFormat
from torch import Tensor

from animegen import __version__
from animegen.data.keyframes.prefilter import BilateralFilter
from animegen.errors import AnimegenError, FormatError
from animegen.files import completed
from animegen.inference.beside import beside, doubled
from animegen.inference.display import Display
from animegen.inference.partial import Partial, begun
from animegen.inference.photos import reason_for
from animegen.inference.segments import Segments
from animegen.inference.stylist import NoMemoryError
from animegen.inference.summary import Summary
from animegen.inference.targets import Job
from animegen.media.photos import resize
from animegen.media.video.copies import Copies, plan_copies
from animegen.media.video.deep import is_deep
from animegen.media.video.encoding import CONTAINERS, Encoding, container_of
from animegen.media.video.excerpt import Excerpt
from animegen.media.video.frames import FrameReader, Original, VideoInfo
from animegen.media.video.opening import create_video, open_video
from animegen.media.video.reader import VideoReader
from animegen.media.video.remux import join
from animegen.media.video.stages import ahead, waiting_frames

#: Frames after which a segment ends within a shot, if the model remembers nothing that would be lost.
LONGEST = 240

#: A frame, its time in seconds, and the problems of the video up to it.
Decoded = tuple[Original, Fraction, list[str]]
Follow = Callable[[Tensor, Any], tuple[Tensor, Any]]
Shots = Callable[[Iterable[Tensor]], list[tuple[int, int]]]


@dataclass(frozen=True)
class Part:
    """What is read of videos.

    Attributes:
        start: time in seconds at which it begins; ``None``: the start of the video.
        end: time in seconds at which it ends; ``None``: the end of the video.
        deinterlace: make whole frames of interlaced ones.
    """

    start: Fraction | None = None
    end: Fraction | None = None
    deinterlace: bool = False


@dataclass(frozen=True)
class VideoSettings:
    """Settings of stylized videos.

    Attributes:
        encode: returns the encoding of an output; takes it, and whether its source has more than eight bits per colour,
            and transparency.
        max_side: longer side in pixels to which larger frames are scaled down.
        fps: frame rate of folders of images.
        part: the part of videos that is read.
        suffix: format of frames that are written to a folder.
        shots: returns the shots as (first frame, stop); ``None``: each video is one shot.
        prefilter: removes noise from the input frames, within each shot.
        identity: model and options that the result depends on, compared when a run is resumed.
        overwrite: replace existing files, also those created during the run.
        compare: put each frame to the left of its drawing.
    """

    encode: Callable[[Path, bool, bool], Encoding]
    max_side: int | None = None
    fps: Fraction | None = None
    part: Part = field(default_factory=Part)
    suffix: str = ".png"
    shots: Shots | None = None
    prefilter: BilateralFilter | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    compare: bool = False


def stylize_videos(
    jobs: Iterable[Job],
    follow: Follow,
    settings: VideoSettings,
    summary: Summary,
    display: Display,
    skip_broken: bool = True,
) -> None:
    """Stylise videos one after the other.

    Args:
        jobs: inputs and outputs.
        follow: maps a frame, uint8 ``(3,H,W)``, and a state to a frame and the next state; the state is ``None`` at the
            beginning of each shot (:meth:`Stylist.follow`).
        settings: settings of the videos.
        summary: gets the results.
        display: shows the progress.
        skip_broken: skip videos that cannot be read or encoded; damage within a video is reported and never stops it.

    Raises:
        AnimegenError: if a file cannot be written, or at the first broken video without ``skip_broken``.
    """
    for job in jobs:
        try:
            straight = settings.encode(job.target, False, True).alpha
            reader = opened(job.source, settings.fps, settings.part, straight)
            deep = is_deep(reader.info.pix_fmt) and settings.prefilter is None
            encoding = settings.encode(job.target, deep, reader.info.alpha)
            copies = copies_for(reader, job.target, encoding, reader.info.fps)
        except AnimegenError as error:
            summary.skipped.append(reason_for(job, error, skip_broken, "videos"))
            display.progress()
            continue
        try:
            problems = _stylize_video(reader, job.target, follow, settings, encoding, copies, summary, display)
        except (NoMemoryError, FormatError) as error:
            summary.skipped.append(reason_for(job, error, skip_broken, "videos"))
        else:
            summary.done += 1
            if problems:
                summary.incomplete.append(f"'{job.source}': {'; '.join(problems)}")
        display.progress()


def opened(path: Path, fps: Fraction | None, part: Part, straight: bool = False) -> FrameReader:
    """Open a video, or a part of it; ``straight``: see :func:`~animegen.media.video.opening.open_video`.

    Raises:
        AnimegenError: if it cannot be read, or the part holds no frame.
    """
    reader = open_video(path, fps, part.deinterlace, straight)
    return reader if part.start is None and part.end is None else Excerpt(reader, part.start or Fraction(0), part.end)


def _stylize_video(
    reader: FrameReader,
    target: Path,
    follow: Follow,
    settings: VideoSettings,
    encoding: Encoding,
    copies: Copies | None,
    summary: Summary,
    display: Display,
) -> list[str]:
    """Make one video; return what could not be read."""
    with begun(target, _facts(reader, settings, encoding), display.note) as partial:
        reader.problems.extend(partial.problems)
        if partial.shots is None and settings.shots is not None:
            with closing(pixels_ahead(reader)) as frames:
                partial.shots = settings.shots(display.searched(frames))
            partial.save()
        info = _info(reader, settings)
        for remark in remarks(reader, encoding):
            display.note(f"'{reader.path.name}': {remark}")
        shown = display.video(reader.path.name, partial.frames, reader.info.expected_frames)
        try:
            for _ in _segments(reader, partial, follow, settings, info, encoding, display.note):
                summary.frames += 1
                shown.frame()
        except KeyboardInterrupt:
            display.note("Finished shots are kept: the same command resumes after them.")
            raise
        finally:
            shown.end()
        for note in assemble(partial, target, settings.suffix, info, copies, settings.overwrite):
            display.note(note)
        partial.remove()
    return list(dict.fromkeys(reader.problems))


def _segments(
    reader: FrameReader,
    partial: Partial,
    follow: Follow,
    settings: VideoSettings,
    info: VideoInfo,
    encoding: Encoding,
    note: Callable[[str], None],
) -> Iterator[None]:
    """Write the missing segments of the video, one per shot; yield after every frame.

    Frames are decoded in a thread and encoded in another one, while the model draws.
    """
    cuts = {first for first, _ in partial.shots or []}
    number = partial.frames
    state: Any = None
    with (
        closing(_remaining(reader, partial, settings.prefilter, cuts)) as frames,
        Segments(partial, info, encoding, note) as segments,
    ):
        for original, time, problems in frames:
            at_cut = number in cuts
            if segments.present and (at_cut or (state is None and segments.count >= LONGEST)):
                segments.end(time, problems)
            if at_cut:
                state = None
            if not segments.present:
                segments.begin(time)
            channels = resize(original.at(segments.deep), info.height, info.width // (2 if settings.compare else 1))
            pixels, state = follow(channels[:3], state)
            drawn = torch.cat([pixels, channels[3:]])
            segments.write(beside(channels, drawn) if settings.compare else drawn, time)
            number += 1
            yield
        if segments.present:
            segments.end(reader.end, list(reader.problems))


def pixels_ahead(reader: FrameReader) -> Generator[Tensor, None, None]:
    """Yield all frames, uint8 ``(3,H,W)``, decoded in advance in a thread."""
    return ahead((pixels for pixels, _ in reader), waiting_frames(reader.info.height, reader.info.width))


def read_ahead(reader: FrameReader, start: Fraction | None) -> Generator[Decoded, None, None]:
    """Yield the frames from a time on, decoded in advance in a thread, with the problems of the video up to each."""
    waiting = waiting_frames(reader.info.height, reader.info.width)
    found = ((frame, time, list(reader.problems)) for frame, time in reader.originals(start=start))
    return ahead(found, waiting)


def _later(frames: Generator[Decoded, None, None], last: Fraction | None) -> Iterator[Decoded]:
    """Yield the frames after a time, and close their source."""
    with closing(frames):
        for decoded in frames:
            if last is None or decoded[1] > last:
                yield decoded


def _remaining(
    reader: FrameReader, partial: Partial, prefilter: BilateralFilter | None, cuts: set[int]
) -> Generator[Decoded, None, None]:
    """Yield the frames after the finished segments as :func:`read_ahead`, filtered if there is a filter."""
    finished = partial.finished[-1] if partial.finished else None
    last = None if finished is None else finished.last
    if prefilter is None:
        yield from _later(read_ahead(reader, last), last)
        return
    # A filter uses earlier frames. A segment ends at a cut, which resets it, or is longer than its window.
    first = partial.frames - finished.frames if finished else 0
    with closing(read_ahead(reader, finished.start if finished else None)) as read:
        tagged = ((frame.pixels, (frame.alpha, time, known)) for frame, time, known in read)
        filtered = prefilter.stream(tagged, cuts, first)
        frames = ((Original(pixels, alpha=alpha), time, known) for pixels, (alpha, time, known) in filtered)
        yield from _later(frames, last)


def copies_for(reader: FrameReader, target: Path, encoding: Encoding, rate: Fraction) -> Copies | None:
    """Select the streams copied from the source; ``None``: nothing, since one of them is no video file.

    Raises:
        AnimegenError: see :func:`~animegen.media.video.copies.plan_copies`.
    """
    start, length = Fraction(0), None
    if isinstance(reader, Excerpt):
        length = None if reader.stop is None else reader.stop - reader.start
        start, reader = reader.start, reader.reader
    if not isinstance(reader, VideoReader) or target.suffix.lower() not in CONTAINERS:
        return None
    origin = reader.origin + start
    return plan_copies(reader.path, container_of(target), encoding, rate, origin, length, timecodes=not start)


def assemble(
    partial: Partial,
    target: Path,
    suffix: str,
    info: VideoInfo,
    copies: Copies | None,
    overwrite: bool = False,
) -> list[str]:
    """Join the segments to a video; return messages for the user.

    Raises:
        AnimegenError: if it cannot be written, or something has its name and ``overwrite`` is false.
    """
    if target.suffix.lower() in CONTAINERS:
        # If the process is killed here, the next run removes the folder of the shots.
        with completed(target, partial.folder, overwrite=overwrite) as hidden:
            return join(partial.segments, hidden, info, copies, target)
    with create_video(target, info, suffix=suffix, overwrite=overwrite) as writer:
        for segment in partial.segments:
            frames = VideoReader(segment.path, straight=info.alpha)
            if is_deep(frames.info.pix_fmt):  # MP4 stores a matrix only together with primaries and a curve
                frames.info = replace(frames.info, colour=info.colour)
            with closing(read_ahead(frames, None)) as decoded:
                for original, time, _ in decoded:
                    writer.copy(original, segment.start + time)
        writer.close(partial.segments[-1].end)
    return writer.notes


def remarks(reader: FrameReader, encoding: Encoding) -> list[str]:
    """Return a sentence for each property of a video that is lost."""
    bits = VideoFormat(reader.info.pix_fmt, 2, 2).components[0].bits
    lost = bits > 8 and not is_deep(encoding.pix_fmt)
    return [*reader.info.remarks, *([f"Eight bits per colour are kept of its {bits}."] if lost else [])]


def _info(reader: FrameReader, settings: VideoSettings) -> VideoInfo:
    info = reader.info
    longer = max(info.width, info.height)
    if settings.max_side is not None and longer > settings.max_side:
        info = info.resized(*(max(1, round(side * settings.max_side / longer)) for side in (info.width, info.height)))
    return doubled(info) if settings.compare else info


def _facts(reader: FrameReader, settings: VideoSettings, encoding: Encoding) -> dict[str, Any]:
    """Return all that the result depends on."""
    return {
        "input": identity(reader.path),
        "frames": reader.info.expected_frames,
        "fps": str(reader.info.fps),
        "part": [str(settings.part.start), str(settings.part.end), settings.part.deinterlace],
        "max_side": settings.max_side,
        "cuts": settings.shots is not None,
        "encoding": asdict(encoding),
        "suffix": settings.suffix,
        "compare": settings.compare,
        "versions": [__version__, av.__version__],
        **settings.identity,
    }


def identity(path: Path) -> list[Any]:
    """Return path, size and modification time of a file, which identify its version."""
    try:
        facts = path.stat()
    except OSError:
        return [str(path.absolute())]
    return [str(path.absolute()), facts.st_size, facts.st_mtime_ns]
