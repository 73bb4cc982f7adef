"""Guides: additional input channels that identify positions on moving objects.

Guides are causal: that of a frame depends on this frame and earlier ones. Drawing them frame by frame during inference
gives the same result as drawing them once for training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.data.sampler import counter_hash, counter_hash_tensor, random_bits, uniform
from animegen.errors import AnimegenError
from animegen.media.images import to_uint8
from animegen.media.video.flow import DISFlow, FlowEstimator
from animegen.nn.warp import backward_warp, consistent


class Guide(nn.Module):
    """Base class of guides for one stream of frames, without internal state."""

    #: Number of channels.
    channels: int
    #: Whether :meth:`advance` needs optical flow.
    moves = False

    def start(self, frame: Tensor) -> Any:
        """Return the state after the first frame (1, 3, H, W) in [-1, 1]."""
        return None

    def advance(self, state: Any, frame: Tensor, there: Tensor | None, back: Tensor | None) -> Any:
        """Return the state after the next frame.

        Args:
            state: state after the frame before.
            frame: (1, 3, H, W) in [-1, 1].
            there: flow (1, 2, H, W) from the frame before to this one.
            back: flow from this frame to the one before.
        """
        return state

    def draw(self, state: Any, frame: Tensor) -> Tensor:
        """Return the guide of a frame, uint8 (channels, H, W)."""
        raise NotImplementedError


class GaussGuide(Guide):
    """Coloured blobs that follow the motion: the random Gaussian guide of Texler et al. 2020.

    The first frame is covered with randomly coloured points at least ``radius`` apart, which follow the flow. Points
    that become occluded, leave the frame or come close to an older one are removed; holes are filled with new points.
    Each point contributes its colour with the weight ``exp(-d^2 / sigma^2)``; overlaps are averaged, and far from all
    points the guide is black.

    In the released tool points are never removed or added, and later points cover earlier ones.

    Args:
        radius: minimum distance of points in pixels.
        sigma: size of the blobs in pixels.
        seed: seed of points and colours.
    """

    channels = 3
    moves = True
    #: Threshold on the sum of the blobs below which there is a hole: 1.5 radii from the next point if sigma = radius.
    hole = 0.1

    def __init__(self, radius: float = 10.0, sigma: float = 10.0, seed: int = 1337) -> None:
        super().__init__()
        if radius < 1 or sigma <= 0:
            raise AnimegenError(f"A gauss guide needs radius >= 1 and sigma > 0, not {radius} and {sigma}.")
        self.radius, self.sigma, self.seed = float(radius), float(sigma), seed

    def start(self, frame: Tensor) -> dict[str, Tensor]:
        """Cover the frame with points."""
        empty = {
            "points": frame.new_zeros(0, 2),
            "births": torch.zeros(0, dtype=torch.long, device=frame.device),
            "born": torch.zeros((), dtype=torch.long, device=frame.device),
        }
        return self._fill(empty, torch.ones(frame.shape[-2:], dtype=torch.bool, device=frame.device))

    def advance(
        self, state: dict[str, Tensor], frame: Tensor, there: Tensor | None, back: Tensor | None
    ) -> dict[str, Tensor]:
        """Move the points, remove lost ones and fill the holes."""
        assert there is not None
        assert back is not None
        points, births = move_points(state["points"], there), state["births"]
        height, width = frame.shape[-2:]
        seen = consistent(there, back)[0, 0]
        before = state["points"].round().long()
        kept = seen[before[:, 1], before[:, 0]]
        kept &= (points >= 0).all(1) & (points[:, 0] <= width - 1) & (points[:, 1] <= height - 1)
        points, births = points[kept], births[kept]
        # Points are in order of creation: of two close ones the later is removed.
        near = torch.cdist(points, points) < self.radius / 2
        alone = ~near.tril(-1).any(1)
        state = {"points": points[alone], "births": births[alone], "born": state["born"]}
        return self._fill(state, self.coverage(state["points"], height, width) < self.hole)

    def draw(self, state: dict[str, Tensor], frame: Tensor) -> Tensor:
        """Return the guide of a frame, uint8 (3, H, W)."""
        return to_uint8(self.splat(state["points"], self.colours(state["births"]), *frame.shape[-2:]) * 2 - 1)

    def colours(self, births: Tensor) -> Tensor:
        """Return the colours (N, 3) in [0, 1) of points by their serial numbers."""
        draws = counter_hash_tensor(
            counter_hash(self.seed, "colour"), births[:, None], torch.arange(3, device=births.device)
        )
        return uniform(draws)

    def splat(self, points: Tensor, colours: Tensor, height: int, width: int) -> Tensor:
        """Return the image (3, H, W) in [0, 1] of points (N, 2), x and y in pixels, with colours (N, 3)."""
        across, down = self._falloff(points, height, width)
        total = down.T @ across
        painted = torch.einsum("nh,nc,nw->chw", down, colours, across)
        return painted / total.clamp_min(self.hole)

    def coverage(self, points: Tensor, height: int, width: int) -> Tensor:
        """Return the sum of all blobs, (H, W)."""
        across, down = self._falloff(points, height, width)
        return down.T @ across

    def _falloff(self, points: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        # exp(-(dx^2 + dy^2) / sigma^2) is a product of one factor for x and one for y.
        columns, rows = (torch.arange(side, device=points.device, dtype=points.dtype) for side in (width, height))
        across = torch.exp(-(((columns - points[:, :1]) / self.sigma) ** 2))
        return across, torch.exp(-(((rows - points[:, 1:]) / self.sigma) ** 2))

    def _fill(self, state: dict[str, Tensor], allowed: Tensor) -> dict[str, Tensor]:
        """Add points where ``allowed`` (H, W), at least ``radius`` apart, by random trials."""
        points, births, born = state["points"], state["births"], int(state["born"])
        places = allowed.flatten().nonzero().flatten()
        if not len(places):
            return state
        width = allowed.shape[1]
        # A saturated random packing has 0.7 points per radius^2; use a multiple of that as the number of trials.
        attempts = int(len(places) / self.radius**2 * 8) + 8
        for start in range(0, attempts, 1024):
            turn = torch.arange(start, min(start + 1024, attempts), device=points.device)
            bits = random_bits(counter_hash_tensor(counter_hash(self.seed, "point", born), turn))
            chosen = places[(bits * len(places)) >> 24]
            new = torch.stack([chosen % width, chosen // width], 1).to(points.dtype)
            if len(points):
                new = new[torch.cdist(new, points).amin(1) >= self.radius]
            points = torch.cat([points, new[_first_come(new, self.radius)]])
        added = len(points) - len(births)
        numbers = torch.arange(born, born + added, device=births.device)
        return {"points": points, "births": torch.cat([births, numbers]), "born": state["born"] + added}


class CoordinateGuide(Guide):
    """Coordinates (x, y) of each pixel in the first frame, 0 to 255 across the frame, propagated by the flow.

    Newly visible pixels get the coordinates at which they appear.
    """

    channels = 2
    moves = True

    def start(self, frame: Tensor) -> Tensor:
        """Return the coordinates (1, 2, H, W) of the pixels in [-1, 1]."""
        rows, columns = (torch.linspace(-1, 1, side, device=frame.device) for side in frame.shape[-2:])
        return torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1])[None]

    def advance(self, state: Tensor, frame: Tensor, there: Tensor | None, back: Tensor | None) -> Tensor:
        """Warp the coordinates by the flow."""
        assert there is not None
        assert back is not None
        return torch.where(consistent(back, there), backward_warp(state, back), self.start(frame))

    def draw(self, state: Tensor, frame: Tensor) -> Tensor:
        """Return the coordinates as an image of two channels."""
        return to_uint8(state[0])


class EdgeGuide(Guide):
    """Edge strength: the magnitude of the luma gradient after a slight blur.

    Args:
        gain: factor on the gradient, in units of the range per pixel; values are clamped to 1 (white).
    """

    channels = 1

    def __init__(self, gain: float = 8.0) -> None:
        super().__init__()
        self.gain = gain

    def draw(self, state: Any, frame: Tensor) -> Tensor:
        """Return the edges, 0 where the frame is flat."""
        weights = frame.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        luma = ((frame + 1) / 2 * weights).sum(1, keepdim=True)
        luma = F.avg_pool2d(F.pad(luma, (1,) * 4, mode="replicate"), 3, stride=1)
        wide = F.pad(luma, (1,) * 4, mode="replicate")
        across = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
        down = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
        strength = (across.square() + down.square()).sqrt() * self.gain
        return to_uint8(strength.clamp(0, 1)[0] * 2 - 1)


class FileGuide(Guide):
    """Guide given as one image per frame, such as a render pass.

    Args:
        channels: number of channels of the images.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels

    def draw(self, state: Any, frame: Tensor) -> Tensor:
        """Not available.

        Raises:
            AnimegenError: always, since the guide cannot be computed from the frame.
        """
        raise AnimegenError(
            "The model was trained with a guide from files, which cannot be computed from a frame: pass the guides to"
            " model.stylize(frames, state, style=guides), or train with computed guides (gauss, xy, edges)."
        )


