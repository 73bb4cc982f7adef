"""Common part of benchmarks on clips: temporal consistency and strength of a model, with and without its memory.

Cost per clip of T frames: the model processes it once, and once more without memory if it has any; the flow of every
output is estimated. Cost per method: about 230 frames of test clips. For 8 clips of 24 frames, a model with memory
processes about 850 frames.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from animegen.benchmarks.benchmark import Benchmark, Method, Score, Scores
from animegen.benchmarks.clip_methods import Blended, FrameByFrame, OnBatch, Streamed
from animegen.benchmarks.keyframe_baselines import spread_keys
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.flow import ClipMotion, DISFlow, EstimatedMotion
from animegen.metrics import image, video
from animegen.metrics.perceptual import PerceptualDistance
from animegen.nn.features import FeatureExtractor
from animegen.tasks.protocols import Stylizer

PING_PONG, LOOP = 12, 8
"""Frames of the clips that are played there and back once, and again and again."""

MODEL = "model"

Features = Mapping[str, Tensor]
"""Features of the frames of a clip by layer, (T, C, h, w)."""


class TemporalConsistencyBenchmark(Benchmark):
    """Stylization of clips: scores methods (B, T, 3, H, W) in [-1, 1] -> the same.

    Two methods are derived from a streamed model: ``per_frame``, the model with an empty state at every frame (if it
    has a state), and ``blended``, that output smoothed along DIS flow (see `clip_methods.Blended`).

    Args:
        frames: frames per clip.
        intervals: frame distances of the warping errors; those longer than the clips are omitted.
        drift_frames: approximate number of frames on which drift is measured.
        extractor: network for feature distances. It is omitted if its weights are random, since it would take most of
            the time and mean little.
    """

    def __init__(
        self,
        frames: int,
        intervals: Sequence[int] = (video.SHORT, video.LONG),
        drift_frames: int = 100,
        extractor: FeatureExtractor | None = None,
    ) -> None:
        super().__init__()
        if frames < 3:
            raise AnimegenError(f"A benchmark of clips needs 3 or more frames per clip, not {frames}.")
        if not intervals or min(intervals) < 1 or min(intervals) >= frames:
            raise AnimegenError(
                f"benchmark.intervals={list(intervals)} does not suit clips of {frames} frames: give numbers of frames"
                " from 1 on, one of them below the length of a clip."
            )
        self.frames, self.drift_frames = frames, drift_frames
        self.intervals = [interval for interval in intervals if interval < frames]
        usable = extractor is not None and "_random" not in extractor.name
        self.perceptual = PerceptualDistance(extractor) if extractor is not None and usable else None
        self.estimator = DISFlow()
        self._behaviour: dict[str, dict[str, Score]] = {}

    @abstractmethod
    def photos(self, number: int) -> Tensor:
        """Return a clip of the test set, uint8 (T, 3, H, W)."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of clips."""

    def method_of(self, model: Stylizer) -> Method:
        """Return a model as a method of this benchmark."""
        return Streamed(model)

    def apply(self, method: Method, batch: dict[str, Any]) -> Tensor:
        """Stylise the clip of photos."""
        return method(batch if isinstance(method, OnBatch) else batch["photo"])

    @torch.no_grad()
    def evaluate(self, methods: Mapping[str, Method], device: torch.device | str = "cpu") -> Scores:
        """Score methods and baselines (see `Benchmark`), also on still, noisy and long clips."""
        methods = {**methods, **self.derived(methods, device)}
        scores = super().evaluate(methods, device)
        measured: dict[str, Method] = {n: m for n, m in self.baselines.items() if isinstance(m, FrameByFrame)}
        measured.update(methods)
        for name, method in measured.items():
            if name in methods or name not in self._behaviour:
                self._behaviour[name] = self._behave(method, torch.device(device))
            scores[name].update(self._behaviour[name])
        return scores

    def derived(self, methods: Mapping[str, Method], device: torch.device | str = "cpu") -> dict[str, Method]:
        """Return the methods derived from streamed models, by name."""
        made: dict[str, Method] = {}
        for name, method in methods.items():
            if isinstance(method, Streamed):
                prefix = "" if name == MODEL else f"{name}_"
                alone = Streamed(method.model, memory=False)
                if method.remembers(self._clip(0, device)[None, :4]):
                    made[f"{prefix}per_frame"] = alone
                made[f"{prefix}blended"] = Blended(alone, self.estimator)
        return made

    @torch.no_grad()
    def sample_rows(
        self, methods: Mapping[str, Method], count: int = 4, device: torch.device | str = "cpu"
    ) -> tuple[list[str], list[list[Tensor]]]:
        """Return headers and rows for `tables.image_strip`: `count` frames of the first clip, one row per time."""
        self._check_names(methods)
        batch = next(self.batches(torch.device(device), limit=1))
        left, right = self.shown(batch)
        shown = {name: method for name, method in self.baselines.items() if name not in ("identity", "truth")}
        outputs = {name: self._run(name, method, batch) for name, method in {**shown, **methods}.items()}
        columns = {**left, **outputs, **right}
        times = spread_keys(self.frames, min(count, self.frames))
        return list(columns), [[clip[0, t].float().cpu() for clip in columns.values()] for t in times]

    def strength(self, frames: Tensor, photo: Tensor) -> dict[str, Tensor]:
        """Return the strength of the stylization of frames (T, 3, H, W)."""
        return {
            "flatness": image.flatness(frames),
            "strength": video.stylisation_strength(frames, photo),
            "strength_colour": video.colour_strength(frames, photo),
            "strength_edges": video.edge_strength(frames, photo),
        }

    def steadiness(self, clip: Tensor, motions: Sequence[ClipMotion]) -> dict[str, Tensor]:
        """Return the warping errors of a clip (T, 3, H, W) along every motion and its flicker along the first."""
        values = {}
        for motion in motions:
            for interval in self.intervals:
                values[f"warp_error_{interval}_{motion.name}"] = video.warp_errors(clip, motion, interval)
        values[f"flicker_{motions[0].name}"] = video.flicker(clip, motions[0])
        return values

    def distance(self, a: Features, b: Features, at: Sequence[int]) -> Tensor:
        """Return the feature distances (N,) of frames `at` of two clips whose features (T, ...) are given."""
        assert self.perceptual is not None
        return self.perceptual.between(*({layer: maps[list(at)] for layer, maps in of.items()} for of in (a, b)))

    def tlp(self, a: Features, b: Features) -> Tensor:
        """Return `video.tlp` (T - 1,) of two clips whose features (T, ...) are given."""
        assert self.perceptual is not None
        changes = [
            self.perceptual.between({k: v[:-1] for k, v in of.items()}, {k: v[1:] for k, v in of.items()})
            for of in (a, b)
        ]
        return 100 * (changes[0] - changes[1]).abs()

    def flow_in(self, motion: EstimatedMotion) -> Tensor:
        """Return the estimated motion (T - 1, 2, H, W) from each photo of a clip to the next."""
        return torch.cat([motion.flow(t, t + 1) for t in range(self.frames - 1)])

    def _clip(self, number: int, device: torch.device | str) -> Tensor:
        return to_float(self.photos(number).to(device))

    def _behave(self, method: Method, device: torch.device) -> dict[str, Score]:
        """Return the metrics on test clips made from the first and the last photos."""
        first, last = (self._clip(n, device) for n in (0, self.count - 1))
        still = first[len(first) // 2]
        drift = video.long_drift(method, first[:LOOP], self.drift_frames)
        values = {
            "static_flicker": video.static_flicker(method, still)["mean"],
            "noise_gain": video.noise_gain(method, still),
            "drift_colour": max(abs(drift[channel]) for channel in "yuv"),
            "drift_detail": drift["detail"],
            "ping_pong": video.ping_pong(method, first[:PING_PONG]),
            "cut_leak": video.cut_leak(method, first[:LOOP], last),
            "cut_leak_unmarked": video.cut_leak(method, first[:LOOP], last, marked=False),
        }
        return {name: {"mean": value, "std": None, "n": 1} for name, value in values.items()}
