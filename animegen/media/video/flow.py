"""Motion between frames: estimated by DIS or RAFT, or the exact truth of the generated world.

All flows follow the convention of :mod:`animegen.nn.warp`: ``flow_ab`` (B, 2, H, W) in pixels lies on a's grid and
points into b. Every figure that depends on a flow carries the flow's ``name``: those of different flows do not compare.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.errors import AnimegenError, did_you_mean
from animegen.media.images import to_float, to_uint8
from animegen.nn.warp import consistent
from animegen.nn.weight_files import checked_state, load_data
from animegen.toonworld import VISIBLE, Scene

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


class FlowEstimator(Protocol):
    """Anything that estimates motion from two images."""

    @property
    def name(self) -> str:
        """Short name for the metrics: ``dis``, ``raft_small``."""
        ...

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return flow_ab (B, 2, H, W) in pixels for images (B, 3, H, W) in [-1, 1], on their device."""
        ...


class DISFlow:
    """Dense inverse search (Kroeger et al. 2016) by OpenCV, on the CPU: about 20 ms for a pair of 480p.

    It reads the 8-bit luma, or the length of its gradient, and uses at most as many threads as torch. Not
    differentiable.

    Args:
        preset: ``ultrafast``, ``fast`` or ``medium`` (the best; finest scale at half the image's size).
        descent: steps of gradient descent per patch; ``None`` for those of the preset (25 for ``medium``). More find
            larger motion, at little cost.
        gradient: read the length of the gradient (Sobel) of the luma. It follows outlines, and errs in other places.
        mirrored: mirror both images horizontally, and mirror the flow back. DIS propagates matches from left to right
            and from top to bottom first, so its errors in mirrored or transposed images are elsewhere.
        transposed: swap rows and columns of both images, and swap them back in the flow.
    """

    def __init__(
        self,
        preset: str = "medium",
        descent: int | None = None,
        gradient: bool = False,
        mirrored: bool = False,
        transposed: bool = False,
    ) -> None:
        if preset not in PRESETS:
            raise AnimegenError(
                f"DIS flow has no preset '{preset}': use {', '.join(PRESETS)}.{did_you_mean(preset, PRESETS)}"
            )
        self.preset = preset
        self.descent, self.gradient, self.mirrored, self.transposed = descent, gradient, mirrored, transposed
        words = {"gradient": gradient, "mirrored": mirrored, "transposed": transposed}
        parts = ["dis", preset if preset != "medium" else "", str(descent or ""), *(w for w, on in words.items() if on)]
        self.name = "_".join(filter(None, parts))

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return flow_ab (B, 2, H, W) float32 for images (B, 3, H, W) in [-1, 1]."""
        # OpenCV would use all cores, whatever the option threads says, and on a busy machine wait for them.
        if cv2.getNumThreads() > torch.get_num_threads():
            cv2.setNumThreads(torch.get_num_threads())
        # A new object for each pair: one that is used again begins with what it found before, and the flow of a pair,
        # and all that follows from it, would depend on the pairs before (by a tenth of a pixel).
        flows = []
        read = _gradient if self.gradient else _grey
        for first, second in zip(read(a), read(b), strict=True):
            search = cv2.DISOpticalFlow.create(PRESETS[self.preset])
            if self.descent is not None:
                search.setGradientDescentIterations(self.descent)
            # Without an array for the result: DIS would start from its content, which finds less, even if it is 0.
            found = search.calc(self._turned(first), self._turned(second), None)  # type: ignore[call-overload]
            flows.append(self._turned_back(np.asarray(found)))
        return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).contiguous().to(a.device)

    def _turned(self, image: np.ndarray) -> np.ndarray:
        """Return an image (H,W) as it is read, mirrored and transposed."""
        image = image[:, ::-1] if self.mirrored else image
        return np.ascontiguousarray(image.T if self.transposed else image)

    def _turned_back(self, flow: np.ndarray) -> np.ndarray:
        """Return the flow (H,W,2) of the images as they were."""
        if self.transposed:
            flow = flow.transpose(1, 0, 2)[..., ::-1]
        return flow[:, ::-1] * np.array([-1, 1], np.float32) if self.mirrored else flow


#: Estimates of a flow in the order of their use: each errs in other places than those before.
ESTIMATORS: tuple[FlowEstimator, ...] = (
    DISFlow(),
    DISFlow(gradient=True),
    DISFlow(gradient=True, transposed=True),
    DISFlow(mirrored=True),
)


def flow_both_ways(first: Tensor, last: Tensor, estimate: FlowEstimator | None = None) -> Tensor:
    """Return the flow (B,4,H,W) in pixels from first to last, then from last to first (B,3,H,W in [-1,1]); by DIS."""
    estimate = estimate or DISFlow()
    return torch.cat([estimate(first, last), estimate(last, first)], 1)


def flow_estimates(first: Tensor, last: Tensor, luma: FlowEstimator | None = None, count: int = 2) -> Tensor:
    """Return estimates (B,M,4,H,W) of the flow between both frames: the first M = ``count`` of :data:`ESTIMATORS`.

    With two, these are DIS on the luma, and on its gradient.

    Args:
        first: (B,3,H,W) in [-1,1].
        last: the same.
        luma: takes the place of the first estimator.
        count: from 1 to ``len(ESTIMATORS)``.

    Raises:
        ValueError: for another count.
    """
    if not 1 <= count <= len(ESTIMATORS):
        raise ValueError(f"There are 1 to {len(ESTIMATORS)} estimates of a flow, not {count}.")
    estimators = (luma or ESTIMATORS[0], *ESTIMATORS[1:count])
    return torch.stack([flow_both_ways(first, last, estimate) for estimate in estimators], 1)


class LatestFlow:
    """An estimator that keeps the flows there and back of the latest pair, for several methods that need them.

    Args:
        estimator: estimates each flow once.
    """

    def __init__(self, estimator: FlowEstimator) -> None:
        self.estimator, self.name = estimator, estimator.name
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return flow_ab (B, 2, H, W) for images (B, 3, H, W) in [-1, 1]."""
        for first, second, flow in self._kept:
            if first is a and second is b:
                return flow
        self._kept = [*self._kept[-1:], (a, b, self.estimator(a, b))]
        return self._kept[-1][2]


