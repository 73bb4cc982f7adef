import pytest
import torch

from animegen.errors import AnimegenError
from animegen.nn.norm import LADE, InstanceNorm, LayerNorm, make_norm, mean_and_variance
from animegen.tiling.tiles import tiled


def picture(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3 + 2


def random_affine(module, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def test_instance_norm_equals_torchs():
    norm = random_affine(InstanceNorm(6))
    x = picture(2, 6, 5, 7)
    reference = torch.nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias)
    torch.testing.assert_close(norm(x), reference, atol=1e-5, rtol=1e-5)


def test_instance_norm_by_hand():
    x = torch.tensor([[[[0.0, 2.0], [0.0, 2.0]], [[5.0, 5.0], [5.0, 5.0]]]])
    y = InstanceNorm(2, eps=0.0625)(x)  # means 1 and 5, variances 1 and 0
    expected = 1 / (1 + 0.0625) ** 0.5
    torch.testing.assert_close(y[0, 0], torch.tensor([[-expected, expected], [-expected, expected]]))
    assert y[0, 1].abs().max() == 0


def test_mean_and_variance_of_values_far_from_zero():
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 1000
    for dims in ((2, 3), (1, 2, 3)):
        variance, mean = torch.var_mean(x.double(), dims, correction=0, keepdim=True)
        ours = mean_and_variance(x, dims)
        torch.testing.assert_close(ours[0].double(), mean, rtol=1e-6, atol=0)
        torch.testing.assert_close(ours[1].double(), variance, rtol=1e-5, atol=0)
    assert mean_and_variance(x.bfloat16(), (2, 3))[0].dtype == torch.float32


def test_layer_norm_is_joint_over_channels_and_space():
    norm = LayerNorm(2, eps=0.0)
    x = torch.tensor([0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0]).view(1, 2, 2, 2)  # constant channels survive
    torch.testing.assert_close(norm(x), x - 1)
    affine = random_affine(LayerNorm(6))
    y = picture(3, 6, 4, 5)
    flat = torch.nn.functional.layer_norm(y, y.shape[1:])
    expected = flat * affine.weight[:, None, None] + affine.bias[:, None, None]
    torch.testing.assert_close(affine(y), expected, atol=1e-5, rtol=1e-5)


def test_lade_by_its_formula():
    norm = random_affine(LADE(4))
    x = picture(2, 4, 6, 5)
    t = torch.einsum("oi,bihw->bohw", norm.project.weight[:, :, 0, 0], x)
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    t_mean, t_var = t.mean((2, 3), keepdim=True), t.var((2, 3), correction=0, keepdim=True)
    expected = (x - mean) / (var + 1e-5).sqrt() * (t_var + 1e-5).sqrt() + t_mean
    torch.testing.assert_close(norm(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["instance", "layer", "lade"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_tiles_share_the_statistics_of_the_whole_image(kind, dtype):
    norm = random_affine(make_norm(kind, 3)).eval().requires_grad_(False)
    x = picture(1, 3, 40, 72) * torch.linspace(0.1, 1, 72)
    whole = tiled(norm, x, 0, dtype=dtype)
    tolerance = 1e-5 if dtype is None else 0.08
    torch.testing.assert_close(tiled(norm, x, 32, dtype=dtype), whole, atol=tolerance, rtol=tolerance)
    assert (torch.cat([norm(part) for part in x.split(36, -1)], -1) - whole).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["instance", "layer", "lade"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_keeps_dtype_and_stays_close(kind, layout):
    norm = make_norm(kind, 8)
    x = picture(2, 8, 8, 8).to(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), norm(x), atol=0.08, rtol=0.02)


@pytest.mark.parametrize("kind", ["instance", "layer", "lade"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_another_precision(kind, dtype):
    norm = random_affine(make_norm(kind, 4))
    x = picture(2, 4, 6, 6)
    expected = norm(x)
    y = norm.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(y.to(torch.float32), expected, atol=tolerance, rtol=tolerance)


def test_batch_equals_single_images():
    x = picture(3, 4, 6, 6)
    for kind in ("instance", "layer", "lade"):
        norm = make_norm(kind, 4).train()
        parts = torch.cat([norm(part) for part in x.split(1)])
        torch.testing.assert_close(norm(x), parts, atol=1e-5, rtol=1e-5)


def test_unknown_norm_is_named_with_the_nearest():
    with pytest.raises(AnimegenError, match=r"no norm 'instanc'.*'instance'"):
        make_norm("instanc", 4)
    assert isinstance(make_norm(None, 4), torch.nn.Identity)
