"""The task *stylise* on clips of the generated world: how near the drawing each frame is, and how steady the clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from animegen.core.errors import AnimegenError
from animegen.core.protocols import Stylizer
from animegen.data.images import to_float, to_uint8
from animegen.data.toonworld import STYLES, ToonWorldClips, ToonWorldImages
from animegen.metrics import image, video
from animegen.metrics.baselines import Baseline, BestLookupTable, Identity, LinearColourTransfer
from animegen.metrics.benchmark import Benchmark, Measured, Method, Score, Scores
from animegen.metrics.keyframes import carry_keys, nearest_key, spread_keys
from animegen.metrics.perceptual import PerceptualDistance
from animegen.nn.features import FeatureExtractor
from animegen.video.flow import DISFlow, EstimatedMotion, ExactMotion


def streamed(model: Stylizer) -> Method:
    """Return a model as a method for clips (B, T, 3, H, W): frame after frame, from a fresh state at frame 0."""

    def run(clip: Tensor) -> Tensor:
        state, frames = None, []
        for frame in clip.unbind(1):
            output, state = model.stylize(frame, state)
            frames.append(output)
        return torch.stack(frames, 1)

    return run


class _OnBatch:
    """A baseline that reads more of a batch than the photos."""

    def __init__(self, run: Callable[[dict[str, Any]], Tensor]) -> None:
        self.run = run

    def __call__(self, batch: dict[str, Any]) -> Tensor:
        return self.run(batch)


class _FrameByFrame:
    """A baseline for pictures, applied to clips."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline

    def __call__(self, clip: Tensor) -> Tensor:
        return self.baseline(clip.flatten(0, 1)).view_as(clip)


