import pytest
import torch
import torch.nn.functional as F

from animegen.errors import AnimegenError
from animegen.nn.conv import (
    ConvNormAct,
    ReflectConv,
    SeparableConv,
    Upsample,
    halve,
    initialise,
    require_multiple,
    scale_channels,
)
from animegen.nn.precision import reflect_pad


def ramp(height, width, channels=1):
    return torch.arange(channels * height * width, dtype=torch.float32).view(1, channels, height, width)


def tap(conv, row, column):
    """Make ``conv`` return the value under one element of its kernel."""
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, row, column] = 1
    return conv


def test_stride_1_pads_evenly_by_reflection():
    x = ramp(3, 4)
    # The top-left element of the kernel sees row -1 = row 1 and column -1 = column 1.
    y = tap(ReflectConv(1, 1), 0, 0)(x)
    torch.testing.assert_close(y[0, 0], x[0, 0][[1, 0, 1]][:, [1, 0, 1, 2]])


def test_stride_2_pads_right_and_bottom_only():
    x = ramp(4, 4)
    first = tap(ReflectConv(1, 1, stride=2), 0, 0)(x)
    torch.testing.assert_close(first[0, 0], x[0, 0, ::2, ::2])
    last = tap(ReflectConv(1, 1, stride=2), 2, 2)(x)  # row 4 = row 2, column 4 = column 2
    torch.testing.assert_close(last[0, 0], x[0, 0][[2, 2]][:, [2, 2]])


@pytest.mark.parametrize(("kernel", "stride", "border"), [(7, 1, 3), (3, 1, 1), (1, 1, 0), (4, 2, 1)])
def test_border_of_other_kernels(kernel, stride, border):
    conv = ReflectConv(2, 3, kernel, stride)
    assert conv.border == (border,) * 4
    assert conv(torch.zeros(1, 2, 16, 12)).shape == (1, 3, 16 // stride, 12 // stride)
    assert conv.bias is None


def test_under_autocast_it_pads_in_half_precision():
    conv = ReflectConv(2, 3).bfloat16()
    x = torch.randn(1, 2, 6, 5, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert reflect_pad(x, conv.border).dtype == torch.bfloat16
        assert reflect_pad(x.bfloat16(), conv.border).dtype == torch.bfloat16
        drawn = conv(x)
    assert torch.equal(drawn, conv(x.bfloat16()))
    assert reflect_pad(x, conv.border).dtype == torch.float32


def test_conv_norm_act_by_hand():
    block = ConvNormAct(1, 1, 1, norm=None)
    with torch.no_grad():
        block.conv.weight.fill_(2.0)
    torch.testing.assert_close(block(torch.tensor([[[[1.0, -1.0]]]])), torch.tensor([[[[2.0, -0.4]]]]))


def test_separable_conv_has_one_norm_after_both_convolutions():
    block = SeparableConv(4, 6, stride=2)
    assert [name for name, _ in block.named_parameters()] == [
        "depthwise.weight",
        "pointwise.weight",
        "norm.weight",
        "norm.bias",
    ]
    assert sum(p.numel() for p in block.parameters()) == 4 * 9 + 4 * 6 + 2 * 6
    x = torch.randn(2, 4, 8, 6)
    inner = F.conv2d(F.pad(x, (0, 1, 0, 1), mode="reflect"), block.depthwise.weight, stride=2, groups=4)
    outer = F.conv2d(inner, block.pointwise.weight)
    torch.testing.assert_close(block(x), F.leaky_relu(F.instance_norm(outer), 0.2), atol=1e-5, rtol=1e-4)


EXPECTED = {
    "bilinear": [0.0, 1.0, 3.0, 4.0],
    "bilinear_align": [0.0, 4 / 3, 8 / 3, 4.0],
    "nearest": [0.0, 0.0, 4.0, 4.0],
    "tf1": [0.0, 2.0, 4.0, 4.0],
}


@pytest.mark.parametrize("mode", EXPECTED)
def test_upsampling_by_hand(mode):
    values = torch.tensor(EXPECTED[mode])
    across = Upsample(mode)(torch.tensor([0.0, 4.0]).view(1, 1, 1, 2).expand(1, 1, 2, 2))
    torch.testing.assert_close(across[0, 0], values.expand(4, 4))
    down = Upsample(mode)(torch.tensor([0.0, 4.0]).view(1, 1, 2, 1).expand(1, 1, 2, 2))
    torch.testing.assert_close(down[0, 0], values[:, None].expand(4, 4))


def test_pixelshuffle_starts_as_nearest_neighbour():
    up = Upsample("pixelshuffle", channels=3)
    initialise(up, "he")
    x = torch.randn(2, 3, 4, 5)
    y = up(x)
    assert y.shape == (2, 3, 8, 10)
    torch.testing.assert_close(y, F.interpolate(y[..., ::2, ::2], scale_factor=2, mode="nearest"))
    torch.testing.assert_close(y[..., ::2, ::2], F.conv2d(x, up.expand.weight[::4]))


def test_halving_by_hand():
    x = ramp(2, 4)  # 0 1 2 3 / 4 5 6 7
    assert halve(x)[0, 0].tolist() == [[2.5, 4.5]]
    assert halve(x, "tf1")[0, 0].tolist() == [[0.0, 2.0]]
    y = torch.randn(1, 2, 6, 8)
    torch.testing.assert_close(halve(y), F.interpolate(y, scale_factor=0.5, mode="bilinear"))


def test_scale_channels():
    assert [scale_channels(64, width) for width in (1.0, 0.5, 0.3, 0.01)] == [64, 32, 16, 8]
    assert scale_channels(32, 0.25) == 8


def test_initialisations_have_their_variances():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(64, 128, 3)
    initialise(conv, "he")
    assert conv.weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.02)
    assert conv.bias.abs().max() == 0
    initialise(conv, "normal")
    assert conv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    initialise(conv, "xavier")
    assert conv.weight.var().item() == pytest.approx(2 / (64 * 9 + 128 * 9), rel=0.02)
    depthwise = torch.nn.Conv2d(512, 512, 3, groups=512)
    initialise(depthwise, "xavier")
    assert depthwise.weight.var().item() == pytest.approx(2 / (9 + 9), rel=0.05)


def test_wrong_sizes_and_modes_are_named():
    require_multiple(torch.zeros(1, 3, 8, 12), 4)
    with pytest.raises(AnimegenError, match=r"multiples of 4.*not 10x8"):
        require_multiple(torch.zeros(1, 3, 10, 8), 4)
    with pytest.raises(AnimegenError, match="at least 8 pixels, not 4x8"):
        require_multiple(torch.zeros(1, 3, 4, 8), 4)
    with pytest.raises(AnimegenError, match=r"no upsampling 'bilinaer'.*'bilinear'"):
        Upsample("bilinaer")
