"""The in-betweening networks: where they begin, what they give at the ends, how big they are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.interpolation.networks import (
    IFNet,
    ISNet,
    LatentInterpolator,
    SoftSplatLite,
    TruthEncoder,
    UNetInterpolator,
    WarpFusion,
)
from animegen.models.interpolation.networks.fusion import FUSIONS, Slerp, make_fusion
from animegen.models.interpolation.networks.splat import opened
from animegen.nn.inbetween import FlowPyramid, InbetweenNetwork
from animegen.nn.inbetween.base import Symmetric, blend
from animegen.nn.warp import backward_warp, forward_splat

FLOW = {"scales": [4, 2, 1], "widths": [192, 128, 64], "depth": 2}
CODES = {"codes": 1024}
#: Kind -> maker of a network that is small.
SMALL = {
    "unet": lambda: UNetInterpolator((64, 128, 256), width=0.125),
    "ifnet": lambda: IFNet((4, 2, 1), (192, 128, 64), depth=2, refine=(64, 128), width=0.125),
    "ifnet_half": lambda: IFNet((4, 2, 1), (192, 128, 64), depth=2, refine=(64, 128), refine_scale=2, width=0.125),
    "splat": lambda: SoftSplatLite((4, 2, 1), (192, 128, 64), depth=2, refine=(64, 128), width=0.125),
    "isnet": lambda: ISNet(lines=True, stages=True, width=0.125),
    "hybrid_vae": lambda: LatentInterpolator((64, 128, 256), skip="warped", flow=FLOW, width=0.125),
    "hybrid_vqvae": lambda: LatentInterpolator(
        (64, 128, 256), latent=8, quantizer={"codes": 16}, skip="warped", flow=FLOW, width=0.125
    ),
    "warp_fusion": lambda: WarpFusion(width=0.25),
    "vae": lambda: LatentInterpolator((64, 128, 256), width=0.125),
    "vqvae": lambda: LatentInterpolator((64, 128, 256), latent=8, quantizer={"codes": 16}, width=0.125),
    "gated": lambda: LatentInterpolator((64, 128, 256), skip="gated", width=0.125),
}
EXACT_AT_ENDS = ("unet", "ifnet", "ifnet_half", "splat", "isnet", "hybrid_vae", "hybrid_vqvae", "warp_fusion")


def frames(size: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, last = (torch.rand(2, 3, size, size, generator=generator) * 2 - 1 for _ in range(2))
    return first, last


def disturbed(network: nn.Module) -> nn.Module:
    """Give the last layers, which begin at 0, something to say."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05) if parameter.abs().max() == 0 else None
    return network


@pytest.mark.parametrize("kind", SMALL)
def test_shapes_arbitrary_times_and_gradients_everywhere(kind: str) -> None:
    network: InbetweenNetwork = SMALL[kind]()
    first, last = frames()
    state = network.encode_pair(first, last)
    times = [torch.tensor([0.5, 0.25]), torch.tensor([0.9, 0.1])]
    drawn = [network.synthesize(state, t) for t in times]
    assert all(d.image.shape == (2, 3, 32, 32) for d in drawn)
    assert torch.equal(
        network.eval().synthesize(network.encode_pair(first, last), times[0]).image.isfinite(), first > -2
    )
    disturbed(network.train())
    drawn_all = network(first, last, times[0])
    parts = [drawn_all.image, *(v for v in drawn_all.extra.values() if isinstance(v, Tensor))]
    parts += [v for values in drawn_all.extra.values() if isinstance(values, list) for v in values]
    parts += [get() for get in network.entries(drawn_all, first).values()]
    sum(part.float().square().mean() for part in parts if part.requires_grad).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None]
    # The attention layers' gain begins at 0 but gets a gradient; a codebook of moving averages gets none.
    assert [name for name in silent if "quantizer" not in name] == []


@pytest.mark.parametrize("kind", ["unet", "ifnet", "splat", "isnet"])
def test_training_begins_with_the_blend_exactly(kind: str) -> None:
    first, last = frames()
    t = torch.tensor([0.5, 0.3])
    assert torch.allclose(SMALL[kind]()(first, last, t).image, blend(first, last, t), atol=1e-5)