class ClipBenchmark(Benchmark):
    """Live clips in, drawn clips out: scores methods (B, T, 3, H, W) in [-1, 1] -> the same, on held-out scenes.

    The baselines are identity, colour transfer and the best look-up table, which are fitted to training scenes, and two
    that are given the true drawing of a few key frames: ``nearest_key`` holds the nearest still, ``flow_key`` carries
    it along by DIS flow (see `keyframes`). ``truth`` is the drawing itself: its warping error and flicker are what no
    method can be blamed for. Frames that are keys are left out of the metrics of single frames, for all methods.

    Args:
        style: the drawn look.
        clips: number of clips, each of another scene of the test split.
        frames: frames per clip.
        size: side of the pictures in pixels.
        keys: key frames per clip.
        train_scenes: training scenes to which the baselines are fitted.
        first_scene: number of the first test scene.
        world_seed: the world.
        extractor: network for feature distances. One with random weights is left out: it would tell little and
            take most of the time.
        limit: number of clips to use; ``None`` for all.
    """

    task = "stylise_clips"
    main = "ssim"

    def __init__(
        self,
        style: str = "meadow",
        clips: int = 8,
        frames: int = 24,
        size: int = 128,
        keys: int = 2,
        train_scenes: int = 16,
        first_scene: int = 0,
        world_seed: int = 0,
        extractor: FeatureExtractor | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        if frames < 3 or keys >= frames:
            raise AnimegenError(
                f"A clip benchmark needs 3 or more frames and fewer keys than frames, not {frames} and {keys}."
            )
        self.keys = spread_keys(frames, keys)
        self.held = [t for t in range(frames) if t not in self.keys]
        self.intervals = {name: step for name, step in (("short", video.SHORT), ("long", video.LONG)) if step < frames}
        self.style, self.size, self.world_seed, self.train_scenes = style, size, world_seed, train_scenes
        count = clips if limit is None else min(limit, clips)
        # On ones, as a camera films: what is held in the drawing of live video is a matter of taste.
        self.clips = ToonWorldClips(
            "test", count, frames, size, style, hold=1, first_scene=first_scene, seed=world_seed
        )
        usable = extractor is not None and not extractor.name.endswith("random")
        self.perceptual = PerceptualDistance(extractor) if extractor is not None and usable else None
        self.estimator = DISFlow()
        self._behaviour: dict[str, dict[str, Score]] = {}

    def method_of(self, model: Stylizer) -> Method:
        """Return a model as a method of this benchmark: see `streamed`."""
        return streamed(model)

    def fit_baselines(self) -> dict[str, Method]:
        """Fit the maps of colours to training scenes; the other baselines need no fitting."""
        photos = ToonWorldImages(
            "photo", "train", self.train_scenes, frames_per_scene=2, size=self.size, seed=self.world_seed
        )
        animes = photos.in_look(self.style)
        fitted: list[Baseline] = [
            Identity(),
            LinearColourTransfer().fit(photos, animes),
            BestLookupTable().fit(photos, animes),
        ]
        return {
            **{baseline.name: _FrameByFrame(baseline) for baseline in fitted},
            "nearest_key": _OnBatch(self._held_still),
            "flow_key": _OnBatch(self._carried),
            "truth": _OnBatch(lambda batch: batch["anime"]),
        }

    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield clip after clip: ``photo``, ``anime`` (1, T, 3, H, W), the motion, and the truth's own values."""
        if self.perceptual:
            self.perceptual.to(device)
        table = self.baselines["lookup_table"]
        for number in range(min(len(self.clips), limit or len(self.clips))):
            clip = self.clips.clip(number)
            batch: dict[str, Any] = {key: to_float(clip[key].to(device))[None] for key in ("photo", "anime")}
            batch["motions"] = [
                ExactMotion(self.clips.scene(number)),
                EstimatedMotion(clip["photo"], self.estimator),
            ]
            batch["table_psnr"] = image.psnr(table(batch["photo"])[0, self.held], batch["anime"][0, self.held])
            batch["flow"] = self.estimator(batch["anime"][0, :-1], batch["anime"][0, 1:])
            batch["steady"] = self._steadiness(batch["anime"][0], batch["motions"])
            if self.perceptual:
                batch["features"] = self.perceptual.features(batch["anime"][0])
            yield batch

    def apply(self, method: Method, batch: dict[str, Any]) -> Tensor:
        """Stylise the clip of photos."""
        return method(batch if isinstance(method, _OnBatch) else batch["photo"])

    def measure(self, batch: dict[str, Any], output: Tensor) -> Measured:
        """Measure one clip: means over its frames (those that are no keys), and over its pairs of frames."""
        clip, truth, photo = output[0], batch["anime"][0], batch["photo"][0]
        mine, theirs = clip[self.held], truth[self.held]
        flat = image.flatness(mine)
        psnr = image.psnr(mine, theirs)
        values = {
            "psnr": psnr,
            "gain_over_lookup_table": psnr - batch["table_psnr"],
            "ssim": image.ssim(mine, theirs),
            "edge_f": image.edge_f_score(mine, theirs),
            "flatness": flat,
            "flatness_gap": (flat - image.flatness(theirs)).abs(),
            "colour_distance": image.colour_distance(mine, theirs),
            "strength": video.stylisation_strength(mine, photo[self.held]),
        }
        if self.perceptual:
            values |= self._perceptual(clip, batch["features"])
        for name, value in self._steadiness(clip, batch["motions"]).items():
            values[name] = value
            kind, _, rest = name.partition("_")
            gap = f"{kind}_gap_{rest.removeprefix('error_')}"
            values[gap] = (value.nanmean() - batch["steady"][name].nanmean()).abs()[None]
        flow = self.estimator(clip[:-1], clip[1:])
        values[f"tof_{self.estimator.name}"] = (flow - batch["flow"]).norm(dim=1).mean((1, 2))
        return Measured({name: value.nanmean()[None] for name, value in values.items()})

    def shown(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Show the photos, and the drawings."""
        return {"photo": batch["photo"]}, {"truth": batch["anime"]}

    @torch.no_grad()
    def evaluate(self, methods: Mapping[str, Method], device: torch.device | str = "cpu") -> Scores:
        """Score methods beside the baselines (see `Benchmark`), and how they behave on still, noisy and cut clips."""
        scores = super().evaluate(methods, device)
        measured: dict[str, Method] = {n: m for n, m in self.baselines.items() if isinstance(m, _FrameByFrame)}
        measured.update(methods)
        for name, method in measured.items():
            if name in methods or name not in self._behaviour:
                self._behaviour[name] = self._behave(method, torch.device(device))
            scores[name].update(self._behaviour[name])
        return scores

    @torch.no_grad()
    def pictures(
        self, methods: Mapping[str, Method], count: int = 4, device: torch.device | str = "cpu"
    ) -> tuple[list[str], list[list[Tensor]]]:
        """Return headers and rows for `table.picture_strip`: `count` frames of the first clip, time running down."""
        self._check_names(methods)
        batch = next(self.batches(torch.device(device), limit=1))
        left, right = self.shown(batch)
        shown = {name: method for name, method in self.baselines.items() if name not in ("identity", "truth")}
        outputs = {name: self._run(name, method, batch) for name, method in {**shown, **methods}.items()}
        columns = {**left, **outputs, **right}
        frames = self.clips.frames
        times = spread_keys(frames, min(count, frames))
        return list(columns), [[clip[0, t].float().cpu() for clip in columns.values()] for t in times]

    def _steadiness(self, clip: Tensor, motions: list[Any]) -> dict[str, Tensor]:
        """Return the warping errors of a clip (T, 3, H, W) along every motion and its flicker along the true one."""
        values = {}
        for motion in motions:
            for name, interval in self.intervals.items():
                values[f"warp_error_{name}_{motion.name}"] = video.warp_errors(clip, motion, interval)
        values[f"flicker_{motions[0].name}"] = video.flicker(clip, motions[0])
        return values

    def _perceptual(self, clip: Tensor, reference: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the feature distance of the frames that are no keys, and tLP (see `video.tlp`)."""
        assert self.perceptual is not None
        features, between = self.perceptual.features(clip), self.perceptual.between

        def part(of: dict[str, Tensor], frames: Any) -> dict[str, Tensor]:
            return {layer: value[frames] for layer, value in of.items()}

        changes = [between(part(of, slice(None, -1)), part(of, slice(1, None))) for of in (features, reference)]
        return {
            self.perceptual.name: between(part(features, self.held), part(reference, self.held)),
            f"tlp_{self.perceptual.name}": 100 * (changes[0] - changes[1]).abs(),
        }

    def _behave(self, method: Method, device: torch.device) -> dict[str, Score]:
        """Return what a method does to clips made for the purpose from the first test scenes."""
        photos = [to_float(self.clips.clip(n)["photo"].to(device)) for n in range(min(2, len(self.clips)))]
        still = photos[0][len(photos[0]) // 2]
        values = {
            "static_flicker": video.static_flicker(method, still)["mean"],
            "noise_gain": video.noise_gain(method, still),
            "ping_pong": video.ping_pong(method, photos[0]),
            "cut_leak": video.cut_leak(method, photos[0], photos[-1]),
        }
        return {name: {"mean": value, "std": None, "n": 1} for name, value in values.items()}

    def _held_still(self, batch: dict[str, Any]) -> Tensor:
        return batch["anime"][:, [nearest_key(t, self.keys) for t in range(self.clips.frames)]]

    def _carried(self, batch: dict[str, Any]) -> Tensor:
        drawings = {key: to_uint8(batch["anime"][0, key]).cpu() for key in self.keys}
        carried = carry_keys(to_uint8(batch["photo"][0]).cpu(), drawings, self.estimator)
        return to_float(carried)[None].to(batch["photo"].device)


def clip_benchmark(settings: dict[str, Any], trained_on: dict[str, Any]) -> ClipBenchmark:
    """Build the benchmark from its configuration; without a style, in the one that the model was trained on.

    Args:
        settings: node ``benchmark`` of the configuration of ``animegen eval``.
        trained_on: node ``data`` of the configuration in the checkpoint.

    Raises:
        AnimegenError: if no style is given and the model was not trained on the generated world.
    """
    from animegen.core.build import build  # not at the top: the benchmark itself needs no configuration

    style = settings.get("style") or trained_on.get("style")
    if style not in STYLES:
        raise AnimegenError(
            f"The model was not trained on a style of the generated world: set benchmark.style={'|'.join(STYLES)}."
        )
    return build({**settings, "style": style}, "benchmark")
