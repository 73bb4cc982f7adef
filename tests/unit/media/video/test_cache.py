"""The cache of decoded videos."""

from __future__ import annotations

import os
import pickle
from collections import namedtuple
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from animegen.errors import AnimegenError
from animegen.media.photos import resize
from animegen.media.video import cache
from animegen.media.video.cache import cached_clip
from animegen.media.video.reader import VideoReader
from tests.video_support import noise, write_film


def test_random_access_equals_decoding(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", [noise(n, 32, 48) for n in range(20)])
    read = list(VideoReader(path))
    clip = cached_clip(path, tmp_path / "cache")
    assert clip.shape == (20, 3, 32, 48)
    assert clip.times == tuple(time for _, time in read)
    for number in (13, 2, 19, 0, -1, 7):
        assert torch.equal(clip[number], read[number][0])
    again = pickle.loads(pickle.dumps(clip))
    assert torch.equal(again[5], read[5][0])


def test_smaller_frames(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", [noise(n, 32, 48) for n in range(3)])
    clip = cached_clip(path, tmp_path / "cache", short_side=16)
    assert clip.shape == (3, 3, 16, 24)
    assert torch.equal(clip[1], resize(VideoReader(path).at(Fraction(1, 24)), 16, 24))
    assert cached_clip(path, tmp_path / "cache", short_side=99).shape == (3, 3, 32, 48)


def test_decoded_once_and_again_when_the_video_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_film(tmp_path / "film.mp4", [noise(0)])
    opened = []
    monkeypatch.setattr(cache, "open_video", lambda film: opened.append(film) or VideoReader(film))
    for _ in range(3):
        cached_clip(path, tmp_path / "cache")
    assert len(opened) == 1
    write_film(path, [noise(1), noise(2)])
    assert len(cached_clip(path, tmp_path / "cache")) == 2
    os.utime(path, ns=(1, 1))
    cached_clip(path, tmp_path / "cache")
    assert len(opened) == 3


def test_nothing_is_left_of_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_film(tmp_path / "film.mp4", [noise(n) for n in range(3)])
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage(free=1000))
    with pytest.raises(AnimegenError, match=r"GiB when decoded, more than is free"):
        cached_clip(path, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(AnimegenError, match="does not exist"):
        cached_clip(tmp_path / "none.mp4", tmp_path / "cache")
