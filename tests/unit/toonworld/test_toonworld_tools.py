import cv2
import numpy as np
import pytest

from animegen.errors import AnimegenError
from animegen.speed import toonworld as bench
from animegen.toonworld import Scene, sheet


def test_sheets_and_strips_lay_out_looks_and_truth(tmp_path):
    scene = Scene(size=(32, 48), frames=4)
    picture = sheet.contact_sheet([scene, scene], 1)
    assert picture.shape == (4 * 32, 2 * 48, 3)
    np.testing.assert_array_equal(picture[32:64, 48:], scene.anime(1, "meadow"))
    strip = sheet.strip(scene, [0, 2, 3])
    assert strip.shape == (6 * 32, 3 * 48, 3)
    sheet.save(tmp_path / "strip.png", strip)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "strip.png"))[..., ::-1], strip)
    with pytest.raises(AnimegenError, match=r"the suffix \.png"):
        sheet.save(tmp_path / "missing" / "strip.png", strip)


def test_flow_colours_show_direction_and_length():
    flow = np.zeros((2, 1, 3), np.float32)
    flow[0, 0, 1:] = 2, -2
    still, right, left = sheet.flow_colours(flow)[0].tolist()
    assert still == [255, 255, 255]
    assert right == [0, 255, 255]
    assert left == [255, 0, 0]


def test_the_bench_measures():
    numbers = bench.measure(32, 0.05)
    assert set(numbers) == {"one_style", "one_style_drawing", "all_styles", "all_styles_drawing", "build_ms"}
    assert all(0 < number < float("inf") for number in numbers.values())
