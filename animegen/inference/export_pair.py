"""Export of a frame interpolation network: a function of two frames and a time."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from animegen.inference.export_graph import ExportWrapper
from animegen.nn.inbetween.base import InbetweenNetwork, Symmetric
from animegen.tasks.inbetween import InbetweenModule


class PairWrapper(ExportWrapper):
    """A frame interpolation network applied to one pair of frames of any size, without a flow prior.

    A network that was trained with a prior finds the motion itself, since OpenCV, which estimates the prior, is no part
    of a graph. Frames are padded by repeating their edge, as :func:`~animegen.tasks.inbetween.padded` does.

    Args:
        model: one that :meth:`takes` accepts. Its prior is switched off.
    """

    inputs = ("first", "last", "time")
    output = "between"
    task = "interpolate: two frames and a time from 0 to 1 to the frame between"
    command = "interpolate"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.one_by_one = True
        network: Any = cast(InbetweenModule, model).generator
        network = network.network if isinstance(network, Symmetric) else network
        #: Whether the network was trained with a flow prior.
        self.had_prior = getattr(network, "prior", "none") != "none"
        if self.had_prior:
            network.prior = "none"

    def drop_training_weights(self) -> None:
        """Delete all networks but the generator."""
        for name, _ in list(self.model.named_children()):
            if name != "generator":
                setattr(self.model, name, None)

    @staticmethod
    def takes(model: object) -> bool:
        """Return whether the frames of a model come from one network."""
        return isinstance(model, InbetweenModule) and isinstance(getattr(model, "generator", None), InbetweenNetwork)

    def forward(self, first: Tensor, last: Tensor, time: Tensor) -> Tensor:
        """Map two frames (1,3,H,W) in [-1,1] and a time (1,) to the frame between."""
        network: Any = cast(InbetweenModule, self.model).generator
        state = network.encode_pair(self.enlarged(first), self.enlarged(last))
        return self.cropped(network.synthesize(state, time).image.clamp(-1, 1), first)

    def expected(self, *inputs: Tensor) -> Tensor:
        """Return what the model makes of the inputs without being exported."""
        first, last, time = inputs
        model = cast(InbetweenModule, self.model)
        return model.synthesize(model.encode_pair(first, last), time)

    def arguments(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return test images, the same shifted, and a time."""
        return images, images.roll((1, 3), (-2, -1)), torch.full((len(images),), 0.3, device=images.device)

    def _sources(self, side: int, device: torch.device) -> Tensor:
        divisor = self.size_divisor
        return torch.arange((side + divisor - 1) // divisor * divisor, device=device).clamp(max=side - 1)
