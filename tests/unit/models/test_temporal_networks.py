"""The temporal generator: its size, its memory, its styles; the same in one piece, in windows, frame by frame."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.temporal.networks import AdaNorm, FusionBlock, StyleEncoder, TemporalGenerator, blend_styles
from animegen.models.temporal.networks.layers import BlurDownsample
from animegen.nn.convlstm import ConvLSTM

SMALL: dict[str, Any] = {"width": 0.125, "blocks": 2, "encoder_blocks": (1, 1, 1)}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def generator(**settings: Any) -> TemporalGenerator:
    torch.manual_seed(0)
    network = TemporalGenerator(**{**SMALL, **settings})
    # What begins as nothing would hide what it does.
    for module in network.modules():
        if isinstance(module, AdaNorm):
            nn.init.normal_(module.affine.weight, std=0.3)
    with torch.no_grad():
        network.memory.gamma.fill_(1.0)
        if network.attention is not None:
            network.attention.gain.fill_(0.5)
    return network.eval().requires_grad_(False)


def clip(batch: int = 1, frames: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(batch, frames, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- size --------------------------------------------------------------------------------------------------------


def test_base_has_the_parameters_counted_by_hand() -> None:
    with torch.device("meta"):
        network = TemporalGenerator()
    # Inputs: the maps and the finer level's hidden maps; 4 gates; a 3x3 kernel each for inputs and hidden map.
    reads = [64, 128 + 64, 256 + 128]
    kernels = sum(9 * (inputs + hidden) * 4 * hidden for inputs, hidden in zip(reads, (64, 128, 256), strict=True))
    assert kernels == 294_912 + 1_474_560 + 5_898_240 == 7_667_712
    norms = sum(2 * 4 * hidden for hidden in (64, 128, 256))
    assert count(network.memory.cells) == kernels + norms == 7_671_296
    masks = sum(2 * c + 1 for c in (64, 128, 256))
    outs = sum(9 * c * c for c in (64, 128, 256))
    assert count(network.memory) == kernels + norms + masks + outs + 3
    convs = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 256) + 64 + 128 + 256 + 256
    code = 512 * 256 + 256
    assert count(network.style) == convs + code + 256 + 64 * 256
    attention = 256 * 256 + 2 * 256 + 2 * 256 * 256  # query, norm of the tokens, key and value
    gates = 256 * 256 + 256 + 512 + 1
    assert count(network.fusion[0]) == attention + gates + 2 * 9 * 256 * 256 + 256 + 1
    assert count(network) == 22_596_438


def test_the_quickstart_size_is_that_of_a_small_network() -> None:
    network = TemporalGenerator(width=0.5, memory=0.5, compose="previous", encoder_blocks=(1, 1, 1), blocks=1)
    assert count(network) == 2_224_301
    mask = (9 * 12 + 1) * 16 + (9 * 16 + 1) * 16 + 9 * 16 + 1
    assert network.composition is not None
    assert count(network.composition) == mask == 4_209


# --- one code for windows and streams ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gate_norm": False, "fusion": "gate"},
        {"norm": "instance", "levels": [1, 3]},
        {"levels": [], "blurpool": False},
    ],
)
def test_one_piece_windows_and_frames_give_the_same(settings: dict[str, Any]) -> None:
    network, film = generator(**settings), clip(2, 12)
    still = clip(2, 1, 48, seed=1)[:, 0]
    whole, last = network(film, still)
    state, windows = None, []
    for part in film.split(4, 1):
        drawn, state = network(part, still if state is None else None, state)
        windows.append(drawn)
    state, frames = None, []
    for part in film.split(1, 1):
        drawn, state = network(part, still if state is None else None, state)
        frames.append(drawn)
    assert (torch.cat(windows, 1) - whole).abs().max() < 1e-5
    assert (torch.cat(frames, 1) - whole).abs().max() < 1e-5
    assert whole.std() > 0.05
    for mine, theirs in zip(state.memory, last.memory, strict=True):  # type: ignore[union-attr]
        assert (mine[0] - theirs[0]).abs().max() < 1e-5


def test_frames_in_channels_last_give_the_same() -> None:
    network, fast, film = generator(compose="previous"), generator(compose="previous"), clip(1, 4)
    fast.to(memory_format=torch.channels_last)
    flow, state, other = torch.randn(1, 4, 2, *film.shape[-2:]), None, None
    for part, moved in zip(film.split(1, 1), flow.split(1, 1), strict=True):
        drawn, state = network(part, None, state, None, moved)
        frame = part[:, 0].contiguous(memory_format=torch.channels_last)
        mine, other = fast(frame[:, None], None, other, None, moved)
        assert (mine - drawn).abs().max() < 1e-5
        # The next convolution reads the maps of the memory without a copy.
        assert all(map_.is_contiguous(memory_format=torch.channels_last) for map_ in other.memory[0])


def test_the_past_matters_with_a_memory_and_without_one_it_does_not() -> None:
    film = clip(1, 4)
    shuffled = film[:, [2, 0, 1, 3]]
    for levels, differs in (([1, 2, 3], True), ([3], True), ([], False)):
        network = generator(levels=levels)
        change = (network(film)[0][:, 3] - network(shuffled)[0][:, 3]).abs().max()
        assert bool(change > 1e-3) is differs


def test_a_reset_starts_that_stream_again_and_no_other() -> None:
    network, film = generator(), clip(2, 5)
    reset = torch.zeros(2, 5, dtype=torch.bool)
    reset[0, 2] = True
    with_reset, plain = network(film, reset=reset)[0], network(film)[0]
    assert torch.equal(with_reset[0, :2], plain[0, :2])
    assert torch.equal(with_reset[1], plain[1])
    fresh = network(film[:, 2:])[0]
    assert torch.equal(with_reset[0, 2:], fresh[0])
    assert not torch.equal(with_reset[0, 2:], plain[0, 2:])
    # The same by emptying the state between two calls.
    _, state = network(film[:, :2])
    emptied = network(film[:, 2:], None, state.reset(torch.tensor([True, False])))[0]
    assert torch.equal(emptied[0], fresh[0])
    assert (emptied[1] - plain[1, 2:]).abs().max() < 1e-6


def test_a_frame_without_a_past_is_drawn_as_without_a_memory() -> None:
    network, film = generator(), clip(2, 3)
    drawn = network(film)[0]
    single = network(film[:, :1], keep=False)[0]
    assert (single - drawn[:, :1]).abs().max() < 1e-5
    with torch.no_grad():
        network.memory.gamma.zero_()
        for block in network.fusion:
            assert block.time_gate is not None
            block.time_gate.weight[:, -32:].zero_()  # what the gate reads of the memory
    none = network(film)[0]
    assert (none[:, :1] - drawn[:, :1]).abs().max() < 1e-5
    assert (none[:, 1:] - drawn[:, 1:]).abs().max() > 1e-3
    # Single frames that nothing follows are not remembered.
    assert network(film[:, :1], keep=False)[1].memory == ()
    assert len(network(film[:, :1])[1].memory) == 3


@pytest.mark.parametrize("length", [1, 2, 5])
def test_output_is_finite_and_in_range(length: int) -> None:
    drawn, state = generator()(100 * clip(2, length, 40))
    assert drawn.shape == (2, length, 3, 40, 40)
    assert drawn.isfinite().all()
    assert drawn.abs().max() <= 1
    assert [hidden.shape[-1] for hidden, _ in state.memory] == [20, 10, 5]


def test_a_state_of_other_streams_is_refused() -> None:
    network = generator()
    _, state = network(clip(2, 1))
    with pytest.raises(AnimegenError, match="state of 2 streams does not fit 1"):
        network(clip(1, 1), None, state)


def test_detached_and_moved_states_hold_the_same() -> None:
    network = generator().requires_grad_(True)
    _, state = network(clip())
    assert state.memory[0][0].requires_grad
    detached = state.detach().to("cpu")
    assert not detached.memory[0][0].requires_grad
    assert torch.equal(detached.memory[2][1], state.memory[2][1])


# --- the memory ----------------------------------------------------------------------------------------------------


def slow_twin(cell: ConvLSTM, frames: Tensor) -> Tensor:
    """One convolution of frame and hidden map together, gate by gate."""
    weight = torch.cat([cell.read.weight, cell.recall.weight], 1)
    batch, length, _, height, width = frames.shape
    hidden = cell_map = torch.zeros(batch, cell.hidden, height, width)
    outputs = []
    for t in range(length):
        both = F.pad(torch.cat([frames[:, t], hidden], 1), (1, 1, 1, 1), mode="reflect")
        gates = F.conv2d(both, weight)
        gates = gates + cell.bias.view(1, -1, 1, 1) if cell.norm is None else cell.norm(gates)
        i, f, g, o = gates.split(cell.hidden, 1)
        cell_map = f.sigmoid() * cell_map + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell_map.tanh()
        outputs.append(hidden)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("norm", [True, False])
def test_the_cell_equals_its_slow_twin(norm: bool) -> None:
    torch.manual_seed(0)
    cell, frames = ConvLSTM(5, 8, norm), torch.randn(2, 4, 5, 6, 7)
    assert (cell(frames)[0] - slow_twin(cell, frames)).abs().max() < 1e-5
    bias = cell.norm.bias if norm else cell.bias
    assert bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16  # the forget gate begins open


def test_the_cell_works_in_full_precision_under_autocast() -> None:
    cell = ConvLSTM(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        hidden, (_, kept) = cell(torch.randn(1, 2, 4, 8, 8))
    assert hidden.dtype == kept.dtype == torch.float32
    assert hidden.isfinite().all()


def test_the_memory_follows_a_flow() -> None:
    """A video that moves by whole cells: with the flow, the memory sees a video that stands still."""
    torch.manual_seed(0)
    cell = ConvLSTM(4, 8, norm=False).eval().requires_grad_(False)
    cell.recall.weight.zero_()  # then the hidden map plays no part, and the cell adds up place by place
    frame = torch.randn(1, 4, 8, 12)
    film = torch.stack([frame, frame.roll(2, -1)], 1)
    flow = torch.zeros(1, 2, 2, 8, 12)
    flow[:, 1, 0] = -2.0  # what is at x now was at x - 2
    still = cell(torch.stack([frame, frame], 1))[1][1]
    moved = cell(film, flow=flow, align="flow")[1][1]
    assert (moved[..., 3:-1] - still.roll(2, -1)[..., 3:-1]).abs().max() < 1e-5
    half = F.interpolate(flow.flatten(0, 1), scale_factor=2).unflatten(0, (1, 2)) * 2  # of twice the size
    assert (cell(film, flow=half, align="flow")[1][1] - moved).abs().max() < 1e-5
    assert (cell(film, flow=flow, align="flow_hidden")[1][1] - moved).abs().max() > 1e-2
    assert torch.equal(cell(film, flow=flow)[1][1], cell(film)[1][1])


def test_gradients_end_where_they_are_asked_to() -> None:
    cell, frames = ConvLSTM(3, 8), torch.randn(1, 4, 3, 4, 4, requires_grad=True)
    for every, reached in (
        (0, [True, True, True, True]),
        (1, [False, False, False, True]),
        (2, [False, False, True, True]),
    ):
        (gradient,) = torch.autograd.grad(cell(frames, detach_every=every)[0][:, 3].sum(), frames)
        assert [bool(gradient[:, t].abs().max() > 0) for t in range(4)] == reached


def test_noise_on_the_memory_is_for_training_alone() -> None:
    cell, frames = ConvLSTM(3, 8), torch.randn(1, 3, 3, 4, 4)
    quiet = cell(frames)[0]
    assert not torch.equal(cell(frames, noise=0.1)[0], quiet)
    assert torch.equal(cell(frames, noise=0.1)[0][:, 0], quiet[:, 0])
    assert torch.equal(cell.eval()(frames, noise=0.1)[0], quiet)


def test_a_memory_that_follows_a_flow_needs_one() -> None:
    network = generator(align="flow")
    with pytest.raises(AnimegenError, match="needs the optical flow"):
        network(clip())
    flow = torch.zeros(1, 3, 2, 32, 32)
    assert (network(clip(), flow=flow)[0] - generator()(clip())[0]).abs().max() < 1e-5


# --- styles --------------------------------------------------------------------------------------------------------


def test_styles_differ_and_are_blended_by_weights() -> None:
    network, film = generator(), clip()
    stills = [clip(1, 1, 48, seed)[:, 0] * scale for seed, scale in ((1, 1.0), (2, 0.2))]
    first, second = (network.style(still) for still in stills)
    assert (first.code - second.code).abs().max() > 1e-2
    drawn = [network(film, style)[0] for style in (first, second)]
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3
    assert torch.equal(network(film, stills[0])[0], drawn[0])

    def blended(weights: list[float]) -> Tensor:
        return network(film, blend_styles([first, second], weights))[0]

    assert (blended([1, 0]) - drawn[0]).abs().max() < 1e-5
    assert (blended([0, 3]) - drawn[1]).abs().max() < 1e-5
    assert (network(film, blend_styles([first, first], [0.3, 0.7]))[0] - drawn[0]).abs().max() < 1e-5
    middle = blended([1, 1])
    assert (middle - drawn[0]).abs().max() > 1e-4
    assert (middle - drawn[1]).abs().max() > 1e-4
    assert first.tokens.shape == (1, 64, 32)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    style = StyleEncoder(0.125).default(1)
    with pytest.raises(AnimegenError, match="cannot be blended"):
        blend_styles([style, style], weights)


def test_the_code_tells_contrast() -> None:
    """The mean of features alone would forget it."""
    encoder = StyleEncoder(0.125)
    flat, lively = torch.zeros(1, 3, 48, 48), torch.sign(clip(1, 1, 48)[:, 0])
    codes = [encoder(still).code for still in (flat, lively)]
    assert (codes[0] - codes[1]).abs().max() > 1e-2
    with pytest.raises(AnimegenError, match="too small"):
        encoder(torch.zeros(1, 3, 16, 64))
    assert encoder(torch.zeros(1, 3, 37, 53)).tokens.shape == (1, 64, 32)  # sides are cut to multiples of 16


def test_adanorm_is_adain_and_survives_extreme_codes() -> None:
    torch.manual_seed(0)
    norm, x, code = AdaNorm(8, 4), 3 + 2 * torch.randn(2, 8, 6, 6), torch.randn(2, 4)
    nn.init.normal_(norm.affine.weight)
    scale, shift = (part[..., None, None] for part in norm.affine(code).chunk(2, 1))
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    wanted = (1 + scale) * (x - mean) / (variance + 1e-5).sqrt() + shift
    assert (norm(x, code) - wanted).abs().max() < 1e-4
    for extreme in (-50.0, 50.0):
        extreme_code = torch.full((2, 4), extreme, requires_grad=True)
        y = norm(torch.zeros(2, 8, 6, 6), extreme_code)
        y.sum().backward()
        assert y.isfinite().all()
        assert extreme_code.grad.isfinite().all()  # type: ignore[union-attr]


@pytest.mark.parametrize("kernel", ["cosine", "softmax", "linear"])
def test_fusion_with_equal_tokens_is_finite_and_has_finite_gradients(kernel: str) -> None:
    block = FusionBlock(8, 8, memory=8, kernel=kernel)
    style = StyleEncoder(0.125).default(1)
    tokens = torch.full((1, 64, 8), 0.5, requires_grad=True)
    style = style._replace(code=torch.zeros(1, 8), tokens=tokens)
    y, shares = block(torch.randn(1, 8, 4, 4), style, torch.randn(1, 8, 4, 4))
    y.sum().backward()
    assert y.isfinite().all()
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()
    assert shares is not None
    assert shares.shape == (1, 16, 64)
    if kernel != "linear":
        assert (shares.sum(-1) - 1).abs().max() < 1e-5


def test_the_cosine_kernel_is_as_defined() -> None:
    block = FusionBlock(4, 4, kernel="cosine")
    query, key = torch.randn(1, 5, 4), torch.randn(1, 3, 4)
    cosine = torch.stack([F.cosine_similarity(query[0], k, dim=-1) for k in key[0]], -1)
    wanted = (1 + cosine) / (1 + cosine).sum(-1, keepdim=True)
    assert (block._attention(query, key, torch.ones(1, 3))[0] - wanted).abs().max() < 1e-5


def test_only_the_none_kind_of_fusion_ignores_the_style() -> None:
    x, encoder = torch.randn(1, 8, 4, 4), StyleEncoder(0.125)
    codes = [torch.randn(1, 8), torch.randn(1, 8)]
    for kind in ("attention", "gate", "adain", "none"):
        block = FusionBlock(8, 8, kind=kind)
        if kind == "adain":
            nn.init.normal_(block.adain.affine.weight)
        styles = [encoder.default(1)._replace(code=code, tokens=torch.randn(1, 64, 8)) for code in codes]
        change = (block(x, styles[0])[0] - block(x, styles[1])[0]).abs().max()
        assert bool(change > 0) is (kind != "none")
    with pytest.raises(AnimegenError, match="fusion=atention is unknown"):
        FusionBlock(8, 8, kind="atention")


def test_blurring_makes_halving_steadier() -> None:
    """Shift a checkerboard by one pixel: without the blur its halves change a lot."""
    down = BlurDownsample(1, 1, blur=True)
    nn.init.constant_(down.conv.weight, 0.0)
    with torch.no_grad():
        down.conv.weight[..., 0, 0] = 1.0  # takes every second pixel
        down.conv.bias.zero_()
    lines = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    shifted = lines.roll(1, -1)
    change = (down(lines) - down(shifted)).abs()[..., 1:-1].max()
    down.blur = False
    assert change < 1e-6
    assert (down(lines) - down(shifted)).abs().max() == 2


def test_a_state_of_another_size_is_refused() -> None:
    network = generator()
    _, state = network(clip(2, 1))
    larger = torch.nn.functional.interpolate(clip(2, 1).flatten(0, 1), scale_factor=2).unsqueeze(1)
    with pytest.raises(AnimegenError, match="number or size differs"):
        network(larger, None, state)
