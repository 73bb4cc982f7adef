"""Videos through a model with a memory: constant memory, cuts without leak, and the style of stills."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from animegen.cli import stylize as verb
from animegen.errors import AnimegenError
from animegen.inference import application
from animegen.inference.display import Display
from animegen.inference.styles import encoded_style, style_files
from animegen.inference.stylist import Stylist
from animegen.inference.summary import Summary
from animegen.inference.targets import Job
from animegen.inference.videos import VideoSettings, stylize_videos
from animegen.media.images import read_image, to_float
from animegen.media.video.encoding import Encoding
from animegen.media.video.frames import VideoInfo
from animegen.media.video.opening import create_video, open_video
from animegen.models.temporal import TemporalAnime
from animegen.models.temporal.networks import AdaNorm, TemporalGenerator
from animegen.models.toy import Toy
from tests.support import refused, run_verb

STATM = Path("/proc/self/statm")


@pytest.fixture
def model() -> TemporalAnime:
    torch.manual_seed(0)
    generator = TemporalGenerator(width=0.125, blocks=1, encoder_blocks=(1, 1, 1))
    for module in generator.modules():
        if isinstance(module, AdaNorm):
            nn.init.normal_(module.affine.weight, std=0.3)
    with torch.no_grad():
        generator.memory.gamma.fill_(1.0)
    return TemporalAnime(generator, still_size=48).eval().requires_grad_(False)


def film(path: Path, frames: int, cut: int = -1, side: int = 32) -> None:
    generator = torch.Generator().manual_seed(0)
    looks = [torch.randint(256, (3, side, side), dtype=torch.uint8, generator=generator) for _ in range(2)]
    with create_video(path, VideoInfo(side, side, Fraction(24))) as writer:
        for n in range(frames):
            writer.write(looks[int(0 <= cut <= n)].roll(n, -1), Fraction(n, 24))
        writer.close(Fraction(frames, 24))


@pytest.mark.skipif(not STATM.exists(), reason="needs the numbers that Linux gives")
def test_three_hundred_frames_take_no_more_memory_than_sixty(model: TemporalAnime, tmp_path: Path) -> None:
    film(tmp_path / "in.mp4", 300, side=64)
    stylist, curve = Stylist(model), []

    def follow(pixels: Tensor, state: Any) -> tuple[Tensor, Any]:
        curve.append(int(STATM.read_text().split()[1]) * 4096 / 2**20)
        return stylist.follow(pixels, state)

    summary = Summary()
    with Display(1) as display:
        job = Job(tmp_path / "in.mp4", tmp_path / "out.mp4")
        stylize_videos([job], follow, VideoSettings(lambda *_: Encoding()), summary, display)
    assert summary.frames == len(curve) == 300
    assert sum(1 for _ in open_video(tmp_path / "out.mp4")) == 300
    blocks = [sum(curve[n : n + 30]) / 30 for n in range(60, 300, 30)]
    assert max(blocks) - min(blocks) < 6, blocks  # MiB


def test_at_a_cut_nothing_leaks(model: TemporalAnime) -> None:
    """The state is None at the beginning of a shot: what comes is that of the shot alone, to the bit."""
    generator = torch.Generator().manual_seed(1)
    shots = [torch.randint(256, (4, 3, 40, 56), dtype=torch.uint8, generator=generator) for _ in range(2)]
    stylist = Stylist(model)
    assert stylist.remembers

    def run(frames: list[Tensor], cut: int = -1) -> Tensor:
        state, drawn = None, []
        for n, pixels in enumerate(frames):
            picture, state = stylist.follow(pixels, None if n == cut else state)
            drawn.append(picture)
        return torch.stack(drawn)

    alone = run(list(shots[1]))
    assert torch.equal(run([*shots[0], *shots[1]], cut=4)[4:], alone)
    assert not torch.equal(run([*shots[0], *shots[1]])[4:], alone)


def still(path: Path, shade: int) -> Path:
    values = torch.randint(shade, (60, 80, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(shade))
    Image.fromarray(values.numpy()).save(path)
    return path


@pytest.fixture
def applied(model: TemporalAnime, monkeypatch: pytest.MonkeyPatch) -> TemporalAnime:
    monkeypatch.setattr(application, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(application, "resolve_checkpoint", lambda path, runs: Path(path))
    return model


def test_stills_choose_the_look(applied: TemporalAnime, tmp_path: Path) -> None:
    photo = still(tmp_path / "photo.png", 200)
    first, second = still(tmp_path / "a.png", 255), still(tmp_path / "b.png", 40)

    def run(name: str, *words: str) -> Tensor:
        given = ["checkpoint=x.ckpt", "device=cpu", f"input={photo}", f"output={tmp_path / name}"]
        assert run_verb(verb.main, *given, *words) == 0
        return read_image(tmp_path / name)

    plain, one, other = run("p.png"), run("1.png", f"style={first}"), run("2.png", f"style={second}")
    both = run("b.png.png", f"style=[{first},{second}]", "style_weights=[1,0]")
    assert not torch.equal(plain, one)
    assert not torch.equal(one, other)
    assert (both.int() - one.int()).abs().max() <= 1
    # As the model itself has it.
    style = applied.encode_style([to_float(read_image(first))])
    direct = applied.stylize(to_float(read_image(photo))[None], None, style)[0]
    assert (to_float(one) - direct[0]).abs().max() < 2 / 127
    film(tmp_path / "in.mp4", 4)
    film_words = [f"input={tmp_path / 'in.mp4'}", f"output={tmp_path / 'frames'}", f"style={first}", "cuts=false"]
    assert run_verb(verb.main, "checkpoint=x.ckpt", "device=cpu", *film_words) == 0
    assert len(list((tmp_path / "frames").rglob("*.png"))) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["style={folder}/none.png"], "does not exist"),
        (["style={folder}/a.png", "style_weights=[1,2]"], "style_weights has 2 numbers for 1 stills"),
        (["style_weights=[1]"], "belongs to style images"),
        (["style={folder}/a.png", "style_weights=[0]"], "cannot be blended"),
    ],
)
def test_styles_that_cannot_be(
    words: list[str], message: str, applied: TemporalAnime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still(tmp_path / "a.png", 255)
    words = [word.format(folder=tmp_path) for word in words]
    given = ["checkpoint=x.ckpt", "device=cpu", f"input={tmp_path / 'a.png'}", f"output={tmp_path / 'out.png'}"]
    assert message in refused(capsys, run_verb(verb.main, *given, *words))
    assert not (tmp_path / "out.png").exists()


def test_a_model_of_one_look_says_so(tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match="Toy has only the style"):
        encoded_style(Toy(nn.Identity()), [still(tmp_path / "a.png", 9)], None)


def test_a_folder_of_stills(tmp_path: Path) -> None:
    files = [still(tmp_path / name, 99) for name in ("a.png", "b.png")]
    assert style_files(str(tmp_path)) == files
    assert style_files([str(files[1]), str(tmp_path)]) == [files[1], *files]
