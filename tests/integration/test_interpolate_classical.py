"""``animegen interpolate method=dis|blend``: without a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from animegen.cli import interpolate as verb
from animegen.inference.interpolate import _applied, _identity
from animegen.inference.options import InterpolateOptions, Method
from animegen.media.images import read_image, to_uint8, write_image
from animegen.media.video.flow import flow_estimates
from animegen.nn.inbetween.trajectories import average_warp
from animegen.toonworld import ToonWorldImages
from tests.support import refused, run_verb


def test_methods_without_a_model(tmp_path: Path) -> None:
    source = ToonWorldImages("meadow", "val", scenes=1, frames_per_scene=3, frames=24, size=(80, 96), speed=0.6)
    for name, number in (("a", 0), ("b", 2)):
        write_image(tmp_path / f"{name}.png", source.image(number))
    words = (f"input=[{tmp_path / 'a.png'},{tmp_path / 'b.png'}]", "factor=4", "device=cpu", "threads=1")
    for method in ("dis", "blend"):
        assert run_verb(verb.main, f"method={method}", f"output={tmp_path / method}", *words) == 0
    assert run_verb(verb.main, f"output={tmp_path / 'default'}", *words) == 0
    assert run_verb(verb.main, "method=dis", "estimates=4", f"output={tmp_path / 'four'}", *words) == 0
    for image in sorted((tmp_path / "dis").iterdir()):
        assert (tmp_path / "default" / image.name).read_bytes() == image.read_bytes()
    first, last = (source.image(n)[None].float() / 127.5 - 1 for n in (0, 2))
    t = torch.tensor([0.25])
    expected = {
        "dis": average_warp(first, last, flow_estimates(first, last), t).clamp(-1, 1),
        "four": average_warp(first, last, flow_estimates(first, last, count=4), t).clamp(-1, 1),
        "blend": torch.lerp(first, last, 0.25),
    }
    for method, image in expected.items():
        assert torch.equal(read_image(tmp_path / method / "000002.png"), to_uint8(image)[0])
        assert torch.equal(read_image(tmp_path / method / "000005.png"), source.image(2))


def test_a_model_that_is_asked_for_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_verb(verb.main, "method=model", "input=[a.png,b.png]", f"output={tmp_path / 'out'}")
    assert "checkpoint=" in refused(capsys, code)


def test_a_method_without_a_model_takes_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("input=[a.png,b.png]", f"output={tmp_path / 'out'}")
    code = run_verb(verb.main, "method=dis", "checkpoint=last", *words)
    assert "method=dis applies no model" in refused(capsys, code)
    code = run_verb(verb.main, "method=blend", "estimates=4", *words)
    assert "estimates=4 is for method=dis" in refused(capsys, code)


def test_frames_depend_on_the_number_of_estimates() -> None:
    """A video that was begun with another number is not continued."""
    both = [InterpolateOptions(input=["a.mp4"], output="b.mp4", method=Method.dis, estimates=n) for n in (2, 4)]
    dis = [_identity(options, _applied(options)) for options in both]
    assert dis[0] != dis[1]
