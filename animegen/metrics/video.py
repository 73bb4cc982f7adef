"""Temporal consistency: metrics on clips, and on the response of a stylizer to test clips.

Clips are float (T, 3, H, W) in [-1, 1]. Errors are in 8-bit levels. The name of a metric contains the flow estimator or
the feature network that it uses, since values of different ones are not comparable.

These metrics must not be read alone: a blurred or unchanged clip is the best by most of them. Compare with the ground
truth (bilinear warping does not preserve thin ink lines, so the warping error of the truth is not 0; see `excess`, in
both directions) and with `stylisation_strength`, `colour_strength` and `edge_strength`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.media.video.flow import ClipMotion
from animegen.metrics.image import colour_distance, edge_f_score, ssim
from animegen.nn.colour import gray, luma, rgb_to_yuv
from animegen.nn.warp import backward_warp

LEVELS = 127.5
"""Levels of 255 per unit of images in [-1, 1]."""

SHORT, LONG = 1, 10
"""Frame intervals of the short-term and the long-term warping error (those of the tables of ReReVST and CCPL)."""

ClipMethod = Callable[[Tensor], Tensor]
"""A styliser of clips (B, T, 3, H, W) in [-1, 1] -> the same, frame by frame from a fresh start."""

PairDistance = Callable[[Tensor, Tensor], Tensor]
"""A distance of images (B, 3, H, W) -> (B,), such as `PerceptualDistance` or `LPIPS`, with a `name`."""


def warp_errors(clip: Tensor, motion: ClipMotion, interval: int = SHORT) -> Tensor:
    """Warping error of each frame against the one `interval` frames before, in levels: (T - interval,).

    Frame t - interval is warped to frame t along the motion of the *input* clip, and the root of the mean squared
    difference is taken over the pixels that are seen in both frames and over the channels. (Lai et al. 2018 average the
    squares, in [0, 1]; the root and the intervals 1 and 10 are ReReVST's.) NaN for a frame without such pixels.

    Raises:
        AnimegenError: if the clip has no two frames that far apart.
    """
    if not 1 <= interval < len(clip):
        raise AnimegenError(
            f"A warping error over {interval} frames needs a clip of more than {interval} frames, not {len(clip)}."
        )
    errors = []
    for t in range(interval, len(clip)):
        there, valid = motion.between(t, t - interval)
        warped = backward_warp(clip[t - interval : t - interval + 1], there.to(clip.device))
        errors.append(_masked_mean((clip[t : t + 1] - warped).square(), valid).sqrt())
    return torch.stack(errors) * LEVELS


def flicker(clip: Tensor, motion: ClipMotion) -> Tensor:
    """Flicker of each inner frame in levels, (T - 2,): difference from the motion-compensated mean of its neighbours.

    Mean of ``|O_t - (W(O_{t-1}) + W(O_{t+1})) / 2|`` over the pixels that are visible in both neighbours. A still image
    that alternates by +-d has flicker 2d; a linear change over time has 0, unlike the warping error.
    """
    if len(clip) < 3:
        raise AnimegenError(f"Flicker needs a clip of at least 3 frames, not {len(clip)}.")
    values = []
    for t in range(1, len(clip) - 1):
        sides = [motion.between(t, t - 1), motion.between(t, t + 1)]
        around = [
            backward_warp(clip[n : n + 1], side.flow.to(clip.device))
            for n, side in zip((t - 1, t + 1), sides, strict=True)
        ]
        off = (clip[t : t + 1] - (around[0] + around[1]) / 2).abs()
        values.append(_masked_mean(off, sides[0].valid & sides[1].valid))
    return torch.stack(values) * LEVELS


def excess(value: Tensor, truth: Tensor) -> float:
    """Return the mean of `warp_errors` or `flicker` minus that of the truth; negative values mean smoothing.

    Frames that cannot be measured (NaN) are excluded from both means.
    """
    return float(value.nanmean() - truth.nanmean())


def tlp(output: Tensor, reference: Tensor, distance: PairDistance) -> Tensor:
    """Difference of perceptual change tLP (Chu et al. 2020) per pair of frames, x 100, (T - 1,), lower is better.

    ``100 |d(g_{t-1}, g_t) - d(o_{t-1}, o_t)|`` with LPIPS, or with another feature distance, whose name is then
    part of the metric's. The reference g is the truth, or the input (`tlp_in`).
    """
    _check_pair(output, reference)
    changes = [
        torch.cat([distance(a, b) for a, b in zip(clip[:-1].split(8), clip[1:].split(8), strict=True)])
        for clip in (output, reference)
    ]
    return 100 * (changes[0] - changes[1]).abs()


def stylisation_strength(output: Tensor, photo: Tensor) -> Tensor:
    """Strength of the stylization per frame, (T,): 1 - SSIM of the luma against the photo; 0 = unchanged.

    Report it with every metric of temporal consistency, all of which improve when less is changed.
    """
    _check_pair(output, photo)
    return 1 - ssim(gray(output.float()), gray(photo.float()))


def colour_strength(output: Tensor, photo: Tensor) -> Tensor:
    """Change of colours per frame, (T,): mean CIE 1976 difference (Delta E*ab) from the photo."""
    _check_pair(output, photo)
    return colour_distance(output, photo)


def edge_strength(output: Tensor, photo: Tensor) -> Tensor:
    """Change of lines per frame, (T,), in [0, 1]: 1 - F-score of Canny edges against the photo's.

    Ink adds lines, and flattening removes some. Blur removes lines, too; `image.flatness` and, with a truth, the edge
    F-score distinguish it from drawing.
    """
    _check_pair(output, photo)
    return 1 - edge_f_score(output, photo)


def static_flicker(method: ClipMethod, frame: Tensor, frames: int = 16, warm_up: int = 8) -> dict[str, float]:
    """Flicker of a stylizer on a repeated still image, in levels.

    Args:
        method: the stylizer.
        frame: the image (3, H, W).
        frames: number of frames that are measured.
        warm_up: number of frames before those, for a recurrent state to settle.

    Returns:
        ``mean`` and ``peak`` of the mean change from frame to frame; both 0 for any deterministic model without memory.
    """
    output = method(frame.expand(1, warm_up + frames, -1, -1, -1))[0, warm_up:]
    change = (output[1:] - output[:-1]).abs().flatten(1).mean(1) * LEVELS
    return {"mean": float(change.mean()), "peak": float(change.max())}


def noise_gain(method: ClipMethod, frame: Tensor, level: float = 2.0, frames: int = 16, seed: int = 0) -> float:
    """Amplification of noise on a still image by a stylizer; 1 = as in the input.

    The image (3, H, W) is repeated `frames` times with independent normal noise of `level` levels. The standard
    deviation of the output over time (root of the mean variance) is divided by that of the input.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((1, frames, *frame.shape), generator=generator).to(frame.device)
    noisy = (frame + noise * level / LEVELS).clamp(-1, 1)

    def deviation(clip: Tensor) -> Tensor:
        return clip[0].float().var(0).mean().sqrt()

    return float(deviation(method(noisy)) / deviation(noisy).clamp_min(1e-12))


def drift_slope(clip: Tensor, period: int = 1) -> dict[str, float]:
    """Drift of a clip per 100 frames: least-squares slopes of the frames' means.

    For the output on a still or a looped input, where every change is the model's. The line is fitted to the means of
    whole loops, so motion within a loop does not count: a deterministic model without memory has exactly 0.

    Args:
        clip: (T, 3, H, W).
        period: frames of a loop; frames after the last whole loop are ignored. 1 for a still.

    Returns:
        ``y``, ``u``, ``v``: slopes of mean luma and chroma in levels; ``detail``: that of the mean absolute Laplacian
        of the luma in levels (falling = blurring).

    Raises:
        AnimegenError: if the clip has fewer than two loops.
    """
    loops = len(clip) // period
    if loops < 2:
        raise AnimegenError(f"Drift needs at least 2 loops, {2 * period} frames, not {len(clip)}.")
    colours = rgb_to_yuv(clip.float()).flatten(2).mean(2) * 255  # YUV is that of [0, 1]
    kernel = clip.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float32).view(1, 1, 3, 3)
    detail = F.conv2d(luma(clip.float()), kernel).abs().flatten(1).mean(1, keepdim=True) * LEVELS
    series = torch.cat([colours, detail], 1).double()[: loops * period].unflatten(0, (loops, period))
    # Deviations from the first loop, frame by frame, are exactly 0 where every loop is the same.
    series = (series - series[:1]).mean(1)
    time = torch.arange(loops, dtype=torch.float64, device=clip.device) * period
    time = time - time.mean()
    slopes = 100 * (time[:, None] * series).sum(0) / time.square().sum()
    return dict(zip(("y", "u", "v", "detail"), slopes.tolist(), strict=True))


