import cv2
import numpy as np
import pytest

from animegen.toonworld import STYLES, Scene, render
from animegen.toonworld.palettes import MATERIALS, STYLE_TABLE


def inside(polygons, points):
    """Even-odd rule by counting crossings of a ray: (N,) bool for points (N, 2)."""
    crossings = np.zeros(len(points), int)
    for polygon in polygons:
        a, b = polygon, np.roll(polygon, -1, 0)
        y = points[:, 1:2]
        spans = (a[:, 1] <= y) != (b[:, 1] <= y)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
        crossings += (spans & (x > points[:, :1])).sum(1)
    return crossings % 2 == 1


def labels_at(scene, t, pixels):
    """The label at exact positions (N, 2) in pixels, part by part in painter's order."""
    label = np.zeros(len(pixels), int)
    homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], 1)
    for number, part in enumerate(scene.stage.parts):
        local = homogeneous @ np.linalg.inv(scene.poses(t)[number]).T
        label[inside(part.polygons, local[:, :2])] = number
    return label


@pytest.mark.parametrize("index", [2, 5, 11])
def test_label_raster_equals_point_in_polygon(index):
    scene = Scene(0, "train", index, (96, 144))
    pixels = np.random.default_rng(index).integers(0, [144, 96], (400, 2))
    centre = labels_at(scene, 7, pixels + 0.5)
    # The raster's outlines are exact to a fraction of a sample: leave out pixels within .12 px of an outline.
    clear = np.ones(len(pixels), bool)
    for dx, dy in ((0.12, 0), (-0.12, 0), (0, 0.12), (0, -0.12)):
        clear &= labels_at(scene, 7, pixels + np.array([0.5 + dx, 0.5 + dy])) == centre
    assert clear.mean() > 0.85
    drawn = scene.labels(7)[pixels[:, 1], pixels[:, 0]]
    np.testing.assert_array_equal(drawn[clear], centre[clear])


def test_fill_places_samples_at_their_centres():
    square = render.Outlines([(np.array([[0.0, 0.0], [1, 0], [1, 1], [0, 1]]),)])
    pose = np.array([[[2.0, 0, 1], [0, 3.0, 2], [0, 0, 1]]])  # x from 1 to 3, y from 2 to 5 pixels
    image = square.fill(pose, np.array([7]), (8, 6), 9)
    rows, columns = np.flatnonzero((image == 7).any(1)), np.flatnonzero((image == 7).any(0))
    assert abs(rows[0] - 18) <= 1
    assert abs(rows[-1] - 44) <= 1
    assert abs(columns[0] - 9) <= 1
    assert abs(columns[-1] - 26) <= 1
    assert image[4::9, 4::9].astype(bool).sum() == 6  # at pixel centres exactly 2 x 3 pixels


def test_windows_follow_the_even_odd_rule():
    ring = (np.array([[0.0, 0], [6, 0], [6, 6], [0, 6]]), np.array([[2.0, 2], [4, 2], [4, 4], [2, 4]]))
    image = render.Outlines([ring]).fill(np.eye(3)[None], np.array([1]), (6, 6), 9)[4::9, 4::9]
    assert image.sum() == 36 - 4


def test_shrink_is_the_area_average():
    samples = np.random.default_rng(0).integers(0, 256, (48, 60, 4), dtype=np.uint8)
    exact = samples.reshape(16, 3, 20, 3, 4).mean((1, 3))[..., :3]
    assert np.abs(render.shrink(samples) - exact).max() <= 0.5
    mask = np.ascontiguousarray(samples[..., 0])
    assert np.abs(render.shrink_mask(mask) - mask.reshape(16, 3, 20, 3).mean((1, 3))).max() <= 0.5


