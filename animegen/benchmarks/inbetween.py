"""Frame interpolation: frames between two frames, compared with the true ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from animegen.benchmarks.benchmark import Benchmark, Measured, Method, Scores, spread
from animegen.data.clips import ClipView
from animegen.media.images import to_float
from animegen.media.video import mci
from animegen.media.video.flow import DISFlow, FlowEstimator, LatestFlow, flow_both_ways, flow_estimates
from animegen.metrics import image
from animegen.metrics.legacy import interpolation_error, ssim_atd_legacy
from animegen.metrics.motion import LIMITS, motion_class, motion_size
from animegen.metrics.perceptual import PerceptualDistance
from animegen.nn.features import FeatureExtractor
from animegen.nn.inbetween.prior import half_warps, weighted_half_warp
from animegen.nn.inbetween.trajectories import average_warp
from animegen.nn.lines import line_difference
from animegen.nn.warp import backward_warp
from animegen.tasks.protocols import Interpolator


def nearest_frame(batch: dict[str, Any]) -> Tensor:
    """Return the nearest of both frames in time; in the middle the first one."""
    late = (batch["t"] > 0.5).view(-1, 1, 1, 1)
    return torch.where(late, batch["last"], batch["first"])


def linear_blend(batch: dict[str, Any]) -> Tensor:
    """Return the cross-fade ``(1 - t) first + t last``."""
    return torch.lerp(batch["first"], batch["last"], batch["t"].view(-1, 1, 1, 1))


def half_warp(batch: dict[str, Any], estimator: FlowEstimator) -> Tensor:
    """Warp both frames to time t along the estimated flow, and blend them.

    The flow at t is approximated by the flow at the ends: ``t`` times the flow from last to first points to the first
    frame, and ``1 - t`` times the flow from first to last points to the last one.
    """
    first, last, t = batch["first"], batch["last"], batch["t"].view(-1, 1, 1, 1)
    early = backward_warp(first, t * estimator(last, first))
    late = backward_warp(last, (1 - t) * estimator(first, last))
    return torch.lerp(early, late, t)


def weighted_warp(batch: dict[str, Any], estimator: FlowEstimator) -> Tensor:
    """Warp both frames as :func:`half_warp` does, and weight them by the consistency of the flow."""
    first, last = batch["first"], batch["last"]
    flow = flow_both_ways(first, last, estimator)
    return weighted_half_warp(first, last, flow, batch["t"]).clamp(-1, 1)


def averaged_warp(batch: dict[str, Any], estimator: FlowEstimator) -> Tensor:
    """Warp both frames along two estimates of their flow, and average them, as ``animegen interpolate method=dis``."""
    first, last = batch["first"], batch["last"]
    return average_warp(first, last, flow_estimates(first, last, estimator), batch["t"]).clamp(-1, 1)


class AlongExactFlow:
    """A method that is given the true motion, the entries of ``exact_keys`` of the batch.

    It uses more than a method for real films can know, and bounds what a better flow would give.

    Args:
        method: reads the batch.
    """

    #: The flow between both frames (B,4,H,W), and that from the frame between to both (B,4,H,W), and whether a place of
    #: the frame between is in sight there (B,2,H,W).
    exact_keys = ("exact_flow", "exact_between", "exact_sight")

    def __init__(self, method: Method) -> None:
        self.method = method

    def __call__(self, batch: dict[str, Any]) -> Tensor:
        """Apply the method to a batch."""
        return self.method(batch)


def _exact_average(batch: dict[str, Any]) -> Tensor:
    first, last = batch["first"], batch["last"]
    return average_warp(first, last, batch["exact_flow"].unsqueeze(1), batch["t"]).clamp(-1, 1)


def _exact_estimator(batch: dict[str, Any]) -> FlowEstimator:
    """Return an estimator that knows the flow of a batch."""
    return _KnownFlow(batch["first"], *batch["exact_flow"].split(2, 1))


class _KnownFlow:
    name = "exact"

    def __init__(self, first: Tensor, there: Tensor, back: Tensor) -> None:
        self.first, self.there, self.back = first, there, back

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return self.there if a is self.first else self.back


def exact_warp(batch: dict[str, Any]) -> Tensor:
    """Warp both frames along the true flow from the frame between to each, and average them where they show it.

    It knows even the outlines of the frame between. What neither frame shows remains.
    """
    early, late = half_warps(batch["first"], batch["last"], batch["exact_between"])
    t = batch["t"].view(-1, 1, 1, 1)
    weights = [time * (_UNSEEN + seen) for time, seen in zip((1 - t, t), batch["exact_sight"].split(1, 1), strict=True)]
    return torch.lerp(late, early, weights[0] / (weights[0] + weights[1])).clamp(-1, 1)


#: Weight of a frame that does not show a place, where the other one shows it with a weight of 1.
_UNSEEN = 0.01
#: Baselines along the true flow.
_EXACT = {
    "warp_exact": AlongExactFlow(lambda batch: half_warp(batch, _exact_estimator(batch))),
    "warp_exact_weighted": AlongExactFlow(lambda batch: weighted_warp(batch, _exact_estimator(batch))),
    "warp_exact_averaged": AlongExactFlow(_exact_average),
    "warp_exact_between": AlongExactFlow(exact_warp),
}


class InbetweenBenchmark(Benchmark):
    """Scores methods that map a batch (``first``, ``last`` (B,3,H,W), ``t`` (B,)) to frames at time t (B,3,H,W).

    The baselines are the nearest frame, the cross-fade, FFmpeg's motion compensation
    (:mod:`animegen.media.video.mci`), and both frames warped half-way along DIS flow: in equal shares, weighted by its
    consistency, or averaged along two estimates. They use the same information as a model. If the pairs come with their
    exact flow, the same warps along it are added (averaged along this one), privileged, and :func:`exact_warp`, which
    says what the best motion would give. The name of the task contains the gap in frames, and ``hold`` of ToonWorld
    films with held drawings, since scores of different ones are not comparable. Scores are also computed per class of
    motion (:mod:`animegen.metrics.motion`).

    Args:
        test: pairs with the true frames in between; not shuffled.
        extractor: network for feature distances; they are omitted for ``None`` or random weights.
        limit: number of pairs to use, evenly spread; ``None`` for all.
        batch_size: pairs per batch.
    """

    main = "ssim"
    privileged: frozenset[str] = frozenset()
    classes = tuple(LIMITS)
    #: Whether batches have the true flow; subclasses without :class:`~animegen.data.clips.ClipView` do not.
    exact_flow = False

    def __init__(
        self,
        test: ClipView,
        extractor: FeatureExtractor | None = None,
        limit: int | None = None,
        batch_size: int = 8,
    ) -> None:
        super().__init__()
        self.test, self.limit, self.batch_size = test, limit, batch_size
        self.exact_flow = test.exact_flow
        hold = getattr(test.clips, "hold", 1)
        self.task = f"inbetween_gap{test.gaps[0]}" + ("" if hold == 1 else f"_hold{hold or 's'}")
        known = extractor is not None and not extractor.name.endswith(("_random", "_random_raw"))
        self.perceptual = PerceptualDistance(extractor) if extractor is not None and known else None
        self.estimator = DISFlow()

    def method_of(self, model: Interpolator) -> Method:
        """Return a model as a method on pairs and times; one with ``prior=exact`` is privileged."""
        if getattr(model, "exact_prior", False):
            known: Any = model
            return AlongExactFlow(lambda batch: known.synthesize(known.encode_exact(batch), batch["t"]))

        def run(batch: dict[str, Any]) -> Tensor:
            return model.synthesize(model.encode_pair(batch["first"], batch["last"]), batch["t"])

        return run

    def fit_baselines(self) -> dict[str, Method]:
        """Return the baselines, which need no fitting."""
        baselines: dict[str, Method] = {"nearest": nearest_frame, "blend": linear_blend}
        if mci.available():
            baselines["ffmpeg_mci"] = lambda batch: mci.motion_compensated(batch["first"], batch["last"], batch["t"])
        flow = LatestFlow(self.estimator)
        return baselines | {
            f"warp_{flow.name}": lambda batch: half_warp(batch, flow),
            f"warp_{flow.name}_weighted": lambda batch: weighted_warp(batch, flow),
            f"warp_{flow.name}_averaged": lambda batch: averaged_warp(batch, flow),
            **(_EXACT if self.exact_flow else {}),
        }

    def evaluate(self, methods: Mapping[str, Method], device: torch.device | str = "cpu") -> Scores:
        """Score methods and the baselines; those along the exact flow are marked as privileged."""
        every = {**self.baselines, **methods}
        self.privileged = frozenset(name for name, method in every.items() if isinstance(method, AlongExactFlow))
        return super().evaluate(methods, device)

    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield pairs with the truth, one row per frame in between."""
        if self.perceptual is not None:
            self.perceptual.to(device)
        self.test.prepare()
        chosen = spread(spread(range(len(self.test)), self.limit), limit)
        for start in range(0, len(chosen), self.batch_size):
            samples = [self.test[n] for n in chosen[start : start + self.batch_size]]
            exact = [key for key in AlongExactFlow.exact_keys if key in samples[0]]
            keys = ["first", "last", "truth", "t", *exact]
            batch = {key: torch.stack([s[key] for s in samples]).to(device) for key in keys}
            count = batch["t"].shape[1]
            rows: dict[str, Any] = {key: to_float(batch[key]).repeat_interleave(count, 0) for key in ("first", "last")}
            rows |= {"truth": to_float(batch["truth"]).flatten(0, 1), "t": batch["t"].flatten()}
            for key in exact:
                per_pair = key == "exact_flow"
                rows[key] = batch[key].repeat_interleave(count, 0) if per_pair else batch[key].flatten(0, 1)
            if self.perceptual is not None:
                rows["features"] = self.perceptual.features(rows["truth"])
            yield rows

    def class_of(self, batch: dict[str, Any]) -> list[str]:
        """Return the class of the motion between the two frames of each sample."""
        return [motion_class(float(size)) for size in motion_size(batch["first"], batch["last"])]

    def apply(self, method: Method, batch: dict[str, Any]) -> Tensor:
        """Apply the method to the pair and the times, and to the exact motion if it is privileged."""
        known = method.exact_keys if isinstance(method, AlongExactFlow) else ()
        return method({key: batch[key] for key in ("first", "last", "t", *known) if key in batch})

    def shown(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Show both frames, and the truth."""
        return {"first": batch["first"], "last": batch["last"]}, {"truth": batch["truth"]}

    def measure(self, batch: dict[str, Any], output: Tensor) -> Measured:
        """Compare with the truth."""
        truth = batch["truth"]
        psnr, lines = image.psnr(output, truth), line_difference(output, truth)
        values = {
            "psnr": psnr,
            "gain_over_blend": psnr - image.psnr(linear_blend(batch), truth),
            "ssim": image.ssim(output, truth),
            "ssim_atd_legacy": ssim_atd_legacy(output, truth),
            "ie": interpolation_error(output, truth),
            "edge_f": image.edge_f_score(output, truth),
            "chamfer": 1e5 * lines.chamfer,
            "nedt": 1e3 * lines.nedt,
        }
        if self.perceptual is not None:
            values[self.perceptual.name] = self.perceptual.between(self.perceptual.features(output), batch["features"])
        return Measured(values)


def inbetween_benchmark(
    data: Any, features: FeatureExtractor | None, samples: int | None, batch_size: int
) -> InbetweenBenchmark | None:
    """Return the benchmark of these data, or ``None`` for data without pairs of frames."""
    test = data.test or data.val
    return InbetweenBenchmark(test, features, samples, batch_size) if isinstance(test, ClipView) else None
