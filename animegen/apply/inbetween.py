"""Frames between frames, for pictures and films: what is drawn, copied, and where it is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.apply.timegrid import Between, Grid, between_frames
from animegen.core.errors import AnimegenError
from animegen.core.protocols import Interpolator
from animegen.data.images import read_image, to_float, to_uint8
from animegen.nn.colour import rgb_to_lab
from animegen.nn.reach import inference
from animegen.video.encoding import CONTAINERS, Encoding
from animegen.video.frames import DEFAULT_RATE, RGB, Colour, FrameReader, VideoInfo
from animegen.video.opening import WRITTEN_SUFFIXES, create_video
from animegen.video.reader import VideoReader
from animegen.video.sequences import SequenceReader

#: Two frames show the same drawing if ``a mean + b max + c > 0`` of their CIE Lab distances at a longer side of at most
#: 640 pixels: EISAI's fit to labelled frames (Chen and Zwicker 2022, released code). The maximum sees a blinking eye.
_MEAN, _MAX, _OFFSET, _SIDE = -2.1593, -0.2038, 4.0879, 640


class Pictures(SequenceReader):
    """Pictures given one by one as a film, equally long each.

    Args:
        files: the pictures, all of one size.
        fps: pictures per second.

    Raises:
        AnimegenError: if one cannot be read, or they differ in size.
    """

    def __init__(self, files: list[Path], fps: Fraction | None = None) -> None:
        self.path, self.files = files[0], files
        self.problems, self.end = [], Fraction(0)
        shapes = {file: tuple(read_image(file).shape[1:]) for file in files}
        if len(set(shapes.values())) > 1:
            sizes = ", ".join(f"'{file}' {shape[1]}x{shape[0]}" for file, shape in shapes.items())
            raise AnimegenError(f"Pictures of different sizes have no frame between: {sizes}.")
        height, width = shapes[files[0]]
        rate = fps or DEFAULT_RATE
        self.info = VideoInfo(
            width,
            height,
            rate,
            time_base=1 / rate,
            duration=len(files) / rate,
            frames=len(files),
            codec=files[0].suffix.lower()[1:],
            colour=Colour(RGB, full_range=True),
        )


class Inbetweener:
    """A model that draws the frames between two frames, one pair after the other.

    Args:
        model: in eval mode, on ``device``.
        device: where to compute.
        dtype: autocast type, ``None`` for full precision.
    """

    def __init__(
        self, model: Interpolator, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        self.model, self.device, self.dtype = model, torch.device(device), dtype
        self._pair: tuple[Tensor, Tensor] | None = None
        self._encoded: Any = None
        self.drawn = 0

    def __call__(self, first: Tensor, last: Tensor, t: float) -> Tensor:
        """Draw the frame at time t between two frames, uint8 ``(3,H,W)`` each; a pair is encoded once.

        Raises:
            AnimegenError: if the memory does not suffice, or the model draws what is no picture.
        """
        try:
            with inference(self.device, self.dtype):
                if self._pair is None or self._pair[0] is not first or self._pair[1] is not last:
                    self._encoded = None  # before the next pair takes its place in memory
                    frames = [to_float(frame[None].to(self.device)) for frame in (first, last)]
                    self._encoded, self._pair = self.model.encode_pair(*frames), (first, last)
                image = self.model.synthesize(self._encoded, torch.tensor([t], device=self.device))
        except torch.OutOfMemoryError as error:
            raise AnimegenError(
                f"The memory of the device is too small for frames of {first.shape[2]}x{first.shape[1]}: use smaller"
                " frames, precision=bf16, or device=cpu."
            ) from error
        if not image.isfinite().all():
            raise AnimegenError("The model draws no picture (NaN): use another checkpoint, or precision=fp32.")
        self.drawn += 1
        return to_uint8(image[0]).cpu()


def same_drawing(first: Tensor, second: Tensor) -> bool:
    """Tell whether two frames, uint8 ``(3,H,W)``, show the same drawing but for the noise of compression."""
    if torch.equal(first, second):
        return True
    small = []
    for frame in (first, second):
        image = to_float(frame[None])
        scale = _SIDE / max(image.shape[-2:])
        if scale < 1:
            image = F.interpolate(image, scale_factor=scale, mode="area", recompute_scale_factor=True)
        small.append(rgb_to_lab(image))
    gap = (small[0] - small[1]).norm(dim=1)
    return float(_MEAN * gap.mean() + _MAX * gap.max() + _OFFSET) > 0


@dataclass(frozen=True)
class FilmPlan:
    """What to do with a film.

    Attributes:
        grid: when frames are shown.
        smooth: spread motion over held drawings.
        cuts: find cuts and draw nothing across them.
        encoding: of video files.
        suffix: format of the frames of a film that is written as a folder of pictures.
    """

    grid: Grid
    smooth: bool = False
    cuts: bool = True
    encoding: Encoding | None = None
    suffix: str = ".png"


def interpolate_film(reader: FrameReader, target: Path, draw: Inbetweener, plan: FilmPlan) -> Iterator[Between[Tensor]]:
    """Write a film with more frames; yield after each of them.

    The film passes twice if cuts are looked for. Times are exact, sound and subtitles are copied, duration and the
    frames of the source stay as they are. The result appears under its name when it is complete.

    Args:
        reader: the film.
        target: a film or a folder for pictures.
        draw: draws frames.
        plan: how.
    """
    cuts: list[int] = []
    if plan.cuts and len_at_least(reader, 3):
        from animegen.video.shots import detect_shots  # on demand: pairs of pictures need no detector

        cuts = [first for first, _ in detect_shots(pixels for pixels, _ in reader)][1:]
    is_film = target.suffix.lower() in WRITTEN_SUFFIXES
    source = reader.path if isinstance(reader, VideoReader) and target.suffix.lower() in CONTAINERS else None
    frames = between_frames(
        iter(reader), lambda: reader.end, plan.grid, same_drawing, cuts, plan.smooth, hold_last=is_film
    )
    with create_video(target, _info(reader.info, plan.grid), plan.encoding, source, plan.suffix) as writer:
        for frame in frames:
            shown = frame.first if frame.last is None else draw(frame.first, frame.last, float(frame.t))
            writer.write(shown, frame.time)
            yield frame
        writer.close(reader.end)


def len_at_least(reader: FrameReader, count: int) -> bool:
    """Tell whether a film has so many frames, as far as its header says."""
    expected = reader.info.expected_frames
    return expected is None or expected >= count


def _info(info: VideoInfo, grid: Grid) -> VideoInfo:
    """Return the facts of the new film; its time base holds all its times exactly."""
    if grid.factor is not None:
        return replace(info, fps=info.fps * grid.factor, time_base=info.time_base / grid.factor, frames=None)
    assert grid.fps is not None
    return replace(info, fps=grid.fps, time_base=1 / grid.fps, frames=None)
