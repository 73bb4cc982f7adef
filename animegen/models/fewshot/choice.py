"""Network that chooses, for each pixel, between the carried key frames and what the generator draws."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.data.keyframes.carried import SLOT, blended
from animegen.models.fewshot.fast import FoldingSequential, in_strips
from animegen.nn.conv import SLOPE

#: Channels that the network sees per key: photo, drawing, carried key, and its distance from the blended keys.
INPUTS = 3 + 3 + (SLOT - 1) + 3
#: Margin of the strips in rows: what the convolutions and the upsampling read, a multiple of 2.
MARGIN = 16


class KeyChoice(nn.Module):
    """Blends carried key frames and a drawing.

    One small network sees each key beside the frame, the drawing and the blended keys, and scores the key and the
    drawing. The same weights serve all keys, so their number is free and their order has no effect. The scores are
    added to what :func:`~animegen.data.keyframes.carried.blended` gives: before training, the output is the blended
    keys where their confidence is 1, and the drawing where it is 0.

    Args:
        channels: channels of the network.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        c = channels
        self.full = _layer(INPUTS, c)
        self.wide = nn.Sequential(_layer(c, 2 * c, stride=2), _layer(2 * c, 2 * c, dilation=2), nn.Conv2d(2 * c, c, 1))
        self.end = _layer(2 * c, c)
        self.scores = nn.Conv2d(c, 2, 1)
        nn.init.zeros_(self.scores.weight)
        assert self.scores.bias is not None
        nn.init.zeros_(self.scores.bias)

    def forward(self, photo: Tensor, drawn: Tensor, keys: Tensor) -> Tensor:
        """Return the output (B, 3, H, W) in [-1, 1].

        Args:
            photo: the frame (B, 3, H, W) in [-1, 1], with even sides.
            drawn: what the generator draws, likewise. Gradients reach it where it is shown, but not from the scores.
            keys: channels (B, N * SLOT, H, W) of a :class:`~animegen.data.keyframes.FlowKeys` guide.
        """
        if self.training or torch.is_grad_enabled():
            return self._blend(photo, drawn, keys)
        return in_strips(self._blend, [(photo, 1), (drawn, 1), (keys, 1)], MARGIN, multiple=2)

    def _blend(self, photo: Tensor, drawn: Tensor, keys: Tensor) -> Tensor:
        keys, drawn = keys.float(), drawn.float()  # what is copied must not be rounded to bfloat16
        mean, weights = blended(keys)
        slots = keys.unflatten(1, (-1, SLOT))
        confidence = (weights * (slots[:, :, 3:4] + 1) / 2).sum(1)
        same = (part[:, None].expand(-1, slots.shape[1], -1, -1, -1) for part in (photo.float(), drawn.detach()))
        seen = torch.cat([*same, slots[:, :, : SLOT - 1], slots[:, :, :3] - mean[:, None]], 2)
        scores = self._scores(seen.flatten(0, 1)).float().unflatten(0, (-1, slots.shape[1]))
        weights = (weights.clamp_min(1e-6).log() + scores[:, :, :1]).softmax(1)
        chosen = (weights * slots[:, :, :3]).sum(1)
        doubt = (1 - confidence) ** 4
        share = torch.sigmoid((doubt + 1e-3).log() - (1 - doubt + 1e-3).log() + (weights * scores[:, :, 1:]).sum(1))
        return chosen + share * (drawn - chosen)

    def _scores(self, seen: Tensor) -> Tensor:
        full = self.full(seen)
        around = F.interpolate(self.wide(full).float(), scale_factor=2.0, mode="bilinear").to(full.dtype)
        return self.scores(self.end(torch.cat([full, around], 1)))


def _layer(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation)
    return FoldingSequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE, inplace=True))
