"""Frozen ImageNet networks that turn images into features for perceptual, content and style losses."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.files import shown
from animegen.nn.weight_files import checked_state, load_data

BACKBONES = ("vgg19", "vgg16", "squeezenet1_1", "alexnet")

# AnimeGAN uses one layer for content and style: VGG19's conv4_4, before the ReLU, at 1/8 of the resolution.
# For the other backbones these are the last layers at that resolution (AlexNet: at 1/16).
_ALIASES = {
    "vgg19": {"content": "conv4_4", "style": "conv4_4"},
    "vgg16": {"content": "conv4_3", "style": "conv4_3"},
    "squeezenet1_1": {"content": "fire5", "style": "fire5"},
    "alexnet": {"content": "conv3", "style": "conv3"},
}

# Time-out of downloads in seconds.
_TIMEOUT = 20.0
_RANDOM_SEED = 20190701


class Frozen(nn.Module):
    """Base class of modules with a frozen network that is not part of the model's state.

    The network follows the module's device and dtype, but is in neither ``parameters()`` nor ``state_dict()``, hence
    not in optimizers, weight averages, checkpoints or gradient synchronisation. It stays in evaluation mode.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._hidden = [network.eval().requires_grad_(False)]
        self.training = False

    @property
    def network(self) -> nn.Module:
        """The frozen network."""
        return self._hidden[0]

    def train(self, mode: bool = True) -> Frozen:
        """Stay in evaluation mode."""
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Frozen:
        self.network._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self


class FeatureExtractor(Frozen):
    """Features of images at named layers of an ImageNet network.

    Args:
        backbone: ``vgg19``, ``vgg16``, ``squeezenet1_1`` or ``alexnet``.
        weights: ``torchvision`` (from its cache, downloaded if missing), the path of a file with a state dict with
            torchvision's key names (``features.*``; others are ignored), or ``random``: fixed random weights for
            tests.
        standardise: standardise the images by ImageNet's mean and standard deviation, as in the network's training.
            ``False`` passes [-1, 1], as the code of some papers does.

    Layers of the VGGs: ``conv4_4`` before and ``relu4_4`` after the ReLU. AlexNet: ``conv1`` to ``conv5``, ``relu1`` to
    ``relu5``. SqueezeNet: ``conv1``, ``relu1``, ``fire2`` to ``fire9`` (after the ReLU; numbered as in the paper). The
    aliases ``content`` and ``style`` name each backbone's layer for these losses.

    ``name`` describes backbone and weights: ``vgg19``, ``vgg19_random`` or ``vgg19_file``, with ``_raw`` appended if
    not standardised.

    Raises:
        AnimegenError: if the backbone is unknown, or the weights are unavailable or do not fit.
    """

    def __init__(self, backbone: str = "vgg19", weights: str = "torchvision", standardise: bool = True) -> None:
        if backbone not in BACKBONES:
            raise AnimegenError(
                f"There is no feature backbone '{backbone}': choose one of {', '.join(BACKBONES)}."
                + did_you_mean(backbone, BACKBONES)
            )
        super().__init__(_Backbone(backbone, weights, standardise))
        self.backbone = backbone
        self.weights = str(weights)
        suffix = {"torchvision": "", "random": "_random"}.get(self.weights, "_file")
        self.name = backbone + suffix + ("" if standardise else "_raw")

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all layers in order, without aliases."""
        return tuple(self.network.names)  # type: ignore[arg-type]

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return ``{layer: (B,C,h,w)}`` of images (B,3,H,W) in [-1,1]; runs up to the deepest requested layer.

        Raises:
            AnimegenError: if the backbone has no such layer.
        """
        aliases = _ALIASES[self.backbone]
        real = {layer: aliases.get(layer, layer) for layer in layers}
        for layer in real.values():
            if layer not in self.layers:
                raise AnimegenError(
                    f"The feature backbone '{self.backbone}' has no layer '{layer}': it has {', '.join(self.layers)},"
                    f" and the aliases content and style.{did_you_mean(layer, self.layers)}"
                )
        found = self.network(images, set(real.values()))
        return {layer: found[name] for layer, name in real.items()}

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return self.name