def looped(clip: Tensor, frames: int) -> tuple[Tensor, int]:
    """Repeat a clip (T, 3, H, W) forwards and backwards, without repeating the frames at the ends.

    Returns:
        About `frames` frames (whole loops, at least three), and the length of a loop, 2T - 2.
    """
    if len(clip) < 2:
        raise AnimegenError("A loop needs a clip of at least 2 frames.")
    loop = torch.cat([clip, clip[1:-1].flip(0)])
    return loop.repeat(max(3, round(frames / len(loop))), 1, 1, 1), len(loop)


def long_drift(method: ClipMethod, clip: Tensor, frames: int = 100) -> dict[str, float]:
    """Drift of a stylizer over a long shot: `drift_slope` of its output on a `looped` clip (T, 3, H, W).

    The first loop is excluded, since a recurrent state settles in it.
    """
    long, period = looped(clip, frames)
    return drift_slope(method(long[None])[0, period:], period)


def ping_pong(method: ClipMethod, clip: Tensor) -> float:
    """Difference between the outputs of a clip played forwards and backwards, in levels.

    The clip (T, 3, H, W) is played forwards and backwards, 2T - 1 frames. The two outputs of each frame but the last
    are compared (mean absolute difference; TecoGAN uses it as a loss). 0 for a model without memory.
    """
    there_and_back = torch.cat([clip, clip[:-1].flip(0)])
    output = method(there_and_back[None])[0]
    return float((output[: len(clip) - 1] - output[len(clip) :].flip(0)).abs().mean()) * LEVELS


