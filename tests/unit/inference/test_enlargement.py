"""Enlarged drawings: crisp edges, unchanged areas, and lines of the asked width."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from animegen.inference import enlargement
from animegen.inference.enlargement import enlarge, usual_width
from animegen.inference.stylist import Stylist
from animegen.media.photos import resize


@pytest.mark.parametrize(
    ("side", "width"), [(640, 1), (1200, 1), (1499, 1), (1500, 1.5), (1920, 1.5), (2400, 2), (4000, 3.5)]
)
def test_the_usual_width_grows_with_the_longer_side(side: int, width: float) -> None:
    assert usual_width(side, 300) == usual_width(300, side) == width


def edge(dtype: torch.dtype = torch.uint8) -> Tensor:
    """A drawing, 40x30, of two areas, of 40 and 200."""
    drawing = torch.full((3, 40, 30), 40, dtype=torch.uint8)
    drawing[..., 15:] = 200
    return drawing if dtype == torch.uint8 else drawing.float() / 127.5 - 1


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_edges_stay_crisp_and_areas_keep_their_values(factor: int, dtype: torch.dtype) -> None:
    small = edge(dtype)
    low, high = small[0, 0, 0], small[0, 0, -1]
    large = enlarge(small, 40 * factor, 30 * factor)
    assert large.dtype == dtype
    row = large[0, 7]
    span = (high - low) / 20
    between = (row > low + span) & (row < high - span)
    soft = resize(small, 40 * factor, 30 * factor)[0, 7]
    assert between.sum() < ((soft > low + span) & (soft < high - span)).sum()
    assert between.sum() <= 2
    assert torch.allclose(row[: 15 * factor - factor].float(), low.float(), atol=1e-4 if dtype != torch.uint8 else 0)
    assert torch.allclose(row[15 * factor + factor :].float(), high.float(), atol=1e-4 if dtype != torch.uint8 else 0)


def test_even_gradients_keep_their_values() -> None:
    small = torch.linspace(0, 240, 61).round().to(torch.uint8).expand(3, 20, 61).contiguous()
    large = enlarge(small, 40, 122)
    assert (large.int() - resize(small, 40, 122).int()).abs().max() <= 3


def test_the_result_does_not_depend_on_the_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    small = torch.randint(256, (3, 37, 29), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = enlarge(small, 100, 80)
    monkeypatch.setattr(enlargement, "ROWS", 16)
    assert (enlarge(small, 100, 80).int() - whole.int()).abs().max() <= 1


class Inverter:
    """Draws the negative, and remembers the sizes of the frames."""

    size_divisor = 1

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def stylize(self, frames: Tensor, state: Any, style: Any = None) -> tuple[Tensor, Any]:
        self.sizes.append(tuple(frames.shape[-2:]))
        return -frames, (state or 0) + 1


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_a_stylist_draws_at_a_fraction_of_the_size(strength: float) -> None:
    model = Inverter()
    stylist = Stylist(model, line_width=2, strength=strength)
    photo = enlarge(edge(), 80, 60)
    drawn = stylist(photo)
    assert model.sizes[-1] == (40, 30)
    expected = photo.float() + strength * ((255 - photo.float()) - photo.float())
    assert (drawn[..., :27].float() - expected[..., :27]).abs().max() <= 2
    assert (drawn[..., 34:].float() - expected[..., 34:]).abs().max() <= 2
    frame, state = stylist.follow(photo, None)
    assert torch.equal(frame, drawn)
    assert state == 1
    assert Stylist(model, line_width=1)(photo).shape == photo.shape
    assert model.sizes[-1] == (80, 60)