@pytest.mark.parametrize("kind", EXACT_AT_ENDS)
def test_at_the_ends_the_frames_themselves_come_out(kind: str) -> None:
    network = disturbed(SMALL[kind]()).eval()
    first, last = frames()
    with torch.no_grad():
        assert (
            network(first, last, torch.tensor([0.5, 0.5])).image - blend(first, last, torch.tensor([0.5]))
        ).abs().max() > 1e-3
        assert torch.allclose(network(first, last, torch.zeros(2)).image, first, atol=1e-5)
        assert torch.allclose(network(first, last, torch.ones(2)).image, last, atol=1e-5)


def test_a_known_flow_moves_the_frames_as_a_slow_warp_does() -> None:
    class Known(nn.Module):
        def forward(self, x: Tensor, flow: Tensor) -> Tensor:
            change = torch.zeros(len(flow), 5, *flow.shape[-2:])
            # Everything moves by 4 px to the right: seen from between, back by 4 t, ahead by 4 (1 - t).
            change[:, 0], change[:, 2] = -4.0, 4.0
            return change

    pyramid = FlowPyramid((4,), (8,), depth=1)
    pyramid.stages = nn.ModuleList([Known()])
    first, _ = frames()
    last = first.roll(4, -1)
    t = torch.tensor([0.25, 0.5])
    moved = pyramid(pyramid.encode(first, last), t)
    assert moved.flow[:, 0, 0, 0].tolist() == [-1.0, -2.0]
    assert moved.flow[:, 2, 0, 0].tolist() == [3.0, 2.0]
    for n, shift in enumerate((1, 2)):
        inner = slice(8, 24)
        assert torch.allclose(moved.merged[n, :, :, inner], first.roll(shift, -1)[n, :, :, inner], atol=1e-5)
    assert torch.allclose(moved.first, backward_warp(first, moved.flow[:, :2]))


def test_splatting_keeps_what_there_is_and_opening_removes_specks() -> None:
    image = torch.rand(1, 3, 12, 12)
    flow = torch.full((1, 2, 12, 12), 0.5)
    moved, landed = forward_splat(image, flow)
    inside_mass = (image[..., :-1, :-1]).sum() + 0.5 * image[..., -1, :-1].sum() + 0.5 * image[..., :-1, -1].sum()
    inside_mass = inside_mass + 0.25 * image[..., -1, -1].sum()
    assert torch.allclose((moved * landed).sum(), inside_mass, rtol=1e-4)
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 2, 2] = 1
    mask[..., 5:10, 5:10] = 1
    expected = mask.clone()
    expected[..., 2, 2] = 0
    assert torch.equal(opened(mask), expected)


def test_splatting_network_without_motion_is_the_blend_without_holes() -> None:
    drawn = SMALL["splat"]()(*frames(), torch.tensor([0.5, 0.5]))
    assert torch.equal(drawn.extra["coverage"], torch.ones(2, 2, 32, 32))
    assert torch.allclose(drawn.extra["carried"], torch.cat([frames()[1], frames()[0]]))


@pytest.mark.parametrize("kind", FUSIONS)
def test_every_fusion_gives_the_latents_at_the_ends_and_begins_between_them(kind: str) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 8, 4, 6), torch.randn(2, 8, 4, 6)
    fusion = make_fusion(kind, 8, 16)
    half = fusion(a, b, torch.tensor([0.5, 0.5]))
    if kind != "slerp":
        assert torch.allclose(half, (a + b) / 2, atol=1e-5)
    assert torch.allclose(fusion(a, b, torch.zeros(2)), a, atol=1e-5)
    assert torch.allclose(fusion(a, b, torch.ones(2)), b, atol=1e-5)


