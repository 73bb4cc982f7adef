import torch

from animegen.losses import YUVColour


def test_pooled_comparison_sees_colours_and_not_texture() -> None:
    flat = torch.zeros(1, 3, 8, 8)
    checks = flat.clone()
    checks[..., ::2, ::2], checks[..., 1::2, 1::2] = 0.5, -0.5
    assert YUVColour(pool=2)(checks, flat).item() == 0
    assert YUVColour()(checks, flat).item() > 0
    # Y of a gray step of .2 in [-1,1] is .1 in [0,1]; gray has no chroma.
    torch.testing.assert_close(YUVColour(pool=4)(flat + 0.2, flat).item(), 0.1, atol=1e-5, rtol=0)
