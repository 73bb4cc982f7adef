"""Convolutional LSTM (Shi et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from animegen.nn.clips import stack_frames, to_clips, to_frames
from animegen.nn.conv import ReflectConv
from animegen.nn.precision import at_least_float32
from animegen.nn.warp import backward_warp, inside, resize_flow

#: Recurrent state: hidden and cell maps, (B,C,H,W) each, at least float32.
Carried = tuple[Tensor, Tensor]

#: Alignment of the recurrent state by the optical flow.
ALIGNMENTS = ("none", "flow", "flow_hidden")

_GROUPS = 8


class ConvLSTM(nn.Module):
    """A cell that runs over clips::

        i, f, o = sigmoid(...)    g = tanh(...)    c = f c' + i g    h = o tanh(c)

    The four gates come from a 3x3 convolution of ``[x, h']``, with group norm per frame before the activations.
    The convolution is a sum of two: that of the frames runs once for the whole clip, that of the hidden map runs
    frame by frame and is skipped at the start of a stream, where the map is 0. Gates and cell are at least float32,
    under autocast, too. Padding is by reflection. The bias of the forget gate starts at 1, the recurrent kernels are
    orthogonal.

    Args:
        inputs: channels of the frames.
        hidden: channels of hidden and cell map, a multiple of 2.
        norm: group norm (8 groups) of the gates, per frame, so that results do not depend on how a clip is split.
            ``False``: a bias instead.
    """

    def __init__(self, inputs: int, hidden: int, norm: bool = True) -> None:
        super().__init__()
        self.hidden = hidden
        self.read = ReflectConv(inputs, 4 * hidden, 3)
        self.recall = ReflectConv(hidden, 4 * hidden, 3)
        self.norm = nn.GroupNorm(_GROUPS, 4 * hidden) if norm else None
        self.bias: nn.Parameter | None = None
        nn.init.xavier_uniform_(self.read.weight)
        for gate in self.recall.weight.chunk(4):
            nn.init.orthogonal_(gate)
        start = torch.zeros(4 * hidden)
        start[hidden : 2 * hidden] = 1.0
        if self.norm is None:
            self.bias = nn.Parameter(start)
        else:
            self.norm.bias = nn.Parameter(start)

    def forward(
        self,
        frames: Tensor,
        carried: Carried | None = None,
        reset: Tensor | None = None,
        flow: Tensor | None = None,
        align: str = "none",
        detach_every: int = 0,
        noise: float = 0.0,
    ) -> tuple[Tensor, Carried]:
        """Run over clips.

        Args:
            frames: ``(B,T,inputs,H,W)``.
            carried: state after the frames before; ``None`` at the start of the streams.
            reset: bool ``(B,T)``: reset the state of a stream *before* that frame.
            flow: ``(B,T,2,h,w)``, from each frame to the one before, of any size; for ``align`` only.
            align: ``flow`` warps both maps by the flow before each frame (0 where it leaves the image),
                ``flow_hidden`` only the hidden map.
            detach_every: truncate the gradients after that many frames; 0: never within a call.
            noise: standard deviation of the noise added to the previous hidden map in training.

        Returns:
            Hidden maps ``(B,T,hidden,H,W)``, and the state after the last frame.
        """
        length = frames.shape[1]
        read = to_clips(self.read(to_frames(frames)), length)
        outputs = []
        for t in range(length):
            if carried is not None:
                if detach_every and t and t % detach_every == 0:
                    carried = carried[0].detach(), carried[1].detach()
                if reset is not None:
                    kept = ~reset[:, t].view(-1, 1, 1, 1)
                    carried = torch.where(kept, carried[0], 0.0), torch.where(kept, carried[1], 0.0)
                if flow is not None and align != "none":
                    carried = _moved(carried, flow[:, t], align)
                if noise and self.training:
                    carried = carried[0] + noise * torch.randn_like(carried[0]), carried[1]
            carried = self._step(read[:, t], carried)
            outputs.append(carried[0])
        assert carried is not None, "a clip has a frame"
        return stack_frames(outputs), carried

    def _step(self, read: Tensor, carried: Carried | None) -> Carried:
        gates = read if carried is None else read + self.recall(carried[0])
        with torch.autocast(gates.device.type, enabled=False):
            gates = at_least_float32(gates)
            if self.norm is not None:
                gates = self.norm(gates)
            elif self.bias is not None:
                gates = gates + self.bias.view(1, -1, 1, 1)
            # One sigmoid of all gates, since those of the strided quarters take longer.
            i, f, _, o = torch.sigmoid(gates).chunk(4, 1)
            cell = i * torch.tanh(gates.chunk(4, 1)[2])
            if carried is not None:
                cell = f * carried[1] + cell
            return o * torch.tanh(cell), cell


def _moved(carried: Carried, flow: Tensor, align: str) -> Carried:
    """Warp the state by a flow from this frame to the one before."""
    hidden, cell = carried
    flow = resize_flow(at_least_float32(flow), *hidden.shape[-2:])
    seen = inside(flow)
    hidden = backward_warp(hidden, flow) * seen
    return hidden, backward_warp(cell, flow) * seen if align == "flow" else cell
