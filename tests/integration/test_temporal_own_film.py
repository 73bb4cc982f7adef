"""From a video and some stills of the user's own to a drawn video, by the commands that the README names."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import torch
from PIL import Image

from animegen.cli import stylize as stylize_verb
from animegen.media.video.frames import VideoInfo
from animegen.media.video.opening import create_video, open_video
from tests.support import run_verb, train


def test_own_video(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    films, stills = tmp_path / "films", tmp_path / "stills"
    films.mkdir()
    stills.mkdir()
    for number in range(4):
        noise = torch.randint(256, (60, 70, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(noise.numpy()).save(stills / f"{number}.png")
    looks = torch.randint(256, (2, 3, 48, 64), dtype=torch.uint8, generator=generator)
    with create_video(films / "film.mp4", VideoInfo(64, 48, Fraction(24))) as writer:
        for n in range(20):
            writer.write(looks[n // 10].roll(n, -1), Fraction(n, 24))
        writer.close(Fraction(20, 24))
    run = train(
        "experiment=temporal/own_video",
        f"data.videos={films}",
        f"data.anime={stills}",
        "data.image_size=32",
        "data.load_size=40",
        "train_steps=3",
        "val_every=3",
        output=tmp_path / "run",
    )
    assert (run / "previews" / "step-0000003.gif").is_file()
    words = [f"checkpoint={run}", f"input={films}", f"output={tmp_path / 'anime'}", f"style={stills / '1.png'}"]
    assert run_verb(stylize_verb.main, *words, "device=cpu") == 0
    assert sum(1 for _ in open_video(tmp_path / "anime" / "film.mp4")) == 20
