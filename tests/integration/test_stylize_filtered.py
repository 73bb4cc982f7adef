"""Videos for models that learnt from frames without noise: filtered alike, also when a stopped video goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from animegen.cli import stylize as verb
from animegen.data.keyframes import BilateralFilter
from animegen.errors import AnimegenError
from animegen.inference import application
from animegen.inference import stylize as body
from animegen.inference import videos as films
from animegen.inference.denoising import learnt_filter
from animegen.media.video.opening import open_video
from tests.video_support import EXACT, noise, write_film

FILTER = {"_target_": "animegen.data.keyframes.BilateralFilter", "radius": 2, "sigma_colour": 200.0}
LOSSLESS = ("codec=libx264rgb", "crf=0", "preset=ultrafast", "pix_fmt=rgb24")
CUT = 9


class Inverts(nn.Module):
    """A model whose training frames were filtered; it stops like a person who presses Ctrl+C."""

    size_divisor = 2
    fails_at = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.run_info = {"config": {"data": {"prefilter": FILTER}}}
        self.calls = 0

    def stylize(self, frames: Tensor, state: Any, style: Any = None) -> tuple[Tensor, Any]:
        self.calls += 1
        if self.calls > self.fails_at:
            raise KeyboardInterrupt
        return -frames, state


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Inverts:
    model = Inverts().eval()
    monkeypatch.setattr(application, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(application, "resolve_checkpoint", lambda path, runs: Path(path))
    monkeypatch.setattr(body, "_shots", lambda frames: [(0, CUT), (CUT, len(list(frames)))])
    monkeypatch.setattr(films, "LONGEST", 4)
    return model


def run(*words: str) -> int:
    return verb.main(["checkpoint=some.ckpt", "device=cpu", *LOSSLESS, *words])


def pixels_of(path: Path) -> list[Tensor]:
    return [pixels for pixels, _ in open_video(path)]


@pytest.mark.parametrize("stop", [None, 6, 11])
def test_frames_are_filtered_within_their_shots(
    stop: int | None, model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_film(tmp_path / "in.mp4", [noise(n) for n in range(14)], encoding=EXACT)
    words = (f"input={source}", f"output={tmp_path / 'out.mp4'}")
    if stop is not None:  # in the second segment of a shot, and in the shot after
        model.fails_at = 1 + stop  # it is asked once whether it remembers
        assert run(*words) == 130
        model.fails_at = 10**9
    assert run(*words) == 0
    assert "Noise is filtered off the frames" in capsys.readouterr().err
    frames, filter_ = torch.stack(pixels_of(source)), BilateralFilter(radius=2, sigma_colour=200.0)
    shots = [filter_(frames[:CUT]), filter_(frames[CUT:])]
    expected = [255 - shot[n] for shot in shots for n in range(len(shot))]
    drawn = pixels_of(tmp_path / "out.mp4")
    assert len(drawn) == 14
    for got, wanted in zip(drawn, expected, strict=True):
        assert (got.int() - wanted.int()).abs().max() <= 1  # rounded twice
    assert all((got.int() - 255 + frame.int()).abs().max() > 3 for got, frame in zip(drawn, frames, strict=True))


def test_the_filter_can_be_left_out(model: Inverts, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", [noise(n) for n in range(3)], encoding=EXACT)
    assert run(f"input={source}", f"output={tmp_path / 'out.mp4'}", "prefilter=false", "cuts=false") == 0
    for got, frame in zip(pixels_of(tmp_path / "out.mp4"), pixels_of(source), strict=True):
        assert (got.int() - 255 + frame.int()).abs().max() <= 1


def test_only_filters_are_built_from_a_checkpoint() -> None:
    path = Path("some.ckpt")
    assert learnt_filter({"data": {"prefilter": None}}, path) == (None, None)
    assert learnt_filter(None, path) == (None, None)
    found, node = learnt_filter({"data": {"prefilter": FILTER}}, path)
    assert isinstance(found, BilateralFilter)
    assert (found.radius, found.sigma_colour, node) == (2, 200.0, FILTER)
    for foreign in ({"_target_": "os.system", "command": "true"}, {**FILTER, "flow": {"_target_": "os.remove"}}):
        with pytest.raises(AnimegenError, match=r"'some.ckpt' is refused: .* asks for 'os\."):
            learnt_filter({"data": {"prefilter": foreign}}, path)
    with pytest.raises(AnimegenError, match=r"asks for 'animegen\.media\.video\.writer\.VideoWriter'"):
        learnt_filter({"data": {"prefilter": {"_target_": "animegen.media.video.writer.VideoWriter"}}}, path)