@pytest.mark.parametrize("kind", [pytest.param("isnet", marks=pytest.mark.slow), "hybrid_vae"])
def test_compiled_parts_compute_the_same(kind: str) -> None:
    network = disturbed(SMALL[kind]()).eval()
    first, last = frames()
    t = torch.tensor([0.5, 0.25])
    with torch.no_grad():
        plain = network.synthesize(network.encode_pair(first, last), t).image
        graphs: list[int] = []

        def backend(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
            graphs.append(len(graph.graph.nodes))
            return graph

        network.compile(backend=backend)
        compiled = network.synthesize(network.encode_pair(first, last), t).image
    assert sum(graphs) > 40  # training does not go through forward: compiling that alone would compile nothing
    assert torch.allclose(compiled, plain, atol=1e-5)


def test_slerp_by_hand() -> None:
    a, b = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
    middle = Slerp()(a, b, torch.tensor([0.5])).flatten()
    # Half-way along a right angle both count sin 45 / sin 90.
    assert torch.allclose(middle, torch.tensor([1.0, 2.0]) * math.sqrt(0.5), atol=1e-5)
    assert torch.allclose(Slerp()(a, 3 * a, torch.tensor([0.5])), 2 * a, atol=1e-5)
    assert torch.allclose(Slerp()(a, -a, torch.tensor([0.25])), 0.5 * a, atol=1e-4)


def test_a_vae_samples_in_training_only_and_reconstructs_by_its_latent_alone() -> None:
    network = SMALL["vae"]()
    first, last = frames()
    t = torch.tensor([0.5, 0.5])
    assert not torch.equal(network(first, last, t).image, network(first, last, t).image)
    network.eval()
    drawn = network(first, last, t)
    assert torch.equal(drawn.image, network(first, last, t).image)
    # A latent of the frame itself: between equal frames lies their reconstruction.
    same = network(first, first, t).image
    assert torch.allclose(same, network.reconstruct(first), atol=1e-5)


def test_codes_are_what_the_decoder_sees_in_either_order() -> None:
    for order, count in (("fuse", 2), ("quantise", 4)):
        network = LatentInterpolator((64, 128), latent=4, quantizer={"codes": 8}, order=order, width=0.125)
        drawn = network(*frames(), torch.tensor([0.5, 0.5]))
        assert drawn.extra["codes"].shape == (count, 16, 16)
        assert drawn.extra["encoded"].shape == drawn.extra["nearest"].shape == (count, 4, 16, 16)


def test_symmetric_networks_do_not_mind_which_frame_is_first() -> None:
    network = Symmetric(disturbed(SMALL["ifnet"]())).eval()
    first, last = frames()
    t = torch.tensor([0.25, 0.7])
    with torch.no_grad():
        there, back = network(first, last, t).image, network(last, first, 1 - t).image
    assert torch.allclose(there, back, atol=1e-5)


def test_sides_of_isnet_are_coarser_and_coarser_and_stages_fit_the_truth_encoder() -> None:
    network = SMALL["isnet"]()
    drawn = network(*frames(64), torch.tensor([0.5, 0.5]))
    assert [tuple(s.shape[-2:]) for s in drawn.extra["sides"]] == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    assert drawn.extra["line_logits"].shape == (2, 1, 64, 64)
    stages, sides = TruthEncoder(width=0.125)(frames(64)[0])
    assert [s.shape for s in stages] == [s.shape for s in drawn.extra["stages"]]
    assert [tuple(s.shape[-2:]) for s in sides][-1] == (64, 64)


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: UNetInterpolator(), 47_465_667),
        (lambda: IFNet((4, 2, 1), (192, 128, 64)), 6_536_770),
        (lambda: IFNet((4, 2, 1), (192, 128, 64), refine_scale=2), 6_539_371),
        (lambda: SoftSplatLite((4, 2, 1), (192, 128, 64)), 6_545_311),
        (lambda: ISNet(), 44_201_224),
        (lambda: LatentInterpolator(), 19_330_485),
        (lambda: LatentInterpolator(latent=64, quantizer=CODES), 19_957_253),
        (lambda: LatentInterpolator(skip="warped", flow={**FLOW, "depth": 6}), 23_048_469),
        (lambda: LatentInterpolator(latent=64, quantizer=CODES, skip="warped", flow={**FLOW, "depth": 6}), 23_675_237),
    ],
    ids=["unet", "ifnet", "ifnet_half", "splat", "isnet", "vae", "vqvae", "hybrid_vae", "hybrid_vqvae"],
)  # fmt: skip
def test_sizes_as_the_readme_states_them(make, parameters: int) -> None:
    with torch.device("meta"):
        network = make()
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_invalid_values_are_reported() -> None:
    with pytest.raises(AnimegenError, match="Did you mean 'slerp'"):
        make_fusion("slrp", 4, 8)
    with pytest.raises(AnimegenError, match="skip=warped needs the settings of a flow"):
        LatentInterpolator(skip="warped")
    with pytest.raises(AnimegenError, match="no skip 'gate'"):
        LatentInterpolator(skip="gate")
    with pytest.raises(AnimegenError, match="a width per scale"):
        FlowPyramid((4, 2), (8,))
    with pytest.raises(AnimegenError, match="multiples of 16"):
        IFNet((4, 2, 1), (8, 8, 8), refine=())(*frames(24), torch.tensor([0.5, 0.5]))
    with pytest.raises(AnimegenError, match="no head"):
        UNetInterpolator(head="both")