class Guides(nn.Module):
    """The guides of a model in order, stacked as channels, frame by frame.

    Args:
        guides: name -> guide, or ``None`` for none.
        flow: optical flow estimator, by default DIS.
    """

    def __init__(self, guides: Mapping[str, Guide | None] | None = None, flow: FlowEstimator | None = None) -> None:
        super().__init__()
        self.guides = nn.ModuleDict({name: guide for name, guide in (guides or {}).items() if guide is not None})
        self._flow = flow

    @property
    def channels(self) -> int:
        """Number of channels of all guides."""
        return sum(guide.channels for guide in self.items().values())

    def items(self) -> dict[str, Guide]:
        """Return the guides by name."""
        return {name: guide for name, guide in self.guides.items() if isinstance(guide, Guide)}

    def next(self, frame: Tensor, state: dict[str, Any] | None) -> tuple[Tensor, dict[str, Any]]:
        """Draw all guides of the next frame of a stream.

        Args:
            frame: (1, 3, H, W) in [-1, 1].
            state: state after the frame before; ``None`` for the first frame.

        Returns:
            uint8 (channels, H, W), and the state.
        """
        frame = frame.float()
        guides = self.items()
        states: dict[str, Any] = {}
        if state is None:
            states = {name: guide.start(frame) for name, guide in guides.items()}
        else:
            there = back = None
            if any(guide.moves for guide in guides.values()):
                self._flow = self._flow or DISFlow()
                there, back = self._flow(state["frame"], frame), self._flow(frame, state["frame"])
            for name, guide in guides.items():
                states[name] = guide.advance(state["guides"][name], frame, there, back)
        drawn = [guide.draw(states[name], frame) for name, guide in guides.items()]
        return torch.cat(drawn), {"frame": frame, "guides": states}


def move_points(points: Tensor, flow: Tensor) -> Tensor:
    """Move points (N, 2), x and y in pixels, along the flow (1, 2, H, W) with bilinear interpolation."""
    height, width = flow.shape[-2:]
    scale = points.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = (2 * points / scale - 1)[None, None]
    moved = F.grid_sample(flow, grid, "bilinear", "border", align_corners=True)
    return points + moved[0, :, 0].T


def _first_come(points: Tensor, radius: float) -> Tensor:
    """Return a bool mask of points (N, 2) after removing, in order, each point within ``radius`` of a kept one."""
    near = (torch.cdist(points, points) < radius).tril(-1)
    stays = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    undecided = ~stays
    while bool(undecided.any()):
        # A point without undecided earlier neighbours is settled: it stays unless a kept point is near.
        settled = undecided & ~(near & undecided).any(1)
        stays |= settled & ~(near & stays).any(1)
        undecided &= ~settled
    return stays
