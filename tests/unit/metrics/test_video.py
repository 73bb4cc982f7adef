"""Steadiness: values worked out by hand on clips made for the purpose."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.media.video.flow import Motion
from animegen.metrics import video
from animegen.metrics.image import ssim
from animegen.nn.colour import gray

LEVEL = 2 / 255
"""One level of 255 in [-1, 1]."""


class Shift:
    """The motion of a clip that moves by (x, y) pixels per frame."""

    name = "shift"

    def __init__(self, x: float = 0, y: float = 0, size: int = 16, valid: Tensor | None = None) -> None:
        self.step, self.size, self.valid = torch.tensor([float(x), float(y)]), size, valid

    def between(self, first: int, second: int) -> Motion:
        flow = (self.step * (second - first)).view(1, 2, 1, 1).expand(1, 2, self.size, self.size)
        rows, columns = torch.meshgrid(torch.arange(self.size), torch.arange(self.size), indexing="ij")
        x, y = columns + flow[0, 0], rows + flow[0, 1]
        seen = (x >= 0) & (x <= self.size - 1) & (y >= 0) & (y <= self.size - 1)
        return Motion(flow, seen[None, None] if self.valid is None else self.valid)


class MeanFlow:
    """An "estimator" whose flow is the change of mean brightness, along x, in pixels per unit."""

    name = "mean"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        change = (b - a).mean((1, 2, 3))
        flow = torch.zeros(len(a), 2, *a.shape[-2:])
        flow[:, 0] = change.view(-1, 1, 1)
        return flow


def moving(frames: int = 12, step: int = 1) -> Tensor:
    """A clip whose content moves `step` pixels to the right per frame."""
    wide = torch.rand(3, 16, 16 + frames * step, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.stack([wide[:, :, (frames - t) * step : (frames - t) * step + 16] for t in range(frames)])


def alternating(levels: float, frames: int = 12) -> Tensor:
    still = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    return torch.stack([still + (-1) ** t * levels * LEVEL for t in range(frames)])


def test_a_clip_that_is_its_own_warp_has_no_error() -> None:
    clip = moving()
    for interval, count in ((1, 11), (10, 2)):
        errors = video.warp_errors(clip, Shift(1), interval)
        assert errors.shape == (count,)
        torch.testing.assert_close(errors, torch.zeros(count), atol=1e-2, rtol=0)
        assert video.warp_errors(clip, Shift(-1), interval).min() > 10  # the wrong direction
    torch.testing.assert_close(video.flicker(clip, Shift(1)), torch.zeros(10), atol=1e-2, rtol=0)


def test_alternating_brightness() -> None:
    """Frames at +d, -d, +d: neighbours differ by 2d, frames of even distance by 0."""
    clip, still = alternating(3), Shift()
    torch.testing.assert_close(video.warp_errors(clip, still, 1), torch.full((11,), 6.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(video.warp_errors(clip, still, 10), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(video.flicker(clip, still), torch.full((10,), 6.0), atol=1e-3, rtol=0)


def test_an_even_change_is_an_error_and_no_flicker() -> None:
    clip = torch.stack([torch.full((3, 16, 16), 2 * t * LEVEL) for t in range(5)])
    torch.testing.assert_close(video.warp_errors(clip, Shift()), torch.full((4,), 2.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(video.flicker(clip, Shift()), torch.zeros(3), atol=1e-3, rtol=0)


def test_masked_pixels_do_not_count() -> None:
    clip = torch.zeros(3, 3, 16, 16)
    clip[1, :, :8] = 10 * LEVEL
    assert video.warp_errors(clip, Shift())[0] == pytest.approx(10 / 2**0.5, abs=1e-3)  # root of the mean of 100 and 0
    lower = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    lower[..., 8:, :] = True
    assert video.warp_errors(clip, Shift(valid=lower)).tolist() == [0, 0]
    assert video.flicker(clip, Shift(valid=~lower))[0] == pytest.approx(10, abs=1e-3)
    nothing = video.warp_errors(clip, Shift(valid=torch.zeros_like(lower)))
    assert nothing.isnan().all()


def test_excess_is_signed_and_leaves_out_what_cannot_be_measured() -> None:
    nan = float("nan")
    assert video.excess(torch.tensor([3.0, nan, 5.0]), torch.tensor([6.0, nan, 6.0])) == -2
    assert video.excess(torch.tensor([7.0]), torch.tensor([6.0])) == 1


def test_tlp_is_a_hundred_times_the_difference_of_changes() -> None:
    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean((1, 2, 3))

    reference = torch.stack([torch.full((3, 8, 8), v) for v in (0.0, 0.1, 0.3)])
    output = torch.stack([torch.full((3, 8, 8), v) for v in (0.0, 0.5, 0.2)])
    torch.testing.assert_close(video.tlp(output, reference, distance), torch.tensor([40.0, 10.0]))


def test_strength_is_what_ssim_lacks() -> None:
    photo = torch.rand(2, 3, 16, 16) * 2 - 1
    output = torch.rand(2, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(video.stylisation_strength(photo, photo), torch.zeros(2), atol=1e-5, rtol=0)
    expected = 1 - ssim(gray(output), gray(photo))
    torch.testing.assert_close(video.stylisation_strength(output, photo), expected)
    assert expected.min() > 0.5


def test_still_images() -> None:
    still = torch.zeros(3, 8, 8)

    def flickers(clip: Tensor) -> Tensor:
        sign = torch.tensor([(-1.0) ** t for t in range(clip.shape[1])]).view(1, -1, 1, 1, 1)
        return clip + 4 * LEVEL * sign

    def settles(clip: Tensor) -> Tensor:
        fading = torch.tensor([100.0 * (t == 0) for t in range(clip.shape[1])]).view(1, -1, 1, 1, 1)
        return clip + fading * LEVEL

    assert video.static_flicker(lambda clip: clip, still) == {"mean": 0, "peak": 0}
    assert video.static_flicker(flickers, still) == pytest.approx({"mean": 8, "peak": 8}, abs=1e-4)
    assert video.static_flicker(settles, still) == {"mean": 0, "peak": 0}
    assert video.static_flicker(settles, still, frames=5, warm_up=0) == pytest.approx({"mean": 25, "peak": 100})


def test_noise_gain() -> None:
    still = torch.zeros(3, 32, 32)
    assert video.noise_gain(lambda clip: clip, still) == pytest.approx(1)
    assert video.noise_gain(lambda clip: 3 * clip, still) == pytest.approx(3)
    assert video.noise_gain(lambda clip: clip * 0, still) == 0

    def mean_of_four(clip: Tensor) -> Tensor:
        return torch.stack([clip[:, t - t % 4 : t - t % 4 + 4].mean(1) for t in range(clip.shape[1])], 1)

    assert video.noise_gain(mean_of_four, still, frames=64) == pytest.approx(0.5, abs=0.02)


def test_drift_is_the_slope_per_hundred_frames() -> None:
    still = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    brighter = torch.stack([still + 0.5 * t * LEVEL for t in range(20)])
    slopes = video.drift_slope(brighter)
    assert slopes == pytest.approx({"y": 50, "u": 0, "v": 0, "detail": 0}, abs=1e-2)
    # U is .492 (B - Y): blue alone rises by 1 level per frame, Y by .114.
    bluer = torch.stack([still + t * LEVEL * torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1) for t in range(20)])
    slopes = video.drift_slope(bluer)
    assert slopes["y"] == pytest.approx(11.4, abs=0.02)
    assert slopes["u"] == pytest.approx(100 * 0.492 * (1 - 0.114), abs=0.1)
    duller = torch.stack([still * (1 - t / 40) for t in range(20)])
    assert video.drift_slope(duller)["detail"] < -10


def remembering(clip: Tensor) -> Tensor:
    """A styliser with memory: each output is the mean of its frame and the output before."""
    outputs = [clip[:, 0]]
    for t in range(1, clip.shape[1]):
        outputs.append((clip[:, t] + outputs[-1]) / 2)
    return torch.stack(outputs, 1)


def test_ping_pong_and_cut_leak_tell_of_memory() -> None:
    clip = torch.stack([torch.full((3, 4, 4), v * LEVEL) for v in (0.0, 8.0, 0.0)])
    assert video.ping_pong(lambda c: c * 2, clip) == 0
    # There: 0, 4, 2; back: 8 -> (8 + 2) / 2 = 5, 0 -> 2.5. Differences |0 - 2.5| and |4 - 5|.
    assert video.ping_pong(remembering, clip) == pytest.approx((2.5 + 1) / 2, abs=1e-5)
    black, white = torch.zeros(4, 3, 4, 4), torch.full((4, 3, 4, 4), 16 * LEVEL)
    assert video.cut_leak(lambda c: c * 2, black, white) == 0
    # Alone 16, 16; after black 8, 12: off by 8, 4.
    assert video.cut_leak(remembering, black, white, frames=2, marked=False) == pytest.approx(6, abs=1e-5)


def test_a_marked_cut_must_leave_nothing() -> None:
    grey, white = torch.full((4, 3, 4, 4), 8 * LEVEL), torch.full((4, 3, 4, 4), 16 * LEVEL)
    assert video.cut_leak(remembering, grey, white) == 0
    hidden: list[Tensor] = [torch.zeros(())]

    def cheating(clip: Tensor) -> Tensor:
        """Add the last frame of the call before, which no state tells of."""
        output = clip + hidden[0]
        hidden[0] = clip[0, -1].mean()
        return output

    assert video.cut_leak(cheating, grey, white) == pytest.approx(8, abs=1e-5)


def test_loops_and_their_drift() -> None:
    clip = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    long, period = video.looped(clip, 8)
    assert period == 4
    assert long[:, 0, 0, 0].tolist() == [0, 1, 2, 1] * 3  # three loops at least
    assert len(video.looped(clip, 100)[0]) == 100
    moving = torch.stack([torch.full((3, 4, 4), (10 * (t % 2) + t // 2) * LEVEL) for t in range(9)])
    # One level more per loop of two frames, the ninth frame being left out.
    assert video.drift_slope(moving, 2) == pytest.approx({"y": 50, "u": 0, "v": 0, "detail": 0}, abs=1e-2)

    def brightens(clip: Tensor) -> Tensor:
        return clip + torch.arange(clip.shape[1]).view(1, -1, 1, 1, 1) * 0.25 * LEVEL

    assert video.long_drift(brightens, clip / 8, 40)["y"] == pytest.approx(25, abs=1e-2)
    assert video.long_drift(lambda c: c * 0.5, clip / 8) == {"y": 0, "u": 0, "v": 0, "detail": 0}


def test_strength_in_colours_and_lines() -> None:
    black, white = torch.full((1, 3, 16, 16), -1.0), torch.full((1, 3, 16, 16), 1.0)
    assert float(video.colour_strength(white, black)) == pytest.approx(100, abs=0.1)  # of CIE Lab's L
    assert float(video.colour_strength(black, black)) == 0
    edge = black.clone()
    edge[..., 8:] = 1
    assert float(video.edge_strength(edge, edge)) == pytest.approx(0)
    assert float(video.edge_strength(black, edge)) == 1  # no line is left


def test_invalid_values_are_reported() -> None:
    clip = torch.zeros(3, 3, 16, 16)
    with pytest.raises(AnimegenError, match="over 10 frames needs a clip of more than 10"):
        video.warp_errors(clip, Shift(), 10)
    with pytest.raises(AnimegenError, match="at least 3 frames"):
        video.flicker(clip[:2], Shift())
    with pytest.raises(AnimegenError, match="at least 2 loops, 2 frames"):
        video.drift_slope(clip[:1])
    with pytest.raises(AnimegenError, match="cannot be compared"):
        video.stylisation_strength(clip, clip[1:])
