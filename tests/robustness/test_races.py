"""Two commands with one output: one result, complete and of one input; the other command ends with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.robustness.support import assert_calm, finish, run, start

#: Command, its words for an input folder with the images 0.png to 4.png, and the output.
CASES = {
    "images to a folder": ("stylize", ["checkpoint={toy}", "input={source}"], "out"),
    "one image": ("stylize", ["checkpoint={toy}", "input={source}/0.png"], "out.png"),
    "frames": ("interpolate", ["checkpoint={between}", "input={source}"], "out"),
    "a clip": ("generate", ["checkpoint={between}", "keys=[{source}/0.png,{source}/1.png]", "frames=4"], "out.mp4"),
    "numbered images": (
        "generate",
        ["checkpoint={between}", "keys=[{source}/0.png,{source}/1.png]", "frames=4"],
        "out/%03d.png",
    ),
}


def content(place: Path) -> dict[str, bytes]:
    """Return the files of an output, hidden ones too."""
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize("overwrite", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_two_inputs_and_one_output(case: str, overwrite: bool, toy: Path, between: Path, tmp_path: Path) -> None:
    command, words, target = CASES[case]
    module, alone = f"animegen.cli.{command}", {}
    for colour in ("red", "blue"):
        (tmp_path / colour).mkdir()
        for number in range(5):
            Image.new("RGB", (48, 48), colour).save(tmp_path / colour / f"{number}.png")
        mine = [word.format(source=tmp_path / colour, toy=toy, between=between) for word in words]
        alone[colour] = [*mine, "device=cpu", *(["overwrite=true"] if overwrite else [])]
    expected = {}
    for colour, mine in alone.items():
        place = tmp_path / f"{colour}_alone" / target
        assert run(module, [[*mine, f"output={place}"]], tmp_path / "log").code == 0
        expected[colour] = content(place if "%" not in target else place.parent)
    assert expected["red"] != expected["blue"]
    if overwrite:
        assert run(module, [[*alone["red"], f"output={tmp_path / target}"]], tmp_path / "log").code == 0
    both = {
        c: start(module, [[*mine, f"output={tmp_path / target}"]], tmp_path / c / "log") for c, mine in alone.items()
    }
    ends = {colour: finish(process, tmp_path / colour / "log") for colour, process in both.items()}
    for end in ends.values():
        assert_calm(end)
        refused = "Another command is at work" in end.said or "exist" in end.said
        assert end.code == 0 or (end.code == 2 and refused), end.said
    winners = [colour for colour, end in ends.items() if end.code == 0]
    assert len(winners) == 1 or (overwrite and winners), {colour: end.said for colour, end in ends.items()}
    made = content(tmp_path / target if "%" not in target else tmp_path / "out")
    assert made in [expected[colour] for colour in winners]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
