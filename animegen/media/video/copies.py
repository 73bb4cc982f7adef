"""Streams, tags and chapters that a video takes over from its source: decided by trial before anything is drawn."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.subtitles.stream import SubtitleStream

from animegen.media.video.clock import PRIMING, Continuous
from animegen.media.video.encoding import Encoding, add_stream
from animegen.media.video.reader import open_container, packets

#: Packets of the source that the trial writes.
TRIED = 500
#: Container -> encoders for sound and text that it does not take as they are.
CONVERTED = {
    "mp4": ("aac", "mov_text"),
    "mov": ("aac", "mov_text"),
    "matroska": ("aac", "subrip"),
    "webm": ("libopus", "webvtt"),
}
#: Tags that describe how a file is stored; they would be wrong in a copy.
_STORAGE_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "creation_time", "duration"}
#: The packet between two subtitles of MP4. The muxer adds them.
_MOV_TEXT_GAP = bytes(2)
#: Channels without places -> where they usually are.
_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo", "6 channels": "5.1", "8 channels": "7.1"}
#: Name and type of a cover that has none.
_COVER = {"filename": "cover", "mimetype": "image/png"}
_KINDS = {"audio": "sound", "subtitle": "subtitle", "attachment": "attachment", "video": "image", "data": "data"}


@dataclass(frozen=True)
class Copies:
    """What a video takes over from another.

    Attributes:
        source: the other video.
        origin: its time, in seconds, that becomes zero.
        streams: the number of each stream -> the encoder that converts it; ``None``: its packets are copied.
        tags: of the file.
        timecode: of the first frame, ``hh:mm:ss:ff``.
        chapters: whether there are chapters to take over.
        length: seconds of sound and subtitles that are taken over; ``None``: all.
        notes: a sentence for each thing that is converted or left out.
    """

    source: Path
    origin: Fraction = Fraction(0)
    streams: Mapping[int, str | None] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    timecode: str | None = None
    chapters: bool = False
    length: Fraction | None = None
    notes: tuple[str, ...] = ()

    def without(self, stream: int | None) -> Copies:
        """Return the copies without a stream that was refused after all, or without any (``None``)."""
        kept = {} if stream is None else {index: codec for index, codec in self.streams.items() if index != stream}
        what = "Sound, subtitles and tags" if stream is None else f"Stream {stream}"
        note = f"{what} of '{self.source}' cannot be stored in this file and were left out."
        rest = replace(self, streams=kept, notes=(*self.notes, note))
        return replace(rest, tags={}, timecode=None, chapters=False) if stream is None else rest

    @property
    def empty(self) -> bool:
        """Whether nothing is taken over."""
        return not (self.streams or self.tags or self.timecode or self.chapters)


def plan_copies(
    source: Path,
    container: str,
    encoding: Encoding,
    rate: Fraction,
    origin: Fraction,
    length: Fraction | None = None,
    timecodes: bool = True,
) -> Copies:
    """Decide what a video takes over from its source, by writing the beginning of the file in memory.

    Args:
        source: the video whose sound, subtitles, attachments, cover, chapters and tags are wanted.
        container: FFmpeg's name of the container.
        encoding: of the images.
        rate: frames per second.
        origin: the source's time, in seconds, that becomes zero.
        length: seconds that are taken over; ``None``: all.
        timecodes: whether the first frame is the source's, so that its time code holds.

    Raises:
        AnimegenError: if the source cannot be read, or the encoding does not fit.
    """
    chosen, notes = dict[int, str | None](), list[str]()
    keeps = "" if container == "matroska" else "; .mkv keeps it"
    with open_container(source) as original:
        tags = {k: v for k, v in original.metadata.items() if k.lower() not in (*_STORAGE_TAGS, "timecode")}
        timecode = _timecode(original) if timecodes else None
        images = [stream for stream in original.streams.video if not _is_cover(stream)]
        for stream in original.streams:
            if stream in images[:1] or (stream.type == "data" and "timecode" in stream.metadata):
                continue
            name = f"The {_KINDS.get(stream.type, stream.type)} stream {stream.index} ({_codec(stream)}) of '{source}'"
            tried = [codec for codec in _ways(stream, container) if _fits(source, container, {stream.index: codec})]
            if not tried or stream in images:
                notes.append(f"{name} does not fit {container} and was left out{keeps}.")
                continue
            chosen[stream.index] = tried[0]
            if tried[0] is not None:
                notes.append(f"{name} does not fit {container} and is converted to {tried[0]}{keeps}.")
        chapters = bool(original.chapters())
    whole = Copies(source, origin, chosen, tags, timecode, chapters, length, tuple(notes))
    if timecode is not None and not _counts(timecode, rate):
        note = f"The time code {timecode} of '{source}' does not fit {container} at {rate} frames/s and was left out."
        whole = replace(whole, timecode=None, notes=(*whole.notes, note))
    return whole if _trial(whole, container, encoding, rate) else whole.without(None)


def copied(
    original: InputContainer, output: OutputContainer, copies: Copies, video: Stream | None, most: int | None = None
) -> Iterator[Packet]:
    """Add streams, tags and chapters to a file that is being written; yield the packets, in order of decoding.

    Args:
        original: the source.
        output: a file whose header is not written.
        copies: what to take over.
        video: the stream of images, which gets the time code.
        most: packets of the source that are read; ``None``: all.
    """
    tracks = {index: _track(original.streams[index], output, codec) for index, codec in copies.streams.items()}
    output.metadata.update(copies.tags)
    if copies.timecode is not None and video is not None:
        video.metadata["timecode"] = copies.timecode
    if copies.chapters:
        output.set_chapters(list(_chapters(original, copies)))
    running = {index: track for index, track in tracks.items() if track is not None}
    return _packets(original, running, copies, most)


def _packets(
    original: InputContainer, tracks: Mapping[int, _Track], copies: Copies, most: int | None
) -> Iterator[Packet]:
    # Damage is reported by the reader of the images.
    clocks = {index: _Clock(original, copies) for index in tracks}
    for packet in islice(packets(original, lambda problem: None), most):
        track = tracks.get(packet.stream_index)
        if track is not None and packet.size and _is_cover(track.stream):
            packet.pts = packet.dts = 0
            yield from track.add(packet)
        elif track is not None and packet.dts is not None and clocks[packet.stream_index].set(packet):
            yield from track.add(packet)
    for track in tracks.values():
        yield from track.rest()


class _Clock:
    """Make the time stamps of a stream's packets rise from the video's origin."""

    def __init__(self, original: InputContainer, copies: Copies) -> None:
        self._continuous, self._origin, self._last = Continuous(original), copies.origin, -(10**18)
        self._length = copies.length

    def set(self, packet: Packet) -> bool:
        """Correct the times of the next packet; return whether it is to be heard or seen."""
        assert packet.dts is not None
        base = Fraction(packet.time_base)
        late = 0 if packet.pts is None else packet.pts - packet.dts
        time = self._continuous(packet.dts * base, (packet.duration or 0) * base) - self._origin
        if time + (packet.duration or 0) * base < -PRIMING or (self._length is not None and time >= self._length):
            return False
        packet.dts = self._last = max(round(time / base), self._last + 1)
        packet.pts = packet.dts + max(late, 0)
        return True


class _Track:
    """A stream whose packets are copied."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def add(self, packet: Packet) -> Iterator[Packet]:
        """Yield what becomes of the next packet."""
        packet.stream = self.stream
        if self.stream.type != "subtitle" or bytes(packet) != _MOV_TEXT_GAP:
            yield packet

    def rest(self) -> Iterator[Packet]:
        """Yield what is left at the end."""
        yield from ()


