"""Outputs composed with the one before: by hand, in windows and frame by frame, across cuts; and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.temporal.networks import TemporalGenerator
from animegen.models.temporal.networks.composition import Composition
from animegen.models.temporal.windows import estimated_flow
from tests.unit.models.test_temporal_module import applied, batch, module, reached, step
from tests.unit.models.test_temporal_networks import clip, generator

WORDS = ("model.generator.compose=previous", "model.memory_flow=estimated")


def composing() -> TemporalGenerator:
    """Return a generator whose mask depends on what it sees."""
    network = generator(compose="previous")
    assert network.composition is not None
    nn.init.normal_(network.composition.mask.weight, std=0.2)
    return network


def test_each_output_is_composed_with_the_moved_one_before() -> None:
    drawn, frames, flow = clip(2, 3, 8), clip(2, 3, 8, seed=1), torch.zeros(2, 3, 2, 8, 8)
    flow[:, 2, 0] = 2  # the image moves two pixels to the left
    outputs, masks = Composition()(drawn, frames, flow)
    share = torch.sigmoid(torch.tensor(1.0)).item()
    assert share == pytest.approx(0.731, abs=1e-3)
    assert torch.equal(outputs[:, 0], drawn[:, 0])
    second = share * drawn[:, 1] + (1 - share) * drawn[:, 0]
    assert (outputs[:, 1] - second).abs().max() < 1e-6
    third = share * drawn[:, 2, ..., :6] + (1 - share) * second[..., 2:]
    assert (outputs[:, 2, ..., :6] - third).abs().max() < 1e-5
    assert torch.equal(outputs[:, 2, ..., 6:], drawn[:, 2, ..., 6:])  # what came in from outside is new
    assert masks[:, 0].min() == masks[:, 2, ..., 6:].min() == 1
    assert masks[:, 1].sub(share).abs().max() < 1e-6


def test_lines_that_are_moved_again_and_again_stay() -> None:
    """Half a pixel a frame, to and fro, and nothing new: bilinear moving would leave a quarter of a line's contrast."""
    torch.manual_seed(0)
    line = torch.full((1, 1, 3, 16, 16), 0.5)
    line[..., 8] = -0.5
    composition, flow = Composition(), torch.zeros(1, 11, 2, 16, 16)
    composition.mask.bias.data.fill_(-20)
    flow[:, 1::2, 0], flow[:, 2::2, 0] = 0.5, -0.5
    outputs, _ = composition(line.expand(-1, 11, -1, -1, -1), line.expand(-1, 11, -1, -1, -1), flow)
    assert 0.5 - outputs[0, 10, :, :, 8].mean() > 0.4


def test_windows_and_single_frames_equal_one_piece() -> None:
    network, film, flow = composing(), clip(2, 6), 2 * clip(2, 6, seed=5)[:, :, :2]
    whole, end = network(film, flow=flow)
    for size in (3, 1):
        state, parts = None, []
        for first in range(0, 6, size):
            part, state = network(film[:, first : first + size], None, state, flow=flow[:, first : first + size])
            parts.append(part)
        assert (torch.cat(parts, 1) - whole).abs().max() < 1e-5
        assert state is not None
        assert end.output is not None
        assert (state.output - end.output).abs().max() < 1e-5  # type: ignore[operator]
    alone = torch.cat([network(film[:, t : t + 1], flow=flow[:, t : t + 1])[0] for t in range(6)], 1)
    assert (alone - whole).abs().max() > 1e-2


def test_a_stream_starts_again_without_a_trace_of_the_old() -> None:
    network, film, flow = composing(), clip(2, 6), clip(2, 6, seed=5)[:, :, :2]
    whole = network(film, flow=flow)[0]
    fresh = network(film[:, 3:], flow=flow[:, 3:])[0]
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[0, 3] = True
    told = network(film, flow=flow, reset=reset)[0]
    assert (told[0, 3:] - fresh[0]).abs().max() < 1e-5
    assert torch.equal(told[1], whole[1])
    _, state = network(film[:, :3], flow=flow[:, :3])
    emptied = network(film[:, 3:], None, state.reset(torch.tensor([True, False])), flow=flow[:, 3:])[0]
    assert (emptied[0] - fresh[0]).abs().max() < 1e-5
    assert (emptied[1] - whole[1, 3:]).abs().max() < 1e-5
    assert torch.equal(network(film[:, 3:], None, state.without_memory(), flow=flow[:, 3:])[0], fresh)


