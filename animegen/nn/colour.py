"""Colour spaces and linear colour transfer.

Images are (B,3,H,W), RGB in [-1,1]. All results are float32 (float64 for float64 input), under autocast, too.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from animegen.nn.precision import at_least_float32

# ITU-R BT.601 luma and the chroma of analogue YUV. The rows of U and V sum to 0: grey has no chroma.
_YUV = (
    (0.299, 0.587, 0.114),
    (-0.14714119, -0.28886916, 0.43601035),
    (0.61497538, -0.51496512, -0.10001026),
)
# Linear sRGB to CIE XYZ, divided by the white point D65 (IEC 61966-2-1): each row sums to 1.
_XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)
# CIE 1976: L* = 116 f(Y) - 16, a* = 500 (f(X) - f(Y)), b* = 200 (f(Y) - f(Z)).
_LAB = ((0.0, 116.0, 0.0), (500.0, -500.0, 0.0), (0.0, 200.0, -200.0))


def _constant(values: tuple) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


COVARIANCE_FLOOR = 1e-5
"""Variance added to both sets before fitting a colour map, below that of one 8-bit level ((2/255)^2 = 6e-5).

It bounds the amplification of colour directions of little variance in the source, such as chroma in grey photos.
"""


def apply_colour_map(images: Tensor, matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """Return ``matrix @ colour + offset`` for every pixel, not clamped.

    Args:
        images: (B,3,H,W).
        matrix: (n,3).
        offset: (n,), optional.

    Returns:
        (B,n,H,W), at least float32, on the images' device.
    """
    images = at_least_float32(images)
    with torch.autocast(images.device.type, enabled=False):
        mapped = torch.einsum("ij,bjhw->bihw", _like(matrix, images), images)
        return mapped if offset is None else mapped + _like(offset, images)[:, None, None]


def _like(constant: Tensor, images: Tensor) -> Tensor:
    # Convert the type first: not every device supports float64.
    return constant.to(images.dtype).to(images.device)


def to_unit(images: Tensor) -> Tensor:
    """Map [-1,1] to [0,1]."""
    return (images + 1) / 2


def luma(images: Tensor) -> Tensor:
    """Return the BT.601 luma (B,1,H,W) of RGB images, in the range of the input."""
    return apply_colour_map(images, _constant(_YUV[:1]))


def gray(images: Tensor) -> Tensor:
    """Convert RGB images to greyscale: the luma in three equal channels, in the range of the input."""
    return luma(images).expand(-1, 3, -1, -1)


def rgb_to_yuv(images: Tensor) -> Tensor:
    """Convert RGB in [-1,1] to Y in [0,1], U in [-0.436,0.436], V in [-0.615,0.615]."""
    return apply_colour_map(to_unit(at_least_float32(images)), _constant(_YUV))


def rgb_to_lab(images: Tensor) -> Tensor:
    """Convert sRGB in [-1,1] to CIE 1976 L*a*b* with white point D65: L in [0,100], a and b within about +-110.

    Differentiable everywhere; extended linearly below black.
    """
    rgb = to_unit(at_least_float32(images))
    # The clamps only affect the branch that is not taken, whose infinite gradient would turn into NaN.
    power = ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    linear = torch.where(rgb > 0.04045, power, rgb / 12.92)
    xyz = apply_colour_map(linear, _constant(_XYZ))
    threshold = (6 / 29) ** 3
    root = xyz.clamp_min(threshold) ** (1 / 3)
    response = torch.where(xyz > threshold, root, xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return apply_colour_map(response, _constant(_LAB), _constant((-16.0, 0.0, 0.0)))


def colour_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (3,) and biased covariance (3,3) of the colours of images (B,3,H,W)."""
    colours = at_least_float32(images).transpose(0, 1).flatten(1)
    with torch.autocast(images.device.type, enabled=False):
        mean = colours.mean(1)
        centred = colours - mean[:, None]
        return mean, centred @ centred.T / colours.shape[1]


