"""Preview clips of several runs as one animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageSequence

TITLE_HEIGHT = 14
LARGEST_SIDE = 1200
DEFAULT_MS = 120


def last_clip(folder: Path) -> Path | None:
    """Return the newest preview clip of a run folder, or ``None``."""
    return max(folder.glob("previews/*.gif"), key=lambda path: path.stem, default=None)


def gif_strip(clips: Sequence[tuple[str, Path]]) -> bytes | None:
    """Return preview clips stacked vertically as one GIF, each below its title.

    Shorter clips repeat until the longest ends; the time per frame is that of the first clip.

    Args:
        clips: (title, file).

    Returns:
        The encoded GIF; ``None`` for fewer than two clips.
    """
    if len(clips) < 2:
        return None
    videos = []
    for title, path in clips:
        with Image.open(path) as image:
            videos.append((title, [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]))
    with Image.open(clips[0][1]) as image:
        milliseconds = image.info.get("duration", DEFAULT_MS)
    width = max(frames[0].width for _, frames in videos)
    height = sum(frames[0].height + TITLE_HEIGHT for _, frames in videos)
    strip = []
    for number in range(max(len(frames) for _, frames in videos)):
        canvas = Image.new("RGB", (width, height), "white")
        draw, top = ImageDraw.Draw(canvas), 0
        for title, frames in videos:
            draw.text((2, top + 1), title, fill="black")
            canvas.paste(frames[number % len(frames)], (0, top + TITLE_HEIGHT))
            top += TITLE_HEIGHT + frames[0].height
        canvas.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        strip.append(canvas)
    buffer = io.BytesIO()
    strip[0].save(buffer, "GIF", save_all=True, append_images=strip[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def small_gif(data: bytes, largest: int) -> bytes:
    """Return an animation as GIF of at most ``largest`` bytes, scaled down as far as needed."""
    with Image.open(io.BytesIO(data)) as image:
        milliseconds = image.info.get("duration", DEFAULT_MS)
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]
    while len(data) > largest and max(frames[0].size) >= 64:
        frames = [frame.resize((frame.width * 4 // 5, frame.height * 4 // 5)) for frame in frames]
        buffer = io.BytesIO()
        frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
        data = buffer.getvalue()
    return data
