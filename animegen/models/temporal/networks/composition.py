"""Taking over from the last drawing what a frame shows again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.conv import SLOPE, ReflectConv
from animegen.nn.precision import at_least_float32
from animegen.nn.warp import backward_warp, inside

#: What is put out: the drawing of the frame, or that composed with the output before.
COMPOSITIONS = ("none", "previous")

#: Channels of the layers that decide where.
CHANNELS = 16


class Composition(nn.Module):
    """Compose each drawing with the output before, moved along the flow (as vid2vid does, Wang et al. 2018)::

        out_t = m d_t + (1 - m) W(out_(t-1))

    The mask m, one value per pixel, is read off by how much the frame differs from the moved frame before, and the
    drawing from the moved output: where the film changed beyond its motion, or the flow is wrong, m should be near 1.
    It is 1 on the first frame of a stream, and where the flow leads out of the picture.

    The mask begins at about 0.73 everywhere. Outputs are at least float32 also under autocast: they are handed on.
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
        drawn: Tensor,
        frames: Tensor,
        flow: Tensor,
        carried: tuple[Tensor, Tensor] | None = None,
        reset: Tensor | None = None,
        detach_every: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Run over clips.

        Args:
            drawn: the drawings ``(B,T,3,H,W)`` in [-1,1], each of its frame alone.
            frames: the frames ``(B,T,3,H,W)`` in [-1,1].
            flow: ``(B,T,2,H,W)`` in pixels, from each frame into the one before (anything at the first of a stream).
            carried: output and frame before these ``(B,3,H,W)``; ``None`` at the start of the streams. A stream whose
                output is 0 everywhere was emptied.
            reset: bool ``(B,T)``: where true, that stream starts anew before that frame.
            detach_every: gradients end after so many frames; 0: they reach the first frame of the call.

        Returns:
            Outputs ``(B,T,3,H,W)``, and the masks ``(B,T,1,H,W)``.
        """
        drawn, frames = at_least_float32(drawn), at_least_float32(frames)
        begun = reset if reset is not None else torch.zeros(drawn.shape[:2], dtype=torch.bool, device=drawn.device)
        if carried is not None:
            begun = begun.clone()
            begun[:, 0] |= ~carried[0].flatten(1).any(1)
        outputs, masks = [], []
        for t in range(drawn.shape[1]):
            if carried is None:
                mask, out = torch.ones_like(drawn[:, t, :1]), drawn[:, t]
            else:
                last = carried[0].detach() if detach_every and t and t % detach_every == 0 else carried[0]
                moved = backward_warp(last, flow[:, t], mode="bicubic").clamp(-1, 1)
                seen = inside(flow[:, t]) & ~begun[:, t].view(-1, 1, 1, 1)
                change = frames[:, t] - backward_warp(carried[1], flow[:, t])
                mask = torch.where(seen, self._mask(change, drawn[:, t] - moved), 1.0)
                out = torch.lerp(moved, drawn[:, t], mask)
            carried = out, frames[:, t]
            outputs.append(out)
            masks.append(mask)
        return torch.stack(outputs, 1), torch.stack(masks, 1)

    def _mask(self, change: Tensor, redrawn: Tensor) -> Tensor:
        seen = torch.cat([change, change.abs(), redrawn, redrawn.abs()], 1)
        x = F.leaky_relu(self.hidden(F.leaky_relu(self.compare(seen), SLOPE)), SLOPE)
        return torch.sigmoid(at_least_float32(self.mask(x)))
