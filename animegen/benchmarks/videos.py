"""Stylization of a video without drawings: temporal consistency and strength."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from animegen.benchmarks.baselines import Baseline, Identity, LinearColourTransfer
from animegen.benchmarks.benchmark import Measured, Method
from animegen.benchmarks.clip_methods import FrameByFrame
from animegen.benchmarks.keyframe_baselines import Stack
from animegen.benchmarks.temporal_consistency import TemporalConsistencyBenchmark
from animegen.data.keyframes import KeyframeData
from animegen.data.sources import ImageSource
from animegen.data.views import scale_short_side
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.flow import EstimatedMotion
from animegen.media.video.opening import open_video
from animegen.media.video.shots import detect_shots
from animegen.metrics import image, video
from animegen.nn.features import FeatureExtractor


class VideoBenchmark(TemporalConsistencyBenchmark):
    """Stylization of clips of a video. There is no truth, so no metric measures the quality of the drawing.

    Motion is estimated on the video by DIS flow. ``warp_ratio_<interval>_<flow>`` is the warping error over that of the
    video itself, which cancels the difficulty of the video and errors of the flow. The baselines are identity and, if
    there are stills of the style, colour transfer from the video's clips to them.

    Args:
        video: file, or folder of frames.
        clips: number of clips, spread over the video; no clip spans a cut.
        frames: frames per clip.
        size: shorter side to which frames are scaled down, in pixels.
        intervals: see `TemporalConsistencyBenchmark`, also for the following.
        drift_frames: frames on which drift is measured.
        extractor: network for feature distances.
        limit: number of clips to use; ``None`` for all.
        animes: stills of the style.

    Raises:
        AnimegenError: if the video cannot be read, or no shot is long enough.
    """

    task = "stylise_video"
    main = f"warp_ratio_{video.SHORT}_dis"

    def __init__(
        self,
        video: str | Path,
        clips: int = 8,
        frames: int = 24,
        size: int = 128,
        intervals: Sequence[int] = (video.SHORT, video.LONG),
        drift_frames: int = 100,
        extractor: FeatureExtractor | None = None,
        limit: int | None = None,
        animes: ImageSource | None = None,
    ) -> None:
        super().__init__(frames, intervals, drift_frames, extractor)
        self.main = f"warp_ratio_{self.intervals[0]}_{self.estimator.name}"
        self.animes = animes
        self.clips = video_clips(video, clips if limit is None else min(limit, clips), frames, size)

    @property
    def count(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def photos(self, number: int) -> Tensor:
        """Return a clip of the video."""
        return self.clips[number]

    def fit_baselines(self) -> dict[str, Method]:
        """Fit the colour transfer to the clips and the stills."""
        fitted: list[Baseline] = [Identity()]
        if self.animes is not None:
            fitted.append(LinearColourTransfer().fit(Stack(torch.cat(self.clips)), self.animes))
        return {baseline.name: FrameByFrame(baseline) for baseline in fitted}

    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield one clip at a time: ``photo`` (1, T, 3, H, W), its motion, and the values of the video."""
        if self.perceptual:
            self.perceptual.to(device)
        for clip in self.clips[:limit]:
            photo = to_float(clip.to(device))
            motion = EstimatedMotion(clip, self.estimator)
            batch = {"photo": photo[None], "motions": [motion], "flow_in": self.flow_in(motion)}
            batch["steady"] = self.steadiness(photo, [motion])
            if self.perceptual:
                batch["features_in"] = self.perceptual.features(photo)
            yield batch

    def measure(self, batch: dict[str, Any], output: Tensor) -> Measured:
        """Measure one clip: means over its frames, and over its pairs of frames."""
        clip, photo = output[0], batch["photo"][0]
        values = {
            **self.strength(clip, photo),
            "chroma_ratio": image.chroma_ratio(clip, photo),
            "high_frequency_ratio": image.high_frequency_ratio(clip, photo),
        }
        if self.perceptual:
            network, features = self.perceptual.extractor.name, self.perceptual.features(clip)
            values[f"strength_{network}"] = self.distance(features, batch["features_in"], range(self.frames))
            values[f"tlp_in_{self.perceptual.name}"] = self.tlp(features, batch["features_in"])
        for name, value in self.steadiness(clip, batch["motions"]).items():
            values[name] = value
            if name.startswith("warp_error_"):
                ratio = value.nanmean() / batch["steady"][name].nanmean().clamp_min(1e-6)
                values[name.replace("error", "ratio", 1)] = ratio[None]
        flow = self.estimator(clip[:-1], clip[1:])
        change = (flow - batch["flow_in"].to(flow.device)).norm(dim=1)
        values[f"tof_in_{self.estimator.name}"] = change.mean((1, 2))
        return Measured({name: value.nanmean()[None] for name, value in values.items()})

    def shown(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Show the photos."""
        return {"photo": batch["photo"]}, {}


def video_clips(video: str | Path, clips: int, frames: int, size: int) -> list[Tensor]:
    """Return clips of a video, uint8 (frames, 3, H, W), spread over it, without overlap and without cuts.

    The video is decoded twice; only frames of the clips are kept.

    Raises:
        AnimegenError: if the video cannot be read, or no shot is long enough.
    """
    shots = detect_shots(pixels for pixels, _ in open_video(video))
    starts = [start for first, stop in shots for start in range(first, stop - frames + 1, frames)]
    if not starts:
        longest = max(stop - first for first, stop in shots)
        raise AnimegenError(
            f"No shot of '{video}' has {frames} frames, the longest has {longest}: set benchmark.frames to no more."
        )
    if len(starts) > clips:
        starts = [starts[(2 * n + 1) * len(starts) // (2 * clips)] for n in range(clips)]
    found: list[list[Tensor]] = [[] for _ in starts]
    for number, (pixels, _) in enumerate(open_video(video)):
        if number >= starts[-1] + frames:
            break
        for start, kept in zip(starts, found, strict=True):
            if start <= number < start + frames:
                kept.append(scale_short_side(pixels, size) if min(pixels.shape[-2:]) > size else pixels)
    return [torch.stack(kept) for kept in found]


def stills_of(data: Any) -> ImageSource | None:
    """Return the stills of the style in the data; ``None`` if there are none."""
    if isinstance(data, KeyframeData):
        return Stack(torch.stack([data.project.drawings[key] for key in data.project.keys]))
    train = getattr(data, "train", None)
    animes = getattr(train, "sources", {}).get("anime")
    if train is not None and animes is not None:
        train.prepare()
    return animes
