"""The film version of a look: layers composed along the motion, streams, and its training on what the look draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from animegen import AnimegenError, load_model
from animegen.config.instantiate import build
from animegen.models.temporal.film import FilmStyliser, motion, tracked
from animegen.models.temporal.networks.film import (
    LIMIT,
    FilmGenerator,
    change_of_light,
    compose_layers,
    renewal,
    standing,
)
from animegen.nn.inked import InkedUNet
from animegen.nn.warp import backward_warp
from tests.support import composed

SIDE = 48


def clips(length: int, batch: int = 1, seed: int = 0) -> Tensor:
    """Return smooth patterns that move two pixels per frame."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 14, 14, generator=generator) * 2 - 1
    wide = torch.nn.functional.interpolate(coarse, (SIDE, SIDE + 2 * length), mode="bicubic").clamp(-1, 1)
    return torch.stack([wide[..., 2 * t : 2 * t + SIDE] for t in range(length)], 1)


def generator(**settings: Any) -> FilmGenerator:
    """Return a small generator that draws some ink."""
    torch.manual_seed(0)
    network = FilmGenerator(width=0.125, **settings).eval()
    torch.nn.init.normal_(network.drawing.network.last.weight, std=0.02)
    return network


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"compose": "none"}, {"levels": (2, 3)}])
def test_a_clip_at_once_in_windows_and_frame_by_frame_is_the_same(settings: dict[str, Any]) -> None:
    network, frames = generator(**settings), clips(6, 2)
    flow = 0.5 * torch.randn(2, 6, 2, SIDE, SIDE)
    whole, _ = network(frames, flow)
    parts, state = [], None
    for times in ([0, 1, 2], [3], [4, 5]):
        part, state = network(frames[:, times], flow[:, times], None, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("compose", ["previous", "none"])
def test_neither_the_memory_format_nor_what_is_noted_changes_a_stream(compose: str) -> None:
    network, frames = generator(compose=compose), clips(3)
    flow = 0.5 * torch.randn(1, 3, 2, SIDE, SIDE)
    plain, noted, state, other = [], [], None, None
    fast = generator(compose=compose).to(memory_format=torch.channels_last)
    aux: dict[str, Tensor] = {}
    for t in range(3):
        frame, motion_ = frames[:, t], flow[:, t : t + 1]
        drawn, state = network(frame[:, None], motion_, None, state)
        plain.append(drawn)
        drawn, other = fast(frame.contiguous(memory_format=torch.channels_last)[:, None], motion_, None, other, aux=aux)
        noted.append(drawn)
    torch.testing.assert_close(torch.stack(noted), torch.stack(plain), rtol=0, atol=1e-5)
    assert aux["drawn"].shape == (1, 1, 3, SIDE, SIDE)
    assert aux["logits"].shape == aux["drawn_logits"].shape == (1, 1, 1, SIDE, SIDE)
    assert ("mask" in aux) == (compose == "previous")


@torch.no_grad()
def test_after_a_reset_a_stream_begins_anew() -> None:
    network, frames = generator(levels=(3,)), clips(5, 2)
    flow, reset = torch.zeros(2, 5, 2, SIDE, SIDE), torch.zeros(2, 5, dtype=torch.bool)
    reset[1, 3] = True
    output, _ = network(frames, flow, None, None, reset)
    alone, _ = network(frames[1:, 3:], flow[1:, 3:])
    torch.testing.assert_close(output[1:, 3:], alone, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(output[:1], network(frames[:1], flow[:1])[0], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_first_frame_is_the_drawing_alone() -> None:
    network, frames = generator(), clips(1)
    output, state = network(frames, torch.zeros(1, 1, 2, SIDE, SIDE))
    torch.testing.assert_close(output[:, 0].clamp(-1, 1), network.drawing(frames[:, 0]), rtol=0, atol=0.005)
    assert state.layers is not None
    assert state.layers.shape == (1, 4, SIDE, SIDE)
    assert state.layers[:, 3].abs().max() <= LIMIT


def layers_of(grey: float, ink: float) -> Tensor:
    return torch.cat([torch.full((1, 1, 3, SIDE, SIDE), grey), torch.full((1, 1, 1, SIDE, SIDE), ink)], 2)


def test_more_is_drawn_anew_where_more_changes_and_ink_is_kept_longer() -> None:
    shares = torch.stack([renewal(torch.full((1, 3, 8, 8), change))[0, :, 4, 4] for change in (0.0, 0.05, 0.3)])
    torch.testing.assert_close(shares[0], torch.tensor([0.154, 0.020]), rtol=0, atol=0.001)
    assert (shares[1:] > shares[:-1]).all()
    assert (shares[:, 0] > shares[:, 1]).all()
    assert shares[2].min() > 0.999


@torch.no_grad()
def test_where_nothing_changes_the_past_stays_and_where_all_changes_it_goes() -> None:
    frame, past = torch.zeros(1, 3, SIDE, SIDE), layers_of(0.2, 3.0)[:, 0]
    flow = torch.zeros(1, 1, 2, SIDE, SIDE)
    same, _ = compose_layers(layers_of(0.6, -3.0), frame[:, None], flow, None, (past, frame))
    torch.testing.assert_close(same[:, 0, :3], torch.full_like(frame, 0.2 + 0.154 * 0.4), rtol=0, atol=0.001)
    torch.testing.assert_close(same[:, 0, 3:], torch.full_like(frame[:, :1], 3 - 0.020 * 6), rtol=0, atol=0.01)
    other, mask = compose_layers(layers_of(0.6, -3.0), frame[:, None], flow, None, (past, frame + 0.8))
    assert mask.min() > 0.999
    torch.testing.assert_close(other, layers_of(0.6, -3.0), rtol=0, atol=0.01)


@torch.no_grad()
def test_the_past_follows_the_light() -> None:
    frame = torch.zeros(1, 3, SIDE, SIDE)
    assert change_of_light(torch.full_like(frame, 0.05)).allclose(torch.tensor(0.05))
    drawn, past = layers_of(0.2, -3.0), layers_of(0.2, -3.0)[:, 0]
    output, _ = compose_layers(drawn, frame[:, None] + 0.05, torch.zeros(1, 1, 2, SIDE, SIDE), None, (past, frame))
    torch.testing.assert_close(output[:, 0, :3], torch.full_like(frame, 0.2 + 0.846 * 0.05), rtol=0, atol=0.001)


def test_a_film_stands_still_where_its_flow_explains_no_more_than_none() -> None:
    before = clips(1)[:, 0]
    moved = before.roll(-4, -1)
    along = torch.zeros(1, 2, SIDE, SIDE)
    along[:, 0] = -4.0
    assert standing(0.01 * along, before, before).all()
    assert not standing(0.1 * along, before, before).any()  # a slow motion
    assert standing(along, moved.roll(8, -1), before)[..., 8:-8].float().mean() < 0.1


@torch.no_grad()
def test_nothing_is_taken_from_a_frame_that_does_not_show_the_point() -> None:
    frame, before = torch.zeros(2, 1, 3, SIDE, SIDE).uniform_(-0.05, 0.05)
    new, past, flow = layers_of(0.6, -3.0), layers_of(0.2, 3.0)[:, 0], torch.ones(1, 1, 2, SIDE, SIDE)
    seen = torch.zeros(1, 1, 1, SIDE, SIDE, dtype=torch.bool)
    seen[..., 8:20, 8:20] = True
    before[:] = backward_warp(frame, -flow[:, 0])
    output, mask = compose_layers(new, frame[:, None], flow, seen, (past, before))
    assert (mask[0, 0, :, 30:40, 30:40] == 1).all()
    assert (output[0, 0, 0, 30:40, 30:40] == 0.6).all()
    assert mask[0, 0, 1, 10:18, 10:18].max() < 0.1


@torch.no_grad()
def test_points_that_a_square_has_uncovered_are_not_seen_before() -> None:
    """A square moves to the right by 6 pixels over a background that stands."""
    generator_ = torch.Generator().manual_seed(0)
    back, front = (
        torch.nn.functional.interpolate(torch.rand(1, 3, n, n, generator=generator_), (side, side), mode="bicubic")
        for n, side in ((12, 96), (6, 36))
    )
    frames = []
    for left in (20, 26):
        frame = back.clone()
        frame[..., 30:66, left : left + 36] = front
        frames.append(frame.clamp(0, 1) * 2 - 1)
    flow, seen = tracked(torch.stack(frames, 1))
    assert flow.shape == (1, 2, 2, 96, 96)
    assert not seen[:, 0].any()
    assert seen[0, 1, 0, 38:58, 34:54].float().mean() > 0.9  # the square
    assert seen[0, 1, 0, 4:22, 8:88].float().mean() > 0.9  # the background
    assert seen[0, 1, 0, 36:60, 21:25].float().mean() < 0.5  # what was behind the square


def test_an_unknown_composition_is_refused() -> None:
    with pytest.raises(AnimegenError, match="Did you mean 'previous'"):
        FilmGenerator(compose="previos")


def test_motion_is_to_the_previous_frame_and_to_the_first() -> None:
    moves = motion(clips(4, 2))
    assert {name: tuple(value.shape) for name, value in moves.items()} == {
        "flow": (2, 3, 2, SIDE, SIDE),
        "valid": (2, 3, 1, SIDE, SIDE),
        "flow_first": (2, 3, 2, SIDE, SIDE),
        "valid_first": (2, 3, 1, SIDE, SIDE),
    }
    inner = (..., slice(12, -12), slice(12, -12))
    assert abs(float(moves["flow"][:, :, 0][inner].median()) - 2) < 0.2
    assert abs(float(moves["flow_first"][:, 2, 0][inner].median()) - 6) < 0.6
    assert moves["valid"].float().mean() > 0.6


@pytest.fixture(scope="module")
def model() -> FilmStyliser:
    """Return the model of the experiment before its training, with its teacher."""
    config = composed("experiment=temporal/cel_film", "data.videos=x")["model"]
    built = build({**config, "grain": 0.1}, "model")
    built.load_pretrained()
    return built


def test_it_begins_with_the_look(model: FilmStyliser) -> None:
    frames = clips(1)[:, 0]
    drawn, _ = model.eval().stylize(frames)
    expected, _ = load_model("cel", "cpu").stylize(frames)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=0.005)  # the limit of logits makes this difference


def test_another_kind_of_teacher_is_refused(model: FilmStyliser, toy: Any) -> None:
    model.teacher, teacher = str(toy), model.teacher
    with pytest.raises(AnimegenError, match="does not draw areas and ink"):
        model.load_pretrained()
    model.teacher = teacher


def test_windows_and_images_are_trained_on(model: FilmStyliser) -> None:
    model.train()
    for photo in (clips(3, 2), clips(1, 2)[:, 0]):
        (name, bound), *rest = model.updates({"photo": photo})
        assert (name, rest) == ("generator", [])
        entries = bound.entries
        length = photo.shape[1] if photo.ndim == 5 else 1
        assert entries["fake"].shape == entries["anime"].shape == (2 * length, 3, SIDE, SIDE)
        assert entries["ink"].shape == (2 * length, 3, SIDE, SIDE)
        assert entries["flow_first"].shape == (2, length - 1, 2, SIDE, SIDE)
    assert not any(name.startswith("_drawing") for name in model.state_dict())
    assert isinstance(model._drawing[0], InkedUNet)


def test_frames_of_another_size_begin_a_stream(model: FilmStyliser) -> None:
    model.eval()
    frames = clips(2)
    _, state = model.stylize(frames[:, 0])
    smaller, after = model.stylize(frames[:, 1, :, :37, :41], state)
    assert smaller.shape == (1, 3, 37, 41)
    torch.testing.assert_close(smaller, model.stylize(frames[:, 1, :, :37, :41])[0])
    again, _ = model.stylize(frames[:, 1, :, :37, :41], after)
    assert again.shape == smaller.shape
