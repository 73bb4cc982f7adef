"""Composition of each output with the previous one, warped along the optical flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.clips import stack_frames
from animegen.nn.conv import SLOPE, ReflectConv
from animegen.nn.precision import at_least_float32
from animegen.nn.warp import inside, warp_by_grid, warp_grid

#: Output of the generator: the drawing of the frame, or its composition with the previous output.
COMPOSITIONS = ("none", "previous")

#: Hidden channels of the network that predicts the mask.
CHANNELS = 16


class Composition(nn.Module):
    """Compose each drawing with the previous output, warped along the flow (as in vid2vid, Wang et al. 2018)::

        out_t = m d_t + (1 - m) W(out_(t-1))

    The mask m has one value per pixel. It is predicted from the difference between the frame and the warped previous
    frame, and from the difference between the drawing and the warped output: it should be near 1 where the video
    changes beyond its motion, or where the flow is wrong. It is 1 on the first frame of a stream and where the flow
    points outside of the frame.

    Before training the mask is about 0.73 everywhere. Outputs are at least float32, also under autocast, since they
    are carried to the next frame.
    """

    def __init__(self) -> None:
        super().__init__()
        self.compare = ReflectConv(12, CHANNELS, 3, bias=True)
        self.hidden = ReflectConv(CHANNELS, CHANNELS, 3, bias=True)
        self.mask = ReflectConv(CHANNELS, 1, 3, bias=True)
        nn.init.zeros_(self.mask.weight)
        self.mask.bias = nn.Parameter(torch.ones(1))

    def forward(
        self,
        drawings: Tensor,
        frames: Tensor,
        flow: Tensor,
        carried: tuple[Tensor, Tensor] | None = None,
        reset: Tensor | None = None,
        detach_every: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Compose the drawings of clips.

        Args:
            drawings: the drawings ``(B,T,3,H,W)`` in [-1,1], each of its frame alone.
            frames: the frames ``(B,T,3,H,W)`` in [-1,1].
            flow: ``(B,T,2,H,W)`` in pixels, from each frame to the previous one; ignored at the start of a stream.
            carried: the previous output and frame, ``(B,3,H,W)`` each; ``None`` at the start of the streams. An output
                that is 0 everywhere represents a reset stream.
            reset: bool ``(B,T)``, true where a stream is reset before that frame.
            detach_every: number of frames after which gradients are truncated; 0 for never.

        Returns:
            outputs ``(B,T,3,H,W)`` and masks ``(B,T,1,H,W)``.
        """
        drawings, frames = at_least_float32(drawings), at_least_float32(frames)
        starts = (
            reset if reset is not None else torch.zeros(drawings.shape[:2], dtype=torch.bool, device=drawings.device)
        )
        if carried is not None:
            starts = starts.clone()
            starts[:, 0] |= ~carried[0].flatten(1).any(1)
        outputs, masks = [], []
        for t in range(drawings.shape[1]):
            if carried is None:
                mask, out = torch.ones_like(drawings[:, t, :1]), drawings[:, t]
            else:
                last = carried[0].detach() if detach_every and t and t % detach_every == 0 else carried[0]
                grid = warp_grid(flow[:, t])
                warped = warp_by_grid(last, grid, mode="bicubic").clamp(-1, 1)
                valid = inside(flow[:, t]) & ~starts[:, t].view(-1, 1, 1, 1)
                change = frames[:, t] - warp_by_grid(carried[1], grid)
                mask = torch.where(valid, self._mask(change, drawings[:, t] - warped), 1.0)
                out = torch.lerp(warped, drawings[:, t], mask)
            carried = out, frames[:, t]
            outputs.append(out)
            masks.append(mask)
        return stack_frames(outputs), stack_frames(masks)

    def _mask(self, frame_change: Tensor, output_change: Tensor) -> Tensor:
        changes = torch.cat([frame_change, frame_change.abs(), output_change, output_change.abs()], 1)
        x = F.leaky_relu(self.hidden(F.leaky_relu(self.compare(changes), SLOPE)), SLOPE)
        return torch.sigmoid(at_least_float32(self.mask(x)))
