"""Direct synthesis of the frame by a U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.nn.conv import scale_channels
from animegen.nn.inbetween.base import InbetweenNetwork, InbetweenOutput, blend, bump, time_map
from animegen.nn.inbetween.unet import UNet


class UNetInterpolator(InbetweenNetwork):
    """Direct synthesis: a U-Net predicts the difference to the cross-fade from both frames and the time.

    Before training the output equals the cross-fade. At t = 0 and t = 1 it always equals the given frame.

    Args:
        channels: channels of each level at width 1.
        blocks: residual blocks per level, in the encoder and in the decoder.
        attention: self-attention at the coarsest level.
        dropout: dropout probability in the residual blocks.
        head: ``residual`` adds the output to the cross-fade; ``direct`` predicts the image itself.
        width: factor on all channel counts.

    Raises:
        AnimegenError: if there is no such head.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        blocks: int = 2,
        attention: bool = False,
        dropout: float = 0.0,
        head: str = "residual",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if head not in ("residual", "direct"):
            raise AnimegenError(f"The U-Net has no head '{head}': use residual or direct.")
        self.head = head
        sizes = [scale_channels(c, width) for c in channels]
        self.unet = UNet(7, 3, sizes, blocks, attention, dropout)
        self.size_divisor = self.unet.size_divisor

    def synthesize(self, state: dict[str, Any], t: Tensor) -> InbetweenOutput:
        """Return the frames at time ``t`` (B,)."""
        first, last = state["first"], state["last"]
        output = self.unet(torch.cat([first, last, time_map(t, first)], 1), t)
        if self.head == "direct":
            return InbetweenOutput(torch.tanh(output), {})
        return InbetweenOutput(blend(first, last, t) + bump(t, output) * output, {})
