import math

import pytest
import torch

from animegen.errors import AnimegenError
from animegen.losses import GANLoss

LOGITS = torch.tensor([-2.0, 0.0, 0.5, 3.0]).view(2, 1, 1, 2)


def softplus_mean(*values):
    return sum(math.log1p(math.exp(value)) for value in values) / len(values)


@pytest.mark.parametrize(
    ("kind", "target", "side", "expected"),
    [
        ("lsgan", "real", "discriminator", (9 + 1 + 0.25 + 4) / 4),
        ("lsgan", "fake", "discriminator", (4 + 0 + 0.25 + 9) / 4),
        ("lsgan", "real", "generator", (9 + 1 + 0.25 + 4) / 4),
        ("hinge", "real", "discriminator", (3 + 1 + 0.5 + 0) / 4),
        ("hinge", "fake", "discriminator", (0 + 1 + 1.5 + 4) / 4),
        ("hinge", "real", "generator", -1.5 / 4),
        ("vanilla", "real", "discriminator", softplus_mean(2, 0, -0.5, -3)),
        ("vanilla", "fake", "discriminator", softplus_mean(-2, 0, 0.5, 3)),
        ("vanilla", "real", "generator", softplus_mean(2, 0, -0.5, -3)),
    ],
)
def test_hand_values(kind, target, side, expected):
    assert GANLoss(kind, target, side)(LOGITS).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["lsgan", "hinge", "vanilla"])
def test_the_sides_pull_logits_in_their_directions(kind):
    def slope(**options):
        logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
        GANLoss(kind, **options)(logits).backward()
        return logits.grad.sum().item()

    assert slope(target="real") < 0
    assert slope(target="real", side="generator") < 0
    assert slope(target="fake") >= 0
    confident = torch.ones(1, 1, 2, 2, requires_grad=True)
    GANLoss(kind, target="fake")(confident).backward()
    assert confident.grad.sum() > 0


def test_vanilla_is_binary_cross_entropy_and_stays_finite():
    x = LOGITS.flatten()
    reference = torch.nn.functional.binary_cross_entropy_with_logits(x, torch.zeros(4))
    torch.testing.assert_close(GANLoss("vanilla", "fake")(LOGITS), reference)
    assert GANLoss("vanilla", "fake")(torch.full((1,), 1e4)).item() == pytest.approx(1e4)


def test_half_precision_logits_give_a_float32_loss():
    loss = GANLoss()(LOGITS.bfloat16())
    assert loss.dtype == torch.float32
    assert loss.shape == ()


@pytest.mark.parametrize("kind", ["lsgan", "hinge", "vanilla"])
def test_batch_size_does_not_matter(kind):
    loss = GANLoss(kind)
    torch.testing.assert_close(loss(LOGITS.repeat(3, 1, 1, 1)), loss(LOGITS))


def test_mistakes_are_named():
    with pytest.raises(AnimegenError, match=r"no kind 'lsgann'.*'lsgan'"):
        GANLoss("lsgann")
    with pytest.raises(AnimegenError, match="no target 'fakes'"):
        GANLoss(target="fakes")
    with pytest.raises(AnimegenError, match="set target=real"):
        GANLoss(target="fake", side="generator")
