"""Copying packets between files without decoding: joins segments, copies sound and subtitles."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from animegen.errors import AnimegenError
from animegen.files import translate_io_errors
from animegen.media.video.encoding import container_of
from animegen.media.video.reader import base_of, open_container, packets

#: Tags that describe how a file is stored; they would be wrong in a copy.
_STORAGE_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "creation_time", "duration"}


#: Frames that H.264 and H.265 may hold back (ITU-T H.264, A.3.1; H.265, A.4.2). Encoders hold back fewer, but not
#: all say how many.
MOST_REORDERED = 16
#: The packet between two subtitles of MP4. The muxer adds them.
MOV_TEXT_GAP = bytes(2)


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
    segments: Sequence[Segment], target: Path, source: Path | None = None, container: Path | None = None
) -> list[str]:
    """Join segments of the same encoding into one video, with the sound and subtitles of another video.

    Only the time stamps of packets change. Presentation times are exact up to the resolution of the container (in
    Matroska 1 ms, in MP4 that of the segments); decoding times are assigned again, since they would overlap at the
    joints.

    Args:
        segments: in their order.
        target: where to write; not hidden and not atomic, see :class:`~animegen.media.video.writer.VideoWriter`.
        source: video whose audio, subtitle and attachment streams, chapters and tags are copied.
        container: the name by whose suffix the container is chosen, if it is not ``target``.

    Returns:
        A sentence for each stream that was left out.

    Raises:
        AnimegenError: if the pieces do not fit together, a sound track does not fit the container, or the disk is full.
    """
    notes: list[str] = []
    name = container_of(container or target)
    with ExitStack() as stack:
        first = stack.enter_context(open_container(segments[0].path))
        template = first.streams.video[0]
        # Sound may begin before the images, with samples that are not heard; nothing is shifted for it.
        options = {"avoid_negative_ts": "disabled"}
        if name in ("mp4", "mov"):
            # When the video begins late, the delay is written in the movie's time scale, of 1 ms unless it is set.
            options |= {"movie_timescale": str(base_of(template).denominator), "movflags": "+faststart"}
        stack.enter_context(translate_io_errors(container or target, "written", also=(av.error.FFmpegError,)))
        output = stack.enter_context(av.open(str(target), "w", format=name, container_options=options))
        stream = output.add_stream_from_template(template, opaque=True)
        stream.time_base = base_of(template)
        queues = [_video(segments, stream, template.codec_context.extradata)]
        if source is not None:
            original = stack.enter_context(open_container(source))
            copied = _add_streams(original, output, source, notes)
            output.metadata.update({k: v for k, v in original.metadata.items() if k.lower() not in _STORAGE_TAGS})
            output.set_chapters(original.chapters())
            queues.append(_copied(original, copied))
        for packet in heapq.merge(*queues, key=_moment):
            output.mux(packet)
    return notes


def check_streams(source: Path, target: Path) -> None:
    """Check before any work that the sound of ``source`` can be stored in a video of the name ``target``.

    Raises:
        AnimegenError: if not.
    """
    with open_container(source) as original, av.open(io.BytesIO(), "w", format=container_of(target)) as output:
        _add_streams(original, output, source, [])


def _add_streams(
    original: InputContainer, output: OutputContainer, source: Path, notes: list[str]
) -> dict[int, Stream]:
    """Add the streams that are copied; return them by their number in the source."""
    added: dict[int, Stream] = {}
    for stream in original.streams:
        if stream.type not in ("audio", "subtitle", "attachment"):
            continue
        codec = stream.codec_context.name if stream.codec_context else "none"
        try:
            copy = output.add_stream_from_template(stream)
        except (ValueError, av.error.FFmpegError) as error:
            if stream.type == "audio":
                raise AnimegenError(
                    f"The sound of '{source}' ({codec}) cannot be stored in {output.format.name}: write an .mkv file."
                ) from error
            notes.append(
                f"The {stream.type} stream {stream.index} ({codec}) of '{source}' does not fit"
                f" {output.format.name} and was left out; .mkv keeps it."
            )
            continue
        copy.metadata.update(stream.metadata)
        if stream.type != "attachment":
            copy.disposition = stream.disposition
            added[stream.index] = copy
    return added


def _moment(packet: Packet) -> float:
    assert packet.dts is not None
    return float(packet.dts * packet.time_base)


def _copied(original: InputContainer, streams: dict[int, Stream]) -> Iterator[Packet]:
    # Damage is reported by the reader of the frames.
    for packet in packets(original, lambda problem: None):
        if packet.stream_index in streams and packet.dts is not None:
            packet.stream = streams[packet.stream_index]
            if packet.stream.type != "subtitle" or bytes(packet) != MOV_TEXT_GAP:
                yield packet


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
                raise AnimegenError(
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
        return [segment.start + packet.pts * base for packet in container.demux(video=0) if packet.pts is not None]


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
