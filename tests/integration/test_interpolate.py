"""``animegen interpolate``: pictures and films through the real command."""

from __future__ import annotations

import re
import weakref
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from animegen.cli import interpolate as verb
from animegen.inference import inbetween
from animegen.inference.confidence import Confidence
from animegen.inference.inbetween import same_drawing
from animegen.inference.inbetweener import Inbetweener
from animegen.inference.pair_tiles import KEPT, TiledPair
from animegen.inference.selfcheck import SelfCheckBenchmark, left_out
from animegen.inference.timegrid import Grid
from animegen.media.images import read_image, write_image
from animegen.media.video.frames import Original
from animegen.media.video.reader import VideoReader
from animegen.toonworld import ToonWorldImages
from tests.support import refused, run_verb
from tests.video_support import EXACT, level, noise, other_packets, with_sound, write_film


@pytest.fixture(scope="module")
def frames() -> list[torch.Tensor]:
    source = ToonWorldImages("meadow", "val", scenes=1, frames_per_scene=4, frames=4, size=(40, 52), speed=0.6)
    return [source.image(n) for n in range(4)]


def go(between: Path, source: str, target: Path, *words: str) -> int:
    return run_verb(verb.main, f"checkpoint={between}", f"input={source}", f"output={target}", "device=cpu", *words)


def test_two_pictures(between: Path, frames: list[torch.Tensor], tmp_path: Path) -> None:
    for name, frame in zip(("a.png", "b, c.png"), frames, strict=False):
        write_image(tmp_path / name.replace(",", ""), frame)
    pair = f"[{tmp_path / 'a.png'},{tmp_path / 'b c.png'}]"
    assert go(between, pair, tmp_path / "out", "factor=4") == 0
    made = [read_image(tmp_path / f"out/{n:06}.png") for n in range(1, 6)]
    assert not (tmp_path / "out/000006.png").exists()
    assert torch.equal(made[0], frames[0])
    assert torch.equal(made[4], frames[1])
    for n in (1, 2, 3):
        blend = frames[0].float().lerp(frames[1].float(), n / 4)
        assert (made[n].float() - blend).abs().mean() < 12
        assert not torch.equal(made[n], made[n - 1])


def test_a_folder_of_frames_with_holds_becomes_a_film(
    between: Path, frames: list[torch.Tensor], tmp_path: Path
) -> None:
    for n, k in enumerate((0, 0, 1, 1)):
        write_image(tmp_path / f"in/{n}.png", frames[k])
    words = ("input_fps=12", "codec=libx264rgb", "crf=0", "pix_fmt=rgb24", "cuts=false")
    assert go(between, str(tmp_path / "in"), tmp_path / "out.mkv", *words) == 0
    made = list(VideoReader(tmp_path / "out.mkv"))
    assert [round(float(time), 3) for _, time in made] == [round(n / 24, 3) for n in range(8)]
    # Held drawings stay; what is new stands in the last interval before the change alone.
    assert [torch.equal(pixels, frames[0]) for pixels, _ in made] == [True] * 3 + [False] * 5
    assert [torch.equal(pixels, frames[1]) for pixels, _ in made] == [False] * 4 + [True] * 4