def cut_leak(method: ClipMethod, first: Tensor, second: Tensor, frames: int = 8, marked: bool = True) -> float:
    """Leakage of one shot into the next, in levels: change of its first frames caused by frames before the cut.

    Args:
        method: the stylizer; every call starts with an empty state.
        first: the previous shot (T, 3, H, W).
        second: a shot of the same size, stylized alone and again after `first`.
        frames: number of its frames that are compared.
        marked: reset the state at the cut, as `animegen stylize` does. The result must then be 0; another value
            reveals memory outside of the state. Otherwise both shots are one stream, and the result measures how long
            the memory keeps past content; 0 for a model without memory.
    """
    second = second[:frames]
    alone = method(second[None])[0]
    if marked:
        method(first[None])
        after = method(second[None])[0]
    else:
        after = method(torch.cat([first, second])[None])[0, len(first) :]
    return float((after - alone).abs().mean()) * LEVELS


def _masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean (scalar) of (1, C, H, W) over the pixels of a mask (1, 1, H, W); NaN for an empty mask."""
    mask = valid.to(values.device).expand_as(values)
    return values[mask].float().mean()


def _check_pair(output: Tensor, reference: Tensor) -> None:
    if output.shape != reference.shape or output.ndim != 4:
        raise AnimegenError(
            f"Clips of shapes {tuple(output.shape)} and {tuple(reference.shape)} cannot be compared: give two of one"
            " shape (T, 3, H, W)."
        )
