"""Training of frame interpolation networks, with any losses, with or without a discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.errors import AnimegenError
from animegen.losses.latent import kl_per_channel
from animegen.losses.structure import motion_mask
from animegen.models.interpolation.discriminator import InterpolationDiscriminator
from animegen.models.interpolation.networks.isnet import TruthEncoder
from animegen.nn.inbetween.base import InbetweenNetwork, InbetweenOutput, Symmetric, blend
from animegen.nn.lines import line_mask
from animegen.nn.warp import sight_weights
from animegen.tasks.inbetween import InbetweenModule

#: A latent channel is active if its posterior mean varies by more than this over a batch (Burda et al. 2016).
_ACTIVE = 0.01


class FrameInterpolation(InbetweenModule):
    """Frame interpolation: predict the frames between two given frames.

    One forward pass of the generator per step serves the updates of the discriminator and of the generator. Context
    entries that loss terms may read (images are (N,3,H,W) in [-1,1], N is the batch size times the frames between):

    =========================  =========================================================================
    ``fake``                   the interpolated frames
    ``truth``                  the ground truth
    ``first``, ``last``        the given frames on both sides
    ``ends``, ``t``            both given frames (2N,3,H,W); the times (N,)
    ``blend``                  their cross-fade at these times
    ``motion``                 mask of the pixels where ``first`` and ``last`` differ, (N,1,H,W) of 0 and 1
    ``truth_lines``            mask of the lines of the ground truth, (N,1,H,W) of 0 and 1
    ``fake_logits``            discriminator(fake)
    ``real_logits``            discriminator(truth)
    ``step``                   the train step, for losses with a schedule
    ``weighted_true_flow``     the exact flow to both given frames (N,4,H,W), with ``data.exact_motion=true``; times a
                               fifth where the given frame hides the place
    ``weighted_flow``          the predicted flow times the same weights; for networks that return ``flow``
    ``truth_stages``           feature maps of the truth encoder, for ``FeatureSync``
    extra values               ``merged``, ``mean``, ``latent`` and others, see the network's class
    =========================  =========================================================================

    Args:
        generator: one of :mod:`animegen.models.interpolation.networks`.
        discriminator: discriminator of frames, or ``None``.
        discriminator_start: train step from which the discriminator is trained. Give the adversarial term of the
            generator's objective the same ``start``.
        truth_encoder: autoencoder of the ground truth, whose feature maps ``FeatureSync`` reads.
        truth_encoder_steps: train steps during which the truth encoder is trained; it is frozen afterwards. Start the
            ``FeatureSync`` term at that step.
        symmetric: average the predictions of both frame orders, see :class:`~animegen.nn.inbetween.base.Symmetric`.
        **settings: see :class:`~animegen.engine.module.AnimeModule`.

    Raises:
        AnimegenError: if there is an objective for a network that the model does not have.
    """

    generator: InbetweenNetwork
    training_only = ("discriminator", "discriminator_start", "truth_encoder", "truth_encoder_steps")

    def __init__(
        self,
        generator: InbetweenNetwork,
        discriminator: InterpolationDiscriminator | None = None,
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
        flows = {name: batch.get(name) for name in ("flow", "second_flow", "exact_flow")}
        state = self.generator.encode_pair(first, last, **self.prior(first, last, **flows))
        output = _concatenated([self.generator.synthesize(state, t) for t in times.unbind(1)])
        truth = batch["truth"].transpose(0, 1).flatten(0, 1)  # ordered by time first, like the output
        count = times.shape[1]
        first, last, t = first.repeat(count, 1, 1, 1), last.repeat(count, 1, 1, 1), times.T.flatten()
        if self.truth_encoder is not None and self.train_step < self.truth_encoder_steps:
            encoder = self.truth_encoder
            sides: Callable[[], Any] = lambda: encoder(truth)[1]  # noqa: E731
            yield "truth_encoder", self.objectives["truth_encoder"](sides=sides, truth=truth)
        if self.discriminator is not None and self.train_step >= self.discriminator_start:
            logits = {
                "fake_logits": lambda: self._logits(output.image.detach(), first, last, t),
                "real_logits": lambda: self._logits(truth, first, last, t),
            }
            yield "discriminator", self.objectives["discriminator"](**logits)
        self._record_latent(output)
        lazy: dict[str, Callable[[], Any]] = {
            **self.generator.entries(output, truth),
            "ends": lambda: torch.cat([first, last]),
            "motion": lambda: motion_mask(first, last),
            "truth_lines": lambda: line_mask(truth).float(),
            "fake_logits": lambda: self._logits(output.image, first, last, t),
            "truth_stages": lambda: self._truth_stages(truth),
            "weighted_true_flow": lambda: _true_flow(batch)[0],
            "weighted_flow": lambda: _true_flow(batch)[1] * _found_flow(output),
            "blend": lambda: blend(first, last, t),
        }
        values = {"fake": output.image, "truth": truth, "first": first, "last": last, "t": t, "step": self.train_step}
        yield "generator", self.objectives["generator"](**{**lazy, **output.extra, **values})

    def _logits(self, frames: Tensor, first: Tensor, last: Tensor, t: Tensor) -> Tensor:
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
    def _record_latent(self, output: InbetweenOutput) -> None:
        """Log the KL divergence and active channels of a VAE, or the codebook usage of a VQ-VAE."""
        if self.train_step % self.log_every:
            return
        extra = output.extra
        if "mean" in extra:
            self.record("latent/kl", kl_per_channel(extra["mean"], extra["logvar"]).sum())
            variance = extra["mean"].float().var((0, 2, 3))
            self.record("latent/active", (variance > _ACTIVE).float().mean())
        quantizer = next((m.quantizer for m in self.generator.modules() if getattr(m, "quantizer", None)), None)
        if "codes" in extra and isinstance(quantizer, nn.Module):
            usage = quantizer.usage(extra["codes"])  # type: ignore[operator]
            self.record("codebook/perplexity", usage.perplexity)
            self.record("codebook/used", usage.used)


def _true_flow(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the exact flow to both given frames (N,4,H,W), times the weight (N,4,H,W) of its places, and the weight.

    Raises:
        AnimegenError: if the data do not give it.
    """
    if "exact_between" not in batch:
        raise AnimegenError(
            "A loss term reads weighted_true_flow, but the batch has no exact flow: set data.exact_motion=true with"
            " data=triplets/toonworld, or delete the term."
        )
    flow, sight = (batch[name].transpose(0, 1).flatten(0, 1) for name in ("exact_between", "exact_sight"))
    weight = sight_weights(sight)
    return weight * flow, weight


def _found_flow(output: InbetweenOutput) -> Tensor:
    """Return the flow to both given frames (N,4,H,W) that a network has predicted.

    Raises:
        AnimegenError: if it predicts none.
    """
    if "flow" not in output.extra:
        raise AnimegenError(
            "A loss term reads weighted_flow, but the network predicts no flow: use ifnet, warp_fusion or a"
            " hybrid, or delete the term."
        )
    return output.extra["flow"]


def _concatenated(outputs: list[InbetweenOutput]) -> InbetweenOutput:
    """Concatenate the outputs at several times along the batch; values that belong to the pair are kept once."""
    if len(outputs) == 1:
        return outputs[0]
    extra: dict[str, Any] = {}
    for name, value in outputs[0].extra.items():
        others = [output.extra[name] for output in outputs]
        if all(other is value for other in others):
            extra[name] = value
        elif isinstance(value, list):
            extra[name] = [torch.cat(parts) for parts in zip(*others, strict=True)]
        else:
            extra[name] = torch.cat(others)
    return InbetweenOutput(torch.cat([output.image for output in outputs]), extra)
