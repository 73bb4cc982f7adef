"""Base module of the task *in-between*: application, previews and validation of frame interpolation models."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.engine.module import AnimeModule
from animegen.errors import AnimegenError
from animegen.media.video.flow import flow_estimates
from animegen.metrics.image import edge_f_score, psnr, ssim
from animegen.nn.inbetween.base import Symmetric
from animegen.nn.inbetween.prior import flow_confidence


class Encoded(NamedTuple):
    """Return value of :meth:`InbetweenModule.encode_pair`.

    Attributes:
        state: return value of the network's ``encode_pair``.
        height: height of the frames before padding.
        width: width of the frames before padding.
    """

    state: Any
    height: int
    width: int


class InbetweenModule(AnimeModule):
    """A model of the task *in-between*: its network ``generator`` predicts the frame at any time between two frames.

    A subclass sets ``self.generator`` (an :class:`~animegen.nn.inbetween.InbetweenNetwork`, or anything with
    ``size_divisor``, ``encode_pair`` and ``synthesize``) and defines ``updates``. This class implements
    :class:`~animegen.tasks.protocols.Interpolator` for frames of any size, previews and validation. A model that
    generates whole clips overrides :meth:`between`.

    Batches have ``first`` and ``last`` (B,3,H,W), ``truth`` (B,T,3,H,W), in [-1,1], and ``t`` (B,T) in (0,1). For a
    network with ``prior=exact`` they also have ``exact_flow`` (B,4,H,W), and for losses of the flow ``exact_between``
    (B,T,4,H,W) and ``exact_sight`` (B,T,2,H,W), see :class:`~animegen.data.clips.ClipView`.
    """

    generator: nn.Module

    def example_batch(self, size: int, height: int, width: int, device: torch.device) -> dict[str, Tensor]:
        """Return a training batch of random pixels, one frame between each pair, for benchmarks of speed."""
        frames = torch.rand(3, size, 3, height, width, device=device) * 2 - 1
        times = torch.full((size, 1), 0.5, device=device)
        batch = {"first": frames[0], "last": frames[1], "truth": frames[2].unsqueeze(1), "t": times}
        batch["sample"] = torch.arange(size, device=device)
        batch["exact_between"] = frames.new_zeros(size, 1, 4, height, width)
        batch["exact_sight"] = torch.ones(size, 1, 2, height, width, dtype=torch.bool, device=device)
        return batch | ({"exact_flow": frames.new_zeros(size, 4, height, width)} if self.exact_prior else {})

    @property
    def size_divisor(self) -> int:
        """Height and width of the generator's input must be multiples of this number."""
        return getattr(self.generator, "size_divisor", 1)

    def encode_pair(self, first: Tensor, last: Tensor) -> Encoded:
        """Do the work that all frames between two frames (B,3,H,W) in [-1,1] of any size have in common."""
        return self._encoded(first, last, self.prior(first, last))

    def encode_exact(self, batch: dict[str, Tensor]) -> Encoded:
        """Do the same for ``first`` and ``last`` of a batch along its ``exact_flow``, with ``prior=exact``."""
        first, last = batch["first"], batch["last"]
        return self._encoded(first, last, self.prior(first, last, exact_flow=batch.get("exact_flow")))

    @property
    def exact_prior(self) -> bool:
        """Whether the network needs the exact flow of the data, so that it cannot be applied to other frames."""
        return self._prior == "exact"

    @property
    def _prior(self) -> str:
        network: Any = getattr(self, "generator", None)  # a model that overrides between need not have one
        return getattr(network.network if isinstance(network, Symmetric) else network, "prior", "none")

    def _encoded(self, first: Tensor, last: Tensor, prior: dict[str, Tensor]) -> Encoded:
        whole = [padded(frame, self.size_divisor) for frame in (first, last)]
        # The prior is of the frames alone: in padding nothing would leave the frame.
        prior = {name: padded(value, self.size_divisor) for name, value in prior.items()}
        network: Any = self.generator
        return Encoded(network.encode_pair(*whole, **prior), *first.shape[-2:])

    def prior(
        self,
        first: Tensor,
        last: Tensor,
        flow: Tensor | None = None,
        second_flow: Tensor | None = None,
        exact_flow: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return two flows (B,4,H,W) and the confidence (B,2,H,W) of the first, for a network with a flow prior.

        Args:
            first: (B,3,H,W) in [-1,1].
            last: the same.
            flow: that the data come with; by default both flows are estimated by DIS, on the CPU.
            second_flow: another one that the data come with.
            exact_flow: the true one, which takes the place of both with ``prior=exact`` and is not read otherwise.

        Returns:
            Further arguments of the network's ``encode_pair``; empty without a prior.

        Raises:
            AnimegenError: if the network needs the exact flow, and the data do not know it.
        """
        if self._prior == "none":
            return {}
        if self.exact_prior:
            if exact_flow is None:
                raise AnimegenError(
                    "A network with prior=exact needs the exact motion, which is known of generated clips only: set"
                    " data.exact_flow=true with data=triplets/toonworld, or model.generator.prior=dis for other frames."
                )
            flow, second_flow = exact_flow, None
        elif flow is None:
            flow, second_flow = flow_estimates(first, last).unbind(1)
        prior = {"flow": flow, "confidence": flow_confidence(flow)}
        return prior if second_flow is None else prior | {"second_flow": second_flow}

    def synthesize(self, encoded: Encoded, t: Tensor) -> Tensor:
        """Return the frames at time ``t`` (B,) as (B,3,H,W) in [-1,1]."""
        network: Any = self.generator
        image = network.synthesize(encoded.state, t)[0]
        return image[..., : encoded.height, : encoded.width].clamp(-1, 1)

    def between(self, first: Tensor, last: Tensor, times: Tensor) -> Tensor:
        """Return the frames at the times (B,T) between first and last (B,3,H,W) as (B,T,3,H,W) in [-1,1]."""
        return self._at_times(self.encode_pair(first, last), times)

    def _at_times(self, encoded: Encoded, times: Tensor) -> Tensor:
        return torch.stack([self.synthesize(encoded, t) for t in times.unbind(1)], 1)

    def predict(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the predicted frames between those of a batch, (B,T,3,H,W) in [-1,1]."""
        if self.exact_prior:
            return self._at_times(self.encode_exact(batch), batch["t"])
        return self.between(batch["first"], batch["last"], batch["t"])

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the pair, its cross-fade, output and ground truth; clips if there are several frames between."""
        output, truth = self.predict(batch), batch["truth"]
        first, last = batch["first"], batch["last"]
        if truth.shape[1] == 1:
            t = batch["t"][:, 0].view(-1, 1, 1, 1)
            images = {"first": first, "blend": torch.lerp(first, last, t.to(first.dtype))}
            return {**images, "output": output[:, 0], "truth": truth[:, 0], "last": last}
        ends = [frame.unsqueeze(1) for frame in (first, last)]
        return {name: torch.cat([ends[0], clip, ends[1]], 1) for name, clip in (("output", output), ("truth", truth))}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return scores of the predicted frames against the ground truth, and the gain over the cross-fade."""
        if "truth" not in batch:
            return {}
        output, truth = self.predict(batch).float().flatten(0, 1), batch["truth"].float().flatten(0, 1)
        t = batch["t"].view(*batch["t"].shape, 1, 1, 1).float()
        blend = torch.lerp(batch["first"].float().unsqueeze(1), batch["last"].float().unsqueeze(1), t).flatten(0, 1)
        with torch.autocast(output.device.type, enabled=False):
            value = psnr(output, truth)
            return {
                "psnr": value,
                "gain_over_blend": value - psnr(blend, truth),
                "ssim": ssim(output, truth),
                "edge_f": edge_f_score(output, truth),
            }


def padded(frame: Tensor, divisor: int) -> Tensor:
    """Replicate the right and bottom edge until both sides are multiples of ``divisor``, and at least twice that."""
    height, width = frame.shape[-2:]
    right, bottom = (max(-side % divisor, 2 * divisor - side) if divisor > 1 else 0 for side in (width, height))
    return F.pad(frame, (0, right, 0, bottom), mode="replicate") if right or bottom else frame
