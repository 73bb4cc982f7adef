"""Guides and the temporal filter, against slow references and known motion."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.keyframes import BilateralFilter, CoordinateGuide, EdgeGuide, GaussGuide, Guides
from animegen.data.keyframes.guides import move_points
from animegen.errors import AnimegenError
from animegen.media.images import to_float


def constant_flow(x: float, y: float, height: int = 30, width: int = 40) -> Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, height, width).contiguous()


class KnownFlow:
    """The whole image moves by (x, y) from each frame to the next; the frames' mean gives the direction."""

    name = "known"

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        steps = torch.sign(b.mean() - a.mean()).item()
        return constant_flow(self.x * steps, self.y * steps, *a.shape[-2:])


def ramp(frames: int, height: int = 30, width: int = 40) -> Tensor:
    """Frames that become brighter, so that the known flow can tell their order."""
    return torch.linspace(-0.5, 0.5, frames).view(-1, 1, 1, 1).expand(frames, 3, height, width).contiguous()


def test_points_are_far_enough_apart_and_leave_no_hole() -> None:
    guide = GaussGuide(radius=5, sigma=5)
    points = guide.start(torch.zeros(1, 3, 60, 80))["points"]
    distance = torch.cdist(points, points) + 1e9 * torch.eye(len(points))
    assert distance.min() >= 5
    assert 0.5 < len(points) * 25 / (60 * 80) < 0.9, "a set of discs without room has about .7 per radius^2"
    assert guide.coverage(points, 60, 80).min() > guide.hole
    assert torch.equal(points, GaussGuide(radius=5, sigma=5).start(torch.zeros(1, 3, 60, 80))["points"])


def test_splatting_equals_the_sum_point_by_point() -> None:
    guide = GaussGuide(radius=4, sigma=3)
    points = torch.tensor([[2.0, 3.5], [9.25, 4.0], [5.0, 11.0]])
    colours = torch.rand(3, 3)
    expected = torch.zeros(3, 14, 12)
    for y in range(14):
        for x in range(12):
            weights = [math.exp(-((x - px) ** 2 + (y - py) ** 2) / 9) for px, py in points.tolist()]
            colour = sum(w * c for w, c in zip(weights, colours, strict=True))
            expected[:, y, x] = colour / max(sum(weights), guide.hole)
    torch.testing.assert_close(guide.splat(points, colours, 14, 12), expected, atol=1e-5, rtol=1e-4)


def test_a_constant_flow_moves_every_blob_by_it() -> None:
    guide = GaussGuide(radius=6, sigma=6)
    there, back = constant_flow(12, -2), constant_flow(-12, 2)
    state = guide.start(torch.zeros(1, 3, 30, 40))
    moved = guide.advance(state, torch.zeros(1, 3, 30, 40), there, back)
    old = {int(b): p for b, p in zip(state["births"], state["points"], strict=True)}
    stayed = [(int(b), p) for b, p in zip(moved["births"], moved["points"], strict=True) if int(b) in old]
    assert len(stayed) > 10
    for birth, point in stayed:
        assert torch.equal(point, old[birth] + torch.tensor([12.0, -2.0]))
    gone = [p for b, p in old.items() if b not in dict(stayed)]
    assert all(p[0] + 12 > 39 or p[1] - 2 < 0 for p in gone), "only what left the frame was dropped"
    assert guide.coverage(moved["points"], 30, 40).min() > guide.hole, "and the hole on the left was filled"
    assert min(int(b) for b in moved["births"] if int(b) not in old) == int(state["born"]), "with points of their own"
    colours = guide.colours(moved["births"])
    assert torch.equal(colours[0], guide.colours(state["births"])[int(moved["births"][0])]), "colours stay"


def test_points_that_are_hidden_are_dropped() -> None:
    guide = GaussGuide(radius=6, sigma=6)
    frame = torch.zeros(1, 3, 30, 40)
    there, back = constant_flow(0, 0), constant_flow(0, 0)
    back[..., 10:20, 10:30] = 9.0  # there and back does not agree within this square
    state = guide.start(frame)
    moved = guide.advance(state, frame, there, back)
    lost = set(state["births"].tolist()) - set(moved["births"].tolist())
    inside = {
        int(b) for b, p in zip(state["births"], state["points"], strict=True) if 10 <= p[0] < 30 and 10 <= p[1] < 20
    }
    assert lost == inside
    assert inside


def test_points_that_meet_do_not_pile_up() -> None:
    guide = GaussGuide(radius=6, sigma=6)
    columns = torch.arange(40.0).expand(30, 40)
    squeeze = torch.stack([(20 - columns) * 0.5, torch.zeros(30, 40)])[None]
    state = guide.advance(guide.start(torch.zeros(1, 3, 30, 40)), torch.zeros(1, 3, 30, 40), squeeze, -2 * squeeze)
    distance = torch.cdist(state["points"], state["points"]) + 1e9 * torch.eye(len(state["points"]))
    assert distance.min() >= 3


def test_points_read_the_flow_between_pixels() -> None:
    flow = torch.zeros(1, 2, 4, 5)
    flow[0, 0] = torch.arange(5.0)
    assert torch.allclose(move_points(torch.tensor([[1.5, 2.0]]), flow), torch.tensor([[3.0, 2.0]]))


