"""Neural style transfer (Gatys, Ecker, Bethge, CVPR 2016): optimises the pixels of each image."""

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

#: Amplitude of the initial noise: 20 of 255 levels.
_NOISE_LEVEL = 20 / 127.5

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


class PixelOptimiser(nn.Module):
    """Stylises a photo after one style image by optimising its pixels.

    Adam minimises ``content_weight * J_content + style_weight * J_style``, with the costs of the paper:
    ``J_content = sum (F - F_photo)^2 / (4CHW)`` at one layer, and ``J_style`` the mean over layers of
    ``sum (G - G_style)^2 / (2CHW)^2`` with Gram matrices ``G = F F^T``. In addition the features of each layer are
    divided by their root mean square on the style image, so that the weights are independent of the network; those of
    the paper depend on the activations of its Caffe VGG.

    Args:
        backbone: see :class:`~animegen.nn.features.FeatureExtractor`; its weights are loaded before training.
        style_size: side of the style image in pixels.
        content_layer: layer of the content cost.
        style_layers: layers of the style cost, with equal weights.
        content_weight: 10, as in the course exercise that the recipe comes from.
        style_weight: 40, from the same exercise.
        learning_rate: learning rate of Adam in levels of 255, about the change of a pixel per iteration; 2 as in the
            exercise.
        iterations: 200 as in the exercise.
        noise: weight of the noise in the initial image; the rest is the photo.
    """

    size_divisor = 16
    tileable = False  # Gram matrices are statistics of the whole image
    optimises_images = True

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
        """All layers whose features are compared."""
        return list(dict.fromkeys([self.content_layer, *self.style_layers]))

    def set_style(self, still: Tensor) -> None:
        """Set the style image (3,H,W) in [-1,1].

        Raises:
            AnimegenError: if it does not have the size ``style_size``.
        """
        if still.shape != self.style.shape[1:]:
            raise AnimegenError(
                f"The style image has {still.shape[-2]}x{still.shape[-1]} pixels, but the model was built for"
                f" {self.style.shape[-2]}x{self.style.shape[-1]}: set model.generator.style_size={still.shape[-1]}."
            )
        self.style.copy_(still)
        self.chosen.fill_(True)

    def forward(self, images: Tensor) -> Tensor:
        """Stylise photos (B,3,H,W) in [-1,1], each independently; sides of at least 16.

        Raises:
            AnimegenError: if no style was set.
        """
        if not self.chosen:
            raise AnimegenError("The model has no style image: train it for one step, which takes one from the data.")
        # Applications disable gradients, which this optimisation needs.
        device = images.device.type
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
            photo = images.detach().clone().float()
            with torch.no_grad():
                targets = self._targets(photo)
            pixels = self._initial(photo).requires_grad_()
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
            images: the optimised images.
            content: features (B,C,h,w) of the photos at the content layer, scaled.
            styles: layer -> Gram matrix (1,C,C) of the style image, scaled.
            scales: layer -> divisor of its features.
        """
        features = self._features(images, scales)
        content_cost = (features[self.content_layer] - content).square().flatten(1).mean(1) / 4
        # `gram` divides by CHW already.
        style_costs = [
            (gram(features[layer]) - styles[layer]).square().flatten(1).sum(1) / 4 for layer in self.style_layers
        ]
        return self.content_weight * content_cost + self.style_weight * torch.stack(style_costs).mean(0)

    def _features(self, images: Tensor, scales: dict[str, Tensor]) -> dict[str, Tensor]:
        return {layer: value / scales[layer] for layer, value in self.encoder(images, self.layers).items()}

    def _targets(self, photo: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Return the arguments ``content``, ``styles`` and ``scales`` of :meth:`cost`."""
        of_style = self.encoder(self.style, self.layers)
        scales = {layer: value.square().mean().sqrt() + 1e-8 for layer, value in of_style.items()}
        styles = {layer: gram(of_style[layer] / scales[layer]) for layer in self.style_layers}
        return self._features(photo, scales)[self.content_layer], styles, scales

    def _initial(self, photo: Tensor) -> Tensor:
        # The same noise for all images, so that it adds no flicker to videos.
        generator = torch.Generator().manual_seed(0)
        noise = _NOISE_LEVEL * (2 * torch.rand(photo[:1].shape, generator=generator) - 1)
        return (1 - self.noise) * photo + self.noise * noise.to(photo)


class NeuralStyle(StyliseModule):
    """Neural style transfer with the interface of the other models.

    The first train step sets the style to the first anime image of its batch; later steps do nothing. The checkpoint
    holds the style image and the feature network. To choose the style, use ``data=unpaired/folders`` with a folder of
    one image.

    Args:
        generator: the optimisation.
        **settings: see :class:`~animegen.engine.module.AnimeModule`; without optimizers and objectives.
    """

    generator: PixelOptimiser

    def __init__(self, generator: PixelOptimiser, **settings: Any) -> None:
        super().__init__(**settings)
        self.generator = generator

    def load_pretrained(self) -> None:
        """Load the weights of the feature network."""
        self.generator.encoder.load_pretrained(self.features)

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Set the style in the first step. There is nothing to train."""
        if not self.generator.chosen:
            self.generator.set_style(batch["anime"][0])
        yield from ()

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return photo, style image resized to the photo, output, and the ground truth if there is one."""
        images = super().preview(batch)
        style = nn.functional.interpolate(self.generator.style, batch["photo"].shape[-2:], mode="bilinear")
        return {"photo": images.pop("photo"), "style": style.expand_as(batch["photo"]), **images}
