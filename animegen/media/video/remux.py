"""Copying packets between files without decoding: joins segments, copies sound and subtitles."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.packet import Packet
from av.stream import Stream
from av.video.format import VideoFormat

from animegen.errors import FormatError
from animegen.files import translate_io_errors
from animegen.media.video.clock import base_of
from animegen.media.video.copies import Copies, copied
from animegen.media.video.encoding import container_of
from animegen.media.video.frames import VideoInfo
from animegen.media.video.pixels import tag, written_colour
from animegen.media.video.reader import PATIENCE, open_container

#: Frames that H.264 and H.265 may hold back (ITU-T H.264, A.3.1; H.265, A.4.2). Encoders hold back fewer, but not
#: all say how many.
MOST_REORDERED = 16


@dataclass(frozen=True)
class Segment:
    """A segment of a video in its own file, whose first frame has time 0.

    Attributes:
        path: of the file.
        start: when its first frame appears in the video, in seconds.
        end: when its last frame stops being shown. The file does not store it: in MP4 durations are those of decoding.
    """

    path: Path
    start: Fraction
    end: Fraction


class DecodingOrder:
    """Assign new decoding times to packets, which come in decoding order.

    They are the times of showing in increasing order, ``depth`` packets late: then no packet is decoded after it is
    shown, and all times increase, whatever the encoder says (libx265 gives videos of few frames any number) and however
    the joints of a video are.

    Args:
        depth: how many packets at most come before one that is shown earlier.
        lead: by how many ticks the first is decoded before it is shown. In MP4 the time from the first decoding to the
            last, and the duration of the last packet, are the duration of the track: one lead makes it right.
    """

    def __init__(self, depth: int, lead: int = 0) -> None:
        self.depth, self.lead = depth, max(lead, depth)
        self._shown: list[int] = []
        self._early: list[Packet] = []

    def add(self, packet: Packet) -> list[Packet]:
        """Add the next packet; return those whose times are known."""
        assert packet.pts is not None
        heapq.heappush(self._shown, packet.pts)
        if len(self._shown) <= self.depth:
            self._early.append(packet)
            return []
        early = self.rest()
        packet.dts = heapq.heappop(self._shown)
        return [*early, packet]

    def rest(self) -> list[Packet]:
        """Return the pending packets, whose decoding times are spread evenly over the lead."""
        early, self._early = self._early, []
        for number, packet in enumerate(early):
            packet.dts = self._shown[0] - self.lead * (len(early) - number) // len(early)
        return early


def join(
    segments: Sequence[Segment],
    target: Path,
    info: VideoInfo,
    copies: Copies | None = None,
    container: Path | None = None,
) -> list[str]:
    """Join segments of the same encoding into one video, with the sound and subtitles of another video.

    Only the time stamps of packets change. Presentation times are exact up to the resolution of the container (in
    Matroska 1 ms, in MP4 that of the segments); decoding times are assigned again, since they would overlap at the
    joints.

    Args:
        segments: in their order.
        target: where to write; not hidden and not atomic, see :class:`~animegen.media.video.writer.VideoWriter`.
        info: mean rate and colour of the video. Containers of segments do not keep all tags of colour.
        copies: what is taken over from another video. What the file refuses after all is left out.
        container: the name by whose suffix the container is chosen, if it is not ``target``.

    Returns:
        A sentence for each thing that was converted or left out.

    Raises:
        JoinError: if the segments do not fit together, or into the container.
        AnimegenError: if the file cannot be written, such as for lack of space.
    """
    place = container or target
    while True:
        try:
            with translate_io_errors(place, "written"):
                notes = _write(segments, target, container_of(place), info, copies)
            return [*(copies.notes if copies is not None else ()), *notes]
        except _RefusedError as error:
            assert copies is not None
            copies = copies.without(error.stream)
        except (av.error.FFmpegError, ValueError) as error:  # a full disk is an OSError, translated above
            reason = getattr(error, "strerror", None) or error
            raise JoinError(
                f"the segments of '{place}' cannot be joined ({reason}): choose another container or codec=."
            ) from error


class JoinError(FormatError):
    """The segments do not fit together, or the container takes none of them; other videos may succeed."""


class _RefusedError(Exception):
    """The file does not take a stream of the source; ``None``: it is not known which."""

    def __init__(self, stream: int | None) -> None:
        super().__init__()
        self.stream = stream


def _write(segments: Sequence[Segment], target: Path, name: str, info: VideoInfo, copies: Copies | None) -> list[str]:
    refused: Counter[int] = Counter()
    try:
        with ExitStack() as stack:
            template = stack.enter_context(open_container(segments[0].path)).streams.video[0]
            # Sound may begin before the images, with samples that are not heard; nothing is shifted for it.
            options = {"avoid_negative_ts": "disabled"}
            if name in ("mp4", "mov"):
                # A delay at the start is written in the movie's time scale, of 1 ms unless it is set.
                options |= {"movie_timescale": str(base_of(template).denominator), "movflags": "+faststart"}
            output = stack.enter_context(av.open(str(target), "w", format=name, container_options=options))
            stream = output.add_stream_from_template(template, opaque=True)
            stream.time_base = base_of(template)
            stream.codec_context.framerate = info.fps.limit_denominator(100_000)
            tag(stream.codec_context, written_colour(info), VideoFormat(template.codec_context.pix_fmt or "").is_rgb)
            if template.metadata.get("alpha_mode") == "1":
                stream.codec_context.pix_fmt = "yuva420p"  # the muxer states transparency for this format alone
            if template.codec_context.name == "hevc" and name in ("mp4", "mov"):
                stream.codec_context.codec_tag = "hvc1"  # players of Apple know no other
            queues = [_video(segments, stream, template.codec_context.extradata)]
            if copies is not None:
                original = stack.enter_context(open_container(copies.source))
                queues.append(copied(original, output, copies, stream))
            output.start_encoding()
            for packet in heapq.merge(*queues, key=_moment):
                try:
                    output.mux(packet)
                except ValueError as error:  # FFmpeg's for what does not fit; a full disk is an OSError
                    place = packet.stream_index - 1
                    if copies is None or place < 0:
                        raise
                    refused[place] += 1
                    if refused[place] > PATIENCE:
                        raise _RefusedError(list(copies.streams)[place]) from error
    except ValueError as error:
        if copies is None or copies.empty:
            raise
        raise _RefusedError(None) from error
    return [
        f"{count} damaged packets of stream {list(copies.streams)[place]} of '{copies.source}' were left out."
        for place, count in refused.items()
        if copies is not None
    ]


def _moment(packet: Packet) -> float:
    assert packet.dts is not None
    return float(packet.dts * packet.time_base)


def _video(segments: Sequence[Segment], stream: Stream, extradata: bytes | None) -> Iterator[Packet]:
    """Yield the packets of all segments with times of the whole video, in order of decoding."""
    base = base_of(stream)
    depth, lead = _survey(segments)
    order = DecodingOrder(depth, round(lead / base))
    for packet in _film_packets(segments, base, extradata):
        packet.stream = stream
        yield from order.add(packet)
    yield from order.rest()


def _film_packets(segments: Sequence[Segment], base: Fraction, extradata: bytes | None) -> Iterator[Packet]:
    for segment in segments:
        with open_container(segment.path) as container:
            stream = container.streams.video[0]
            if stream.codec_context.extradata != extradata:
                raise JoinError(
                    f"'{segment.path}' was encoded otherwise than the segments before it: remove the folder"
                    f" '{segment.path.parent}' and start again."
                )
            times = _times(segment)
            ends = dict(zip(sorted(times), [*sorted(times)[1:], segment.end], strict=True))
            for packet, time in zip((p for p in container.demux(stream) if p.pts is not None), times, strict=True):
                packet.time_base = base
                packet.pts = round(time / base)
                packet.duration = round(ends[time] / base) - packet.pts
                yield packet


def _times(segment: Segment) -> list[Fraction]:
    """Return when the frames of a segment appear in the video, in order of decoding."""
    with open_container(segment.path) as container:
        base = base_of(container.streams.video[0])
        times = [packet.pts * base for packet in container.demux(video=0) if packet.pts is not None]
    first = min(times, default=Fraction(0))
    return [segment.start + time - first for time in times]


def _survey(segments: Sequence[Segment]) -> tuple[int, Fraction]:
    """Return depth and lead, in seconds, for the :class:`DecodingOrder` of a video of these pieces."""
    depth, last = 0, Fraction(0)
    tail: list[Fraction] = []
    for segment in segments:
        times = _times(segment)
        shown = sorted(times)
        ranks = {time: rank for rank, time in enumerate(shown)}
        depth = max([depth, *(place - ranks[time] for place, time in enumerate(times))])
        last = next((time for time in shown if time > times[-1]), segment.end) - times[-1]
        tail = [*tail, *shown[-MOST_REORDERED - 1 :]][-MOST_REORDERED - 1 :]
    return depth, segments[-1].end - tail[-1 - depth] - last
