"""Several clips between the same two frames: their differences from each other and from the truth.

One truth does not say whether a model imagines several motions: a sampled clip may be plausible and far from it. So
variants are measured against each other, too, and the closest of them against the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from animegen.benchmarks.benchmark import Measured, Method, spread
from animegen.benchmarks.generation import GenerationBenchmark, OnTruth, parts_of
from animegen.errors import AnimegenError
from animegen.metrics import image
from animegen.metrics.video import LEVELS
from animegen.nn.features import FeatureExtractor
from animegen.tasks.protocols import ClipGenerator, Interpolator, Sampling


class VariantsBenchmark(GenerationBenchmark):
    """Scores methods ``(first, last, frames) -> (B,variants,frames,3,H,W)`` against true clips.

    Scores on frames are means over all variants. A method that returns one clip, such as all baselines, is taken as
    equal variants. In this benchmark the baselines that start from reconstructions are omitted, except for the rendered
    ones.

    Args:
        variants: clips per pair of frames, at least 2.
        temperature: of the sampling.
        top_k: sample from the likeliest k codes; ``None`` for all.
        equal_ends: give the first frame at both ends. The truth is then no longer a clip between both; scores against
            it only say how much of its scene is kept.
        **settings: see :class:`~animegen.benchmarks.generation.GenerationBenchmark`.

    Raises:
        AnimegenError: for fewer than 2 variants.
    """

    main = "closest"

    def __init__(
        self,
        *,
        variants: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        equal_ends: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if variants < 2:
            raise AnimegenError(f"Differences of variants need at least 2, not benchmark.variants={variants}.")
        self.variants, self.equal_ends = variants, equal_ends
        self.sampling = Sampling(temperature=temperature, top_k=top_k)
        self.task = f"{self.task}_variants{variants}" + ("_equal_ends" if equal_ends else "")

    def method_of(self, model: Any) -> Method:
        """Return a :class:`~animegen.tasks.protocols.ClipGenerator` as a method that samples.

        Raises:
            AnimegenError: for a model that does not sample.
        """
        _check_samples(model)
        super().method_of(model)  # checks the length

        def drawn(first: Tensor, last: Tensor, frames: int) -> Tensor:
            clips = [
                model.generate(first, last, frames, replace(self.sampling, seed=number * len(first)))
                for number in range(self.variants)
            ]
            return torch.stack(clips, 1)

        return drawn

    def fit_baselines(self) -> dict[str, Method]:
        """Return the baselines of given and of rendered frames."""
        found = {name: method for name, method in super().fit_baselines().items() if "reconstruct" not in name}
        return {name: method for name, method in found.items() if not isinstance(method, OnTruth)}

    def apply(self, method: Method, batch: dict[str, Any]) -> Tensor:
        """Apply the method to both ends; repeat a single clip."""
        clip = batch["clip"]
        last = clip[:, 0] if self.equal_ends else clip[:, -1]
        drawn = method(clip[:, 0], last, clip.shape[1])
        return drawn if drawn.dim() == 6 else drawn.unsqueeze(1).expand(-1, self.variants, -1, -1, -1, -1)

    def shown(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Show the first frame, and the truth, as often as there are variants."""
        left, right = super().shown(batch)
        repeated = [
            {name: clip.unsqueeze(1).expand(-1, self.variants, -1, -1, -1, -1) for name, clip in side.items()}
            for side in (left, right)
        ]
        return repeated[0], repeated[1]

    def measure(self, batch: dict[str, Any], output: Tensor) -> Measured:
        """Measure variants (B,V,T,3,H,W) against each other and against the truth, in levels of 255."""
        truth = batch["clip"][:, 1:-1]
        between = output[:, :, 1:-1]
        away = LEVELS * (between - truth.unsqueeze(1)).abs().flatten(2).mean(2)
        apart = [
            LEVELS * (between[:, a] - between[:, b]).abs().flatten(1).mean(1)
            for a, b in combinations(range(self.variants), 2)
        ]
        true = truth.flatten(0, 1)
        psnr = torch.stack(
            [image.psnr(clip.flatten(0, 1), true).view(len(truth), -1).mean(1) for clip in between.unbind(1)]
        )
        values = {
            "apart": torch.stack(apart).mean(0),
            "from_truth": away.mean(1),
            "closest": away.amin(1),
            "psnr": psnr.mean(0),
            "psnr_best": psnr.amax(0),
        }
        if self.perceptual is not None:
            distances = [
                self.perceptual.between(self.perceptual.features(clip.flatten(0, 1)), batch["features"])
                for clip in between.unbind(1)
            ]
            values[self.perceptual.name] = torch.stack(distances).mean(0).view(len(truth), -1).mean(1)
        moved = [clip.diff(dim=-4).abs().flatten(1).mean(1) for clip in (output, batch["clip"])]
        values["motion_ratio"] = moved[0] / moved[1].clamp_min(1e-6)
        return Measured(values)

    @torch.no_grad()
    def sample_rows(
        self, methods: Mapping[str, Method], count: int = 4, device: torch.device | str = "cpu"
    ) -> tuple[list[str], list[list[Tensor]]]:
        """Return headers and rows for `tables.image_strip`: a row per time, the variants side by side."""
        self._check_names(methods)
        batch = next(self.batches(torch.device(device), limit=1))
        clip = batch["clip"]
        columns: dict[str, Tensor] = {"first": clip[0, :1].expand_as(clip[0])}
        for name, method in methods.items():
            found = self._run(name, method, batch)[0]
            columns |= {f"{name}_{number}": variant for number, variant in enumerate(found[1:], start=2)}
            columns[name] = found[0]  # last: what follows a method's own column is the truth
        columns["truth"] = clip[0]
        times = spread(range(1, clip.shape[1] - 1), count)
        return list(columns), [[frames[t].float().cpu() for frames in columns.values()] for t in times]


def variants_benchmark(
    settings: Mapping[str, Any],
    data: Any,
    model: Interpolator | ClipGenerator,
    features: FeatureExtractor | None = None,
    samples: int | None = None,
    batch_size: int = 8,
) -> VariantsBenchmark:
    """Build the benchmark for a model on its data.

    Args:
        settings: ``variants``, ``temperature``, ``top_k`` and ``equal_ends``, see :class:`VariantsBenchmark`.
        data: see :func:`~animegen.benchmarks.generation.generation_benchmark`, as the others.
        model: the one to score; with ``renderer``, the baselines are also rendered.
        features: network for feature distances.
        samples: number of pairs of frames; ``None`` for all.
        batch_size: pairs per batch.

    Raises:
        AnimegenError: for data without clips, a model that does not sample, and values of the wrong type.
    """
    _check_types(settings)
    _check_samples(model)
    chosen = {name: settings[name] for name in ("variants", "temperature", "top_k", "equal_ends")}
    return VariantsBenchmark(
        **chosen, **parts_of(data, model), extractor=features, limit=samples, batch_size=batch_size
    )


def _check_samples(model: Any) -> None:
    if not isinstance(model, ClipGenerator):
        raise AnimegenError(
            f"benchmark=variants scores models that sample clips, and {type(model).__name__} draws only one between"
            " two frames: use benchmark=generation."
        )


def _check_types(settings: Mapping[str, Any]) -> None:
    """Check what the ranges of numbers leave open: null, and true or false."""
    for name in ("variants", "temperature"):
        if settings[name] is None:
            raise AnimegenError(f"benchmark.{name}=null is not valid: it must be a number.")
    ends = settings["equal_ends"]
    if not isinstance(ends, bool):
        raise AnimegenError(f"benchmark.equal_ends={ends} is not valid: use true or false.")