class RAFTFlow:
    """RAFT (Teed and Deng 2020) by torchvision, with weights from a file: slower and better than DIS.

    Args:
        weights: state dict of torchvision's ``raft_small`` or ``raft_large``, as torchvision downloads it.
        model: ``raft_small`` or ``raft_large``.
        device: where the network lives.

    Raises:
        AnimegenError: if the file is missing or holds something else.
    """

    MODELS = ("raft_small", "raft_large")
    SMALLEST = 128  # pixels: RAFT pools its features, at 1/8, four times

    def __init__(
        self, weights: str | Path | None = None, model: str = "raft_small", device: torch.device | str = "cpu"
    ) -> None:
        from torchvision.models import optical_flow  # on demand: few need it

        if model not in self.MODELS:
            raise AnimegenError(
                f"There is no flow network '{model}': use {', '.join(self.MODELS)}.{did_you_mean(model, self.MODELS)}"
            )
        if weights is None or not Path(weights).is_file():
            where = "no weights were given" if weights is None else f"'{weights}' does not exist"
            raise AnimegenError(
                f"RAFT needs a file of weights, and {where}: download torchvision's {model} once and give its path,"
                " or use DIS flow, which needs none."
            )
        network = getattr(optical_flow, model)(weights=None, progress=False)
        try:
            content = load_data(weights, f"the weights of {model}", "download them again")
            network.load_state_dict(checked_state(content, f"'{weights}'"))
        except Exception as error:  # a broken file raises nearly every kind of exception
            raise AnimegenError(
                f"'{weights}' does not hold the weights of torchvision's {model}: download them again, or name the"
                " other model."
            ) from error
        self.name = model
        self.network = network.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return flow_ab (B, 2, H, W) float32 for images (B, 3, H, W) in [-1, 1] of any size."""
        height, width = a.shape[-2:]
        sides = [max(self.SMALLEST, -(-side // 8) * 8) for side in (height, width)]
        margin = (0, sides[1] - width, 0, sides[0] - height)
        device = next(self.network.parameters()).device
        first, second = (F.pad(image.float(), margin, mode="replicate").to(device) for image in (a, b))
        flow = self.network(first, second)[-1]
        return flow[..., :height, :width].to(a.device)


class Motion(NamedTuple):
    """The motion from one frame to another.

    Attributes:
        flow: (1, 2, H, W) in pixels.
        valid: (1, 1, H, W) bool: the point is visible in both frames.
    """

    flow: Tensor
    valid: Tensor


class ClipMotion(Protocol):
    """The motion within one clip, by frame numbers; temporal metrics follow it."""

    @property
    def name(self) -> str:
        """Name of the flow, for the metrics."""
        ...

    def between(self, first: int, second: int) -> Motion:
        """Return the motion from frame ``first`` to frame ``second``, on the grid of ``first``."""
        ...


class EstimatedMotion:
    """Motion of a clip by an estimator; a pixel is valid where forward and backward flow agree.

    Args:
        clip: (T, 3, H, W), uint8 or float in [-1, 1]: the frames that are looked at (of a stylised clip: the photos).
        estimator: DIS unless given.
    """

    def __init__(self, clip: Tensor, estimator: FlowEstimator | None = None) -> None:
        self.clip, self.estimator = clip, estimator or DISFlow()
        self.name = self.estimator.name
        self._flows: dict[tuple[int, int], Tensor] = {}
        self._kept: dict[tuple[int, int], Motion] = {}

    def flow(self, first: int, second: int) -> Tensor:
        """Return the flow (1, 2, H, W) from one frame to another; each is estimated once."""
        if (first, second) not in self._flows:
            a, b = (as_pictures(self.clip[n : n + 1]) for n in (first, second))
            self._flows[first, second] = self.estimator(a, b)
        return self._flows[first, second]

    def between(self, first: int, second: int) -> Motion:
        """Return the estimated motion from frame ``first`` to frame ``second``; results are cached."""
        if (first, second) not in self._kept:
            there = self.flow(first, second)
            self._kept[first, second] = Motion(there, consistent(there, self.flow(second, first)))
        return self._kept[first, second]


class ExactMotion:
    """The true motion of a scene of the generated world; a pixel is valid where its point is visible in both frames.

    (The flow of a scene does not follow from its images, so this one goes by frame numbers only.)
    """

    name = "exact"

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._kept: dict[tuple[int, int], Motion] = {}

    def between(self, first: int, second: int) -> Motion:
        """Return the true motion, pixels on a border between parts not being valid; results are cached."""
        if (first, second) not in self._kept:
            flow = torch.from_numpy(self.scene.flow(first, second)).unsqueeze(0)
            seen = torch.from_numpy(self.scene.visibility(first, second)) == VISIBLE
            self._kept[first, second] = Motion(flow, seen[None, None])
        return self._kept[first, second]


def as_pictures(images: Tensor) -> Tensor:
    """Return images in [-1, 1], which uint8 ones are converted to."""
    return to_float(images) if images.dtype == torch.uint8 else images.float()


def _grey(images: Tensor) -> list[np.ndarray]:
    pictures = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
    return [cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY) for picture in pictures]


def _gradient(images: Tensor) -> list[np.ndarray]:
    sides = ((cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) for grey in _grey(images))
    return [np.hypot(x, y).round().clip(0, 255).astype(np.uint8) for x, y in sides]
