import hashlib
import pickle

import numpy as np
import pytest

from animegen.errors import AnimegenError
from animegen.toonworld import SEMANTIC_CLASSES, STYLES, Scene


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


PINNED = {
    ("train", 0): ("b5117dcca410d80d", "bf49188aebad41e9"),
    ("val", 3): ("fe90fbcb6e4337f2", "18090e0f1c10063f"),
    ("test", 8): ("9d0ac356fe123c61", "cab17f05a7b7cac9"),
}


@pytest.mark.parametrize(("split", "index"), [("train", 0), ("val", 3), ("test", 8)])
def test_labels_and_poses_are_pinned(split, index):
    # Exact on every machine; if drawing changes on purpose, raise VERSION and pin anew.
    scene = Scene(0, split, index, 64)
    assert (digest(scene.labels(11)), digest(scene.poses(11))) == PINNED[split, index]


def test_a_frame_does_not_depend_on_what_was_drawn_before():
    one, two = Scene(0, "train", 5, 64), Scene(0, "train", 5, 64)
    for t in (9, 2, 30, 9, 7):
        two.photo(t)
        two.anime(t, "dusk")
        two.visibility(t, t + 1)
    np.testing.assert_array_equal(one.photo(9), two.photo(9))
    for style in STYLES:
        np.testing.assert_array_equal(one.anime(9, style), two.anime(9, style))
    copy = pickle.loads(pickle.dumps(two))
    np.testing.assert_array_equal(copy.photo(3), one.photo(3))


def test_shapes_and_types():
    scene = Scene(0, "train", 1, (48, 80), frames=5)
    assert scene.photo(4).shape == scene.anime(4, "print").shape == (48, 80, 3)
    assert scene.photo(4).dtype == scene.anime(4, "print").dtype == np.uint8
    assert scene.labels(4).shape == scene.semantic(4).shape == scene.visibility(4, 0).shape == (48, 80)
    assert scene.poses(4).shape == (len(scene.stage.parts), 3, 3)
    assert scene.semantic(4).max() < len(SEMANTIC_CLASSES)


def test_other_seeds_splits_and_numbers_are_other_worlds():
    base = Scene(0, "train", 0, 64).labels(0)
    for seed, split, index in ((1, "train", 0), (0, "val", 0), (0, "test", 0), (0, "train", 1)):
        assert (Scene(seed, split, index, 64).labels(0) != base).mean() > 0.2
    seen = {digest(Scene(0, split, index, 32).labels(0)) for split in ("train", "val", "test") for index in range(20)}
    assert len(seen) == 60


def test_the_resolution_does_not_change_the_scene():
    small, large = Scene(0, "train", 6, 64, grain=False), Scene(0, "train", 6, 192, grain=False)
    assert (large.labels(10)[1::3, 1::3] != small.labels(10)).mean() < 0.02
    shrunk = large.photo(10).reshape(64, 3, 64, 3, 3).mean((1, 3))
    assert np.abs(shrunk - small.photo(10)).mean() < 5  # the same textures and tints, resampled


def test_hold_repeats_drawings_under_a_moving_camera():
    scene = Scene(0, "train", 0, 64, hold=3, frames=24)
    number = next(k for k, part in enumerate(scene.stage.parts) if part.name.endswith("front_hair"))
    local, screen = scene.stage.poses[number], [scene.poses(t)[number] for t in range(24)]
    for t in range(12, 21):
        held = t % 3 != 0
        assert np.array_equal(local[t], local[t - 1]) == held
        assert not np.array_equal(screen[t], screen[t - 1])
    ones = Scene(0, "train", 0, 64, hold=1, frames=24)
    np.testing.assert_array_equal(ones.stage.poses[number][12], local[12])  # a held drawing is one of those on ones
    assert not np.array_equal(ones.stage.poses[number][12], ones.stage.poses[number][13])


def test_speed_and_hold_are_drawn_from_their_ranges():
    scenes = [Scene(0, "train", index, 16) for index in range(40)]
    assert all(0.25 <= scene.speed < 0.6 for scene in scenes)
    assert {scene.hold for scene in scenes} == {1, 2, 3}


def test_worlds_are_well_filled():
    people, sky, levels = [], [], []
    for index in range(40):
        scene = Scene(0, "train", index, 48)
        assert 40 <= len(scene.stage.parts) <= 200
        is_person = np.array([part.name.startswith("person") for part in scene.stage.parts])
        people.append(is_person[scene.labels(24)].mean())
        sky.append((scene.semantic(24) == SEMANTIC_CLASSES.index("sky")).mean())
        levels.append(scene.photo(24).mean())
    assert min(people) > 0.02
    assert 0.13 < np.median(people) < 0.25
    assert 0.15 < np.median(sky) < 0.30
    assert 104 < np.median(levels) < 148


def test_blinking_eyes_keep_an_inverse():
    scene = Scene(0, "train", 0, 64, frames=60, hold=1)
    eyes = [k for k, part in enumerate(scene.stage.parts) if "/eye_" in part.name]
    heights = np.array([np.linalg.norm(scene.poses(t)[eyes][:, :2, 1], axis=1) for t in range(60)])
    widths = np.array([np.linalg.norm(scene.poses(t)[eyes][:, :2, 0], axis=1) for t in range(60)])
    ratio = heights / widths
    assert 0.09 < ratio.min() < 0.5
    assert ratio.max() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "trian"}, "Did you mean 'train'"),
        ({"size": 8}, "set size to 16 or more"),
        ({"size": (16, 320)}, "choose a less wide size"),
        ({"frames": 0}, "frames >= 1"),
        ({"hold": 0}, "hold >= 1"),
        ({"speed": -1.0}, "speed > 0"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(AnimegenError, match=message):
        Scene(**arguments)


def test_unknown_styles_and_times_are_named():
    scene = Scene(size=32, frames=4)
    with pytest.raises(AnimegenError, match="Did you mean 'meadow'"):
        scene.anime(0, "medow")
    with pytest.raises(AnimegenError, match="from 0 to 3"):
        scene.photo(4)
