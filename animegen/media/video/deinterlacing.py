"""Whole frames of interlaced ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import av
import av.error
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream


def deinterlaced(frames: Iterator[VideoFrame], stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield as many frames, those that are interlaced made whole by FFmpeg's bwdif; others stay as they are."""
    first = next(frames, None)
    if first is None:
        return
    graph, size = Graph(), (first.width, first.height)
    source, sink = graph.add_buffer(None, *size, first.format, time_base=stream.time_base), graph.add("buffersink")
    bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    for frame in chain([first], frames):
        graph.push(frame)
        yield from _ready(graph)
    graph.push(None)
    yield from _ready(graph)


def _ready(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, VideoFrame)
        yield frame