def test_coordinates_travel_with_the_motion() -> None:
    guide = CoordinateGuide()
    frame = torch.zeros(1, 3, 30, 40)
    start = guide.start(frame)
    assert start[0, :, 0, 0].tolist() == [-1, -1]
    assert start[0, :, 29, 39].tolist() == [1, 1]
    moved = guide.advance(start, frame, constant_flow(3, 0), constant_flow(-3, 0))
    torch.testing.assert_close(moved[..., 3:], start[..., :-3])
    assert torch.equal(moved[..., :3], start[..., :3]), "what came in has its own coordinates"
    assert guide.draw(start, frame).shape == (2, 30, 40)


def test_edges_of_a_step() -> None:
    frame = torch.full((1, 3, 8, 12), -1.0)
    frame[..., 6:] = 0.0
    edges = EdgeGuide(gain=2.4).draw(None, frame)
    # The blurred luma climbs 0, 0, 1/6, 2/6, 3/6, 3/6 of the range (half a range high): slope 1/6 beside the step.
    assert edges[0, 4].tolist() == [0, 0, 0, 0, 51, 102, 102, 51, 0, 0, 0, 0]


def test_guides_are_stacked_in_their_order_with_one_flow() -> None:
    guides = Guides({"xy": CoordinateGuide(), "edges": EdgeGuide()}, KnownFlow(2, 0))
    assert guides.channels == 3
    clip, state, drawn = ramp(3), None, []
    for frame in clip:
        guide, state = guides.next(frame[None], state)
        drawn.append(guide)
    assert drawn[0].shape == (3, 30, 40)
    x = (torch.arange(40.0) / 39 * 255).round()
    assert torch.equal(drawn[2][0, 5, 4:].float(), x[:-4]), "moved by 2 twice"


def test_the_filter_equals_the_sum_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    clip = torch.randint(100, 130, (6, 3, 8, 9), dtype=torch.uint8)
    filter_ = BilateralFilter(radius=3, sigma_time=1.5, sigma_colour=10.0, flow=KnownFlow(0, 0))
    still = lambda first, second: torch.zeros(1, 2, 8, 9)  # noqa: E731
    result = filter_.blend(clip, 4, still)[0]
    for y, x in ((0, 0), (5, 7)):
        own = clip[4, :, y, x].float()
        total, weights = torch.zeros(3), 0.0
        for n in range(1, 6):
            colour = clip[n, :, y, x].float()
            weight = math.exp(-((n - 4) ** 2) / (2 * 1.5**2)) * math.exp(-float((colour - own).square().sum()) / 200)
            total, weights = total + weight * colour, weights + weight
        torch.testing.assert_close((result[:, y, x] + 1) * 127.5, total / weights, atol=1e-3, rtol=1e-4)


def test_the_filter_weighs_past_and_future_alike() -> None:
    for side in (-1, 1):
        filter_ = BilateralFilter(radius=3, sigma_time=2.0, sigma_colour=1e6, flow=KnownFlow(0, 0))
        still = lambda first, second: torch.zeros(1, 2, 4, 4)  # noqa: E731
        shares = []
        for k in (1, 2, 3):
            clip = torch.zeros(9, 3, 4, 4, dtype=torch.uint8)
            clip[4 + side * k] = 255
            shares.append((filter_.blend(clip, 4, still)[0, 0, 0, 0].item() + 1) / 2)
        weights = [math.exp(-(k**2) / 8) for k in range(4)]
        total = weights[0] + 2 * sum(weights[1:])
        assert shares == pytest.approx([w / total for w in weights[1:]], abs=1e-5)


def test_the_filter_follows_the_motion_and_takes_noise_off() -> None:
    torch.manual_seed(0)
    scene = F.interpolate(torch.rand(1, 3, 12, 24) * 100 + 70, (48, 96), mode="bicubic")[0]
    truth = torch.stack([scene[:, :, 2 * t : 2 * t + 60] for t in range(7)])
    noisy = (truth + 6 * torch.randn_like(truth)).round().clamp(0, 255).to(torch.uint8)
    filtered = BilateralFilter(radius=3, sigma_time=3.0)(noisy)[3].float()
    inner = (slice(None), slice(4, -4), slice(10, -10))
    before = (noisy[3].float() - truth[3])[inner].std()
    after = (filtered - truth[3])[inner].std()
    assert after < 0.6 * before
    assert len(BilateralFilter()(noisy)) == 7
    assert torch.equal(BilateralFilter(radius=0)(noisy)[2], noisy[2])


def test_invalid_values_are_reported() -> None:
    with pytest.raises(AnimegenError, match="radius >= 1 and sigma > 0, not 0 and 10"):
        GaussGuide(radius=0)
    with pytest.raises(AnimegenError, match="sigma_time > 0"):
        BilateralFilter(sigma_time=0)


def test_to_float_is_the_range_of_guides() -> None:
    drawn = GaussGuide(radius=4, sigma=4).draw(
        GaussGuide(radius=4, sigma=4).start(torch.zeros(1, 3, 20, 20)), torch.zeros(1, 3, 20, 20)
    )
    assert drawn.dtype == torch.uint8
    assert to_float(drawn).std() > 0.2, "colours differ"
