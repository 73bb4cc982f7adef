"""From a video with sound and two painted frames to the painted video, by the two commands that the README names."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from animegen import load_model
from animegen.cli import stylize as stylize_verb
from animegen.data.keyframes import folder_project
from animegen.media.images import to_float, to_uint8
from animegen.media.video.reader import VideoReader
from tests.support import run_verb, train
from tests.video_support import EXACT, other_packets, with_sound, write_film

LOSSLESS = ("codec=libx264rgb", "crf=0", "preset=ultrafast", "pix_fmt=rgb24")


def frames() -> list[Tensor]:
    """Return twelve frames, each of which says its number: a bar that moves on a gradient."""
    ramp = torch.arange(64, dtype=torch.uint8).expand(3, 48, 64) * 3
    shown = []
    for n in range(12):
        frame = ramp.clone()
        frame[:, 10:30, 4 * n : 4 * n + 8] = torch.tensor([250, 20, 20 * n], dtype=torch.uint8)[:, None, None]
        shown.append(frame)
    return shown


def own_film(root: Path, suffix: str) -> Path:
    """Write a project: a video of uneven times with a sound track, and the negatives of two of its frames."""
    (root / "keys").mkdir(parents=True)
    sound = with_sound(root / "sound.mp4", 0.6)
    # It begins late, as a video cut from another may, and every fourth frame stays twice as long.
    times = [Fraction(1001 * (2 + n + n // 4), 24000) for n in range(12)]
    film = write_film(
        root / f"clip{suffix}", frames(), times, encoding=EXACT, time_base=Fraction(1, 24000), copy_from=sound
    )
    sound.unlink()
    for number in (2, 9):
        Image.fromarray(255 - frames()[number].permute(1, 2, 0).numpy()).save(root / "keys" / f"{number + 1:03d}.png")
    return film


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_is_read_as_the_clip_of_a_project(suffix: str, tmp_path: Path) -> None:
    own_film(tmp_path / "mine", suffix)
    project = folder_project(tmp_path / "mine")
    assert (len(project), project.keys, project.size) == (12, [2, 9], (48, 64))
    for n, frame in enumerate(frames()):
        assert torch.equal(project.photo[n], frame)
    for n in (9, 2):
        assert torch.equal(project.drawings[n], 255 - frames()[n])


@pytest.mark.parametrize(("suffix", "recipe"), [(".mp4", "quickstart"), (".mkv", "flow_keys")])
def test_two_commands_give_the_painted_video_with_its_sound(suffix: str, recipe: str, tmp_path: Path) -> None:
    film = own_film(tmp_path / "mine", suffix)
    run = train(
        f"experiment=fewshot/{recipe}",
        "data=keyframes/folder",
        f"data.folder={tmp_path / 'mine'}",
        "train_steps=2",
        "val_every=2",
        output=tmp_path / "run",
    )
    painted = tmp_path / f"painted{suffix}"
    words = (f"checkpoint={run}", f"input={film}", f"output={painted}", "device=cpu", *LOSSLESS)
    assert run_verb(stylize_verb.main, *words) == 0
    before, after = list(VideoReader(film)), list(VideoReader(painted))
    assert [time for _, time in after] == [time for _, time in before]
    model = load_model(run, "cpu")
    for (pixels, _), frame in zip(after, frames(), strict=True):
        drawn = to_uint8(model.stylize(to_float(frame)[None])[0][0])
        assert (pixels.int() - drawn.int()).abs().max() <= 1  # another order of the sums in the convolutions
    if recipe == "flow_keys":  # the checkpoint holds the key frames
        assert (after[2][0].int() - (255 - frames()[2].int())).abs().float().mean() < 8
    assert other_packets(painted) == other_packets(film)
    assert len(other_packets(film)) > 5
