import cv2
import numpy as np
import pytest
import torch

from animegen.nn.colour import (
    LinearColourTransfer,
    apply_colour_map,
    colour_map_between,
    colour_moments,
    gray,
    luma,
    monge_kantorovich,
    rgb_to_lab,
    rgb_to_yuv,
)


def pictures(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def colour(red, green, blue):
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1) * 2 - 1


def test_yuv_constants():
    red, green, blue = (rgb_to_yuv(colour(*rgb)).flatten() for rgb in ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)))
    black = rgb_to_yuv(colour(0.0, 0.0, 0.0)).flatten()
    expected = torch.tensor(
        [[0.299, 0.587, 0.114], [-0.14714119, -0.28886916, 0.43601035], [0.61497538, -0.51496512, -0.10001026]]
    )
    torch.testing.assert_close(torch.stack([red, green, blue], 1), expected, atol=1e-6, rtol=0)
    assert black.abs().max() < 1e-7


def test_grey_has_no_chroma_and_keeps_its_luma():
    grey = pictures(2, 1, 5, 4).expand(2, 3, 5, 4)
    yuv = rgb_to_yuv(grey)
    assert yuv[:, 1:].abs().max() < 1e-6
    torch.testing.assert_close(yuv[:, :1], (grey[:, :1] + 1) / 2)
    torch.testing.assert_close(gray(grey), grey)


def test_luma_and_gray():
    assert luma(colour(1.0, 0.0, 0.0)).item() == pytest.approx(2 * 0.299 - 1)
    images = pictures(2, 3, 4, 4)
    result = gray(images)
    assert result.shape == images.shape
    torch.testing.assert_close(result[:, 0], 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2])
    assert torch.equal(result[:, 0], result[:, 2])


def test_conversions_ignore_autocast():
    images = pictures(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        yuv, half = rgb_to_yuv(images), rgb_to_yuv(images.bfloat16())
    assert torch.equal(yuv, rgb_to_yuv(images))
    assert half.dtype == torch.float32


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1.0, 1.0, 1.0), (100.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 1.0, 0.0), (87.73, -86.18, 83.18)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_of_known_colours(rgb, lab):
    torch.testing.assert_close(rgb_to_lab(colour(*rgb)).flatten(), torch.tensor(lab), atol=0.02, rtol=0)


def test_lab_against_opencv():
    images = pictures(1, 3, 16, 16)
    reference = cv2.cvtColor(((images[0] + 1) / 2).permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB)
    error = np.abs(rgb_to_lab(images)[0].permute(1, 2, 0).numpy() - reference)
    assert error.max() < 0.4  # OpenCV interpolates in tables
    assert error.mean() < 0.1


def test_lab_gradient_is_finite_in_black_and_beyond_the_range():
    images = torch.tensor([-1.5, -1.0, -0.95, 0.0, 1.0, 1.4]).view(1, 1, 1, 6).repeat(1, 3, 1, 1).requires_grad_()
    rgb_to_lab(images).square().sum().backward()
    assert images.grad.isfinite().all()
    assert rgb_to_lab(images.detach()).isfinite().all()


def test_moments_by_hand():
    images = torch.zeros(1, 3, 1, 2)
    images[0, 0] = torch.tensor([1.0, 3.0])
    images[0, 1] = torch.tensor([0.0, 4.0])
    mean, covariance = colour_moments(images)
    assert mean.tolist() == [2.0, 2.0, 0.0]
    assert covariance.tolist() == [[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]]


def correlated(seed, count=4000):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(3, 3, generator=generator) * 0.3
    return torch.randn(count, 3, generator=generator) @ mixing + torch.randn(3, generator=generator) * 0.2


def test_transferred_colours_have_the_targets_mean_and_covariance():
    source, target = correlated(1), correlated(2)
    matrix, offset = monge_kantorovich(source, target)
    moved = source.double() @ matrix.T + offset
    torch.testing.assert_close(moved.mean(0), target.double().mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved.T.cov(correction=0), target.double().T.cov(correction=0), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(matrix, matrix.T)  # the optimal map is symmetric positive definite
    assert torch.linalg.eigvalsh(matrix).min() > 0


def test_map_of_commuting_covariances_is_the_ratio_of_deviations():
    zero = torch.zeros(3)
    matrix, offset = colour_map_between(
        zero, torch.diag(torch.tensor([0.04, 0.09, 0.16])), zero + 0.5, torch.diag(torch.tensor([0.16, 0.09, 0.04]))
    )
    torch.testing.assert_close(matrix, torch.diag(torch.tensor([2.0, 1.0, 0.5]).double()), atol=1e-3, rtol=0)
    torch.testing.assert_close(offset, torch.full((3,), 0.5).double())


def test_grey_source_gives_a_bounded_map():
    grey = torch.linspace(-1, 1, 50)[:, None].expand(-1, 3)
    matrix, _ = monge_kantorovich(grey, correlated(3))
    assert matrix.isfinite().all()
    assert matrix.abs().max() < 300


def test_apply_colour_map_by_hand():
    images = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    matrix = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    mapped = apply_colour_map(images, matrix, torch.tensor([0.5, -1.0]))
    assert mapped.flatten().tolist() == [1.5, 5.0]


def test_transfer_module_is_the_identity_before_it_observed():
    images = pictures(2, 3, 4, 4)
    torch.testing.assert_close(LinearColourTransfer()(images), images)


def test_transfer_module_gathers_the_moments_of_all_batches():
    transfer = LinearColourTransfer()
    sources = [pictures(2, 3, 8, 8, seed=1) * 0.3, pictures(1, 3, 8, 8, seed=2) * 0.2 + 0.3]
    targets = [pictures(3, 3, 4, 4, seed=3) * 0.1 - 0.2, pictures(1, 3, 4, 4, seed=4) * 0.2]
    for source, target in zip(sources, targets, strict=True):
        transfer.observe(source, target)
    mean, covariance = colour_moments(torch.cat(sources))
    torch.testing.assert_close(transfer.source_mean, mean)
    torch.testing.assert_close(transfer.source_covariance, covariance)
    assert transfer.source_count == 3 * 64
    assert transfer.target_count == 4 * 16
    moved_mean, moved_covariance = colour_moments(transfer(torch.cat(sources)))
    target_mean, target_covariance = colour_moments(torch.cat(targets))
    torch.testing.assert_close(moved_mean, target_mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved_covariance, target_covariance, atol=1e-5, rtol=1e-2)


def test_transfer_module_resumes_exactly_and_clamps():
    batches = [(pictures(2, 3, 8, 8, seed=n), pictures(2, 3, 8, 8, seed=9 + n) * 0.9) for n in range(3)]
    straight, first = LinearColourTransfer(), LinearColourTransfer()
    for batch in batches:
        straight.observe(*batch)
    first.observe(*batches[0])
    resumed = LinearColourTransfer()
    resumed.load_state_dict(first.state_dict())
    for batch in batches[1:]:
        resumed.observe(*batch)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert straight(torch.full((1, 3, 2, 2), 3.0)).max() <= 1
    assert straight(batches[0][0].requires_grad_()).grad_fn is not None
