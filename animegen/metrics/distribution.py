"""Distances between two sets of images: FID and KID on the features of any `FeatureExtractor`.

Published values use Inception v3. The name of the metric contains the name of the network (`fid_vgg19`,
`kid_squeezenet1_1_file`), since values of different features are not comparable. A set is stored as a matrix of pooled
features (N, C) on the CPU, 2 KB per image. The features of style stills and photos are thus computed once and compared
with the outputs of every method.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FID_CHANNELS = 64
"""Dimension to which features are projected for FID, as Inception's first block has it."""

KID_SUBSETS, KID_SUBSET_SIZE = 50, 1000
"""Subsets that are averaged for KID, and the most images in one (Binkowski et al. 2018 take 1000)."""


@dataclass(frozen=True)
class SetDistance:
    """Distance between two sets.

    Attributes:
        value: the distance, lower is better.
        spread: standard deviation over KID's subsets; None where there is only one subset, and for FID.
    """

    value: float
    spread: float | None = None


def pool(features: Tensor) -> Tensor:
    """Return the spatial mean of a feature map (B, C, h, w), scaled to mean square 1, as a matrix (B, C) on the CPU.

    The magnitude of activations differs between networks by orders of magnitude. Normalised features give distances of
    a readable size, and KID's kernel, designed for Inception's activations of about 1, keeps its shape:
    k = (cosine + 1)^3.
    """
    return F.normalize(features.float().mean((2, 3)), dim=1).mul(features.shape[1] ** 0.5).cpu()


def fid(real: Tensor, fake: Tensor, channels: int = FID_CHANNELS) -> SetDistance | None:
    """Frechet distance of two sets of features (Heusel et al. 2017): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    Estimating a covariance of C channels needs more than C images. The sets here are small, so the features are first
    projected to `channels` dimensions by a fixed random orthonormal matrix. The value is biased upwards for small sets:
    compare it between sets of equal size only, or use `kid`.

    Args:
        real: features (N, C).
        fake: features (M, C).
        channels: dimensions after the projection; features of fewer channels are not projected.

    Returns:
        The distance, or None if a set has no more images than dimensions, since its covariance is then singular.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # imports Lightning's dependencies

    real, fake = project(real, channels), project(fake, channels)
    if min(len(real), len(fake)) <= real.shape[1]:
        return None
    metric = FrechetInceptionDistance(feature=_Precomputed(real.shape[1])).set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return SetDistance(max(0.0, float(metric.compute())))  # rounding errors make it negative for equal sets


def kid(real: Tensor, fake: Tensor) -> SetDistance | None:
    """Kernel distance of two sets of features (Binkowski et al. 2018): unbiased MMD^2 with k = (x.y / C + 1)^3.

    The estimate is unbiased: it can be used for small sets, and may be slightly negative for equal ones. Sets of equal
    size with at most `KID_SUBSET_SIZE` images are compared as a whole. Otherwise the mean is taken over `KID_SUBSETS`
    random subsets of the size of the smaller set, with a fixed seed.

    Args:
        real: features (N, C).
        fake: features (M, C).

    Returns:
        Mean and standard deviation over the subsets, or None if a set has fewer than two images.
    """
    from torchmetrics.image.kid import KernelInceptionDistance  # imports Lightning's dependencies

    size = min(len(real), len(fake), KID_SUBSET_SIZE)
    if size < 2:
        return None
    subsets = 1 if len(real) == len(fake) == size else KID_SUBSETS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning about memory: all features are kept here, too
        metric = KernelInceptionDistance(feature=_Precomputed(real.shape[1]), subsets=subsets, subset_size=size)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, spread = metric.compute()
    return SetDistance(float(mean), float(spread) if subsets > 1 else None)


def project(features: Tensor, channels: int) -> Tensor:
    """Project features (N, C) to (N, min(C, channels)), float64, by a fixed random orthonormal matrix."""
    features = features.double()
    width = features.shape[1]
    if width <= channels:
        return features
    random = torch.randn(width, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis, _ = torch.linalg.qr(random)
    return features @ basis


class _Precomputed(nn.Module):
    """Feature network for torchmetrics that returns precomputed features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
