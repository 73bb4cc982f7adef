"""Few-shot stylization of a clip: frames that are not key frames, compared with their drawings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from animegen.benchmarks.benchmark import Benchmark, Measured, Method, Score, Scores, spread, summary
from animegen.benchmarks.keyframe_baselines import NAMES, keyframe_baselines
from animegen.data.keyframes import KeyframeData
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.flow import ClipMotion, EstimatedMotion, ExactMotion
from animegen.metrics import image
from animegen.metrics.perceptual import PerceptualDistance
from animegen.nn.features import FeatureExtractor
from animegen.nn.warp import backward_warp
from animegen.tasks.protocols import Stylizer

LEVELS = 127.5
"""Grey levels per unit of images in [-1, 1]."""


class KeyframeBenchmark(Benchmark):
    """Stylization of the frames of a clip by methods that know the drawings of its key frames.

    The test frames are those with a known drawing that are not trained on: all other frames of a generated clip, or the
    held-out keys of a user's clip. The baselines know the same key frames (see `keyframe_baselines`): the best colour
    table (``lut``), the nearest key frame, the nearest key frame warped along DIS flow, and all of them warped and
    blended.

    ``gain_over_<baseline>`` is the difference in PSNR. For consecutive test frames, ``warp_error_<flow>`` is the root
    mean square change along the motion of the photos, in levels, ``warp_gap_<flow>`` its distance from that of the
    true drawings, and ``warp_over_truth_<flow>`` its ratio to that: above 1, the output flickers more than the truth.

    Args:
        data: a key-frame project; its test view has the test frames.
        extractor: network for feature distances; they are omitted for ``None`` or random weights.
        limit: number of frames to score, pairs of neighbours that are evenly spread; ``None`` for all.
        batch_size: frames per batch.

    Raises:
        AnimegenError: if there is no test frame.
    """

    task = "stylise_from_keys"
    main = "psnr"
    #: The baselines use the same information as a model, so none is excluded from rankings.
    privileged = frozenset()

    def __init__(
        self,
        data: KeyframeData,
        extractor: FeatureExtractor | None = None,
        limit: int | None = None,
        batch_size: int = 8,
    ) -> None:
        super().__init__()
        if data.test is None:
            raise AnimegenError(
                "There is no frame to score: set data.hold_out=1 to keep a key frame from training, if there are more."
            )
        self.data, self.test, self.limit, self.batch_size = data, data.test, limit, batch_size
        known = extractor is not None and not extractor.name.endswith(("_random", "_random_raw"))
        self.perceptual = PerceptualDistance(extractor) if extractor is not None and known else None
        self._clips: dict[str, Tensor] = {}

    def method_of(self, model: Stylizer) -> Method:
        """Return a model as a method on independent frames and their guides."""
        return lambda batch: model.stylize(batch["photo"], None, batch.get("guide"))[0]

    def fit_baselines(self) -> dict[str, Method]:
        """Compute the clips of the baselines from the key frames."""
        project, clip = self.data.project, self.data.clip
        photo = torch.stack([clip.photo[n] for n in range(len(project))])
        self._clips = keyframe_baselines(photo, {n: project.drawings[n] for n in project.keys})
        self._motion: ClipMotion = EstimatedMotion(photo) if project.scene is None else ExactMotion(project.scene)
        return {name: self._frames_of(name) for name in NAMES}

    def _frames_of(self, name: str) -> Callable[[dict[str, Any]], Tensor]:
        return lambda batch: to_float(self._clips[name][batch["numbers"]]).to(batch["photo"].device)

    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield frames with ``photo``, ``anime``, ``guide`` if there are any, and ``numbers``, the frame numbers."""
        if self.perceptual is not None:
            self.perceptual.to(device)
        self.test.prepare()
        chosen = spread(self._used(), limit)
        for start in range(0, len(chosen), self.batch_size):
            numbers = chosen[start : start + self.batch_size]
            samples = [self.test[n] for n in numbers]
            keys = [key for key in samples[0] if key != "sample"]
            batch: dict[str, Any] = {key: to_float(torch.stack([s[key] for s in samples]).to(device)) for key in keys}
            yield {**batch, "numbers": [self.test.numbers[n] for n in numbers]}  # type: ignore[attr-defined]

    def _used(self) -> Sequence[int]:
        """Return the numbers of the samples to score: all, or pairs of neighbours, for the change between frames."""
        total = len(self.test)
        if self.limit is None or self.limit >= total or self.limit < 2:
            return spread(range(total), self.limit)
        return [number for first in spread(range(total - 1), self.limit // 2) for number in (first, first + 1)]

    def apply(self, method: Method, batch: dict[str, Any]) -> Tensor:
        """Apply the method to the whole batch."""
        return method(batch)

    def shown(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Show the photo and the drawing."""
        return {"photo": batch["photo"]}, {"truth": batch["anime"]}

    def measure(self, batch: dict[str, Any], output: Tensor) -> Measured:
        """Compare with the drawings."""
        truth = batch["anime"]
        psnr, flat = image.psnr(output, truth), image.flatness(output)
        values = {
            "psnr": psnr,
            "ssim": image.ssim(output, truth),
            "edge_f": image.edge_f_score(output, truth),
            "flatness_gap": (flat - image.flatness(truth)).abs(),
            "colour_distance": image.colour_distance(output, truth),
        }
        for name in NAMES:
            baseline = to_float(self._clips[name][batch["numbers"]]).to(output.device)
            values[f"gain_over_{name}"] = psnr - image.psnr(baseline, truth)
        if self.perceptual is not None:
            values[self.perceptual.name] = self.perceptual(output, truth)
        return Measured(values)

    def evaluate(self, methods: Any, device: torch.device | str = "cpu") -> Scores:
        """Score methods and baselines, and their temporal consistency; see `Benchmark.evaluate`."""
        scores = super().evaluate(methods, device)
        for name, method in {**self.baselines, **methods}.items():
            if name in methods or f"warp_error_{self._motion.name}" not in scores[name]:
                scores[name].update(self._steadiness(method, torch.device(device)))
        return scores

    @torch.no_grad()
    def _steadiness(self, method: Method, device: torch.device) -> dict[str, Score]:
        errors: list[float] = []
        gaps: list[float] = []
        ratios: list[float] = []
        last: dict[int, tuple[Tensor, Tensor]] = {}
        for batch in self.batches(device):
            output = self._run("", method, batch).nan_to_num(0).clamp(-1, 1)
            frames = {n: (output[k], batch["anime"][k]) for k, n in enumerate(batch["numbers"])}
            for first, second in pairwise([*last, *frames]):
                if second != first + 1:
                    continue
                pair = {**last, **frames}
                mine, truth = (self._change(pair[first][k], pair[second][k], first, second) for k in (0, 1))
                errors.append(mine)
                gaps.append(abs(mine - truth))
                ratios.append(mine / max(truth, 1e-3))  # a thousandth of a level, for drawings that stand still
            last = {batch["numbers"][-1]: frames[batch["numbers"][-1]]}
        if not errors:
            return {}
        name = self._motion.name
        values = {"warp_error": errors, "warp_gap": gaps, "warp_over_truth": ratios}
        return {f"{metric}_{name}": summary(torch.tensor(found)) for metric, found in values.items()}

    def _change(self, before: Tensor, after: Tensor, first: int, second: int) -> float:
        """Return the difference of ``after`` from ``before`` warped along the motion, in levels."""
        motion = self._motion.between(second, first)
        carried = backward_warp(before[None], motion.flow.to(before.device))
        error = (after[None] - carried).square()[motion.valid.to(before.device).expand_as(carried)]
        return float(error.mean().sqrt()) * LEVELS


def keyframe_benchmark(
    data: Any, features: FeatureExtractor | None, samples: int | None, batch_size: int
) -> KeyframeBenchmark | None:
    """Return the benchmark of a key-frame project, or ``None`` for other data, or if no drawing is held out."""
    if not isinstance(data, KeyframeData) or data.test is None:
        return None
    return KeyframeBenchmark(data, features, samples, batch_size)
