"""The adaptive weight of VQGAN's adversarial loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from animegen.engine.objective import Evaluation
from animegen.errors import AnimegenError

#: Added to the divisor (taming-transformers).
_EPSILON = 1e-4


class AdaptiveEvaluation(Evaluation):
    """An evaluation that scales the adversarial term to the gradient norm of the reconstruction terms.

    The scale is |gradient of the reconstruction terms| / |gradient of the adversarial loss|, both with respect to the
    weight of the last layer of the decoder (Esser et al. 2021, equation 7), at most ``cap``. The published limit of
    10,000 amplifies a discriminator that saturates.

    Both gradients are propagated to the image once; then a single pass through the decoder serves both. The published
    code passes through the feature network and the discriminator a second time.

    Args:
        bound: the bound objective. Terms that read ``fake`` or ``fake_logits`` depend on ``leaf``, others do not.
        image: the reconstruction (N,3,H,W) with its graph.
        leaf: the same image as a leaf that requires gradients.
        last: weight of the last layer.
        cap: upper limit of the scale.
        on_scale: called with the scale, a scalar tensor.
        mean: averages a scalar tensor over all processes.
    """

    def __init__(
        self,
        bound: Evaluation,
        image: Tensor,
        leaf: Tensor,
        last: Tensor,
        cap: float,
        on_scale: Callable[[Tensor], None] = lambda scale: None,
        mean: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> None:
        super().__init__(bound.objective, bound.entries)
        self.image, self.leaf, self.last, self.cap = image, leaf, last, cap
        self.on_scale, self.mean = on_scale, mean

    def compute(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted total and the raw value of each active term.

        Raises:
            AnimegenError: unless there is one adversarial term and at least one that reads the reconstruction.
        """
        _, values = super().compute()
        weight, term = self.objective.weight, self.objective.term
        adversarial = [name for name in values if "fake_logits" in term(name).reads.values()]
        image_terms = [name for name in values if "fake" in term(name).reads.values() and name not in adversarial]
        others = [name for name in values if name not in adversarial and name not in image_terms]
        if len(adversarial) != 1 or not image_terms:
            raise AnimegenError(
                "An adaptive weight needs one adversarial term, and terms that read the reconstruction: set"
                " model.adaptive_cap=null for fixed weights."
            )
        (name,) = adversarial
        reconstruction = _sum([weight(name) * values[name] for name in image_terms])
        if self.apart:
            self._connect_parts([*image_terms, name])
        (to_reconstruct,) = torch.autograd.grad(reconstruction, self.leaf)
        (to_fool,) = torch.autograd.grad(values[name], self.leaf)
        scale = self.scale(to_reconstruct, to_fool)
        self.on_scale(scale)
        strength = scale * weight(name)
        if self.apart:
            self.parts[name] = self.parts[name] * scale
        # A surrogate whose gradient is that of the total; its value is removed again.
        surrogate = (self.image * (to_reconstruct + strength * to_fool)).sum()
        total = reconstruction.detach() + strength * values[name].detach() + surrogate - surrogate.detach()
        return total + _sum([weight(name) * values[name] for name in others]) if others else total, values

    def _connect_parts(self, names: list[str]) -> None:
        """Replace the parts of terms that read the leaf by surrogates with gradients to the weights."""
        for name in names:
            (gradient,) = torch.autograd.grad(self.parts[name], self.leaf, retain_graph=True)
            self.parts[name] = (self.image * gradient).sum()

    def scale(self, to_reconstruct: Tensor, to_fool: Tensor) -> Tensor:
        """Return the scale, given the gradients of both losses with respect to the image."""
        norms = []
        for gradient in (to_reconstruct, to_fool):
            (found,) = torch.autograd.grad(self.image, self.last, gradient.to(self.image.dtype), retain_graph=True)
            norms.append(self.mean(found.float().norm()))
        return (norms[0] / (norms[1] + _EPSILON)).clamp(0, self.cap).detach()


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum()