def colour_map_between(
    source_mean: Tensor, source_covariance: Tensor, target_mean: Tensor, target_covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """Return matrix (3,3) and offset (3,) of the affine map from the source's moments to the target's.

    Of all such maps it has the least mean squared change of colours: the Monge-Kantorovich solution
    ``A = S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2`` (Pitie and Kokaram, "The linear Monge-Kantorovitch colour mapping for
    example-based colour transfer", 2007). Computed in float64 on the CPU; see :data:`COVARIANCE_FLOOR`.
    """
    source_mean, target_mean = source_mean.double().cpu(), target_mean.double().cpu()
    floor = COVARIANCE_FLOOR * torch.eye(3, dtype=torch.float64)
    source = source_covariance.double().cpu() + floor
    target = target_covariance.double().cpu() + floor
    root = _matrix_power(source, 0.5)
    inverse_root = _matrix_power(source, -0.5)
    matrix = inverse_root @ _matrix_power(root @ target @ root, 0.5) @ inverse_root
    return matrix, target_mean - matrix @ source_mean


def _matrix_power(matrix: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors * values.clamp_min(1e-12) ** exponent @ vectors.T


def monge_kantorovich(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return matrix (3,3) and offset (3,) of the map from source to target colours, each (N,3).

    See :func:`colour_map_between`; apply with :func:`apply_colour_map`.
    """
    moments = [colour_moments(colours.double().T[None, :, :, None]) for colours in (source, target)]
    return colour_map_between(*moments[0], *moments[1])


class LinearColourTransfer(nn.Module):
    """Affine map from the colours of one set of images to those of another, estimated during training.

    The moments of both sets and the map are buffers and therefore part of checkpoints. :meth:`observe` reduces over all
    processes: call it on every rank. Before the first call, the map is the identity.
    """

    source_count: Tensor
    source_mean: Tensor
    source_covariance: Tensor
    target_count: Tensor
    target_mean: Tensor
    target_covariance: Tensor
    matrix: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("source", "target"):
            self.register_buffer(f"{name}_count", torch.zeros((), dtype=torch.int64))
            self.register_buffer(f"{name}_mean", torch.zeros(3))
            self.register_buffer(f"{name}_covariance", torch.zeros(3, 3))
        self.register_buffer("matrix", torch.eye(3))
        self.register_buffer("offset", torch.zeros(3))

    @torch.no_grad()
    def observe(self, source: Tensor, reference: Tensor) -> None:
        """Update the moments by a batch (B,3,H,W) of each set; the batches may differ in size."""
        self._gather("source", source)
        self._gather("target", reference)
        matrix, offset = colour_map_between(
            self.source_mean, self.source_covariance, self.target_mean, self.target_covariance
        )
        known = (self.source_count > 0) & (self.target_count > 0)
        self.matrix.copy_(torch.where(known, matrix.to(self.matrix), self.matrix))
        self.offset.copy_(torch.where(known, offset.to(self.offset), self.offset))

    def _gather(self, name: str, images: Tensor) -> None:
        """Merge the moments of a batch into the running moments (Chan, Golub, LeVeque 1979)."""
        count: Tensor = getattr(self, f"{name}_count")
        mean: Tensor = getattr(self, f"{name}_mean")
        covariance: Tensor = getattr(self, f"{name}_covariance")
        new_count = torch.tensor(images[:, 0].numel(), device=images.device)
        # A process without images of this set has to take part in the reduction.
        nothing = images.new_zeros(3, dtype=mean.dtype), images.new_zeros(3, 3, dtype=mean.dtype)
        new_mean, new_covariance = colour_moments(images) if len(images) else nothing
        if dist.is_available() and dist.is_initialized():
            new_count, new_mean, new_covariance = _moments_of_all_ranks(new_count, new_mean, new_covariance)
        count += new_count
        share = new_count / count.clamp_min(1)
        step = new_mean - mean
        mean += share * step
        covariance += share * (new_covariance - covariance) + share * (1 - share) * torch.outer(step, step)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to the same shape and range."""
        return apply_colour_map(images, self.matrix, self.offset).clamp(-1, 1)

    def reverse(self, images: Tensor) -> Tensor:
        """Apply the inverse map, from the reference's colours to the source's, to images (B,3,H,W) in [-1,1]."""
        back = torch.linalg.inv(self.matrix.double()).to(self.matrix)
        return apply_colour_map(images, back, -back @ self.offset).clamp(-1, 1)


def _moments_of_all_ranks(count: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return count, mean and covariance over all processes."""
    second = covariance.double() + torch.outer(mean.double(), mean.double())
    sums = torch.cat([count[None].double(), count * mean.double(), (count * second).flatten()])
    dist.all_reduce(sums)
    total = sums[0].clamp_min(1)
    joint_mean = sums[1:4] / total
    joint = sums[4:].view(3, 3) / total - torch.outer(joint_mean, joint_mean)
    return sums[0].to(count.dtype), joint_mean.to(mean.dtype), joint.to(covariance.dtype)
