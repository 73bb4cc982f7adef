"""Benchmark of ToonWorld clips: similarity of each frame to its drawing, and temporal consistency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from animegen.benchmarks.baselines import Baseline, BestLookupTable, Identity, LinearColourTransfer
from animegen.benchmarks.benchmark import Measured, Method
from animegen.benchmarks.clip_methods import FrameByFrame, OnBatch
from animegen.benchmarks.keyframe_baselines import carry_keys, nearest_key, spread_keys
from animegen.benchmarks.temporal_consistency import TemporalConsistencyBenchmark
from animegen.benchmarks.videos import VideoBenchmark, stills_of
from animegen.errors import AnimegenError
from animegen.media.images import to_float, to_uint8
from animegen.media.video.flow import EstimatedMotion, ExactMotion
from animegen.metrics import image, video
from animegen.nn.features import FeatureExtractor
from animegen.toonworld import STYLES, ToonWorldClips, ToonWorldImages


class ClipBenchmark(TemporalConsistencyBenchmark):
    """Stylization of clips of held-out scenes, with their true drawings and their exact motion.

    Identity, colour transfer and the best look-up table are fitted to training scenes. Two more baselines know the true
    drawings of a few key frames: ``nearest_key`` repeats the nearest one, ``flow_key`` warps it along DIS flow (see
    `keyframe_baselines`). ``truth`` is the drawing itself, whose warping error and flicker are unavoidable. Key frames
    are excluded from the metrics on single frames, for all methods.

    ``warp_excess_<interval>_<flow>`` is the warping error of a clip minus that of its true drawing; negative values
    mean blurred lines. ``warp_gap_...`` is its absolute value.

    Args:
        style: the anime style.
        clips: number of clips, one per scene of the test split.
        frames: frames per clip.
        size: side of the images in pixels.
        keys: key frames per clip.
        hold: frames for which a pose is held. 1 is live action; ``None``: as in the scene, like the clips of
            `toonworld_project`.
        grain: standard deviation, in levels, of independent noise on every frame of the photos. Still and looped clips
            have no noise.
        train_scenes: number of training scenes to which the baselines are fitted.
        first_scene: number of the first test scene.
        world_seed: seed of the world.
        intervals: see `TemporalConsistencyBenchmark`, also for the following.
        drift_frames: frames on which drift is measured.
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
        """Fit the colour mappings to training scenes; the other baselines need no fitting."""
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
        """Yield one clip at a time: ``photo``, ``anime`` (1, T, 3, H, W), the motion, and the values of the truth."""
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
        """Measure one clip: means over its frames (except keys), and over its pairs of frames."""
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


VIDEO_KEYS = ("clips", "frames", "size", "intervals", "drift_frames", "extractor", "limit")
"""Common settings of clips of videos and of ToonWorld."""


def clip_benchmark(
    settings: dict[str, Any], trained_on: dict[str, Any], data: Any = None
) -> TemporalConsistencyBenchmark:
    """Build the benchmark from its configuration: on a video if given, else on ToonWorld.

    Args:
        settings: node ``benchmark`` of the configuration.
        trained_on: node ``data`` of the checkpoint's configuration, which has the default style.
        data: data of the evaluation; the colour transfer for a video is fitted to its anime.

    Raises:
        AnimegenError: without video or style, if the model was not trained on ToonWorld.
    """
    from animegen.config.instantiate import (
        build,
        finish,
    )  # imported here, since the benchmark itself needs no configuration

    settings = {**settings, "extractor": settings.get("extractor") or None}  # features=none is an empty node
    video = settings.pop("video", None)
    if video is not None:
        target = f"{VideoBenchmark.__module__}.{VideoBenchmark.__qualname__}"
        chosen = {key: settings[key] for key in VIDEO_KEYS if key in settings}
        make = build({"_target_": target, "video": video, **chosen, "_partial_": True}, "benchmark")
        return finish(make, "benchmark", animes=stills_of(data))
    style = settings.get("style") or trained_on.get("style")
    if style not in STYLES:
        raise AnimegenError(
            "The model was not trained on a style of ToonWorld: set"
            f" benchmark.style={'|'.join(STYLES)}, or benchmark.video=<file> for your own."
        )
    return build({**settings, "style": style}, "benchmark")