def test_gradients_end_where_they_are_asked_to() -> None:
    composition, frames, flow = Composition(), clip(1, 4, 8), torch.zeros(1, 4, 2, 8, 8)
    for every, first in ((0, 0), (1, 3), (2, 2)):
        drawn = clip(1, 4, 8, seed=2).requires_grad_()
        outputs = composition(drawn, frames, flow, detach_every=every)[0]
        (gradient,) = torch.autograd.grad(outputs[:, 3].sum(), drawn)
        assert [bool(gradient[:, t].abs().max() > 0) for t in range(4)] == [t >= first for t in range(4)]


def test_it_learns_what_to_take_over_and_what_not() -> None:
    """Drawings of a still video differ by noise, which the past averages; across a cut the past is of no use."""
    torch.manual_seed(0)
    composition, flow = Composition(), torch.zeros(8, 4, 2, 16, 16)
    optimizer = torch.optim.Adam(composition.parameters(), 1e-2)
    cut = torch.arange(8) % 2 == 1  # every second video, before its last frame

    def films() -> tuple[Tensor, Tensor]:
        truth = (torch.rand(8, 1, 3, 4, 4) * 2 - 1).repeat_interleave(4, -1).repeat_interleave(4, -2)
        truth = truth.expand(-1, 4, -1, -1, -1).clone()
        truth[cut, 3] = truth[cut, 3].roll(1, 0)
        return truth, truth + 0.2 * torch.randn_like(truth)

    for _ in range(160):
        truth, drawn = films()
        loss = (composition(drawn, truth, flow)[0] - truth).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    truth, drawn = films()
    outputs, masks = composition(drawn, truth, flow)
    assert masks[~cut, 3].mean() < 0.5
    assert masks[cut, 3].mean() > 0.85
    error, alone = (outputs - truth).abs().mean((2, 3, 4)), (drawn - truth).abs().mean((2, 3, 4))
    assert (error[~cut, 3] < 0.75 * alone[~cut, 3]).all()
    assert (error[cut, 3] < 1.1 * alone[cut, 3]).all()


def test_the_flow_of_clips_is_estimated() -> None:
    torch.manual_seed(0)
    picture = nn.functional.avg_pool2d(torch.rand(1, 3, 70, 70), 7, 1).sub(0.5).mul(6).clamp(-1, 1)
    film = torch.stack([picture.roll(-2 * t, -1) for t in range(3)], 1)
    flow = estimated_flow(film)
    assert flow.shape == (1, 3, 2, 64, 64)
    assert flow[:, 0].abs().max() == 0
    inner = flow[:, 1:, :, 16:-16, 16:-16]
    assert inner[:, :, 0].median() == pytest.approx(2, abs=0.1)
    assert inner[:, :, 1].median() == pytest.approx(0, abs=0.1)
    assert estimated_flow(film[:, :1]).abs().max() == 0


@pytest.mark.parametrize("words", [WORDS, ("ablation=temporal/flow_given",)])
def test_windows_teach_it(words: tuple[str, ...]) -> None:
    model = module(*words)
    terms = step(model, batch())
    assert all(torch.tensor(list(values.values())).isfinite().all() for values in terms.values())
    assert model.generator.composition is not None
    assert reached(model.generator.composition)["mask.bias"]
    model = module(*words)
    step(model, batch(length=1))  # a single frame has nothing to be composed with
    assert model.generator.composition is not None
    assert not any(reached(model.generator.composition).values())


def test_videos_are_drawn_with_it() -> None:
    model = applied(*WORDS)
    film = torch.rand(1, 3, 3, 32, 32) * 2 - 1
    windows = model.generator(film, flow=estimated_flow(film))[0].clamp(-1, 1)
    assert (model.stylize_clips(film) - windows).abs().max() < 1e-5
    _, state = model.stylize(film[:, 0])
    larger = torch.rand(1, 3, 48, 40)
    assert torch.equal(model.stylize(larger, state)[0], model.stylize(larger)[0])
    shown = model.preview(batch(1))
    assert shown["mask"].shape == (1, 3, 32, 32)
    assert 0 < shown["mask"].add(1).div(2).mean() < 1


def test_names_are_checked() -> None:
    with pytest.raises(AnimegenError, match=r"compose=previos is unknown.*previous"):
        TemporalGenerator(width=0.125, compose="previos")
    with pytest.raises(AnimegenError, match=r"memory_flow=guessed is unknown: use given or estimated"):
        module("model.memory_flow=guessed")
