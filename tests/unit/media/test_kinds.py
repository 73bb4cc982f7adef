"""Files are distinguished by their content, and by their suffix only if that is unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animegen.errors import AnimegenError
from animegen.media.images import read_image
from animegen.media.kinds import Kind, kind_of, kinds_in
from tests.odd_films import OddFilm

FRAMES = [Image.fromarray(np.full((8, 12, 3), value, np.uint8)) for value in (10, 120, 250)]


def test_kinds(tmp_path: Path) -> None:
    stills = {"b.jfif": "JPEG", "c.jpe": "JPEG", "d.tga": "TGA", "wrong.mp4": "PNG", "none": "PNG"}
    for name, format_ in stills.items():
        FRAMES[0].save(tmp_path / name, format=format_)
    for name, format_ in (("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.png", "PNG"), ("anim.jpg", "WEBP")):
        FRAMES[0].save(tmp_path / name, format=format_, save_all=True, append_images=FRAMES[1:], duration=40)
    FRAMES[0].save(tmp_path / "still.gif")
    OddFilm(".mpg", "mpeg2video", "mp2").write(tmp_path / "e.mpg").rename(tmp_path / "e.vob")
    OddFilm(".mp4").write(tmp_path / "f.mp4").rename(tmp_path / "f.jpg")
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 64)
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nf.jpg\n")
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    found = {path.name: kind for path, kind in kinds_in(tmp_path).items()}
    images = {"b.jfif", "c.jpe", "d.tga", "wrong.mp4", "none", "still.gif", "IMG_1.HEIC"}
    assert {name for name, kind in found.items() if kind is Kind.image} == images
    assert {name for name, kind in found.items() if kind is Kind.animation} == {"a.gif", "a.webp", "a.png", "anim.jpg"}
    assert {name for name, kind in found.items() if kind is Kind.video} == {"e.vob", "f.jpg", "broken.mp4"}
    assert {name for name, kind in found.items() if kind is None} == {"notes.txt", "list.m3u8", "data.bin"}
    with pytest.raises(AnimegenError, match=r"'animegen\[heic\]'"):
        read_image(tmp_path / "IMG_1.HEIC")
    with pytest.raises(AnimegenError, match="does not exist"):
        kind_of(tmp_path / "missing.png")
