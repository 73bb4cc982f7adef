"""Dense motion of the frames between two frames, from the hidden vectors of their codes and the pixels of both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.ganime.networks.blocks import ResBlock
from animegen.models.ganime.networks.pixels import PairMaps, correlation
from animegen.nn.inbetween.base import zero_init
from animegen.nn.warp import backward_warp

#: Channels of the motion: flow to both given frames, and the logit of the mask.
MOTION = 5
#: Groups of the norms.
_GROUPS = 8


class MotionHead(nn.Module):
    """Flow from frames between two frames to both of them, and a mask, at half the size of the frames.

    A hidden vector of the transformer holds what a code's place is like at a time, for a square of 4x4 or 8x8 pixels.
    The head enlarges hidden vectors to 1/4 of the size of the frames by pixel shuffle, joins them with the features of
    both frames, and estimates the motion coarsely. Then it warps the features of both frames by the estimate, compares
    them in a small window, and corrects, as PWC-Net (Sun et al. 2018) and RAFT (Teed and Deng 2020) do: ``steps`` times
    at 1/4 and once at 1/2 of the size. Before training all motion is 0.

    The flow is in pixels for the whole time between the given frames: the flow from the frame at time t to the first
    frame is t times the first two channels, to the last frame 1 - t times the next two. So uniform motion is the same
    at all times. The mask is a logit that is added to that of 1 - t.

    Args:
        dim: channels of the hidden vectors.
        divisor: side of the square of pixels that one code represents.
        channels: channels of the frames' features at 1/4 of their size.
        matched: channels of their features after comparison.
        hidden: channels of the layers.
        steps: corrections at 1/4 of the size.
        radius: of the window of a correction, in steps of 4 pixels.
    """

    def __init__(
        self, dim: int, divisor: int, channels: int, matched: int, hidden: int = 96, steps: int = 2, radius: int = 2
    ) -> None:
        super().__init__()
        if steps < 1 or radius < 1:
            raise AnimegenError(f"The motion head needs steps and radius of at least 1, not {steps} and {radius}.")
        self.scale, self.radius = divisor // 4, radius
        self.expand = nn.Linear(dim, hidden * self.scale**2)
        self.shuffle = nn.PixelShuffle(self.scale)
        self.first = nn.Conv2d(hidden + 2 * matched + 1, hidden, 3, padding=1)
        self.body = nn.Sequential(ResBlock(hidden, hidden, _GROUPS), ResBlock(hidden, hidden, _GROUPS))
        self.to_motion = zero_init(nn.Conv2d(hidden, MOTION, 3, padding=1))
        window = (2 * radius + 1) ** 2
        self.corrections = nn.ModuleList(
            _Correction(hidden + 2 * channels + window + MOTION + 1, hidden) for _ in range(steps)
        )
        self.narrow = nn.Conv2d(hidden, hidden // 2, 1)
        self.last = _Correction(hidden // 2 + channels + MOTION + 1, hidden // 2)

    def forward(self, hidden: Tensor, pair: PairMaps, t: Tensor) -> list[Tensor]:
        """Return the estimates of the motion, the last one the best.

        Args:
            hidden: (B,F,h,w,dim), of the codes of F frames of each clip.
            pair: features of both given frames.
            t: (F,) times of the frames in (0,1).

        Returns:
            (B F,5,H/4,W/4) each, for frames of HxW pixels, and the last one (B F,5,H/2,W/2).
        """
        clips, frames = hidden.shape[:2]
        vectors = self.expand(hidden.flatten(0, 1)).permute(0, 3, 1, 2)
        repeated: list[Tensor] = [part.repeat_interleave(frames, 0) for part in pair]
        early, late, first, last, fine_early, fine_late = repeated
        time = t.to(vectors.dtype).repeat(clips).view(-1, 1, 1, 1)
        fraction = torch.cat([time, time, 1 - time, 1 - time], 1)

        def known(like: Tensor, motion: Tensor, parts: tuple[Tensor, Tensor], pixels: int) -> tuple[Tensor, ...]:
            """Return both feature maps warped by the motion so far, the motion, and the time."""
            flow = fraction * motion[:, :4] / pixels
            warped = [backward_warp(part, step) for part, step in zip(parts, flow.split(2, 1), strict=True)]
            return (*warped, (motion / pixels).to(like.dtype), time.expand_as(like[:, :1]))

        state = self.shuffle(vectors)
        state = self.first(torch.cat([state, first, last, time.expand_as(state[:, :1])], 1))
        state = self.body(state)
        motion = _scaled(self.to_motion(state))
        estimates = [motion]
        for correction in self.corrections:
            one, other, *rest = known(state, motion, (early, late), 4)
            matched = correlation(one, other, self.radius)
            state, change = correction(state, torch.cat([one, other, matched, *rest], 1))
            motion = motion + change
            estimates.append(motion)
        motion = torch.cat(
            [
                F.interpolate(part, scale_factor=2, mode="bilinear", align_corners=False)
                for part in motion.split([4, 1], 1)
            ],
            1,
        )
        state = F.interpolate(self.narrow(state), scale_factor=2, mode="bilinear", align_corners=False)
        state, change = self.last(state, torch.cat(known(state, motion, (fine_early, fine_late), 2), 1))
        return [*estimates, motion + change]


class _Correction(nn.Module):
    """Correct a state by what is known at the motion so far, and the motion, at first by 0.

    Args:
        inputs: channels of the state and of what is known.
        width: channels of the state.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = ResBlock(width, width, _GROUPS)
        self.to_motion = zero_init(nn.Conv2d(width, MOTION, 3, padding=1))

    def forward(self, state: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next state (N,width,h,w), and the change of the motion (N,5,h,w)."""
        state = state + self.body(self.read(torch.cat([state, known], 1)))
        return state, _scaled(self.to_motion(state))


def _scaled(raw: Tensor) -> Tensor:
    """Return output of a layer (N,5,h,w) as motion: flow in units of 4 pixels, so that layers and loss are about 1."""
    return torch.cat([4 * raw[:, :4], raw[:, 4:]], 1).float()
