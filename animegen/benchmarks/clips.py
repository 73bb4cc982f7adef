"""The task *stylise* on clips of the generated world: how near the drawing each frame is, and how steady the clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from animegen.benchmarks.baselines import Baseline, BestLookupTable, Identity, LinearColourTransfer
from animegen.benchmarks.benchmark import Measured, Method
from animegen.benchmarks.clip_methods import FrameByFrame, OnBatch
from animegen.benchmarks.keyframe_baselines import carry_keys, nearest_key, spread_keys
from animegen.benchmarks.temporal_consistency import SteadinessBenchmark
from animegen.benchmarks.videos import FilmBenchmark, stills_of
from animegen.errors import AnimegenError
from animegen.media.images import to_float, to_uint8
from animegen.media.video.flow import EstimatedMotion, ExactMotion
from animegen.metrics import image, video
from animegen.nn.features import FeatureExtractor
from animegen.toonworld import STYLES, ToonWorldClips, ToonWorldImages


class ClipBenchmark(SteadinessBenchmark):
    """Live clips in, drawn clips out, on held-out scenes with their true drawings and their exact motion.

    The baselines are identity, colour transfer and the best look-up table, which are fitted to training scenes, and two
    that are given the true drawing of a few key frames: ``nearest_key`` holds the nearest still, ``flow_key`` carries
    it along by DIS flow (see `keyframes`). ``truth`` is the drawing itself: its warping error and flicker are what no
    method can be blamed for. Frames that are keys are left out of the metrics of single frames, for all methods.

    ``warp_excess_<interval>_<flow>`` is a clip's warping error above that of its true drawing, negative where lines
    were smeared; ``warp_gap_...`` is its absolute value, both signs counting.

    Args:
        style: the drawn look.
        clips: number of clips, each of another scene of the test split.
        frames: frames per clip.
        size: side of the pictures in pixels.
        keys: key frames per clip.
        hold: frames for which a drawn pose is held. 1, as a camera films; ``None``: as the scene has it, like the clips
            of `toonworld_project`.
        grain: standard deviation, in levels, of noise that is put on every frame of the photos, each its own, as film
            and cameras in the dark have it. How a method behaves on still and looped clips is measured without it.
        train_scenes: training scenes to which the baselines are fitted.
        first_scene: number of the first test scene.
        world_seed: the world.
        intervals: see `SteadinessBenchmark`, as the following.
        drift_frames: length of the loop.
        extractor: network for feature distances.
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
        hold: int | None = 1,
        grain: float = 0.0,
        train_scenes: int = 16,
        first_scene: int = 0,
        world_seed: int = 0,
        intervals: Sequence[int] = (video.SHORT, video.LONG),
        drift_frames: int = 100,
        extractor: FeatureExtractor | None = None,
        limit: int | None = None,
    ) -> None:
        if keys >= frames:
            raise AnimegenError(f"A clip benchmark needs fewer keys than frames, not {keys} of {frames}.")
        if grain < 0:
            raise AnimegenError(f"benchmark.grain={grain} is a standard deviation in levels: it must be at least 0.")
        super().__init__(frames, intervals, drift_frames, extractor)
        self.grain = grain
        self.keys = spread_keys(frames, keys)
        self.held = [t for t in range(frames) if t not in self.keys]
        self.style, self.size, self.world_seed, self.train_scenes = style, size, world_seed, train_scenes
        count = clips if limit is None else min(limit, clips)
        self.clips = ToonWorldClips(
            "test", count, frames, size, style, hold=hold, first_scene=first_scene, seed=world_seed
        )

    @property
    def count(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def photos(self, number: int) -> Tensor:
        """Return the photos of a clip."""
        scene = self.clips.scene(number)
        return torch.stack([torch.from_numpy(scene.photo(t)).permute(2, 0, 1) for t in range(self.frames)])

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
            **{baseline.name: FrameByFrame(baseline) for baseline in fitted},
            "nearest_key": OnBatch(self._held_still),
            "flow_key": OnBatch(self._carried),
            "truth": OnBatch(lambda batch: batch["anime"]),
        }

    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield clip after clip: ``photo``, ``anime`` (1, T, 3, H, W), the motion, and the truth's own values."""
        if self.perceptual:
            self.perceptual.to(device)
        table = self.baselines["lookup_table"]
        for number in range(min(len(self.clips), limit or len(self.clips))):
            clip = self.clips.clip(number)
            batch: dict[str, Any] = {key: to_float(clip[key].to(device))[None] for key in ("photo", "anime")}
            if self.grain:
                generator = torch.Generator().manual_seed(number)
                noise = torch.randn(batch["photo"].shape, generator=generator).to(device)
                batch["photo"] = (batch["photo"] + self.grain / video.LEVELS * noise).clamp(-1, 1)
            photo, anime = batch["photo"][0], batch["anime"][0]
            estimated = EstimatedMotion(clip["photo"], self.estimator)
            batch["motions"] = [ExactMotion(self.clips.scene(number)), estimated]
            batch["table_psnr"] = image.psnr(table(batch["photo"])[0, self.held], anime[self.held])
            batch["flow"], batch["flow_in"] = self.estimator(anime[:-1], anime[1:]), self.flow_in(estimated)
            batch["steady"] = self.steadiness(anime, batch["motions"])
            if self.perceptual:
                batch["features"], batch["features_in"] = map(self.perceptual.features, (anime, photo))
            yield batch

    def measure(self, batch: dict[str, Any], output: Tensor) -> Measured:
        """Measure one clip: means over its frames (those that are no keys), and over its pairs of frames."""
        clip, truth, photo = output[0], batch["anime"][0], batch["photo"][0]
        mine, theirs = clip[self.held], truth[self.held]
        psnr = image.psnr(mine, theirs)
        values = {
            "psnr": psnr,
            "gain_over_lookup_table": psnr - batch["table_psnr"],
            "ssim": image.ssim(mine, theirs),
            "edge_f": image.edge_f_score(mine, theirs),
            "flatness_gap": (image.flatness(mine) - image.flatness(theirs)).abs(),
            "colour_distance": image.colour_distance(mine, theirs),
            **self.strength(mine, photo[self.held]),
        }
        if self.perceptual:
            network, features = self.perceptual.extractor.name, self.perceptual.features(clip)
            values[self.perceptual.name] = self.distance(features, batch["features"], self.held)
            values[f"strength_{network}"] = self.distance(features, batch["features_in"], self.held)
            values[f"tlp_{self.perceptual.name}"] = self.tlp(features, batch["features"])
            values[f"tlp_in_{self.perceptual.name}"] = self.tlp(features, batch["features_in"])
        for name, value in self.steadiness(clip, batch["motions"]).items():
            kind, _, rest = name.partition("_")
            rest = rest.removeprefix("error_")
            excess = (value.nanmean() - batch["steady"][name].nanmean())[None]
            values |= {name: value, f"{kind}_excess_{rest}": excess, f"{kind}_gap_{rest}": excess.abs()}
        flow = self.estimator(clip[:-1], clip[1:])
        for kind, reference in (("tof", batch["flow"]), ("tof_in", batch["flow_in"].to(flow.device))):
            values[f"{kind}_{self.estimator.name}"] = (flow - reference).norm(dim=1).mean((1, 2))
        return Measured({name: value.nanmean()[None] for name, value in values.items()})

    def shown(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Show the photos, and the drawings."""
        return {"photo": batch["photo"]}, {"truth": batch["anime"]}

    def _held_still(self, batch: dict[str, Any]) -> Tensor:
        return batch["anime"][:, [nearest_key(t, self.keys) for t in range(self.frames)]]

    def _carried(self, batch: dict[str, Any]) -> Tensor:
        drawings = {key: to_uint8(batch["anime"][0, key]).cpu() for key in self.keys}
        carried = carry_keys(to_uint8(batch["photo"][0]).cpu(), drawings, self.estimator)
        return to_float(carried)[None].to(batch["photo"].device)


FILM_KEYS = ("clips", "frames", "size", "intervals", "drift_frames", "extractor", "limit")
"""Settings that clips of a film and of the generated world have in common."""


def clip_benchmark(settings: dict[str, Any], trained_on: dict[str, Any], data: Any = None) -> SteadinessBenchmark:
    """Build the benchmark from its configuration: on a film if it names one, else on the generated world.

    Args:
        settings: node ``benchmark`` of the configuration.
        trained_on: node ``data`` of the configuration in the checkpoint: without a style, its style is taken.
        data: the data of the evaluation, whose anime the colour transfer for a film is fitted to.

    Raises:
        AnimegenError: if there is neither film nor style and the model was not trained on the generated world.
    """
    from animegen.config.instantiate import build, finish  # not at the top: the benchmark itself needs no configuration

    settings = {**settings, "extractor": settings.get("extractor") or None}  # features=none is an empty node
    film = settings.pop("film", None)
    if film is not None:
        target = f"{FilmBenchmark.__module__}.{FilmBenchmark.__qualname__}"
        chosen = {key: settings[key] for key in FILM_KEYS if key in settings}
        make = build({"_target_": target, "film": film, **chosen, "_partial_": True}, "benchmark")
        return finish(make, "benchmark", animes=stills_of(data))
    style = settings.get("style") or trained_on.get("style")
    if style not in STYLES:
        raise AnimegenError(
            "The model was not trained on a style of the generated world: set"
            f" benchmark.style={'|'.join(STYLES)}, or benchmark.film=<file> for your own."
        )
    return build({**settings, "style": style}, "benchmark")
