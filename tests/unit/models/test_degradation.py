import torch

from animegen.models.animegan.degradation import PhotoDegradation
from animegen.nn.colour import LinearColourTransfer


def colours() -> LinearColourTransfer:
    transfer = LinearColourTransfer()
    photo = torch.randn(4, 3, 32, 32).mul(0.2).clamp(-1, 1)
    transfer.observe(photo, photo * 0.5 + 0.3)
    return transfer


def test_without_any_strength_only_the_colours_go_back() -> None:
    anime = torch.full((2, 3, 16, 16), 0.3) + 0.1 * torch.rand(2, 3, 16, 16)
    off = PhotoDegradation(texture=0, shading=0, cast=0, blur=0, grain=0)
    # The set's map is x -> x / 2 + .3, so going back is (x - .3) * 2.
    torch.testing.assert_close(off(anime, colours()), (anime - 0.3) * 2, atol=1e-3, rtol=1e-3)


def test_grain_has_the_stated_strength() -> None:
    grainy = PhotoDegradation(texture=0, shading=0, cast=0, blur=0, grain=0.05)
    result = grainy(torch.full((1, 3, 128, 128), 0.3), colours())
    assert abs(result.std().item() / 2 - 0.05) < 0.002


def test_blur_softens_an_edge_and_texture_is_smooth_nowhere() -> None:
    anime = torch.zeros(1, 3, 32, 32)
    anime[..., 16:] = 0.5
    blurred = PhotoDegradation(texture=0, shading=0, cast=0, blur=1, grain=0)(anime, colours())
    before = PhotoDegradation(texture=0, shading=0, cast=0, blur=0, grain=0)(anime, colours())
    assert blurred.diff(dim=-1).abs().max() < before.diff(dim=-1).abs().max()
    textured = PhotoDegradation(texture=1, shading=0, cast=0, blur=0, grain=0)(anime, colours())
    assert textured.std() > before.std()


def test_range_shape_and_repeatability() -> None:
    degrade, transfer = PhotoDegradation(), colours()
    anime = torch.rand(3, 3, 24, 40) * 2 - 1
    torch.manual_seed(5)
    first = degrade(anime, transfer)
    torch.manual_seed(5)
    assert torch.equal(first, degrade(anime, transfer))
    assert first.shape == anime.shape
    assert first.abs().max() <= 1
