"""The files of a training: found however sources are wrapped, packed into checkpoints, and compared."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import pytest
import torch

from animegen.data import Holdout, ImageFolder, PairedView, UnpairedView
from animegen.data.clips import TripletFolders
from animegen.data.clips.sources import MixedClips
from animegen.data.clips.videos import VideoWindows
from animegen.data.clips.view import ClipView
from animegen.data.memory import InMemory
from animegen.data.training_files import check_same_files, pack, same_data, training_files, unpack
from animegen.errors import AnimegenError
from animegen.media.images import list_images, visible_files, write_image
from animegen.outputs import OutputFolder
from animegen.toonworld import ToonWorldImages


def images(folder: Path, *names: str) -> Path:
    for name in names:
        write_image(folder / name, torch.zeros(3, 20, 24, dtype=torch.uint8))
    return folder


def names(files: dict[str, int], root: Path) -> list[str]:
    return sorted(Path(path).relative_to(root).as_posix() for path in files)


def test_files_of_wrapped_sources(tmp_path: Path) -> None:
    photos, anime = images(tmp_path / "photos", "1.png", "2.png"), images(tmp_path / "anime", "1.png", "2.png")
    held = Holdout(ImageFolder(photos), share=0.3)
    files = training_files(PairedView(held, InMemory(ImageFolder(anime), 16, 1), size=16, match="name"))
    assert names(files, tmp_path) == ["anime/1.png", "anime/2.png", "photos/1.png", "photos/2.png"]
    assert files[str(photos / "1.png")] == (photos / "1.png").stat().st_size
    mixed = UnpairedView(ToonWorldImages("photo", scenes=1, frames_per_scene=1, size=16), ImageFolder(anime), size=16)
    assert names(training_files(mixed), tmp_path) == ["anime/1.png", "anime/2.png"]
    assert training_files(None) == {}


def test_files_of_clips_and_videos(tmp_path: Path) -> None:
    for clip in "abc":
        images(tmp_path / "clips" / clip, "1.png", "2.png", "3.png")
    source = MixedClips({"folder": TripletFolders(tmp_path / "clips", split="all")}, {"folder": 2})
    files = training_files(ClipView(source, size=16))
    assert names(files, tmp_path) == sorted(f"clips/{clip}/{n}.png" for clip in "abc" for n in (1, 2, 3))
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "one.mp4").write_bytes(b"12345")
    assert training_files(VideoWindows(tmp_path / "films")) == {str(tmp_path / "films" / "one.mp4"): 5}


def test_lists_are_packed_whole() -> None:
    files = {"a b/ü\udcff.png": 12, "a\nb.png": 0, "/x/1.png": 5}
    packed = pack(files)
    assert packed.isascii()
    assert unpack(packed) == files
    assert unpack(pack({})) == {}
    many = {f"data/sequences/{n:05d}/im1.png": 12_000 + n % 97 for n in range(20_000)}
    assert unpack(pack(many)) == many
    assert len(pack(many)) < 200_000
    for damaged in ("", "a", packed[:-8], "${a}", base64.b64encode(zlib.compress(bytes(2**29))).decode()):
        with pytest.raises(AnimegenError, match="list of training files in the checkpoint is damaged"):
            unpack(damaged)


def test_every_change_is_named() -> None:
    then = {"a.png": 1, "b.png": 2, "c.png": 3}
    check_same_files(then, dict(reversed(then.items())), "runs/a")
    with pytest.raises(AnimegenError, match=r"1 added \(such as 'd.png'\), 2 removed \(such as 'a.png'\), 1 changed"):
        check_same_files(then, {"c.png": 4, "d.png": 1}, "runs/a")


def test_what_does_not_change_the_samples_is_ignored() -> None:
    assert same_data({"photos": "a", "num_workers": 0}, {"photos": "a", "num_workers": 4, "pin_memory": True})
    assert not same_data({"photos": "a"}, {"photos": "b"})
    assert not same_data({"photos": "a"}, {"photos": "a", "holdout": 0.1})


def test_runs_and_evaluations_are_no_data(tmp_path: Path) -> None:
    images(tmp_path, "1.png", "shots/2.png", "run/previews/3.png", "shots/old/samples/4.png", "scores/5.png")
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "shots" / "old" / "run.json").write_text("{}")
    with OutputFolder(tmp_path / "scores").held():
        OutputFolder(tmp_path / "scores").claim(["scores.json"])
        (tmp_path / "scores" / "scores.json").write_text("{}")
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == ["1.png", "shots/2.png"]
    # Named itself, such a folder is read, without what was recorded in it.
    assert [path.name for path in list_images(tmp_path / "run")] == ["3.png"]
    with OutputFolder(tmp_path).held():
        OutputFolder(tmp_path).claim(["shots/*.png"], check=False)
    assert [path.name for path in visible_files(tmp_path)] == ["1.png"]
