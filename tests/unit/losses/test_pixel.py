import pytest
import torch

from animegen.errors import AnimegenError
from animegen.losses import L1, MSE, Charbonnier, GradientL1, TotalVariation

A = torch.tensor([[1.0, -1.0], [0.5, 0.0]]).view(1, 1, 2, 2)
B = torch.tensor([[0.0, -1.0], [0.0, 2.0]]).view(1, 1, 2, 2)


def test_l1_and_mse_by_hand():
    assert L1()(A, B).item() == pytest.approx((1 + 0 + 0.5 + 2) / 4)
    assert MSE()(A, B).item() == pytest.approx((1 + 0 + 0.25 + 4) / 4)


def test_charbonnier_by_hand():
    expected = ((1 + 0.01) ** 0.5 + 0.1 + (0.25 + 0.01) ** 0.5 + (4 + 0.01) ** 0.5) / 4
    assert Charbonnier(eps=0.1)(A, B).item() == pytest.approx(expected, rel=1e-6)
    assert Charbonnier()(A, A).item() == pytest.approx(1e-3)
    x = A.clone().requires_grad_()
    Charbonnier()(x, A).backward()
    assert x.grad.abs().max() == 0


def test_gradient_l1_by_hand():
    # A - B = [[1, 0], [.5, -2]]: down -.5, -2; across -1, -2.5.
    assert GradientL1(scales=1)(A, B).item() == pytest.approx(1.25 + 1.75)
    assert GradientL1(scales=1)(A, A + 0.7).item() == pytest.approx(0, abs=1e-6)  # a shift has no gradient
    # Each value four times: between blocks only a third of the steps count, and the halved image is the small one.
    big_a, big_b = (x.repeat_interleave(2, -1).repeat_interleave(2, -2) for x in (A, B))
    assert GradientL1(scales=2)(big_a, big_b).item() == pytest.approx((1.25 + 1.75) / 3 + 1.25 + 1.75)
    with pytest.raises(AnimegenError, match="needs images of 4x4 or more, not 2x2"):
        GradientL1(scales=2)(A, B)
    with pytest.raises(AnimegenError, match="at least 1, not 0"):
        GradientL1(scales=0)


def test_total_variation_by_hand():
    # Down: 1 -> .5, -1 -> 0: mean(.25, 1). Across: 1 -> -1, .5 -> 0: mean(4, .25).
    assert TotalVariation()(A).item() == pytest.approx(0.5 * (0.625 + 2.125))
    assert TotalVariation(power=1)(A).item() == pytest.approx(0.75 + 1.25)
    assert TotalVariation()(torch.full((1, 3, 5, 4), 0.3)).item() == 0
    with pytest.raises(AnimegenError, match="not 3"):
        TotalVariation(power=3)


@pytest.mark.parametrize("loss", [L1(), MSE(), Charbonnier(), GradientL1(scales=1)])
def test_batch_size_and_precision(loss):
    big = loss(A.repeat(5, 1, 1, 1), B.repeat(5, 1, 1, 1))
    torch.testing.assert_close(big, loss(A, B))
    assert loss(A.bfloat16(), B.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(TotalVariation()(A.repeat(5, 1, 1, 1)), TotalVariation()(A))


@pytest.mark.parametrize("loss", [L1(), MSE(), Charbonnier(), GradientL1(scales=1)])
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(AnimegenError, match=rf"{type(loss).__name__} compares.*\(2, 3, 4, 4\) and \(2, 1, 4, 4\)"):
        loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
