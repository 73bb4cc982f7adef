"""The adaptive weight of VQGAN's adversary: as strong at the last layer as the reconstruction, within a limit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from animegen.engine.objective import Evaluation
from animegen.errors import AnimegenError

#: Added to the norm that is divided by (taming-transformers).
_EPSILON = 1e-4


class AdaptiveEvaluation(Evaluation):
    """An objective whose adversarial term is scaled so that it pulls as strongly as the reconstruction.

    The scale is |gradient of the reconstruction's terms| / |gradient of the adversarial loss|, both with respect to the
    weights of the decoder's last layer (Esser et al. 2021, equation 7), at most ``cap``: with hardly a limit
    (10,000 there) a discriminator that saturates is multiplied up.

    Both gradients are taken back to the picture once. From there on one pass through the decoder serves both, where the
    published code goes through the feature network and the discriminator a second time.

    Args:
        bound: the bound objective, whose terms read the picture ``leaf``: terms that read ``fake`` or ``fake_logits``
            depend on the picture, all others do not.
        image: the picture (N,3,H,W) with its history.
        leaf: the same picture without history, requiring gradients.
        last: the weights of the last layer.
        cap: largest scale.
        tell: called with the scale, a scalar tensor.
        mean: takes the mean over all processes of a scalar tensor.
    """

    def __init__(
        self,
        bound: Evaluation,
        image: Tensor,
        leaf: Tensor,
        last: Tensor,
        cap: float,
        tell: Callable[[Tensor], None] = lambda scale: None,
        mean: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> None:
        super().__init__(bound.objective, bound.entries)
        self.image, self.leaf, self.last, self.cap, self.tell, self.mean = image, leaf, last, cap, tell, mean

    def compute(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted total and the raw value of each active term."""
        _, values = super().compute()
        weight, term = self.objective.weight, self.objective.term
        games = [name for name in values if "fake_logits" in term(name).reads.values()]
        drawn = [name for name in values if "fake" in term(name).reads.values() and name not in games]
        others = [name for name in values if name not in games and name not in drawn]
        if len(games) != 1 or not drawn:
            raise AnimegenError(
                "An adaptive weight balances one adversarial term with terms that read the reconstruction: set"
                " model.adaptive_cap=null for fixed weights."
            )
        picture = _sum([weight(name) * values[name] for name in drawn])
        if self.apart:
            self._take_apart([*drawn, *games])
        (pull,) = torch.autograd.grad(picture, self.leaf)
        (push,) = torch.autograd.grad(values[games[0]], self.leaf)
        scale = self.scale(pull, push)
        self.tell(scale)
        strength = scale * weight(games[0])
        if self.apart:
            self.parts[games[0]] = self.parts[games[0]] * scale
        # What carries gradients back: the picture times what is known of its gradient. Its value is not the loss's.
        carrier = (self.image * (pull + strength * push)).sum()
        total = picture.detach() + strength * values[games[0]].detach() + carrier - carrier.detach()
        return total + _sum([weight(name) * values[name] for name in others]) if others else total, values

    def _take_apart(self, names: list[str]) -> None:
        """Let the parts of the terms that read the leaf reach the weights behind the picture."""
        for name in names:
            (gradient,) = torch.autograd.grad(self.parts[name], self.leaf, retain_graph=True)
            self.parts[name] = (self.image * gradient).sum()

    def scale(self, pull: Tensor, push: Tensor) -> Tensor:
        """Return the scale from the gradients of both sides with respect to the picture."""
        norms = []
        for gradient in (pull, push):
            (found,) = torch.autograd.grad(self.image, self.last, gradient.to(self.image.dtype), retain_graph=True)
            norms.append(self.mean(found.float().norm()))
        return (norms[0] / (norms[1] + _EPSILON)).clamp(0, self.cap).detach()


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum()