class _Backbone(nn.Module):
    """The convolutional part of a torchvision network with named layers."""

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: str, weights: str, standardise: bool = True) -> None:
        super().__init__()
        self.features: nn.Sequential = copy.deepcopy(_architecture(backbone))
        self.names = {name: index for index, name in enumerate(_layer_names(backbone, self.features)) if name}
        shapes = {key: value.shape for key, value in self.features.state_dict().items()}
        if weights == "random":
            state = _random_state(self.features)
        else:
            source = _torchvision_file(backbone) if weights == "torchvision" else Path(weights)
            state = _read_state(source, backbone, shapes)
        self.features.load_state_dict(state, assign=True)
        for module in self.features.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # would overwrite the layer before, which may be requested
        # ImageNet standardisation, defined for [0,1], converted to [-1,1].
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        self.register_buffer("scale", 0.5 / deviation if standardise else torch.ones_like(mean))
        self.register_buffer("shift", (0.5 - mean) / deviation if standardise else torch.zeros_like(mean))

    def forward(self, images: Tensor, names: set[str]) -> dict[str, Tensor]:
        wanted = {self.names[name]: name for name in names}
        found: dict[str, Tensor] = {}
        x = images * self.scale + self.shift
        for index, layer in enumerate(self.features):
            if len(found) == len(wanted):
                break
            x = layer(x)
            if index in wanted:
                found[wanted[index]] = x
        return found


@cache
def _architecture(backbone: str) -> nn.Sequential:
    """Return the convolutional part of a torchvision network without data."""
    from torchvision.models import get_model  # slow to import, and not needed to apply most models

    # Neither memory nor random numbers for weights that are replaced, nor for the classifier, which is dropped.
    with torch.device("meta"):
        features: nn.Sequential = get_model(backbone, weights=None).features
    return features


def _layer_names(backbone: str, features: nn.Sequential) -> Iterator[str | None]:
    """Yield the name of each layer, ``None`` for pooling layers."""
    block, convolution, number = 1, 0, 0
    for layer in features:
        if isinstance(layer, nn.MaxPool2d):
            block, convolution = block + 1, 0
            yield None
        elif isinstance(layer, nn.Conv2d):
            convolution, number = convolution + 1, number + 1
            yield f"conv{block}_{convolution}" if backbone.startswith("vgg") else f"conv{number}"
        elif isinstance(layer, nn.ReLU):
            yield f"relu{block}_{convolution}" if backbone.startswith("vgg") else f"relu{number}"
        else:
            number += 1
            yield f"fire{number}"


def _random_state(features: nn.Sequential) -> dict[str, Tensor]:
    """Draw weights that preserve the second moment of the activations (He et al. 2015), biases 0."""
    generator = torch.Generator().manual_seed(_RANDOM_SEED)
    state = {}  # on the CPU, also where a model is built without data
    for index, (key, value) in enumerate(features.state_dict().items()):
        if value.dim() == 1:
            state[key] = torch.zeros(value.shape, device="cpu")
        else:
            fan_in = value[0].numel()
            gain = 1.0 if index == 0 else 2.0  # the input image is not the output of a ReLU
            state[key] = torch.randn(value.shape, generator=generator, device="cpu") * (gain / fan_in) ** 0.5
    return state


def _torchvision_file(backbone: str) -> Path:
    """Return the file of torchvision's weights, downloaded if missing."""
    from torchvision.models import get_model_weights

    url = get_model_weights(backbone)["IMAGENET1K_V1"].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if path.is_file():
        return path
    digest = path.stem.rsplit("-", 1)[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(_TIMEOUT):
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
    except (OSError, RuntimeError) as error:  # OSError: no network, time-out, disk; RuntimeError: wrong hash
        raise AnimegenError(
            f"The weights of {backbone} are not at {path} and could not be downloaded from {url} ({error}):"
            " copy the file there, set features.weights=<file>, or choose features=squeezenet1_1|random|none."
        ) from error
    return path


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read_state(path: Path, backbone: str, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Read the weights of the convolutional part from a file and check that they fit."""
    remedy = "name a state dict with torchvision's keys, features.weights=<file>, or choose features=random"
    if not os.path.isfile(path):  # unlike Path.is_file, accepts names of any length
        raise AnimegenError(f"There is no file '{shown(path)}' with weights for {backbone}: {remedy}.")
    content = load_data(path, f"weights of {backbone}", f"fetch it again, or {remedy}")
    saved = checked_state(content, f"The file '{path}' with weights for {backbone}")
    prefix = "features."
    state = {key.removeprefix(prefix): value.float() for key, value in saved.items() if key.startswith(prefix)}
    state = state or {key: value.float() for key, value in saved.items()}
    missing, unexpected = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
    misshapen = [key for key in shapes if key in state and state[key].shape != shapes[key]]
    for what, keys in (("lacks", missing), ("has unknown", unexpected), ("has the wrong shape for", misshapen)):
        if keys:
            raise AnimegenError(
                f"The file '{path}' does not fit {backbone}: it {what} '{prefix}{keys[0]}'"
                f" ({len(keys)} such keys): check model.features.backbone, or {remedy}."
            )
    return state
