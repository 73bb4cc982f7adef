import pytest
import torch

from animegen.errors import AnimegenError
from animegen.losses import LabColour, YUVColour


def flat(red, green, blue, batch=2):
    """An image of one colour, given in [0,1]."""
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1).expand(batch, 3, 4, 5) * 2 - 1


@pytest.mark.parametrize("loss", [YUVColour(), LabColour()])
def test_equal_images_have_no_loss_and_other_hues_do(loss):
    picture = flat(0.8, 0.3, 0.1)
    assert loss(picture, picture).item() == 0
    swapped = picture[:, [2, 1, 0]]
    assert loss(swapped, picture) > 0.05


def test_yuv_by_hand():
    # Red against black: Y .299, U -.14714119, V .61497538, all below the Huber threshold of 1.
    expected = 0.299 + 0.5 * 0.14714119**2 + 0.5 * 0.61497538**2
    assert YUVColour()(flat(1.0, 0.0, 0.0), flat(0.0, 0.0, 0.0)).item() == pytest.approx(expected, rel=1e-5)


def test_yuv_beyond_the_huber_threshold():
    # V of red minus V of cyan is 2 * .61497538 = 1.23: linear there, |d| - 1/2.
    u, v = 2 * 0.14714119, 2 * 0.61497538
    expected = abs(2 * 0.299 - 1) + 0.5 * u**2 + (v - 0.5)
    assert YUVColour()(flat(1.0, 0.0, 0.0), flat(0.0, 1.0, 1.0)).item() == pytest.approx(expected, rel=1e-5)


def test_luma_and_chroma_factors():
    red, black = flat(1.0, 0.0, 0.0), flat(0.0, 0.0, 0.0)
    y, c = YUVColour(luma=1, chroma=0)(red, black), YUVColour(luma=0, chroma=1)(red, black)
    torch.testing.assert_close(YUVColour(luma=2, chroma=3)(red, black), 2 * y + 3 * c)
    assert y.item() == pytest.approx(0.299, rel=1e-5)
    # A change of grey touches the luma alone.
    assert YUVColour(luma=0)(flat(0.2, 0.2, 0.2), flat(0.9, 0.9, 0.9)).item() == pytest.approx(0, abs=1e-9)


def test_lab_by_hand():
    # White against black: L 100 against 0, no chroma. Red: (53.24, 80.09, 67.20).
    black = flat(0.0, 0.0, 0.0)
    assert LabColour()(flat(1.0, 1.0, 1.0), black).item() == pytest.approx(2.0, abs=1e-4)
    expected = 2 * 0.5324 + (80.09 + 67.20) / 255
    assert LabColour()(flat(1.0, 0.0, 0.0), black).item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("loss", [YUVColour(), LabColour()])
def test_batch_size_and_autocast(loss):
    generator = torch.Generator().manual_seed(0)
    image, reference = (torch.rand(2, 3, 6, 6, generator=generator) * 2 - 1 for _ in range(2))
    once = loss(image, reference)
    torch.testing.assert_close(loss(image.repeat(3, 1, 1, 1), reference.repeat(3, 1, 1, 1)), once)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(image, reference), once)
    with pytest.raises(AnimegenError, match="one shape"):
        loss(image, reference[:1])
