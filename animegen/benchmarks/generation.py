"""Generation of clips between a first and a last frame: similarity to the truth, and continuity at the last frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from animegen.benchmarks.benchmark import Benchmark, Measured, Method, spread
from animegen.benchmarks.inbetween import averaged_warp, half_warp
from animegen.data.clips import ClipView
from animegen.data.clips.truth import knows_motion
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.flow import DISFlow, LatestFlow
from animegen.media.video.mci import available, motion_compensated
from animegen.metrics import image
from animegen.metrics.clip_features import ClipFeatures
from animegen.metrics.distribution import SetDistance, fid
from animegen.metrics.perceptual import PerceptualDistance
from animegen.metrics.video import LEVELS
from animegen.nn.features import FeatureExtractor
from animegen.nn.warp import uniform_motion
from animegen.tasks.clip_adapter import InterpolatorAsClipGenerator
from animegen.tasks.protocols import ClipGenerator, Interpolator

#: Dimensions to which clip features are projected, since sets of clips are small.
FVD_CHANNELS = 16
#: Reconstruction of frames (N,3,H,W) in [-1,1] by a tokenizer.
Reconstruct = Callable[[Tensor], Tensor]
#: Renders reconstructed clips (B,T,3,H,W), given some of their frames: number -> (B,3,H,W), the confidence in the
#: others: 1 for the truth, 0 for an estimate without motion, and optionally flow and sight of the frames between.
Render = Callable[..., Tensor]

#: The true motion in a batch, see :class:`~animegen.data.clips.ClipView`.
_MOTION = ("exact_between", "exact_sight")


def copy_first(first: Tensor, last: Tensor, frames: int) -> Tensor:
    """Repeat the first frame, and end with the last one."""
    return torch.stack([*[first] * (frames - 1), last], 1)


def copy_nearest(first: Tensor, last: Tensor, frames: int) -> Tensor:
    """Return the nearest of both frames in time; in the middle the first one."""
    return torch.stack([last if 2 * t > frames - 1 else first for t in range(frames)], 1)


def cross_fade(first: Tensor, last: Tensor, frames: int) -> Tensor:
    """Blend linearly from the first to the last frame."""
    return torch.stack([torch.lerp(first, last, t / (frames - 1)) for t in range(frames)], 1)


BASELINES = {"copy_first": copy_first, "copy_nearest": copy_nearest, "cross_fade": cross_fade}


def _interpolated(method: Callable[[dict[str, Any]], Tensor]) -> Method:
    """Return a baseline of frame interpolation, which draws frames by their times, as one of clips."""

    def drawn(first: Tensor, last: Tensor, frames: int) -> Tensor:
        times = torch.arange(1, frames - 1, device=first.device) / (frames - 1)
        between = [method({"first": first, "last": last, "t": t.expand(len(first))}) for t in times]
        return torch.stack([first, *between, last], 1)

    return drawn


def motion_baselines() -> dict[str, Method]:
    """Return methods that move the pixels of both frames: FFmpeg, and two along DIS flow.

    ``warp_dis`` warps both frames half-way, ``warp_dis_averaged`` is ``animegen interpolate method=dis``.
    """
    flow = LatestFlow(DISFlow())
    found = {"ffmpeg_mci": lambda batch: motion_compensated(batch["first"], batch["last"], batch["t"])}
    if not available():
        found = {}
    found |= {"warp_dis": lambda batch: half_warp(batch, flow)}
    found |= {"warp_dis_averaged": lambda batch: averaged_warp(batch, flow)}
    return {name: _interpolated(method) for name, method in found.items()}


class GenerationBenchmark(Benchmark):
    """Scores methods ``(first, last, frames) -> (B,frames,3,H,W)`` against true clips.

    The given frames are excluded from the metrics on single frames. The baselines are those of `BASELINES` and
    `motion_baselines`, which move pixels along a motion that does not depend on training. For a model
    with a tokenizer they are also computed from reconstructed frames, and ``reconstruction``, the true clip through the
    tokenizer, is the upper bound. For a model with a renderer three of these are also rendered: the nearest frame and
    the cross-fade show the renderer's results from both ends alone, the truth is the upper bound. If frames are
    rendered from a motion, and the test clips know the true one, the cross-fade is also rendered from this
    (``exact_motion_rendered``), and from the same motion divided evenly in time (``uniform_motion_rendered``): what a
    perfect estimate of motion gives, if it knows the timing, and if it does not. The name of the task contains the gap
    in frames.

    Args:
        test: clips with all frames between both ends; not shuffled.
        reconstruct: the tokenizer of the model, if it has one.
        network: features for the Frechet video distance; ``None`` omits it. It is also omitted if there are no more
            clips than dimensions (16).
        extractor: network for feature distances of frames; they are omitted for ``None`` or random weights.
        limit: number of clips to use, evenly spread; ``None`` for all.
        batch_size: clips per batch.
        render: the renderer of the model, if it has one; it needs ``reconstruct``.
        along_motion: whether ``render`` takes the flow and sight of the frames between.

    Raises:
        AnimegenError: for clips without the frames in between.
    """

    main = "ssim"

    def __init__(
        self,
        test: ClipView,
        reconstruct: Reconstruct | None = None,
        network: ClipFeatures | None = None,
        extractor: FeatureExtractor | None = None,
        limit: int | None = None,
        batch_size: int = 8,
        render: Render | None = None,
        along_motion: bool = False,
    ) -> None:
        super().__init__()
        if test.shuffle or test.middle != "all":
            raise AnimegenError(
                "Whole clips are scored against all frames between, in a fixed order: use a view with middle=all and"
                " shuffle=false."
            )
        self.test, self.reconstruct, self.render, self.network = test, reconstruct, render, network
        self.along_motion = along_motion and knows_motion(test.clips)
        if self.along_motion:  # takes longer than the frames, so only where it is read
            test.exact_motion = True
        self.limit, self.batch_size = limit, batch_size
        self.task = f"generation_gap{test.gaps[0]}"
        known = extractor is not None and not extractor.name.endswith(("_random", "_random_raw"))
        self.perceptual = PerceptualDistance(extractor) if extractor is not None and known else None
        self._true_features: Tensor | None = None

    def method_of(self, model: Any) -> Method:
        """Return a `ClipGenerator`, or an `Interpolator` at even times, as a method."""
        generator: ClipGenerator = model if isinstance(model, ClipGenerator) else InterpolatorAsClipGenerator(model)
        longest = getattr(generator, "max_frames", None)
        if longest is not None and self.test.gaps[0] + 1 > longest:
            raise AnimegenError(
                f"The model draws clips of up to {longest} frames, and the test clips have {self.test.gaps[0] + 1}: set"
                f" data.test_gap to {longest - 1} or less."
            )
        return generator.generate

    def fit_baselines(self) -> dict[str, Method]:
        """Return the baselines, which need no fitting."""
        found: dict[str, Method] = BASELINES | motion_baselines()
        if self.reconstruct is not None:
            found |= {f"{name}_reconstructed": self._coded(method) for name, method in BASELINES.items()}
            found["reconstruction"] = OnTruth(lambda batch: self._reconstructed(batch["clip"]))
            if self.render is not None:
                found |= {
                    f"{method.__name__}_rendered": self._rendered(method) for method in (copy_nearest, cross_fade)
                }
                found["reconstruction_rendered"] = OnTruth(
                    lambda batch: self._render_between(self._reconstructed(batch["clip"]), batch["clip"], 1.0)
                )
                if self.along_motion:
                    found["uniform_motion_rendered"] = OnTruth(lambda batch: self._along(batch, uniform=True))
                    found["exact_motion_rendered"] = OnTruth(self._along)
        return found

    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield clips (B,T,3,H,W) with the values of the truth."""
        for network in (self.perceptual, self.network):
            if network is not None:
                network.to(device)
        self.test.prepare()
        chosen = spread(spread(range(len(self.test)), self.limit), limit)
        for start in range(0, len(chosen), self.batch_size):
            samples = [self.test[number] for number in chosen[start : start + self.batch_size]]
            clips = [torch.cat([s["first"][None], s["truth"], s["last"][None]]) for s in samples]
            batch: dict[str, Any] = {"clip": to_float(torch.stack(clips).to(device))}
            if self.along_motion:
                batch |= {key: torch.stack([s[key] for s in samples]).to(device) for key in _MOTION}
            if self.perceptual is not None:
                batch["features"] = self.perceptual.features(batch["clip"][:, 1:-1].flatten(0, 1))
            yield batch

    def apply(self, method: Method, batch: dict[str, Any]) -> Tensor:
        """Apply the method to both ends and the number of frames."""
        clip = batch["clip"]
        if isinstance(method, OnTruth):
            return method(batch)
        return method(clip[:, 0], clip[:, -1], clip.shape[1])

    def shown(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Show the first frame, and the truth."""
        clip = batch["clip"]
        return {"first": clip[:, :1].expand_as(clip)}, {"truth": clip}

    def measure(self, batch: dict[str, Any], output: Tensor) -> Measured:
        """Measure clips: means over the frames in between, each frame by its number, arrival and motion."""
        truth = batch["clip"]
        count, between = len(truth), (output[:, 1:-1].flatten(0, 1), truth[:, 1:-1].flatten(0, 1))
        psnr, ssim = (metric(*between).view(count, -1) for metric in (image.psnr, image.ssim))
        values = {"psnr": psnr.mean(1), "ssim": ssim.mean(1)}
        values["edge_f"] = image.edge_f_score(*between).view(count, -1).mean(1)
        if self.perceptual is not None:
            distance = self.perceptual.between(self.perceptual.features(between[0]), batch["features"])
            values[self.perceptual.name] = distance.view(count, -1).mean(1)
        # Compared with the true last frame, not with the method's.
        jumps = [(clip[:, -2] - truth[:, -1]).abs().flatten(1).mean(1) * LEVELS for clip in (output, truth)]
        values |= {"arrival": jumps[0] - jumps[1], "arrival_error": (jumps[0] - jumps[1]).abs()}
        moved = [clip.diff(dim=1).abs().flatten(1).mean(1) for clip in (output, truth)]
        values["motion_ratio"] = moved[0] / moved[1].clamp_min(1e-6)
        for t in range(psnr.shape[1]):
            values |= {f"psnr_at_{t + 1}": psnr[:, t], f"ssim_at_{t + 1}": ssim[:, t]}
        return Measured(values, None if self.network is None else self.network(output))

    def measure_sets(self, kept: Tensor) -> dict[str, SetDistance | None]:
        """Return the Frechet distance from the true clips."""
        assert self.network is not None
        if self._true_features is None:
            device = torch.device("cpu")
            self._true_features = torch.cat([self.network(batch["clip"]) for batch in self.batches(device)])
        return {f"fvd_{self.network.name}": fid(self._true_features, kept, FVD_CHANNELS)}

    @torch.no_grad()
    def sample_rows(
        self, methods: Mapping[str, Method], count: int = 4, device: torch.device | str = "cpu"
    ) -> tuple[list[str], list[list[Tensor]]]:
        """Return headers and rows for `tables.image_strip`: frames of the first clip, one row per time."""
        self._check_names(methods)
        batch = next(self.batches(torch.device(device), limit=1))
        left, right = self.shown(batch)
        shown = {name: method for name, method in self.baselines.items() if name != "copy_first"}
        outputs = {name: self._run(name, method, batch) for name, method in {**shown, **methods}.items()}
        columns = {**left, **outputs, **right}
        times = spread(range(1, batch["clip"].shape[1] - 1), count)
        return list(columns), [[clip[0, t].float().cpu() for clip in columns.values()] for t in times]

    def _coded(self, method: Method) -> Method:
        """Return a baseline that starts from the reconstructions of both ends."""
        reconstruct = self.reconstruct
        assert reconstruct is not None
        return lambda first, last, frames: method(reconstruct(first), reconstruct(last), frames)

    def _rendered(self, method: Method) -> Method:
        """Return a baseline whose reconstructed clip is rendered."""

        def drawn(first: Tensor, last: Tensor, frames: int) -> Tensor:
            clip = self._coded(method)(first, last, frames)
            return self._render_between(clip, torch.stack([first, *[last] * (frames - 1)], 1), 0.0)

        return drawn

    def _reconstructed(self, clip: Tensor) -> Tensor:
        assert self.reconstruct is not None
        return self.reconstruct(clip.flatten(0, 1)).view_as(clip)

    def _render_between(self, coded: Tensor, clip: Tensor, confidence: float, *motion: Any) -> Tensor:
        """Render a reconstructed clip between the first and the last frame of another clip."""
        assert self.render is not None
        return self.render(coded, {0: clip[:, 0], clip.shape[1] - 1: clip[:, -1]}, confidence, *motion)

    def _along(self, batch: dict[str, Any], uniform: bool = False) -> Tensor:
        """Render the cross-fade of the reconstructed ends from the true motion, or from that divided evenly."""
        clip, flow = batch["clip"], batch["exact_between"]
        faded = self._coded(cross_fade)(clip[:, 0], clip[:, -1], clip.shape[1])
        if uniform:
            times = torch.arange(1, flow.shape[1] + 1, device=flow.device) / (flow.shape[1] + 1)
            flow = uniform_motion(flow, times.view(-1, 1, 1, 1))
        return self._render_between(faded, clip, 0.0, (flow, batch["exact_sight"]))


class OnTruth:
    """A function of a batch with the true clip, and perhaps its motion, as a method."""

    def __init__(self, made: Callable[[dict[str, Any]], Tensor]) -> None:
        self.made = made

    def __call__(self, batch: dict[str, Any]) -> Tensor:
        """Apply the method to a batch."""
        return self.made(batch)


def generation_benchmark(
    settings: Mapping[str, Any],
    data: Any,
    model: Interpolator | ClipGenerator,
    features: FeatureExtractor | None = None,
    samples: int | None = None,
    batch_size: int = 8,
) -> GenerationBenchmark:
    """Build the benchmark for a model on its data.

    Args:
        settings: ``network`` (``none`` or what `ClipFeatures` takes), ``size`` and ``frames``, see there.
        data: the data module; its test set, or else its validation set, must consist of clips.
        model: with ``reconstruct``, the baselines are also computed from reconstructions; with ``renderer``, these are
            also rendered.
        features: network for feature distances.
        samples: number of clips; ``None`` for all.
        batch_size: clips per batch.

    Raises:
        AnimegenError: for data without clips.
    """
    name = str(settings.get("network") or "none")
    network = None if name == "none" else ClipFeatures(name, settings.get("size"), settings.get("frames"))
    return GenerationBenchmark(
        **parts_of(data, model), network=network, extractor=features, limit=samples, batch_size=batch_size
    )


def parts_of(data: Any, model: Interpolator | ClipGenerator) -> dict[str, Any]:
    """Return test clips, tokenizer and renderer as arguments of a :class:`GenerationBenchmark`.

    Raises:
        AnimegenError: for data without clips.
    """
    test = data.test or data.val
    if not isinstance(test, ClipView):
        raise AnimegenError("This benchmark scores clips between two frames: use data=clips/toonworld.")
    render = getattr(model, "render", None) if getattr(model, "has_renderer", False) else None
    parts = {"test": test, "reconstruct": getattr(model, "reconstruct", None), "render": render}
    return parts | {"along_motion": getattr(model, "follows_motion", False)}
