"""Neural style transfer (Gatys, Ecker, Bethge, CVPR 2016): no generator is trained, the pixels are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.errors import AnimegenError
from animegen.losses.style import gram
from animegen.models.animegan.networks.stored import StoredFeatures
from animegen.tasks.stylize import StyliseModule

_NOISE_LEVEL = 20 / 127.5
"""Amplitude of the noise at the start: 20 levels of 255."""

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


class PixelOptimiser(nn.Module):
    """Draws a photo in the style of one still by optimising its pixels.

    Adam minimises ``content_weight * J_content + style_weight * J_style``, with the costs of the original:
    ``J_content = sum (F - F_photo)^2 / (4CHW)`` at one layer, and ``J_style`` the mean over layers of
    ``sum (G - G_style)^2 / (2CHW)^2`` with Gram matrices ``G = F F^T``. Different from it: the features of each layer
    are divided by their root mean square on the style still, so that the weights mean the same for any network, where
    the original depends on the activations of its Caffe VGG.

    Args:
        backbone: see :class:`~animegen.nn.features.FeatureExtractor`; its weights are adopted when training begins.
        style_size: side of the style still in pixels.
        content_layer: where content is compared.
        style_layers: where style is compared, all alike (0.2 each).
        content_weight: 10, as in the course exercise that the recipe comes from.
        style_weight: 40, from the same exercise.
        learning_rate: of Adam, in levels of 255: 2 as in the exercise, about what a pixel changes per iteration.
        iterations: 200 as in the exercise.
        noise: share of noise in the picture at the start, the rest is the photo.
    """

    factor = 16
    tileable = False  # the style is that of the whole picture

    style: Tensor
    chosen: Tensor

    def __init__(
        self,
        backbone: str = "vgg19",
        style_size: int = 256,
        content_layer: str = "relu4_2",
        style_layers: Sequence[str] = STYLE_LAYERS,
        content_weight: float = 10.0,
        style_weight: float = 40.0,
        learning_rate: float = 2.0,
        iterations: int = 200,
        noise: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = StoredFeatures(backbone)
        self.content_layer, self.style_layers = content_layer, list(style_layers)
        self.content_weight, self.style_weight = content_weight, style_weight
        self.learning_rate, self.iterations, self.noise = learning_rate, iterations, noise
        self.register_buffer("style", torch.zeros(1, 3, style_size, style_size))
        self.register_buffer("chosen", torch.tensor(False))

    @property
    def layers(self) -> list[str]:
        """All layers that are read."""
        return list(dict.fromkeys([self.content_layer, *self.style_layers]))

    def take(self, still: Tensor) -> None:
        """Keep the style still (3,H,W) in [-1,1] whose style pictures will have.

        Raises:
            AnimegenError: if it does not have the size that the model was built for.
        """
        if still.shape != self.style.shape[1:]:
            raise AnimegenError(
                f"The style still has {still.shape[-2]}x{still.shape[-1]} pixels, the model was built for"
                f" {self.style.shape[-2]}x{self.style.shape[-1]}: set model.generator.style_size={still.shape[-1]}."
            )
        self.style.copy_(still)
        self.chosen.fill_(True)

    def forward(self, images: Tensor) -> Tensor:
        """Map photos (B,3,H,W) in [-1,1] to pictures of the same shape and range, each by itself; sides from 16 on.

        Raises:
            AnimegenError: if there is no style still yet.
        """
        if not self.chosen:
            raise AnimegenError("The model has no style yet: train it for one step, which takes a still of the data.")
        # Applications switch gradients off, but here the pixels are what is trained.
        device = images.device.type
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
            photo = images.detach().clone().float()
            with torch.no_grad():
                targets = self._targets(photo)
            pixels = self._start(photo).requires_grad_()
            optimizer = torch.optim.Adam([pixels], lr=self.learning_rate / 127.5)
            for _ in range(self.iterations):
                (pixels.grad,) = torch.autograd.grad(self.cost(pixels, *targets).sum(), pixels)
                optimizer.step()
                with torch.no_grad():
                    pixels.clamp_(-1, 1)
            return pixels.detach()

    def cost(self, images: Tensor, content: Tensor, styles: dict[str, Tensor], scales: dict[str, Tensor]) -> Tensor:
        """Return the cost (B,) of images (B,3,H,W).

        Args:
            images: what is optimised.
            content: features (B,C,h,w) of the photos at the content layer, scaled.
            styles: layer -> Gram matrix (1,C,C) of the style still, scaled.
            scales: layer -> the number by which its features are divided.
        """
        features = self._features(images, scales)
        content_cost = (features[self.content_layer] - content).square().flatten(1).mean(1) / 4
        # The library's Gram matrices are divided by CHW already.
        style_costs = [
            (gram(features[layer]) - styles[layer]).square().flatten(1).sum(1) / 4 for layer in self.style_layers
        ]
        return self.content_weight * content_cost + self.style_weight * torch.stack(style_costs).mean(0)

    def _features(self, images: Tensor, scales: dict[str, Tensor]) -> dict[str, Tensor]:
        return {layer: found / scales[layer] for layer, found in self.encoder(images, self.layers).items()}

    def _targets(self, photo: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Return what :meth:`cost` compares with."""
        of_style = self.encoder(self.style, self.layers)
        scales = {layer: found.square().mean().sqrt() + 1e-8 for layer, found in of_style.items()}
        styles = {layer: gram(of_style[layer] / scales[layer]) for layer in self.style_layers}
        return self._features(photo, scales)[self.content_layer], styles, scales

    def _start(self, photo: Tensor) -> Tensor:
        # The same noise every time: the frames of a film differ by what they show alone.
        generator = torch.Generator().manual_seed(0)
        noise = _NOISE_LEVEL * (2 * torch.rand(photo[:1].shape, generator=generator) - 1)
        return (1 - self.noise) * photo + self.noise * noise.to(photo)


class NeuralStyle(StyliseModule):
    """Gatys' style transfer as a model like the others: previews, evaluation and application work.

    Training is choosing: the first train step keeps the first anime still of its batch as the style; all further steps
    do nothing. The checkpoint holds the still and the feature network. With ``data=unpaired/folders`` and a folder of
    one still, that still is the style.

    Args:
        generator: the optimisation.
        settings: see :class:`~animegen.engine.module.AnimeModule`; it has neither optimizers nor objectives.
    """

    generator: PixelOptimiser

    def __init__(self, generator: PixelOptimiser, **settings: Any) -> None:
        super().__init__(**settings)
        self.generator = generator

    def setup(self, stage: str) -> None:
        """Hand the pretrained weights over; a resumed run then replaces them by those of its checkpoint."""
        if stage == "fit":
            self.generator.encoder.adopt(self.features)
        super().setup(stage)

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Take the style at the first step; there is nothing to train."""
        if not self.generator.chosen:
            self.generator.take(batch["anime"][0])
        yield from ()

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Show the style, too, as wide as the photos allow."""
        shown = super().preview(batch)
        style = nn.functional.interpolate(self.generator.style, batch["photo"].shape[-2:], mode="bilinear")
        return {"photo": shown.pop("photo"), "style": style.expand_as(batch["photo"]), **shown}
