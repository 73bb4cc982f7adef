"""Frame interpolation: any of the networks, any losses, with or without a discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.errors import AnimegenError
from animegen.losses.latent import kl_per_channel
from animegen.losses.structure import motion_mask
from animegen.models.interpolation.adversarial import Judge
from animegen.models.interpolation.networks.base import Drawn, InbetweenNetwork, Symmetric, blend
from animegen.models.interpolation.networks.isnet import TruthEncoder
from animegen.nn.lines import line_mask
from animegen.tasks.inbetween import InbetweenModule

#: Channels whose posterior means vary more than this over a batch are in use (Burda et al. 2016).
_ACTIVE = 0.01


class FrameInterpolation(InbetweenModule):
    """Learns to draw the frames between two frames.

    One forward pass of the generator per step serves both updates. Context entries that loss terms may read (pictures
    (N,3,H,W) in [-1,1], N being the batch times the frames between):

    ==========================  ==================================================================
    ``fake``                    what the generator draws
    ``truth``                   what lies there
    ``first``, ``last``         the frames round it
    ``ends``, ``t``             both (2N,3,H,W); the times (N,)
    ``motion``                  where first and last differ, (N,1,H,W) of 0 and 1
    ``truth_lines``             where the truth has lines, (N,1,H,W) of 0 and 1
    ``fake_logits``             discriminator(fake)
    ``real_logits``             discriminator(truth)
    ``step``                    the train step, for losses with a schedule
    ``truth_stages``            the maps of the truth encoder, for ``FeatureSync``
    what the network tells      ``merged``, ``mean``, ``latent`` ...: see its class
    ==========================  ==================================================================

    Args:
        generator: one of :mod:`animegen.models.interpolation.networks`.
        discriminator: a :class:`~animegen.models.interpolation.adversarial.Judge`, or ``None``.
        discriminator_start: train step from which the discriminator learns; give its term in the generator's
            objective the same ``start``.
        truth_encoder: autoencoder of the truth, whose maps ``FeatureSync`` reads.
        truth_encoder_steps: train steps for which the truth encoder learns; then it is fixed. Start the term there.
        symmetric: draw forwards and backwards and take the mean, see
            :class:`~animegen.models.interpolation.networks.base.Symmetric`.
        settings: see :class:`~animegen.engine.module.AnimeModule`.
    """

    generator: InbetweenNetwork

    def __init__(
        self,
        generator: InbetweenNetwork,
        discriminator: Judge | None = None,
        discriminator_start: int = 0,
        truth_encoder: TruthEncoder | None = None,
        truth_encoder_steps: int = 0,
        symmetric: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.generator = Symmetric(generator) if symmetric else generator
        self.discriminator = discriminator
        self.discriminator_start = discriminator_start
        self.truth_encoder = truth_encoder
        self.truth_encoder_steps = truth_encoder_steps
        for name, network in (("discriminator", discriminator), ("truth_encoder", truth_encoder)):
            if network is None and name in self.objectives:
                raise AnimegenError(
                    f"The model has no {name} but an objective for one: delete it with ~model.objectives.{name} and"
                    f" ~model.optimizers.{name}."
                )

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the updates of truth encoder, discriminator and generator."""
        times = batch["t"]
        first, last = batch["first"], batch["last"]
        state = self.generator.encode_pair(first, last)
        drawn = _joined([self.generator.synthesize(state, t) for t in times.unbind(1)])
        truth = batch["truth"].transpose(0, 1).flatten(0, 1)  # frame after frame, as drawn
        count = times.shape[1]
        first, last, t = first.repeat(count, 1, 1, 1), last.repeat(count, 1, 1, 1), times.T.flatten()
        if self.truth_encoder is not None and self.train_step < self.truth_encoder_steps:
            encoder = self.truth_encoder
            sides: Callable[[], Any] = lambda: encoder(truth)[1]  # noqa: E731
            yield "truth_encoder", self.objectives["truth_encoder"](sides=sides, truth=truth)
        if self.discriminator is not None and self.train_step >= self.discriminator_start:
            logits = {
                "fake_logits": lambda: self._judge(drawn.image.detach(), first, last, t),
                "real_logits": lambda: self._judge(truth, first, last, t),
            }
            yield "discriminator", self.objectives["discriminator"](**logits)
        self._watch(drawn)
        lazy: dict[str, Callable[[], Any]] = {
            **self.generator.entries(drawn, truth),
            "ends": lambda: torch.cat([first, last]),
            "motion": lambda: motion_mask(first, last),
            "truth_lines": lambda: line_mask(truth).float(),
            "fake_logits": lambda: self._judge(drawn.image, first, last, t),
            "truth_stages": lambda: self._truth_stages(truth),
            "blend": lambda: blend(first, last, t),
        }
        yield (
            "generator",
            self.objectives["generator"](
                **{
                    **lazy,
                    **drawn.extra,
                    "fake": drawn.image,
                    "truth": truth,
                    "first": first,
                    "last": last,
                    "t": t,
                    "step": self.train_step,
                }
            ),
        )

    def _judge(self, frames: Tensor, first: Tensor, last: Tensor, t: Tensor) -> Tensor:
        if self.discriminator is None:
            raise AnimegenError("A loss term reads logits, but the model has no discriminator: delete the term.")
        return self.discriminator(frames, first, last, t)

    def _truth_stages(self, truth: Tensor) -> list[Tensor]:
        if self.truth_encoder is None:
            raise AnimegenError(
                "A loss term reads truth_stages, but the model has no truth encoder: set model.truth_encoder, or delete"
                " the term."
            )
        with torch.no_grad():
            return self.truth_encoder(truth)[0]

    @torch.no_grad()
    def _watch(self, drawn: Drawn) -> None:
        """Log what tells a living latent from a dead one."""
        if self.train_step % self.log_every:
            return
        extra = drawn.extra
        if "mean" in extra:
            self.record("latent/kl", kl_per_channel(extra["mean"], extra["logvar"]).sum())
            spread = extra["mean"].float().var((0, 2, 3))
            self.record("latent/active", (spread > _ACTIVE).float().mean())
        quantizer = next((m.quantizer for m in self.generator.modules() if getattr(m, "quantizer", None)), None)
        if "codes" in extra and isinstance(quantizer, nn.Module):
            found = quantizer.usage(extra["codes"])  # type: ignore[operator]
            self.record("codebook/perplexity", found.perplexity)
            self.record("codebook/used", found.used)


def _joined(frames: list[Drawn]) -> Drawn:
    """Put the frames at several times together, along the batch; what belongs to the pair is kept once."""
    if len(frames) == 1:
        return frames[0]
    extra: dict[str, Any] = {}
    for name, value in frames[0].extra.items():
        others = [frame.extra[name] for frame in frames]
        if all(other is value for other in others):
            extra[name] = value
        elif isinstance(value, list):
            extra[name] = [torch.cat(parts) for parts in zip(*others, strict=True)]
        else:
            extra[name] = torch.cat(others)
    return Drawn(torch.cat([frame.image for frame in frames]), extra)
