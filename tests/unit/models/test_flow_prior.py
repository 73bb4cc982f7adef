"""Networks with a flow prior: they start as the half-warp along it, and do without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from animegen.config.common import Device
from animegen.data.clips import ClipView, FlowView, ToonWorldFrames
from animegen.errors import AnimegenError
from animegen.inference import application
from animegen.inference.options import InterpolateOptions
from animegen.media.images import to_float
from animegen.media.video.flow import flow_both_ways, flow_estimates
from animegen.metrics.image import psnr
from animegen.models.interpolation.module import FrameInterpolation
from animegen.models.interpolation.networks import IFNet, LatentInterpolator, SoftSplatLite, WarpFusion
from animegen.nn.inbetween.base import blend
from animegen.nn.inbetween.prior import flow_at, flow_confidence, warp_weights
from animegen.nn.inbetween.trajectories import average_warp
from animegen.tasks import inbetween
from animegen.tasks.protocols import Interpolator
from animegen.toonworld import ToonWorldImages


def pair() -> tuple[Tensor, Tensor]:
    source = ToonWorldImages("meadow", "val", scenes=1, frames_per_scene=3, frames=24, size=96, speed=0.6)
    first, last = (source.image(n)[None].float() / 127.5 - 1 for n in (0, 2))
    return first, last


NETWORKS = {
    "ifnet": lambda prior: IFNet((4, 2, 1), (48, 32, 16), depth=1, refine=(), prior=prior),
    "hybrid": lambda prior: LatentInterpolator(
        (16, 16, 16), 4, 1, skip="warped", flow={"scales": (2, 1), "widths": (16, 8), "depth": 1}, prior=prior
    ),
    "softsplat": lambda prior: SoftSplatLite((4, 2, 1), (48, 32, 16), depth=1, refine=(8, 8), prior=prior),
    "warp_fusion": lambda prior: WarpFusion(prior, width=0.25),
}


@pytest.mark.parametrize("name", ["ifnet", "hybrid", "warp_fusion"])
def test_training_starts_with_the_average_along_two_flows(name: str) -> None:
    first, last = pair()
    flows = flow_estimates(first, last)
    network = NETWORKS[name]("dis").eval()
    for time in (0.5, 0.2):
        t = torch.tensor([time])
        both, one = (
            network.synthesize(network.encode_pair(first, last, flows[:, 0], second_flow=second), t).extra["merged"]
            for second in (flows[:, 1], None)
        )
        assert torch.allclose(both, average_warp(first, last, flows, t), atol=1e-4)
        assert torch.allclose(one, average_warp(first, last, flows[:, :1], t), atol=1e-4)
        assert (both - blend(first, last, t)).abs().max() > 0.1


@pytest.mark.parametrize("name", NETWORKS)
def test_every_flow_network_starts_closer_to_the_truth_along_a_prior(name: str) -> None:
    """Untrained, along the flow of a pair: the warped middle frame, where the cross-fade has ghosts."""
    first, last = pair()
    truth = ToonWorldImages("meadow", "val", scenes=1, frames_per_scene=3, frames=24, size=96, speed=0.6).image(1)
    network = NETWORKS[name]("dis").eval()
    t = torch.tensor([0.5])
    with torch.no_grad():
        warped, faded = (
            network.synthesize(network.encode_pair(first, last, flow), t).image.clamp(-1, 1)
            for flow in (flow_both_ways(first, last), None)
        )
    assert psnr(warped, to_float(truth[None])) > psnr(faded, to_float(truth[None])) + 1


def test_flow_pyramids_start_as_the_half_warp_weighted_by_confidence() -> None:
    first, last = pair()
    flow = flow_both_ways(first, last)
    network = NETWORKS["ifnet"]("dis").eval()
    for time in (0.5, 0.2):
        t = torch.tensor([time])
        output = network.synthesize(network.encode_pair(first, last, flow), t)
        weight = warp_weights(flow_confidence(flow), t)
        expected = weight[:, :1] / weight.sum(1, keepdim=True)
        assert torch.allclose(output.extra["mask"], expected, atol=1e-4)
        assert torch.allclose(output.extra["flow"], flow_at(flow, t))


def test_the_prior_does_not_depend_on_the_padding() -> None:
    """Frames whose sides are no multiples of the divisor: the flow of the frames themselves."""
    first, last = (frame[..., :88, :90] for frame in pair())
    module = FrameInterpolation(WarpFusion(width=0.25)).eval()
    t = torch.tensor([0.5])
    expected = average_warp(first, last, flow_estimates(first, last), t).clamp(-1, 1)
    image = module.synthesize(module.encode_pair(first, last), t)
    # Near the border, splatting and bicubic sampling read the padding.
    assert torch.allclose(image[..., :64, :64], expected[..., :64, :64], atol=1e-4)
    assert (image - expected).abs().mean() < 0.01
    swapped = FrameInterpolation(WarpFusion(width=0.25), symmetric=True).eval()
    assert torch.allclose(swapped.synthesize(swapped.encode_pair(first, last), t), image, atol=1e-4)


def test_without_a_prior_training_starts_with_the_blend() -> None:
    first, last = pair()
    t = torch.tensor([0.3])
    unknown = WarpFusion("none", width=0.25)(first, last, t).image
    assert torch.allclose(unknown, blend(first, last, t), atol=1e-5)
    dropped = WarpFusion("dis", prior_dropout=1.0, width=0.25)
    flow = torch.ones(1, 4, 96, 96)
    image = dropped.synthesize(dropped.encode_pair(first, last, flow), t).image
    assert torch.allclose(image, blend(first, last, t), atol=1e-5)
    kept = dropped.eval().synthesize(dropped.encode_pair(first, last, flow), t).image
    assert not torch.allclose(kept, image, atol=1e-2)


def test_a_given_flow_takes_the_place_of_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbetween, "flow_estimates", lambda *_: pytest.fail("DIS is not needed"))
    first = torch.rand(1, 3, 32, 32) * 2 - 1
    last = first.roll(4, -1)
    flow = torch.zeros(1, 4, 32, 32)
    flow[:, 0], flow[:, 2] = 4.0, -4.0
    module = FrameInterpolation(WarpFusion(width=0.25)).eval()
    network = module.generator
    state = network.encode_pair(first, last, **module.prior(first, last, flow))
    image = network.synthesize(state, torch.tensor([0.5])).image
    assert torch.allclose(image[..., 8:24], first.roll(2, -1)[..., 8:24], atol=1e-5)
    assert FrameInterpolation(WarpFusion("none", width=0.25)).prior(first, last, flow) == {}


def test_the_exact_flow_is_an_upper_bound_that_only_its_data_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbetween, "flow_estimates", lambda *_: pytest.fail("DIS is not needed"))
    view = ClipView(
        ToonWorldFrames("meadow", "val", scenes=2, frames=9, size=72, speed=0.6),
        72,
        gap=4,
        exact_flow=True,
        shuffle=False,
    )
    batch = {key: torch.stack([view[n][key] for n in range(2)]) for key in view[0]}
    batch |= {key: to_float(batch[key]) for key in ("first", "last", "truth")}
    first, last, flow = (batch[key] for key in ("first", "last", "exact_flow"))
    expected = average_warp(first, last, flow[:, None], batch["t"][:, 0]).clamp(-1, 1)
    for symmetric in (False, True):
        model = FrameInterpolation(WarpFusion("exact", width=0.25), symmetric=symmetric).eval()
        found = model.predict(batch)[:, 0]
        # Frames are padded to multiples of 16; splatting and sampling read the padding near the border.
        assert torch.allclose(found[..., :56, :56], expected[..., :56, :56], atol=1e-3)
        assert torch.equal(model.prior(first, last, flow * 2, flow * 3, flow)["flow"], flow)
        assert model.validate(batch)["gain_over_blend"].mean() > 2
        with pytest.raises(AnimegenError, match=r"set data\.exact_flow=true"):
            model.encode_pair(first, last)
        with pytest.raises(AnimegenError, match=r"model\.generator\.prior=dis"):
            model.predict({key: batch[key] for key in ("first", "last", "t")})
        assert model.example_batch(2, 16, 32, torch.device("cpu"))["exact_flow"].shape == (2, 4, 16, 32)
    estimated = FrameInterpolation(WarpFusion("dis", width=0.25))
    assert torch.equal(estimated.prior(first, last, flow * 2, None, flow)["flow"], flow * 2), "not read otherwise"


def test_confidence_is_low_where_the_flows_disagree_or_leave_the_image() -> None:
    flow = torch.zeros(1, 4, 48, 48)
    flow[:, 0], flow[:, 2] = 6.0, -6.0
    flow[:, 3, 20:28, 20:28] = 9.0
    there, back = flow_confidence(flow)[0]
    assert there[10, 20] == back[10, 20] == 1
    assert there[10, -1] == 0  # leaves to the right
    assert back[10, 0] == 0
    # The patch has 8 of the 9 pixels over which the confidence is averaged.
    assert back[24, 24] < 0.3
    assert there[24, 18] < 0.3  # ends in the patch


def test_unknown_priors_are_refused() -> None:
    with pytest.raises(AnimegenError, match="WarpFusion has no prior 'diss'"):
        WarpFusion("diss")
    with pytest.raises(AnimegenError, match="Only skip=warped has a flow"):
        LatentInterpolator((8, 8), 4, 1, prior="dis")


def test_export_without_opencv() -> None:
    """The form for export reads both frames and the time, without a prior."""
    network = WarpFusion("none", width=0.25).eval()
    for parameter in network.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.02)

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, first: Tensor, last: Tensor, t: Tensor) -> Tensor:
            return self.network(first, last, t).image

    inputs = (torch.rand(1, 3, 32, 48) * 2 - 1, torch.rand(1, 3, 32, 48) * 2 - 1, torch.tensor([0.4]))
    program = torch.export.export(Exported(), inputs)
    other = (inputs[1], inputs[0], torch.tensor([0.7]))
    with torch.no_grad():
        assert torch.allclose(program.module()(*other), Exported()(*other), atol=1e-5)


def test_it_learns_to_be_better_than_its_prior() -> None:
    source = ToonWorldFrames("meadow", "train", scenes=8, frames=24, size=80, speed=0.5)
    view = FlowView(source, size=80, gap=6, middle="centre", windows=1)
    clips = [view[n] for n in range(8)]
    batch = {key: torch.stack([clip[key] for clip in clips]) for key in ("first", "last", "truth", "flow", "t")}
    first, last, truth = (to_float(batch[key]) for key in ("first", "last", "truth"))
    truth, t = truth[:, 0], batch["t"][:, 0]
    torch.manual_seed(0)
    network = WarpFusion(prior_dropout=0.0, channels=(8, 16, 16, 16), widths=(16, 24, 24, 24), depth=1)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    scores = []
    for _ in range(40):
        image = network.synthesize(network.encode_pair(first, last, batch["flow"]), t).image
        scores.append(float(psnr(image.detach().clamp(-1, 1), truth).mean()))
        optimizer.zero_grad()
        (image - truth).abs().mean().backward()
        optimizer.step()
    prior = average_warp(first, last, batch["flow"].unsqueeze(1), t).clamp(-1, 1)
    assert scores[0] == pytest.approx(float(psnr(prior, truth).mean()), abs=1e-3)
    assert scores[-1] > scores[0] + 0.3


def test_a_model_that_needs_the_exact_flow_is_refused_before_frames_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(application, "resolve_checkpoint", lambda checkpoint, runs: Path(checkpoint))
    options = InterpolateOptions(input=["a.mp4"], output="b.mp4", checkpoint="run", device=Device.cpu)
    for prior in ("dis", "exact"):
        model = FrameInterpolation(WarpFusion(prior, width=0.25))
        monkeypatch.setattr(application, "load_model", lambda *_, model=model, **__: model)
        if prior == "dis":
            assert application.load_applied(options, (Interpolator,), "draw").model is model
            continue
        with pytest.raises(AnimegenError, match=r"needs the exact motion of generated clips \(prior=exact\)"):
            application.load_applied(options, (Interpolator,), "draw")
