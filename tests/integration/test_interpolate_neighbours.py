"""``animegen interpolate method=dis`` with the frames before and after each pair."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from animegen.cli import interpolate as verb
from animegen.inference import classical
from animegen.inference.classical import ClassicalInterpolator, EncodedFrames
from animegen.inference.inbetweener import Inbetweener
from animegen.inference.selfcheck import SelfCheckBenchmark, left_out, with_neighbours
from animegen.inference.timegrid import Neighbour
from animegen.media.images import read_image, to_float, to_uint8, write_image
from animegen.media.video.flow import flow_estimates
from animegen.media.video.frames import Original
from animegen.media.video.reader import VideoReader
from animegen.toonworld import ToonWorldImages
from tests.support import run_verb
from tests.video_support import EXACT, write_film

WORDS = ("method=dis", "device=cpu", "threads=1", "codec=libx264rgb", "crf=0", "pix_fmt=rgb24")
SHOT = 8


@pytest.fixture(scope="module")
def frames() -> list[Tensor]:
    source = ToonWorldImages("meadow", "val", scenes=1, frames_per_scene=SHOT, frames=SHOT, size=(64, 80), speed=0.6)
    return [source.image(n) for n in range(SHOT)]


@pytest.fixture(scope="module")
def film(frames: list[Tensor], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[Tensor]]]:
    """A film of two shots, and its runs of drawings: in the second shot the fourth drawing is held."""
    other = [255 - frame for frame in reversed(frames)]
    path = tmp_path_factory.mktemp("film") / "in.mkv"
    write_film(path, [*frames, *other[:4], *other[3:]], encoding=EXACT)
    return path, [frames, other[:4], other[3:]]


def between(drawings: list[Tensor], t: float) -> list[Tensor]:
    """Return what belongs between the drawings of a run, each pair with its neighbours."""
    model = ClassicalInterpolator(flow=True)
    with torch.no_grad():
        pairs: list[EncodedFrames | None] = [None]
        pairs += [model.encode_pair(to_float(a[None]), to_float(b[None])) for a, b in pairwise(drawings)]
        pairs.append(None)
        drawn = []
        for before, pair, after in zip(pairs, pairs[1:], pairs[2:], strict=False):
            assert pair is not None
            beside = [None if other is None else (other, 1.0) for other in (before, after)]
            drawn.append(to_uint8(model.synthesize(model.encode_among(pair, *beside), torch.tensor([t])))[0])
    return drawn


def read(path: Path) -> list[Tensor]:
    return [pixels for pixels, _ in VideoReader(path)]


def test_a_film_is_drawn_pair_by_pair_as_whole_runs_are(film: tuple[Path, list[list[Tensor]]], tmp_path: Path) -> None:
    path, runs = film
    assert run_verb(verb.main, f"input={path}", f"output={tmp_path / 'out.mkv'}", "factor=4", *WORDS) == 0
    made = read(tmp_path / "out.mkv")
    assert len(made) == 4 * 17
    begin = 0
    for run in runs:
        for k in (1, 2, 3):
            expected = between(run, k / 4)
            found = made[begin + k : begin + 4 * len(expected) : 4]
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        begin += 4 * len(run)
    plain = tmp_path / "plain.mkv"
    assert run_verb(verb.main, f"input={path}", f"output={plain}", "factor=4", "neighbours=false", *WORDS) == 0
    same = [torch.equal(a, b) for a, b in zip(made, read(plain), strict=True)]
    assert all(same[::4])
    assert not any(same[2 : 4 * SHOT - 4 : 4])


def test_a_film_that_is_continued_is_the_same(
    film: tuple[Path, list[list[Tensor]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = film
    assert run_verb(verb.main, f"input={path}", f"output={tmp_path / 'whole.mkv'}", *WORDS) == 0
    draw, drawn = Inbetweener.__call__, 0

    class KilledError(BaseException):
        pass

    def dies(self: Inbetweener, *pair: object) -> Tensor | None:
        nonlocal drawn
        drawn += 1
        if drawn == SHOT + 2:  # in the second shot
            raise KilledError
        return draw(self, *pair)  # type: ignore[arg-type]

    monkeypatch.setattr(Inbetweener, "__call__", dies)
    with pytest.raises(KilledError):
        run_verb(verb.main, f"input={path}", f"output={tmp_path / 'out.mkv'}", *WORDS)
    assert (tmp_path / "out.mkv.partial/00001.mkv").exists() or list((tmp_path / "out.mkv.partial").glob("00001.*"))
    assert run_verb(verb.main, f"input={path}", f"output={tmp_path / 'out.mkv'}", *WORDS) == 0
    whole, mine = read(tmp_path / "whole.mkv"), read(tmp_path / "out.mkv")
    assert all(torch.equal(a, b) for a, b in zip(whole, mine, strict=True))
    assert drawn == SHOT + 2 + 7  # the first shot is not drawn again


def test_images_have_neighbours_too(frames: list[Tensor], tmp_path: Path) -> None:
    for number, frame in enumerate(frames[:4]):
        write_image(tmp_path / f"in/{number}.png", frame)
    names = ",".join(str(tmp_path / f"in/{number}.png") for number in range(4))
    for source, target in ((tmp_path / "in", "folder"), (f"[{names}]", "list")):
        words = ("method=dis", "device=cpu", "threads=1", "cuts=false")
        assert run_verb(verb.main, f"input={source}", f"output={tmp_path / target}", *words) == 0
        made = [read_image(tmp_path / target / f"{number:06}.png") for number in (2, 4, 6)]
        assert all(torch.equal(a, b) for a, b in zip(made, between(frames[:4], 0.5), strict=True))


class Counting(ClassicalInterpolator):
    """Counts the pairs whose flow it estimates."""

    pairs = 0

    def encode_pair(self, first: Tensor, last: Tensor) -> EncodedFrames:
        self.pairs += 1
        return super().encode_pair(first, last)


def draw_all(draw: Inbetweener, frames: list[Original]) -> list[Tensor]:
    """Draw twice between all frames."""
    drawn = []
    for n in range(len(frames) - 1):
        before = Neighbour(frames[n - 1], 1.0) if n else None
        after = Neighbour(frames[n + 2], 1.0) if n + 2 < len(frames) else None
        for t in (0.25, 0.75):
            image = draw(frames[n], frames[n + 1], t, before, after)
            assert image is not None
            drawn.append(image)
    return drawn


def test_each_pair_is_estimated_once(frames: list[Tensor]) -> None:
    model = Counting(flow=True)
    drawn = draw_all(Inbetweener(model), [Original(frame) for frame in frames[:5]])
    assert model.pairs == 4
    assert all(torch.equal(a, b) for a, b in zip(drawn[::2], between(frames[:5], 0.25), strict=True))


def test_a_film_at_eight_times_its_rate_costs_one_estimate_per_pair(
    film: tuple[Path, list[list[Tensor]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, runs = film
    estimated: list[tuple[Tensor, Tensor]] = []

    def counted(first: Tensor, last: Tensor, count: int) -> Tensor:
        estimated.append((first, last))
        return flow_estimates(first, last, count=count)

    monkeypatch.setattr(classical, "flow_estimates", counted)
    drawn = []
    for factor in (2, 8):
        estimated.clear()
        output = tmp_path / f"{factor}.mkv"
        assert run_verb(verb.main, f"input={path}", f"output={output}", f"factor={factor}", *WORDS) == 0
        assert len(estimated) == sum(len(run) - 1 for run in runs) == 14
        assert not any(torch.equal(torch.cat(one), torch.cat(other)) for one, other in combinations(estimated, 2))
        drawn.append(read(output))
    assert (len(drawn[0]), len(drawn[1])) == (2 * 17, 8 * 17)
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1][::4], strict=True))


def test_alpha_follows_the_same_rules(frames: list[Tensor]) -> None:
    model = Counting(flow=True)
    clear = [Original(frame, alpha=frame[0]) for frame in frames[:4]]
    drawn = draw_all(Inbetweener(model), clear)
    assert model.pairs == 6
    greys = [frame[:1].expand(3, -1, -1) for frame in frames[:4]]
    for image, colours, alpha in zip(drawn[::2], between(frames[:4], 0.25), between(greys, 0.25), strict=True):
        assert torch.equal(image[:3], colours)
        assert torch.equal(image[3], alpha.float().mean(0).round().to(torch.uint8))


def test_neighbours_that_match_too_little_do_not_count(frames: list[Tensor]) -> None:
    first, last, other = (Original(frame) for frame in (frames[0], frames[1], 255 - frames[0].flip(2)))
    plain = Inbetweener(ClassicalInterpolator(flow=True))(first, last, 0.5)
    beside = Neighbour(other, 1.0)
    strict = Inbetweener(ClassicalInterpolator(flow=True), confidence=0.5)
    found = strict(first, last, 0.5, beside, beside)
    assert plain is not None
    assert found is not None
    assert torch.equal(found, plain)


def test_selfcheck_uses_the_drawings_beside(
    film: tuple[Path, list[list[Tensor]]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, runs = film
    triples = list(with_neighbours(left_out(VideoReader(path), {SHOT})))
    assert [(before is None, after is None) for before, _, after in triples[:3]] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    before, _, after = triples[1]
    assert before is not None
    assert after is not None
    assert torch.equal(before[0], runs[0][0])
    assert torch.equal(after[0], runs[0][6])
    model, device = ClassicalInterpolator(flow=True), torch.device("cpu")
    benchmark = SelfCheckBenchmark(VideoReader(path), {SHOT}, 9, neighbours=True)
    batch = list(benchmark.batches(device))[1]
    with torch.no_grad():
        drawn = to_uint8(benchmark.apply(benchmark.method_of(model), batch))[0]
    assert torch.equal(drawn, between(runs[0][::2], 0.5)[1])
    found = {}
    for neighbours in (True, False):
        benchmark = SelfCheckBenchmark(VideoReader(path), {SHOT}, 9, neighbours)
        found[neighbours] = benchmark.evaluate({"model": benchmark.method_of(model)}, device)
    assert found[False]["model"]["psnr"] == found[False]["warp_dis_averaged"]["psnr"]
    assert found[True]["warp_dis_averaged"]["psnr"] == found[False]["warp_dis_averaged"]["psnr"]
    assert found[True]["model"]["psnr"] != found[False]["model"]["psnr"]
    words = ("method=dis", "selfcheck=true", "device=cpu")
    for neighbours in (True, False):
        assert run_verb(verb.main, f"input={path}", f"neighbours={str(neighbours).lower()}", *words) == 0
        assert f"{found[neighbours]['model']['psnr']['mean']:.2f}" in capsys.readouterr().out
