"""Videos with unusual streams, clocks, tags and rates, written and measured with PyAV alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

WIDTH, HEIGHT, RATE = 64, 48, 48_000
#: Frame at which the video turns from dark to bright, and a tone begins.
FLASH = 12
#: Header of subtitles in FFmpeg's own form.
_ASS = b"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
""".replace(b"\\\n", b"")


@dataclass(frozen=True)
class OddFilm:
    """A film of `count` frames that turns bright at frame `FLASH`, when a tone begins."""

    suffix: str
    codec: str = "libx264"
    sound: str | None = "aac"
    rate: Fraction = Fraction(24)
    count: int = 36
    pix_fmt: str = "yuv420p"
    #: Seconds added to all time stamps, by FFmpeg.
    offset: str | None = None
    #: Time stamps, in frames, of the first frame.
    first: int = 0
    #: Frames after which one lasts twice as long; 0: none.
    uneven: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    timecode: str | None = None
    subtitles: str | None = None
    attachment: bool = False
    cover: bool = False
    chapters: bool = False
    #: How many times the file is put behind itself.
    parts: int = 1
    #: Packets of sound that get the decoding time of the one before.
    repeated: tuple[int, ...] = ()
    second_sound: str | None = None

    def times(self) -> list[Fraction]:
        """Return the times of the frames, in seconds."""
        steps = [n + (n // self.uneven if self.uneven else 0) for n in range(self.count)]
        return [(self.first + step) / self.rate for step in steps]

    def write(self, path: Path) -> Path:
        """Write the video."""
        options = dict(self.options)
        if self.offset is not None:
            options["output_ts_offset"] = self.offset
        whole = path.with_name(f"{path.stem}-whole{path.suffix}") if self.parts > 1 else path
        with av.open(str(whole), "w", container_options=options) as container:
            packets = self._images(container)
            for codec in (self.sound, self.second_sound):
                packets += self._sound(container, codec) if codec else []
            packets += self._texts(container) if self.subtitles else []
            self._rest(container)
            for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
                container.mux(packet)
        if self.parts > 1:
            path.write_bytes(whole.read_bytes() * self.parts)
            whole.unlink()
        return path

    def _images(self, container: Any) -> list[Any]:
        stream = container.add_stream(self.codec, rate=self.rate, width=WIDTH, height=HEIGHT, pix_fmt=self.pix_fmt)
        if self.codec in ("libx264", "libx265"):
            stream.options = {"preset": "ultrafast", "crf": "10", "x265-params": "log-level=error"}
        if self.timecode:
            stream.metadata["timecode"] = self.timecode
        packets = []
        for number, time in enumerate(self.times()):
            image = np.full((HEIGHT, WIDTH, 3), 230 if number >= FLASH else 20, np.uint8)
            image[:4, : 2 + number] = 128
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=self.pix_fmt)
            frame.pts, frame.time_base = round(time * self.rate), 1 / self.rate
            packets += stream.encode(frame)
        return packets + stream.encode(None)

    def _sound(self, container: Any, codec: str) -> list[Any]:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        times, size = self.times(), 1024
        start = max(Fraction(0), times[0]) if self.first >= 0 else times[0]
        samples = int((times[-1] - start + 1 / self.rate) * RATE)
        tone = 0.5 * np.sin(np.arange(samples) / 5).astype(np.float32)
        tone[: int((times[FLASH] - start) * RATE)] = 0
        packets = []
        for begin in range(0, samples - size + 1, size):
            frame = av.AudioFrame.from_ndarray(tone[None, begin : begin + size].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, begin + round(start * RATE), Fraction(1, RATE)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for number in self.repeated:
            packets[number].dts = packets[number].pts = packets[number - 1].dts
        return packets

    def _texts(self, container: Any) -> list[Any]:
        assert self.subtitles is not None
        stream = container.add_stream(self.subtitles)
        stream.time_base = Fraction(1, 1000)
        stream.codec_context.subtitle_header = _ASS
        packets = []
        for number, line in enumerate((b"hello", b"you")):
            text = av.subtitles.subtitle.SubtitleSet.create(b"0,0,Default,,0,0,0,," + line, 0, 400)
            packet = stream.codec_context.encode_subtitle(text)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = 100 + 500 * number
            packet.duration = 400
            packets.append(packet)
        return packets

    def _rest(self, container: Any) -> None:
        container.metadata.update(self.tags)
        if self.attachment:
            container.add_attachment("font.ttf", "application/x-truetype-font", b"\0\1\0\0font")
        if self.cover:
            image = cv2.imencode(".png", np.full((8, 8, 3), 77, np.uint8))[1].tobytes()
            container.add_attachment("cover.png", "image/png", image)
        if self.chapters:
            spans = {"one": (0, 500), "two": (500, 1000)}
            base = Fraction(1, 1000)
            container.set_chapters(
                [
                    {"id": n, "start": start, "end": end, "time_base": base, "metadata": {"title": title}}
                    for n, (title, (start, end)) in enumerate(spans.items(), start=1)
                ]
            )


@dataclass(frozen=True)
class Measured:
    """What a file holds, read with PyAV."""

    kinds: list[tuple[str, str]]
    frames: int
    times: list[Fraction]
    end: Fraction
    rates: tuple[Fraction | None, Fraction | None]
    flash: Fraction
    tone: Fraction | None
    tags: dict[str, str]
    timecode: str | None
    chapters: list[tuple[Fraction, str]]
    texts: list[tuple[Fraction, bytes]]
    codec_tag: str


def measure(path: Path, flash: float = 128) -> Measured:
    """Read a file; ``flash`` is the brightness at which it is bright."""
    with av.open(str(path), metadata_errors="replace") as container:
        images = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        stream = images[0]
        kinds = [(s.type, s.codec_context.name if s.codec_context else "") for s in container.streams]
        times, levels, length = [], [], Fraction(0)
        for frame in container.decode(stream):
            times.append(frame.pts * frame.time_base)
            levels.append(float(frame.to_ndarray(format="gray").mean()))
            length = (frame.duration or 0) * frame.time_base
        bright = [level > flash for level in levels]
        changed = next((n for n, value in enumerate(bright) if value != bright[0]), 0)
        timecodes = [s.metadata["timecode"] for s in container.streams if "timecode" in s.metadata]
        timecodes += [s.metadata["TIMECODE"] for s in container.streams if "TIMECODE" in s.metadata]
        chapters = [(c["start"] * c["time_base"], c["metadata"].get("title", "")) for c in container.chapters()]
        result = Measured(
            kinds=kinds,
            frames=len(times),
            times=times,
            end=times[-1] + length,
            rates=(stream.average_rate, stream.base_rate),
            flash=times[changed],
            tone=None,
            tags={key.lower(): value for key, value in container.metadata.items()},
            timecode=next(iter(timecodes), None),
            chapters=chapters,
            texts=[],
            codec_tag=stream.codec_context.codec_tag if path.suffix in (".mp4", ".mov") else "",
        )
    return replace(result, tone=_tone(path), texts=_texts(path))


def _tone(path: Path) -> Fraction | None:
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0) if container.streams.audio else ():
            loud = np.flatnonzero(np.abs(frame.to_ndarray().astype(np.float64)).max(0) > _loud(frame.format.name))
            if len(loud):
                return frame.pts * frame.time_base + Fraction(int(loud[0]), frame.sample_rate)
    return None


def _loud(name: str) -> float:
    return {"s16": 3000, "s32": 2**28, "u8": 150}.get(name.rstrip("p"), 0.1)


def _texts(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(subtitles=0) if container.streams.subtitles else ()
        return [
            (packet.pts * packet.time_base, rect.dialogue)
            for packet in packets
            if packet.size > 2
            for rect in packet.decode()
        ]
