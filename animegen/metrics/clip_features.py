"""Features of whole clips, for the Frechet video distance (FVD, Unterthiner et al. 2019).

Published values use an I3D network trained on action recognition. It is not distributed here; a user who has it gives
the path of its file. The name of the metric contains the name of the network, since values of different networks are
not comparable.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.nn.features import Frozen

#: A network with random weights, available everywhere. It responds to colour, edges and motion without any training.
RANDOM = "random3d"


class RandomClipNetwork(nn.Module):
    """Three 3-D convolutions of stride 2 with weights of seed 0, followed by global average pooling.

    Args:
        channels: output channels of the last convolution.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        widths = (3, channels // 4, channels // 2, channels)
        self.layers = nn.ModuleList(nn.Conv3d(a, b, 3, (1, 2, 2), 1) for a, b in pairwise(widths))
        generator = torch.Generator().manual_seed(0)
        for layer in self.layers:
            for parameter in layer.parameters():
                scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
                parameter.data = torch.randn(parameter.shape, generator=generator) * scale

    def forward(self, clips: Tensor) -> Tensor:
        """Map (B,3,T,H,W) in [-1,1] to (B,channels)."""
        for layer in self.layers:
            clips = F.relu(layer(clips))
        return clips.mean((2, 3, 4))


class ClipFeatures(Frozen):
    """Feature extractor that maps a clip to one vector.

    Args:
        network: ``random3d``, or a file with a network that maps (B,3,T,H,W) in [-1,1] to (B,C): TorchScript
            (``torch.jit.save``) or a program (``torch.export.save``, suffix .pt2). Its name is that of the file.
        size: side to which frames are resized first (I3D: 224); ``None`` keeps their size.
        frames: number of frames to which clips are resampled by nearest neighbour in time (I3D: 9 or more); ``None``
            keeps all frames.

    Raises:
        AnimegenError: if the file is missing or does not hold a network.
    """

    def __init__(self, network: str = RANDOM, size: int | None = None, frames: int | None = None) -> None:
        super().__init__(RandomClipNetwork() if network == RANDOM else _load(Path(network)))
        self.size, self.frames = size, frames
        self.name = RANDOM if network == RANDOM else Path(network).stem

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Return the features (B,C) of clips (B,T,3,H,W) in [-1,1], float32 on the CPU."""
        if self.frames is not None:
            chosen = torch.linspace(0, clips.shape[1] - 1, self.frames).round().long()
            clips = clips[:, chosen.to(clips.device)]
        if self.size is not None:
            shape = clips.shape[:2]
            small = F.interpolate(clips.flatten(0, 1), size=(self.size, self.size), mode="bilinear", antialias=True)
            clips = small.unflatten(0, shape)
        features = self.network(clips.float().transpose(1, 2))
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(clips):
            raise AnimegenError(
                f"The network '{self.name}' does not make one vector of each clip: give one that maps (B,3,T,H,W) to"
                " (B,C)."
            )
        return features.float().cpu()


class _Loaded(nn.Module):
    """Network from a file, always in eval mode, which exported programs cannot leave."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, clips: Tensor) -> Tensor:
        return self.inner(clips)

    def train(self, mode: bool = True) -> _Loaded:
        return self


def _load(path: Path) -> nn.Module:
    if not os.path.isfile(path):  # unlike Path.is_file it accepts names of any length
        raise AnimegenError(
            f"benchmark.network={path} does not exist: the Frechet video distance needs a network of clip features;"
            f" give a TorchScript or .pt2 file (of I3D, as in the literature), or {RANDOM}, or none."
        )
    try:
        if path.suffix == ".pt2":
            return _Loaded(torch.export.load(path).module())
        return _Loaded(torch.jit.load(path, map_location="cpu").eval())
    except Exception as error:
        raise AnimegenError(
            f"benchmark.network={path} holds no network that can be run ({type(error).__name__}): save it with"
            " torch.jit.save or torch.export.save."
        ) from error
