"""Detection of shots with PySceneDetect, on frames from which flashes are removed.

Frames pass once, and no more than a handful are held at a time, so a video may be of any length. Three things stand
between the video and the detectors:

- Frames become small, and what is nearly black becomes evenly dark: the hue of black is noise, in letterboxes and
  night scenes, and would be measured as change.
- A flash is taken out: while the image is gone for a few frames and then comes back, the detectors are shown
  a cross-fade from the frame before to the frame after it.
- A fade through black is one cut, in the middle of the dark part, whatever else the detectors find around it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector, ThresholdDetector
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.files import regular_file
from animegen.media.video.small import shrunk
from animegen.media.video.stages import decode_in_threads

WIDTH = 256
"""Width in pixels at which frames are analysed."""

NEARLY_BLACK = 24
"""Levels below this are raised to it, so that black has no hue (of 255)."""

DARK = 12
"""Mean level below which a frame counts as faded out: PySceneDetect's default."""

Frame = np.ndarray | Tensor


def detect_shots(
    video: str | Path | Iterable[Frame],
    ratio: float = 3.0,
    change: float = 20.0,
    shortest: int = 5,
    flash: int = 4,
    flashes: list[int] | None = None,
) -> list[tuple[int, int]]:
    """Return the shots of a video as frame numbers (first, stop), half-open; together they cover the whole video.

    A cut is a change that is large and stands out from those of the two frames before and after it
    (`AdaptiveDetector` of PySceneDetect); cross-fades are not found. Black before the first and
    after the last image belongs to the shot beside it if it is faded from or to.

    Args:
        video: a file that PyAV reads, or frames in order: uint8 RGB, (H, W, 3) arrays or (3, H, W) tensors.
        ratio: by what factor a cut must exceed the mean change around it.
        change: smallest change of a cut: mean difference of hue, saturation and brightness in levels of 255. (In two
            real videos and the generated world cuts lie at 26 and above, all other changes below 20; the
            detector's own default of 15 took steps of drawings held on threes for cuts.)
        shortest: frames between two cuts at least.
        flash: an image that is back after at most this many frames was not cut away; 0 takes flashes for cuts.
        flashes: gets the numbers of the frames with which a flash begins, and the image after it.

    Raises:
        AnimegenError: if the file cannot be read or there is no frame.
    """
    frames = _decode(Path(video)) if isinstance(video, str | Path) else (_small(frame) for frame in video)
    cuts = AdaptiveDetector(adaptive_threshold=ratio, min_scene_len=shortest, min_content_val=change)
    fades = ThresholdDetector(threshold=DARK, min_scene_len=1)
    hard: list[int] = []
    faded: list[tuple[int, int, int]] = []  # cut, first dark frame, first frame that is not
    count = 0
    for number, picture in enumerate(_without_flashes(frames, flash, change, flashes)):
        time = FrameTimecode(number, fps=25.0)  # the detectors count frames; the rate changes nothing
        hard += [cut.frame_num for cut in cuts.process_frame(time, np.maximum(picture, NEARLY_BLACK))]
        # A fade's cut lies in the middle between fade-out and the present frame.
        middles = [cut.frame_num for cut in fades.process_frame(time, picture)]
        faded += [(middle, 2 * middle - number, number) for middle in middles]
        count = number + 1
    if count == 0:
        raise AnimegenError(f"There is no frame to find shots in{_named(video)}: give a video with frames.")
    spans = [(start - shortest, stop + shortest) for _, start, stop in faded]
    kept = [cut for cut in hard if not any(start <= cut <= stop for start, stop in spans)]
    # A video that begins dark has not been cut before its first image.
    kept += [cut for cut, start, _ in faded if start > 1]
    bounds = [0]
    for cut in sorted(kept):
        if cut - bounds[-1] >= shortest:
            bounds.append(cut)
    return list(pairwise([*bounds, count]))


def _without_flashes(
    frames: Iterable[np.ndarray], longest: int, change: float, flashes: list[int] | None = None
) -> Iterator[np.ndarray]:
    """Yield small frames, those of a flash replaced by a cross-fade.

    A flash begins at a frame that differs from the one before (by at least `change` levels) if one of the next
    `longest` frames is again near the one before: at less than half that difference, and at less than half the contrast
    of the image (else the dim frames on both sides of a fade would pass for the same image). It ends there.
    ``flashes`` gets the numbers of both frames.
    """
    number = 1
    ahead: deque[np.ndarray] = deque()
    source = iter(frames)
    before = next(source, None)
    if before is not None:
        yield before
    while before is not None:
        while len(ahead) <= longest and (frame := next(source, None)) is not None:
            ahead.append(frame)
        if not ahead:
            return
        gone = _back_after(before, list(ahead), change)
        after = ahead[gone]
        if gone and flashes is not None:
            flashes += [number, number + gone]
        number += gone + 1
        for n in range(1, gone + 1):
            ahead.popleft()
            # The change of the frames that are missed is spread over them: in one step it might look like a cut.
            yield cv2.addWeighted(before, 1 - n / (gone + 1), after, n / (gone + 1), 0)
        before = ahead.popleft()
        yield before


def _back_after(before: np.ndarray, ahead: list[np.ndarray], change: float) -> int:
    """Return the number of following frames that belong to a flash; 0 without a flash."""
    away = _difference(before, ahead[0])
    if away < change:
        return 0
    near = min(away, float(before.std())) / 2
    return next((n for n, frame in enumerate(ahead[1:], start=1) if _difference(before, frame) < near), 0)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean difference of two images in levels."""
    return float(cv2.absdiff(a, b).mean())


def _small(frame: Frame) -> np.ndarray:
    """Return a frame (H, W, 3) RGB or tensor (3, H, W) as small (h, w, 3) BGR."""
    picture = frame.cpu().numpy().transpose(1, 2, 0) if isinstance(frame, Tensor) else np.asarray(frame)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise TypeError(
            f"frames must be uint8 RGB, (H, W, 3) arrays or (3, H, W) tensors: got {picture.dtype} {picture.shape}"
        )
    height, width = picture.shape[:2]
    if width > WIDTH:
        return shrunk(picture.transpose(2, 0, 1)[::-1], max(1, round(height * WIDTH / width)), WIDTH)
    return np.ascontiguousarray(picture[..., ::-1])


def _decode(path: Path) -> Iterator[np.ndarray]:
    """Yield the downscaled frames of a file, (h, w, 3) BGR, numbered in decoding order regardless of time stamps."""
    regular_file(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise AnimegenError(f"'{path}' has no frames: name a video.")
            stream = container.streams.video[0]
            decode_in_threads(stream.codec_context)
            for frame in container.decode(stream):
                width = min(WIDTH, frame.width)
                height = max(1, round(frame.height * width / frame.width))
                yield frame.to_ndarray(format="bgr24", width=width, height=height)
    except (OSError, av.FFmpegError) as error:
        raise AnimegenError(f"'{path}' cannot be read ({error}): check the path and the file.") from error


def _named(video: str | Path | Iterable[Frame]) -> str:
    return f" '{video}'" if isinstance(video, str | Path) else ""