@pytest.mark.parametrize("style", STYLES)
def test_ink_lies_inside_the_front_part_and_never_on_rank_zero(style):
    scene = Scene(0, "train", 3, 128)
    labels = scene._frame(5).coarse
    table = scene._style(style)[0]
    ink = render.ink_mask(labels, table)
    ranks = table.ranks[labels]
    assert ink.any()
    assert (ranks[ink] > 0).all()
    # Slow twin: a sample is ink when a lower rank lies within the pen's radius.
    reach = STYLE_TABLE[style].ink_width * 3 - 0.5
    offsets = [(dx, dy) for dx in range(-6, 7) for dy in range(-6, 7) if dx * dx + dy * dy <= reach * reach]
    for y, x in np.random.default_rng(1).integers(8, 376, (300, 2)):
        assert ink[y, x] == any(ranks[y + dy, x + dx] < ranks[y, x] for dx, dy in offsets)


def test_ink_groups_have_no_line_over_their_joints():
    scene = Scene(0, "train", 3, 128)
    ranks = scene._style("print")[0].ranks
    number = {part.name: k for k, part in enumerate(scene.stage.parts)}
    assert ranks[number["person_0/arm_1/upper"]] == ranks[number["person_0/arm_1/fore"]]
    assert ranks[number["person_0/face"]] == ranks[number["person_0/eye_0/iris"]] == ranks[number["person_0/neck"]]
    assert ranks[number["person_0/torso"]] < ranks[number["person_0/arm_1/upper"]] < ranks[number["person_0/face"]]


@pytest.mark.parametrize(("style", "tones"), [("meadow", 2), ("dusk", 3), ("print", 2)])
def test_anime_is_flat_in_the_colours_of_its_palette(style, tones):
    scene = Scene(0, "train", 4, 128)
    labels, anime = scene.labels(0), scene.anime(0, style)
    shirt = next(k for k, part in enumerate(scene.stage.parts) if part.name.endswith("torso"))
    inner = cv2.erode((labels == shirt).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    base = np.array(
        [int(MATERIALS[scene.stage.parts[shirt].material_name].colours[style][i : i + 2], 16) for i in (0, 2, 4)]
    )
    tint = np.array([int(STYLE_TABLE[style].shadow[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    light = np.array([int(STYLE_TABLE[style].light[i : i + 2], 16) for i in (0, 2, 4)])
    allowed = [base * tint, base, base + STYLE_TABLE[style].light_share * (light - base)][:tones]
    distance = np.min([np.abs(anime[inner] - np.rint(colour)).max(1) for colour in allowed], axis=0)
    assert (distance == 0).mean() > 0.75  # the others lie on the smooth line between two tones


def test_flatness_separates_anime_from_photo():
    scene = Scene(0, "val", 1, 128)
    share = {"photo": scene.photo(3).astype(int), **{style: scene.anime(3, style).astype(int) for style in STYLES}}
    flat = {look: (np.abs(np.diff(image, axis=1)).max(-1) <= 1).mean() for look, image in share.items()}
    assert flat["photo"] < 0.15
    assert min(flat[style] for style in STYLES) > 0.55


def test_switches_only_touch_the_screen():
    plain = {"grain": False, "shadow": False, "vignette": False, "blur": False}
    bare = Scene(0, "train", 2, 96, **plain).photo(4).astype(float)
    grain = Scene(0, "train", 2, 96, **{**plain, "grain": True}).photo(4) - bare
    middle = (bare > 20).all(-1) & (bare < 235).all(-1)
    assert grain[middle].std() == pytest.approx(3, abs=0.15)
    assert abs(grain[middle].mean()) < 0.1
    vignette = Scene(0, "train", 2, 96, **{**plain, "vignette": True}).photo(4) / np.maximum(bare, 1)
    assert vignette[47:49, 47:49].mean() == pytest.approx(1, abs=0.02)
    assert vignette[0, 0].mean() == pytest.approx(0.78, abs=0.02)
    shadow = Scene(0, "train", 2, 96, **{**plain, "shadow": True})
    changed = (shadow.photo(4) != bare).any(-1)
    assert changed.any()
    ground = cv2.dilate((shadow.semantic(4) == 6).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert ground[changed].all()