class _Sound(_Track):
    """Sound that is encoded again."""

    stream: AudioStream

    def __init__(self, stream: AudioStream, source: AudioStream) -> None:
        super().__init__(stream)
        self._source = source

    def add(self, packet: Packet) -> Iterator[Packet]:
        """Yield the next encoded packets; those that cannot be decoded are left out."""
        try:
            frames = self._source.decode(packet)
        except av.error.FFmpegError:
            return
        for frame in frames:
            yield from self.stream.encode(frame)

    def rest(self) -> Iterator[Packet]:
        """Yield what is left at the end."""
        yield from self.stream.encode(None)


class _Text(_Track):
    """Subtitles that are encoded again."""

    stream: SubtitleStream

    def __init__(self, stream: SubtitleStream, source: SubtitleStream) -> None:
        super().__init__(stream)
        self._source = source

    def add(self, packet: Packet) -> Iterator[Packet]:
        """Yield the next encoded subtitle."""
        if not packet.size or bytes(packet) == _MOV_TEXT_GAP:
            return
        found = self._source.codec_context.decode2(packet)
        if found is None:
            return
        encoded = self.stream.codec_context.encode_subtitle(found)
        encoded.stream, encoded.time_base = self.stream, packet.time_base
        encoded.pts = encoded.dts = packet.pts
        encoded.duration = packet.duration
        yield encoded