def test_a_film_keeps_its_times_its_cut_and_its_length(
    between: Path, frames: list[torch.Tensor], tmp_path: Path
) -> None:
    dark = [(f // 4) for f in frames]
    film = write_film(tmp_path / "in.mp4", [*frames, *frames, *dark, *dark], fps=Fraction(24000, 1001), encoding=EXACT)
    words = ("fps=60", "codec=libx264rgb", "crf=0", "pix_fmt=rgb24")
    assert go(between, str(film), tmp_path / "out.mp4", *words) == 0
    made = list(VideoReader(tmp_path / "out.mp4"))
    end = 16 / Fraction(24000, 1001)
    assert [time for _, time in made] == [Fraction(k, 60) for k in range(len(made))]
    assert len(made) == -(-end * 60 // 1)
    means = [pixels.float().mean().item() for pixels, _ in made]
    bright, night = frames[0].float().mean().item(), dark[0].float().mean().item()
    # Nothing is drawn across the cut: no frame lies between day and night.
    assert all(abs(m - bright) < 15 or abs(m - night) < 8 for m in means)


def test_a_flash_is_not_blended_into_the_frames_beside_it(
    between: Path, frames: list[torch.Tensor], tmp_path: Path
) -> None:
    white = torch.full_like(frames[0], 255)
    film = write_film(tmp_path / "in.mkv", [*frames, white, white - 3, *frames[1:]], encoding=EXACT)
    assert go(between, str(film), tmp_path / "out.mkv", "factor=2", *WORDS) == 0
    made = [pixels for pixels, _ in VideoReader(tmp_path / "out.mkv")]
    assert len(made) == 18
    # The last frame before, and the last of the flash, are held; beside them it is drawn.
    assert torch.equal(made[6], frames[3])
    assert torch.equal(made[7], frames[3])
    assert torch.equal(made[8], white)
    assert torch.equal(made[11], white - 3)
    assert torch.equal(made[12], frames[1])
    assert not torch.equal(made[5], made[4])
    assert not torch.equal(made[13], made[12])


def test_the_same_drawing_is_known_under_noise_and_a_blink_is_another(frames: list[torch.Tensor]) -> None:
    noise = torch.randint(-2, 3, frames[0].shape, generator=torch.Generator().manual_seed(0))
    assert same_drawing(frames[0], (frames[0].int() + noise).clamp(0, 255).to(torch.uint8))
    assert not same_drawing(frames[0], frames[1])
    blink = frames[0].clone()
    blink[:, 20:23, 20:24] = 255 - blink[:, 20:23, 20:24]
    assert not same_drawing(frames[0], blink)
    assert same_drawing(level(10), level(10))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["input={a}", "output={t}/o"], "is one image: name two"),
        (["input=[{a}]", "output={t}/o"], "is one image: name two"),
        (["input={t}/none", "output={t}/o"], "does not exist"),
        (["input=[{a},{b}]", "output={t}/o"], "different sizes"),
        (
            ["input=[{a},{a}]", "output={t}/o", "factor=1"],
            "factor=1 is not valid",
        ),
        (["input=[{a},{a}]", "output={t}/o", "factor=2", "fps=60"], "contradict each other"),
        (["input=[{a},{a}]", "output={t}/o", "fps=fast"], "fps=fast is not valid"),
        (["input=[{a},{a}]", "output={t}/o", "factor=twice"], "factor=twice is not valid"),
        (["input=[{a},{a}]", "output={t}/o", "slowmo=0.5"], "slowmo=0.5 is not valid"),
        (["input=[{a},{a}]", "output={t}/o", "slowmo=4"], "the rate of images is input_fps="),
        (["input=[{a},{a}]", "output={t}/x.png"], "neither a video"),
        (["input=[{a},{a}]", "output={t}"], "exists"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    between: Path, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "a.png", level(50))
    write_image(tmp_path / "b.png", level(50, 20, 20))
    before = sorted(tmp_path.iterdir())
    filled = [word.format(a=tmp_path / "a.png", b=tmp_path / "b.png", t=tmp_path) for word in words]
    assert message in refused(capsys, run_verb(verb.main, f"checkpoint={between}", *filled))
    assert sorted(tmp_path.iterdir()) == before


WORDS = ("codec=libx264rgb", "crf=0", "pix_fmt=rgb24")


def shots_film(path: Path, frames: list[torch.Tensor]) -> Path:
    """Write a film of three shots that differ much, of four frames held twice each."""
    shots = [frames, [255 - f for f in frames], [f // 5 for f in frames]]
    held = [frame for shot in shots for frame in shot for _ in range(2)]
    return write_film(path, held, encoding=EXACT)


def test_a_killed_run_goes_on_after_its_last_shot(
    between: Path,
    frames: list[torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    film = shots_film(tmp_path / "in.mkv", frames)
    words = ("fps=60", *WORDS)
    assert go(between, str(film), tmp_path / "whole.mp4", *words) == 0
    whole_drawn = int(re.search(r"(\d+) of them drawn", capsys.readouterr().out).group(1))  # type: ignore[union-attr]
    first_shot = whole_drawn // 3
    drawn: list[int] = []
    draw = Inbetweener.__call__

    class KilledError(BaseException):
        pass

    def dies(self: Inbetweener, *pair: object) -> torch.Tensor:
        drawn.append(1)
        if len(drawn) == 10:
            raise KilledError
        return draw(self, *pair)  # type: ignore[arg-type]

    monkeypatch.setattr(Inbetweener, "__call__", dies)
    with pytest.raises(KilledError):
        go(between, str(film), tmp_path / "out.mp4", *words)
    assert not (tmp_path / "out.mp4").exists()
    assert (tmp_path / "out.mp4.partial/00001.mp4").exists()
    first = len(drawn)
    assert go(between, str(film), tmp_path / "out.mp4", *words) == 0
    assert "is resumed after frame" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4.partial").exists()
    whole, mine = (list(VideoReader(tmp_path / name)) for name in ("whole.mp4", "out.mp4"))
    assert [time for _, time in whole] == [time for _, time in mine]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(whole, mine, strict=True))
    # Nothing of the first shot is drawn again.
    assert first == 10
    assert len(drawn) - first == whole_drawn - first_shot
    assert whole[-1][1] == Fraction(len(whole) - 1, 60)


def test_holds_auto_spreads_motion_in_shots_on_twos(between: Path, frames: list[torch.Tensor], tmp_path: Path) -> None:
    ones = [*frames, *reversed(frames[:-1])]
    twos = [frame // 3 for frame in ones for _ in range(2)]
    film = write_film(tmp_path / "in.mkv", [*ones, *twos], encoding=EXACT)
    made = {}
    for holds in ("keep", "smooth", "auto"):
        target = tmp_path / f"{holds}.mkv"
        assert go(between, str(film), target, "factor=2", f"holds={holds}", *WORDS) == 0
        made[holds] = [pixels for pixels, _ in VideoReader(target)]
    cut = 2 * len(ones)
    assert len({len(clip) for clip in made.values()}) == 1
    same = [torch.equal(a, b) for a, b in zip(made["auto"], made["smooth"], strict=True)]
    assert all(same[cut:])
    kept = [torch.equal(a, b) for a, b in zip(made["auto"], made["keep"], strict=True)]
    assert all(kept[:cut])
    assert not all(kept[cut:])


def test_pairs_that_do_not_match_are_held(between: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png", noise(1, 64, 64))
    write_image(tmp_path / "b.png", noise(2, 64, 64))
    pair = f"[{tmp_path / 'a.png'},{tmp_path / 'b.png'}]"
    assert go(between, pair, tmp_path / "out", "factor=3", "confidence=0.5") == 0
    assert "0 of them drawn, 2 held since their pairs match too little" in capsys.readouterr().out
    made = [read_image(tmp_path / f"out/{n:06}.png") for n in range(1, 5)]
    assert torch.equal(made[2], noise(1, 64, 64))
    assert torch.equal(made[3], noise(2, 64, 64))
    assert "confidence=2 is not valid" in refused(capsys, go(between, pair, tmp_path / "o2", "confidence=2"))
    assert "tile=9" in refused(capsys, go(between, pair, tmp_path / "o2", "tile=9"))


def test_the_confidence_of_a_shifted_picture_is_high_and_of_another_low() -> None:
    smooth = torch.nn.functional.interpolate(noise(3, 12, 16)[None], (120, 160), mode="bicubic")[0]
    moved = torch.roll(smooth, 3, 2)
    measure = Confidence()
    assert measure(smooth, smooth) == 1.0
    assert measure(smooth, moved) > 0.85
    assert measure(noise(1, 120, 160), noise(2, 120, 160)) < 0.2


class Local:
    """An interpolator whose result at a pixel depends on its surroundings, 5 pixels wide."""

    size_divisor = 1

    def encode_pair(self, first: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return first, last

    def synthesize(self, encoded: tuple[torch.Tensor, torch.Tensor], t: torch.Tensor) -> torch.Tensor:
        mixed = torch.lerp(*encoded, t.view(-1, 1, 1, 1))
        return torch.nn.functional.avg_pool2d(mixed, 5, 1, 2, count_include_pad=False)


@pytest.mark.parametrize("size", [(300, 500), (129, 128), (128, 600)])
def test_tiles_give_the_same_frame_as_one_piece(size: tuple[int, int]) -> None:
    first, last = noise(1, *size), noise(2, *size)
    whole, tiled = (Inbetweener(Local(), tile=t)(Original(first), Original(last), 0.25) for t in (0, 128))
    assert whole is not None
    assert tiled is not None
    # Only what a tile does not see beyond its edge differs, and there it hardly counts.
    gap = (whole.int() - tiled.int()).abs()
    assert gap.float().mean() < 0.02
    assert gap.max() <= 2
    white = Original(torch.empty(3, *size, dtype=torch.uint8), refine=lambda: torch.ones(3, *size))
    pair = TiledPair(Local(), white, white, 128, torch.device("cpu"))
    assert torch.allclose(pair.at(0.5), torch.ones(3, *size), atol=1e-6)


def test_only_a_few_encoded_tiles_are_kept() -> None:
    class Counts(Local):
        calls = 0

        def encode_pair(self, first: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.calls += 1
            return first, last

    model, first, last = Counts(), Original(noise(1, 300, 500)), Original(noise(2, 300, 500))
    pair = TiledPair(model, first, last, 128, torch.device("cpu"))
    tiles = len(pair.rows) * len(pair.columns)
    frames = [pair.at(0.5) for _ in range(3)]
    assert model.calls == tiles + 2 * (tiles - KEPT) > 2 * KEPT
    assert torch.equal(frames[0], frames[2])


def test_selfcheck_scores_the_drawings_that_it_leaves_out(
    between: Path, frames: list[torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = shots_film(tmp_path / "in.mkv", frames)
    reader = VideoReader(film)
    triples = list(left_out(reader, {8, 16}))
    assert len(triples) == 3  # of four drawings per shot one has both neighbours and is second
    first, middle, last = triples[1]
    assert [round(time * 24) for _, time in (first, middle, last)] == [8, 10, 12]
    assert torch.equal(middle[0], 255 - frames[1])
    assert go_check(between, film, "samples=2") == 0
    text = capsys.readouterr().out
    assert "2 of 3 were compared" in text
    assert all(name in text for name in ("nearest", "blend", "warp_dis", "model"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv"]
    benchmark = SelfCheckBenchmark(reader, {8, 16}, 2)
    assert [batch["t"].item() for batch in benchmark.batches(torch.device("cpu"))] == pytest.approx(
        [0.5, 0.5], abs=0.01
    )
    still = write_film(tmp_path / "still.mkv", [frames[0]] * 4, encoding=EXACT)
    assert "three different drawings" in refused(capsys, go_check(between, still))
    without = run_verb(verb.main, f"checkpoint={between}", f"input={film}")
    assert "Missing on the command line: output=" in refused(capsys, without)


def go_check(between: Path, film: Path, *words: str) -> int:
    return run_verb(verb.main, f"checkpoint={between}", f"input={film}", "device=cpu", "selfcheck=true", *words)


def with_text(path: Path, film: Path) -> Path:
    """Write a film again, with two subtitles."""
    with av.open(str(film)) as source, av.open(str(path), "w") as container:
        copies = {stream.index: container.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        text = container.add_mux_stream("subrip")
        text.time_base = Fraction(1, 1000)
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                container.mux(packet)
        for number, line in enumerate((b"hello", b"you")):
            packet = av.Packet(line)
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = 100 + 500 * number
            packet.duration = 400
            container.mux(packet)
    return path


def test_sound_subtitles_and_length_stay(between: Path, frames: list[torch.Tensor], tmp_path: Path) -> None:
    sound = with_sound(tmp_path / "sound.mp4")
    film = with_text(
        tmp_path / "in.mkv", write_film(tmp_path / "silent.mkv", frames * 6, encoding=EXACT, copy_from=sound)
    )
    assert go(between, str(film), tmp_path / "out.mkv", "factor=2", *WORDS) == 0
    for kind, count in (("audio", 10), ("subtitle", 2)):
        before, after = (other_packets(tmp_path / name, kind) for name in ("in.mkv", "out.mkv"))
        assert len(before) >= count
        assert [content for content, _ in before] == [content for content, _ in after]
    before, made = (list(VideoReader(tmp_path / name)) for name in ("in.mkv", "out.mkv"))
    assert len(made) == 2 * len(before) == 48
    assert made[0][1] == before[0][1]  # the sound begins a little earlier
    assert abs(made[-1][1] + Fraction(1, 48) - before[-1][1] - Fraction(1, 24)) < Fraction(1, 24)


def test_a_constant_film_stays_constant(between: Path, tmp_path: Path) -> None:
    film = write_film(tmp_path / "in.mp4", [level(123, 32, 48)] * 6)
    before = next(iter(VideoReader(film)))[0]
    assert go(between, str(film), tmp_path / "out.mp4", "factor=2", "crf=0") == 0
    assert all((pixels.int() - before.int()).abs().max() <= 1 for pixels, _ in VideoReader(tmp_path / "out.mp4"))


def test_a_long_film_holds_few_frames_at_a_time(tmp_path: Path) -> None:
    """2,000 frames that all differ pass with no more than a handful alive, whatever the holds."""
    alive: list[weakref.ref] = []
    most = 0

    class Stream(inbetween.ImageReader):
        def __init__(self) -> None:
            self.path, self.files, self.problems, self.end = tmp_path, [], [], Fraction(2000, 24)

        def frames(self, start: object = None, stop: object = None):
            nonlocal most
            for number in range(2000):
                frame = level(0, 16, 16)
                frame[:, :, : 1 + number // 2 % 16] = 255  # on twos
                alive.append(weakref.ref(frame))
                if number % 50 == 0:
                    most = max(most, sum(ref() is not None for ref in alive[-200:]))
                yield frame, Fraction(number, 24)

    reader, draw = Stream(), Inbetweener(Local())
    plan = inbetween.VideoPlan(Grid(factor=2), "smooth", cuts=False)
    count = 0
    for frame in inbetween._between(reader, plan, [(0, 2000)], [0], [], True):
        if frame.last is not None:
            draw(frame.first, frame.last, float(frame.t))
        count += 1
    assert count == 4000
    assert most <= 8
