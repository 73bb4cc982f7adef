"""Moving previews of runs, one above the other."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from animegen.reports.clips import TITLE_HEIGHT, gif_strip, last_clip


def gif(path: Path, greys: list[int], size: tuple[int, int] = (40, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.new("L", size, grey) for grey in greys]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, loop=0)
    return path


def test_clips_move_together(tmp_path: Path) -> None:
    long = gif(tmp_path / "a/previews/step-0000010.gif", [0, 60, 120])
    short = gif(tmp_path / "b/previews/step-0000010.gif", [200, 100], (30, 10))
    data = gif_strip([("one", long), ("two", short)])
    assert data is not None
    with Image.open(io.BytesIO(data)) as strip:
        assert strip.size == (40, 20 + 10 + 2 * TITLE_HEIGHT)
        assert strip.n_frames == 3
        assert strip.info["duration"] == 50
        seen = []
        for number in range(3):
            strip.seek(number)
            pixels = np.asarray(strip.convert("L")).astype(int)
            seen.append((pixels[TITLE_HEIGHT + 10, 20], pixels[-5, 15]))
    assert np.abs(np.array(seen) - [[0, 200], [60, 100], [120, 200]]).max() <= 8
    assert gif_strip([("one", long)]) is None


def test_the_newest_clip(tmp_path: Path) -> None:
    assert last_clip(tmp_path) is None
    gif(tmp_path / "previews/step-0000002.gif", [0, 9])
    newest = gif(tmp_path / "previews/step-0000010.gif", [0, 9])
    assert last_clip(tmp_path) == newest
