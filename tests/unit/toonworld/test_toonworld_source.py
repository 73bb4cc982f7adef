import pickle

import numpy as np
import pytest
import torch

from animegen.errors import AnimegenError
from animegen.toonworld import LOOKS, Scene, ToonWorldClips, ToonWorldImages, draw
from animegen.toonworld.source import spread_times

SMALL = {"scenes": 3, "frames_per_scene": 2, "size": 32, "frames": 8}


def test_times_are_spread_evenly():
    assert spread_times(48, 1) == [24]
    assert spread_times(48, 4) == [6, 18, 30, 42]
    assert spread_times(3, 3) == [0, 1, 2]


def test_images_are_frames_of_their_scenes():
    source = ToonWorldImages("dusk", "val", first_scene=5, **SMALL)
    assert len(source) == 6
    assert source.name(3) == "val-0006-t006-dusk"
    image = source.image(3)
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.uint8
    expected = Scene(0, "val", 6, 32, frames=8, hold=1).anime(6, "dusk")
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)
    assert len({source.name(i) for i in range(6)}) == 6


def test_all_caches_hold_the_same_pictures(tmp_path):
    memory = ToonWorldImages("photo", **SMALL)
    none = ToonWorldImages("photo", cache="none", **SMALL)
    folder = ToonWorldImages("photo", cache=str(tmp_path / "cache"), **SMALL)
    again = ToonWorldImages("photo", cache=str(tmp_path / "cache"), **SMALL)
    for i in (5, 0, 3):
        for source in (none, folder, again):
            assert torch.equal(source.image(i), memory.image(i))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.cache_file().name]
    memory.image(0).zero_()  # a caller may write into what it got
    assert memory.image(0).any()


def test_the_cache_file_is_named_by_its_parameters(tmp_path, monkeypatch):
    base = ToonWorldImages("photo", cache=str(tmp_path), **SMALL).cache_file()
    others = [{"seed": 1}, {"first_scene": 1}, {"hold": 2}, {"speed": 0.5}, {"split": "val"}]
    files = {ToonWorldImages("photo", cache=str(tmp_path), **SMALL, **other).cache_file() for other in others}
    files |= {ToonWorldImages(look, cache=str(tmp_path), **SMALL).cache_file() for look in LOOKS}
    assert len(files) == 9
    assert base in files
    monkeypatch.setattr("animegen.toonworld.source.VERSION", -1)
    assert ToonWorldImages("photo", cache=str(tmp_path), **SMALL).cache_file() not in files


def test_an_unfinished_cache_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    source = ToonWorldImages("photo", cache=str(tmp_path), progress=stop, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        source.prepare()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    source = ToonWorldImages("photo", cache=str(tmp_path / "file"), **SMALL)
    with pytest.raises(AnimegenError, match="set cache to memory, none or a writable folder"):
        source.image(0)


@pytest.mark.parametrize("cache", ["memory", "none", "folder"])
def test_sources_travel_to_workers(cache, tmp_path):
    source = ToonWorldImages("meadow", cache=str(tmp_path) if cache == "folder" else cache, **SMALL)
    expected = source.image(4)
    assert torch.equal(pickle.loads(pickle.dumps(source)).image(4), expected)


def test_a_pool_draws_the_same_and_tells_its_progress():
    seen = []
    pool = ToonWorldImages("photo", workers=2, progress=lambda done, total: seen.append((done, total)), **SMALL)
    assert torch.equal(pool.image(5), ToonWorldImages("photo", **SMALL).image(5))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_draw_pairs_the_looks():
    drawn = draw(("photo", "print"), **SMALL)
    assert {look: array.shape for look, array in drawn.items()} == {"photo": (6, 3, 32, 32), "print": (6, 3, 32, 32)}
    np.testing.assert_array_equal(drawn["print"][2], ToonWorldImages("print", **SMALL).image(2).numpy())


def test_clips_carry_their_truth():
    source = ToonWorldClips("val", scenes=2, frames=4, size=(32, 48), style="print", hold=1, first_scene=7)
    clip = source.clip(1)
    assert (len(source), source.name(1)) == (2, "val-0008-print")
    shapes = {kind: tuple(value.shape) for kind, value in clip.items()}
    assert shapes == {
        "photo": (4, 3, 32, 48),
        "anime": (4, 3, 32, 48),
        "labels": (4, 32, 48),
        "flow_forward": (3, 2, 32, 48),
        "flow_backward": (3, 2, 32, 48),
        "visibility_forward": (3, 32, 48),
        "visibility_backward": (3, 32, 48),
    }
    scene = Scene(0, "val", 8, (32, 48), frames=4, hold=1)
    np.testing.assert_array_equal(clip["flow_backward"][1].numpy(), scene.flow(2, 1))
    np.testing.assert_array_equal(clip["visibility_forward"][2].numpy(), scene.visibility(2, 3))
    np.testing.assert_array_equal(clip["anime"][3].permute(1, 2, 0).numpy(), scene.anime(3, "print"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ToonWorldImages("foto"), "Did you mean 'photo'"),
        (lambda: ToonWorldImages("photo", "validation"), "choose one of train, val, test"),
        (lambda: ToonWorldImages("photo", size=4), "set size to 16 or more"),
        (lambda: ToonWorldImages("photo", scenes=0), "scenes >= 1"),
        (lambda: ToonWorldImages("photo", frames=4, frames_per_scene=5), "from 1 to frames=4"),
        (lambda: ToonWorldClips(style="photo"), "no style 'photo'"),
        (lambda: ToonWorldClips(frames=1), "frames >= 2"),
        (lambda: draw(("phot",)), "Did you mean 'photo'"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(AnimegenError, match=message):
        make()


def test_in_look_is_the_same_geometry_in_another_look() -> None:
    photos = ToonWorldImages("photo", scenes=1, first_scene=3, size=32, frames_per_scene=2)
    drawn = photos.in_look("dusk")
    expected = ToonWorldImages("dusk", scenes=1, first_scene=3, size=32, frames_per_scene=2)
    assert drawn.name(1) == expected.name(1)
    assert torch.equal(drawn.image(1), expected.image(1))