def _track(source: Stream, output: OutputContainer, codec: str | None) -> _Track | None:
    """Add a stream to a file; ``None`` if it has no packets."""
    track: _Track
    if _is_cover(source) and output.format.name == "matroska":
        # There covers are attachments, which FFmpeg shows as images.
        with open_container(Path(source.container.name)) as again:
            image = next(bytes(packet) for packet in again.demux(again.streams[source.index]) if packet.size)
        name, kind = (source.metadata.get(key, usual) for key, usual in _COVER.items())
        output.add_attachment(name, kind, image)
        return None
    if isinstance(source, AudioStream) and codec is not None:
        sound = output.add_stream(codec, rate=48_000 if codec == "libopus" else source.rate)
        assert isinstance(sound, AudioStream)
        sound.layout = _LAYOUTS.get(source.layout.name, source.layout)
        track = _Sound(sound, source)
    elif isinstance(source, SubtitleStream) and codec is not None:
        text = output.add_stream(codec)
        assert isinstance(text, SubtitleStream)
        text.time_base = Fraction(1, 1000)
        text.codec_context.subtitle_header = _header(source)
        track = _Text(text, source)
    else:
        track = _Track(output.add_stream_from_template(source, opaque=True))
    track.stream.metadata.update(source.metadata)
    track.stream.disposition = source.disposition
    return None if source.type == "attachment" else track


def _header(source: SubtitleStream) -> bytes | None:
    source.codec_context.open(strict=False)
    return source.codec_context.subtitle_header


def _ways(stream: Stream, container: str) -> list[str | None]:
    """Return the ways to take a stream over, the best one first: copied (``None``), or by which encoder."""
    if stream.type == "attachment":
        return [None] if container == "matroska" else []  # others write a file that cannot be read
    if stream.type == "audio":
        return [None, CONVERTED[container][0]]
    if stream.type == "subtitle":
        is_text = stream.codec_context is not None and stream.codec_context.codec.text_sub
        return [None, CONVERTED[container][1]] if is_text else [None]
    # Others leave a cover out without an error.
    return [None] if _is_cover(stream) and container in ("mp4", "matroska") else []


def _fits(source: Path, container: str, streams: Mapping[int, str | None]) -> bool:
    return _trial(Copies(source, streams=streams), container)


def _trial(copies: Copies, container: str, encoding: Encoding | None = None, rate: Fraction = Fraction(1)) -> bool:
    """Tell whether the beginning of a file can be written in memory."""
    with open_container(copies.source) as original:
        try:
            with av.open(io.BytesIO(), "w", format=container) as output:
                video = None if encoding is None else add_stream(output, encoding, 64, 64, rate, 1 / rate)
                queue = copied(original, output, copies, video, TRIED)
                output.start_encoding()
                for packet in queue:
                    output.mux(packet)
        except (ValueError, av.error.FFmpegError):
            return False
    return True


def _counts(timecode: str, rate: Fraction) -> bool:
    """Tell whether there is such a time code at a rate (SMPTE ST 12-1); a semicolon drops numbers at 30000/1001."""
    parts = re.fullmatch(r"\d\d:\d\d:\d\d([:;.])(\d\d)", timecode)
    drops = parts is not None and parts[1] != ":"
    return parts is not None and int(parts[2]) < rate and not (drops and rate % Fraction(30000, 1001))


def _timecode(original: InputContainer) -> str | None:
    places = (original.metadata, *(stream.metadata for stream in original.streams if stream.type in ("video", "data")))
    found = (value for tags in places for key, value in tags.items() if key.lower() == "timecode")
    return next(found, None)


def _chapters(original: InputContainer, copies: Copies) -> Iterator[Any]:
    """Yield the chapters that lie in the part that is taken over."""
    for chapter in original.chapters():
        base = chapter["time_base"] or Fraction(1, 1_000_000)
        shift = round(copies.origin / base)
        start, end = (max(0, chapter[key] - shift) for key in ("start", "end"))
        if end > 0 and (copies.length is None or start * base < copies.length):
            yield {**chapter, "start": start, "end": end}


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _codec(stream: Stream) -> str:
    return stream.codec_context.name if stream.codec_context else getattr(stream, "name", None) or "none"
