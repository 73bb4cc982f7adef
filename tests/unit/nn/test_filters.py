import numpy as np
import pytest
import torch

from animegen.nn.filters import box_mean, guided_filter, l0_smooth, self_guided


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def windows(height, width, radius):
    for i in range(height):
        for j in range(width):
            yield i, j, slice(max(i - radius, 0), i + radius + 1), slice(max(j - radius, 0), j + radius + 1)


def guided_by_loops(image, guide, radius, eps):
    """The definition: a linear fit per window, then the mean of the fits of all windows that cover a pixel."""
    height, width = image.shape
    slope, offset = np.zeros_like(image), np.zeros_like(image)
    for i, j, rows, columns in windows(height, width, radius):
        x, y = guide[rows, columns], image[rows, columns]
        slope[i, j] = ((x * y).mean() - x.mean() * y.mean()) / (x.var() + eps)
        offset[i, j] = y.mean() - slope[i, j] * x.mean()
    out = np.zeros_like(image)
    for i, j, rows, columns in windows(height, width, radius):
        out[i, j] = slope[rows, columns].mean() * guide[i, j] + offset[rows, columns].mean()
    return out


def test_box_mean_leaves_out_what_lies_outside():
    x = torch.tensor([[1.0, 2.0, 6.0]]).view(1, 1, 1, 3)
    torch.testing.assert_close(box_mean(x, 1), torch.tensor([[1.5, 3.0, 4.0]]).view(1, 1, 1, 3))


@pytest.mark.parametrize(("radius", "eps"), [(1, 5e-3), (2, 0.04), (5, 0.2)])
def test_guided_filter_equals_its_definition(radius, eps):
    image, guide = noise(2, 2, 9, 11), noise(2, 2, 9, 11, seed=1)
    found = guided_filter(image, guide, radius, eps)
    for b in range(2):
        for c in range(2):
            slow = guided_by_loops(image[b, c].numpy(), guide[b, c].numpy(), radius, eps)
            np.testing.assert_allclose(found[b, c].numpy(), slow, atol=1e-10)


def test_self_guided_filter_keeps_edges_and_flattens_texture():
    step = torch.cat([torch.full((1, 3, 12, 8), -0.8), torch.full((1, 3, 12, 8), 0.8)], -1)
    textured = step + 0.05 * noise(1, 3, 12, 16).float()
    out = self_guided(textured)
    assert (out - step)[..., :5].std() < 0.4 * (textured - step)[..., :5].std()
    assert (out[..., 9] - out[..., 6]).mean() > 1.3  # of 1.6
    # eps is for [0,1], images are in [-1,1]: four times as large in their squared units
    torch.testing.assert_close(out, guided_filter(textured, textured, 2, 0.04))


def test_guided_filter_is_differentiable_and_full_precision_under_autocast():
    image = noise(1, 1, 6, 6).requires_grad_()
    guide = noise(1, 1, 6, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: guided_filter(x, y, 1, 0.1), (image, guide))
    with torch.autocast("cpu", torch.bfloat16):
        assert guided_filter(image.bfloat16(), guide.bfloat16(), 1, 0.1).dtype == torch.float32


def l0_by_matrices(image, strength, kappa, largest):
    """Half-quadratic splitting with explicit difference matrices and a linear solver; image (C,H,W) in [0,1]."""
    channels, height, width = image.shape
    count = height * width
    index = np.arange(count).reshape(height, width)
    across, down = -np.eye(count), -np.eye(count)
    across[index, np.roll(index, -1, 1)] += 1
    down[index, np.roll(index, -1, 0)] += 1
    source = image.reshape(channels, count).T
    smooth, coupling = source.copy(), 2 * strength
    while coupling < largest:
        h, v = across @ smooth, down @ smooth
        change = (h**2 + v**2).sum(1, keepdims=True) >= strength / coupling
        matrix = np.eye(count) + coupling * (across.T @ across + down.T @ down)
        smooth = np.linalg.solve(matrix, source + coupling * (across.T @ (h * change) + down.T @ (v * change)))
        coupling *= kappa
    return smooth.T.reshape(channels, height, width)


@pytest.mark.parametrize(
    ("shape", "strength", "kappa"), [((6, 8), 0.02, 2.0), ((7, 5), 0.005, 2.0), ((5, 6), 0.1, 3.0)]
)
def test_l0_smoothing_equals_the_linear_solver(shape, strength, kappa):
    images = noise(2, 3, *shape)
    found = l0_smooth(images, strength, kappa)
    for image, result in zip(images, found, strict=True):
        slow = l0_by_matrices((image.numpy() + 1) / 2, strength, kappa, 1e5)
        np.testing.assert_allclose((result.numpy() + 1) / 2, slow.clip(0, 1), atol=1e-7)


def test_l0_smoothing_makes_flat_regions_and_keeps_the_edge():
    step = torch.cat([torch.full((1, 3, 16, 8), -0.6), torch.full((1, 3, 16, 8), 0.6)], -1)
    textured = step + 0.1 * noise(1, 3, 16, 16).float()
    out = l0_smooth(textured)
    assert out.dtype == torch.float32
    assert not out.requires_grad
    assert (out - step).abs().max() < 0.08
    # Of 15 pairs of neighbours in a row almost only the one across the edge differs still.
    before, after = ((x[..., 1:] - x[..., :-1]).abs().amax(1) > 0.02 for x in (textured, out))
    assert before.sum().item() > 200
    assert after.sum().item() < 30
    assert after[..., 7].all()


def test_l0_smoothing_leaves_a_plain_image_alone():
    plain = torch.full((1, 3, 9, 12), 0.3)
    torch.testing.assert_close(l0_smooth(plain), plain)
