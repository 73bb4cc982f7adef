"""``animegen interpolate``: exact times, values that stay (also with ten bits), and scores by the size of motion."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from animegen.cli import evaluate as eval_verb
from animegen.cli import interpolate as verb
from animegen.media.images import write_image
from animegen.media.video.frames import BT2020, Colour
from animegen.media.video.pixels import rows
from animegen.media.video.reader import VideoReader
from tests.support import run_verb
from tests.video_support import EXACT, FAST, deep_film, deep_planes, noise, write_film

WORDS = ("codec=libx264rgb", "crf=0", "pix_fmt=rgb24")


def test_triplets_of_ones_own_are_all_scored_and_by_size_of_motion(between: Path, tmp_path: Path) -> None:
    wide = torch.nn.functional.interpolate(noise(1, 10, 16)[None].float(), (80, 128), mode="bicubic").clamp(0, 255)
    for number, shift in enumerate((0, 1, 2, 6)):
        for frame in range(3):
            moved = wide[0].to(torch.uint8).roll(frame * shift, -1)[..., 24:88]
            write_image(tmp_path / f"set/{number}/frame{frame}.png", moved)
    words = ("data=triplets/folders", f"data.folder={tmp_path / 'set'}", "size=tiny", "features=none", "device=cpu")
    for split, count in (("all", 4), ("test", 1)):
        output = tmp_path / split
        assert (
            run_verb(eval_verb.main, f"checkpoint={between}", *words, f"data.test_split={split}", f"output={output}")
            == 0
        )
        scores = json.loads((output / "scores.json").read_text())
        assert {row["psnr"]["n"] for row in scores["methods"].values()} == {count}
        assert sum(rows["model"]["psnr"]["n"] for rows in scores["by_motion"].values()) == count
        assert all(list(rows) == list(scores["methods"]) for rows in scores["by_motion"].values())
    text = (tmp_path / "all/table.md").read_text()
    assert "small motion, n = 1" in text
    assert text.count("| warp_dis |") == 1 + len(json.loads((tmp_path / "all/scores.json").read_text())["by_motion"])


def go(between: Path, source: Path, target: Path, *words: str) -> int:
    return run_verb(verb.main, f"checkpoint={between}", f"input={source}", f"output={target}", "device=cpu", *words)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_ten_bits_stay_and_what_is_copied_stays_to_the_bit(between: Path, codec: str, tmp_path: Path) -> None:
    colour = Colour(BT2020, False, 9, 16)  # BT.2020 with the curve of HDR10
    film = deep_film(tmp_path / "in.mkv", codec, colour=colour)
    assert go(between, film, tmp_path / "out.mkv", "factor=2", "codec=ffv1", "cuts=false") == 0
    reader = VideoReader(tmp_path / "out.mkv")
    assert reader.info.pix_fmt == "yuv420p10le"
    assert reader.info.colour == colour
    before, after = deep_planes(film), deep_planes(tmp_path / "out.mkv")
    assert len(after) == 2 * len(before) == 6
    for number, planes in enumerate(before):
        assert all((a == b).all() for a, b in zip(planes, after[2 * number], strict=True))
    for first, drawn, last in zip(after[:4:2], after[1:4:2], after[2::2], strict=True):
        assert (drawn[0] != first[0]).mean() > 0.5
        assert len(np.unique(drawn[0])) > 400
        # After one step the network still draws nearly the blend: within three levels of eight bits on average.
        blend = (first[0].astype(float) + last[0]) / 2
        assert abs((drawn[0] - blend).mean()) < 12


def test_the_usual_codec_writes_ten_bits_and_one_without_them_tells(
    between: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = deep_film(tmp_path / "in.mp4", size=(64, 64))
    assert go(between, film, tmp_path / "out.mp4", "fps=60", "preset=ultrafast") == 0
    assert VideoReader(tmp_path / "out.mp4").info.pix_fmt == "yuv420p10le"
    capsys.readouterr()
    assert go(between, film, tmp_path / "small.mp4", "codec=mpeg4") == 0
    assert "Eight bits per colour are kept of its 10." in capsys.readouterr().err
    assert VideoReader(tmp_path / "small.mp4").info.pix_fmt == "yuv420p"
    assert go(between, film, tmp_path / "pictures") == 0
    assert len(list((tmp_path / "pictures").iterdir())) == 5  # pictures have no length: the last is shown once


def test_copies_of_eight_bits_are_not_converted(between: Path, tmp_path: Path) -> None:
    """Sharp colours lose nothing on the way through RGB, in which every pixel has its own."""
    film = write_film(tmp_path / "in.mkv", [noise(n, 64, 64) for n in (1, 1, 2)], encoding=FAST)
    assert go(between, film, tmp_path / "out.mkv", "factor=2", "codec=ffv1", "cuts=false") == 0

    def planes(path: Path) -> list[list[np.ndarray]]:
        with av.open(str(path)) as container:
            return [
                [rows(plane, plane.height)[:, : plane.width].copy() for plane in frame.planes]
                for frame in container.decode(video=0)
            ]

    before, after = planes(film), planes(tmp_path / "out.mkv")
    # A hold, the interval in which it moves, and the last drawing, which is held.
    for number, source in enumerate((0, None, 1, None, 2, 2)):
        if source is not None:
            assert all((a == b).all() for a, b in zip(before[source], after[number], strict=True)), number
    assert not torch.equal(torch.from_numpy(after[3][0]), torch.from_numpy(after[2][0]))


@pytest.mark.parametrize(
    ("words", "rate", "count"),
    [
        (("factor=2.5",), Fraction(60000, 1001), 20),
        (("fps=60",), Fraction(60), 21),  # every k with k / 60 < 8 * 1001 / 24000
        (("fps=60000/1001",), Fraction(60000, 1001), 20),
        (("slowmo=4",), Fraction(24000, 1001), 32),
        (("slowmo=2.5", "fps=24"), Fraction(24), 21),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_grids_are_exact_in_the_file(
    between: Path,
    words: tuple[str, ...],
    rate: Fraction,
    count: int,
    suffix: str,
    tmp_path: Path,
) -> None:
    film = write_film(
        tmp_path / "in.mp4", [noise(n, 40, 52) for n in range(8)], fps=Fraction(24000, 1001), encoding=EXACT
    )
    target = tmp_path / f"out{suffix}"
    assert go(between, film, target, *words, "cuts=false", *WORDS) == 0
    reader = VideoReader(target)
    assert [time for _, time in reader] == [k / rate for k in range(count)]
    times = Fraction(words[0][7:]) if words[0].startswith("slowmo") else 1
    long = 8 * times * Fraction(1001, 24000)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert abs(stream.duration * stream.time_base - long) <= stream.time_base


def test_a_variable_rate_through_a_file(between: Path, tmp_path: Path) -> None:
    times = [Fraction(n, 1000) for n in (0, 100, 120, 400)]
    base, end = Fraction(1, 1000), Fraction(450, 1000)
    film = write_film(tmp_path / "in.mp4", [noise(n) for n in range(4)], times, encoding=EXACT, time_base=base, end=end)
    made = {}
    for words in (("factor=2",), ("factor=2.5",), ("fps=25",)):
        target = tmp_path / f"{words[0]}.mp4"
        assert go(between, film, target, *words, "cuts=false", *WORDS) == 0
        made[words[0]] = [1000 * time for _, time in VideoReader(target)]
    assert made["factor=2"] == [0, 50, 100, 110, 120, 260, 400, 425]
    assert made["factor=2.5"] == [0, 40, 80, 104, 112, 120, 232, 344, 410, 430]
    assert made["fps=25"] == [40 * k for k in range(12)]
