"""Drawings computed from photos: where lines are, which colours remain, and the source that keeps them."""

import numpy as np
import pytest
import torch

from animegen.data import DrawnPhotos
from animegen.data.drawing import DRAWINGS, cel, edge_tangents, ink, meadow, painted, pencil, smooth_along
from animegen.data.views import scale_short_side
from animegen.errors import AnimegenError


def photo_of_a_square() -> torch.Tensor:
    """Return a light square on a darker ground, with noise of two levels."""
    image = torch.full((3, 64, 64), 90)
    image[:, 16:48, 16:48] = 200
    noise = torch.randint(-2, 3, image.shape, generator=torch.Generator().manual_seed(0))
    return (image + noise).to(torch.uint8)


def test_tangents_follow_an_edge():
    ramp = np.tile(np.repeat([0.2, 0.8], 16).astype(np.float32), (32, 1))
    x, y = edge_tangents(ramp)[16, 15]
    assert abs(x) < 1e-3
    assert abs(y) == pytest.approx(1, abs=1e-3)
    x, y = edge_tangents(ramp.T.copy())[15, 16]
    assert abs(y) < 1e-3
    assert abs(x) == pytest.approx(1, abs=1e-3)


def test_blur_along_a_line_keeps_it_and_across_it_does_not():
    line = np.zeros((33, 33), np.float32)
    line[:, 16] = 1
    along, across = (np.broadcast_to(np.array(d, np.float32), (33, 33, 2)).copy() for d in ((0, 1), (1, 0)))
    assert np.allclose(smooth_along(line, along, 2.0), line)
    # The weight of the middle of a Gaussian of sigma 2 over 9 samples.
    weights = np.exp(-(np.arange(-4, 5) ** 2) / 8)
    assert smooth_along(line, across, 2.0)[16, 16] == pytest.approx(1 / weights.sum(), rel=1e-4)


def test_cel_is_flat_inside_and_dark_around():
    photo = photo_of_a_square()
    drawn = cel(photo)
    assert drawn.dtype == torch.uint8
    assert drawn.shape == photo.shape
    inside, ground = drawn[:, 24:40, 24:40].float(), drawn[:, 2:8, 2:8].float()
    assert inside.std() < 0.5 < photo[:, 24:40, 24:40].float().std()
    assert (inside.mean() - 200).abs() < 12  # the photo's own colour
    edge = drawn[:, 32, 10:17].float().mean(0)
    assert edge.min() < 0.6 * ground.mean()  # an ink line on the darker side
    assert drawn.min() >= 3
    assert drawn.max() <= 252
    assert torch.equal(drawn, cel(photo))


@pytest.mark.parametrize("draw", [ink, pencil])
def test_lines_alone_are_black_on_white(draw):
    lines = draw(photo_of_a_square())
    assert lines.shape == (3, 64, 64)
    assert torch.equal(lines[0], lines[2])
    assert (lines[:, 24:40, 24:40] > 250).all()  # inside
    assert lines[0, 32, 10:17].min() < 60  # on the darker side of the edge


def drawn_colour(draw, red, green, blue):
    """Return the colour as which a filter draws a plain area, as floats."""
    plain = torch.tensor([red, green, blue], dtype=torch.uint8)[:, None, None].expand(3, 24, 24).contiguous()
    return draw(plain)[:, 12, 12].tolist()


def test_meadow_changes_greens_and_skies_and_keeps_skin():
    red, green, blue = drawn_colour(meadow, 110, 125, 60)  # olive leaves
    plain_red, plain_green, _ = drawn_colour(cel, 110, 125, 60)
    assert green - red > plain_green - plain_red + 15
    red, green, blue = drawn_colour(meadow, 150, 175, 210)  # a pale sky
    plain_red, _, plain_blue = drawn_colour(cel, 150, 175, 210)
    assert blue - red > plain_blue - plain_red + 15
    for skin in ((230, 185, 155), (150, 100, 75), (85, 55, 45)):
        assert drawn_colour(meadow, *skin) == pytest.approx(drawn_colour(cel, *skin), abs=14)


def test_paint_is_warm_in_the_light_cool_in_the_shade_and_never_black():
    light, shade = drawn_colour(painted, 220, 220, 220), drawn_colour(painted, 50, 50, 50)
    assert light[0] > light[2] + 8
    assert shade[2] > shade[1]
    assert min(drawn_colour(painted, 0, 0, 0)) > 10


def test_paint_keeps_edges_and_removes_texture():
    photo = photo_of_a_square()
    drawn = painted(photo).float()
    assert drawn[:, 28:36, 28:36].std(dim=(1, 2)).max() < photo[:, 28:36, 28:36].float().std(dim=(1, 2)).max() / 2
    assert drawn[1, 32, 19] - drawn[1, 32, 9] > 60  # as far apart as in the photo, three pixels from the edge


def test_source_draws_scaled_photos_and_names_them():
    class Photos:
        def __len__(self):
            return 2

        def image(self, index):
            return photo_of_a_square()

        def name(self, index):
            return f"{index}.png"

    drawn = DrawnPhotos(Photos(), size=32)
    assert len(drawn) == 2
    assert drawn.name(1) == "1.png"
    assert torch.equal(drawn.image(0), DRAWINGS["cel"](scale_short_side(photo_of_a_square(), 32)))
    with pytest.raises(AnimegenError, match="Did you mean 'cel'"):
        DrawnPhotos(Photos(), look="cell")
