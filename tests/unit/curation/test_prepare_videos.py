"""``animegen prepare input=...``: what is measured, what the rules choose, and what is written."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor

from animegen.cli import prepare
from animegen.curation.dataset import divide, find_repeats, held_out
from animegen.curation.facts import Bars, Facts, measure, unlike
from animegen.curation.options import Rules
from animegen.curation.rules import choose
from animegen.curation.videos import movies_of
from animegen.data.clips import EpisodeFolders, TripletFolders
from animegen.errors import AnimegenError
from animegen.locks import LOCK, locked
from tests.support import refused, run_verb
from tests.video_support import EXACT, level, write_film


def scene(number: int, shift: int = 0, height: int = 64, width: int = 96) -> Tensor:
    """Return a smooth random image of its own, moved to the right by some pixels."""
    generator = torch.Generator().manual_seed(number)
    coarse = torch.randint(0, 256, (3, 6, 16), generator=generator, dtype=torch.uint8).permute(1, 2, 0).numpy()
    wide = cv2.resize(coarse, (width + 64, height), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(wide[:, 32 - shift : 32 - shift + width].copy()).permute(2, 0, 1)


def facts(text: str, **changes: object) -> list[Facts]:
    """Return facts of frames: a new letter is a new drawing; ``|`` begins a shot."""
    found: list[Facts] = []
    shot, known, letter, number = 0, None, "", 0
    for mark in text:
        if mark == "|":
            shot, known, letter = shot + 1, None, ""
            continue
        time = Fraction(number, 24)
        if mark == letter:
            found.append(Facts(number, time, shot, 100, 30, 2.0))
        else:
            same = None if known is None else -5.0
            values = {"luma": 100.0, "jump": 0.0, "motion": 0.01, "unexplained": 1.0} | changes.get(mark, {})  # type: ignore[operator]
            luma = values.pop("luma")
            found.append(Facts(number, time, shot, luma, 30, same, True, known, look=number, **values))  # type: ignore[arg-type]
            letter, known = mark, number
        number += 1
    return found


def fates(text: str, rules: Rules, **changes: object) -> str:
    """Return the fate of each frame by its first two letters."""
    choice = choose(facts(text, **changes), rules)
    return " ".join(choice.fates[n][:2] for n in range(len(text.replace("|", ""))))


SHORT = Rules(length=[3, 4])


def test_held_drawings_are_left_out_and_shots_are_not_mixed() -> None:
    assert fates("aabbcc|de", SHORT) == "ke he ke he ke he sh sh"
    clips = choose(facts("aabbcc|def"), SHORT).clips
    assert [[fact.number for fact in clip.frames] for clip in clips] == [[0, 2, 4], [6, 7, 8]]


def test_every_fault_has_its_name() -> None:
    dark = {"c": {"luma": 3.0}}
    assert fates("abcdef", SHORT, **dark) == "da da da ke ke ke"
    assert fates("abcdef", SHORT, c={"luma": 250.0}) == "br br br ke ke ke"
    # A bad pair divides the shot; what is too short then tells why.
    assert fates("abcdef", SHORT, c={"motion": 0.4}) == "fa fa ke ke ke ke"
    assert fates("abcdef", SHORT, c={"unexplained": 30.0}) == "un un ke ke ke ke"
    assert fates("abcdef", SHORT, c={"jump": -20.0}) == "fl fl ke ke ke ke"
    still = {mark: {"motion": 0.0002} for mark in "abcd"}
    assert fates("abcd", SHORT, **still) == "st st st st"
    # A pause of four frames after drawings on ones.
    assert fates("abccccde", SHORT) == "ke ke ke he he he un un"
    assert fates("abcccc", Rules(length=[3, 4], uneven=4.0)) == "ke ke ke he he he"


def test_long_pieces_are_divided_evenly_and_the_rest_is_reported() -> None:
    assert [len(c.frames) for c in choose(facts("abcdefghij"), Rules(length=[3, 4])).clips] == [3, 3, 4]
    choice = choose(facts("abcdefg"), Rules(length=[4, 5]))
    assert [len(c.frames) for c in choice.clips] == [5]
    assert [choice.fates[n] for n in (5, 6)] == ["rest", "rest"]
    capped = choose(facts("abcdefghijkl"), Rules(length=[3, 3], per_shot=2))
    assert [c.frames[0].number for c in capped.clips] == [3, 9]
    assert capped.fates[0] == "cap"
    assert choice.counts(10)["skipped"] == 3
    with pytest.raises(AnimegenError, match=r"length=\[2,9\] is not valid"):
        Rules(length=[2, 9])


def test_motion_brightness_and_bars_are_measured() -> None:
    frames = [scene(1, 4 * n) for n in range(3)] + [scene(1, 8)] + [scene(2)]
    for frame in frames:
        frame[:, :8] = 0
    bars = Bars()
    found = list(measure([(f, Fraction(n)) for n, f in enumerate(frames)], [(0, 4), (4, 5)], bars=bars))
    assert bars.box() == (8, 64, 0, 96)
    assert [fact.shot for fact in found] == [0, 0, 0, 0, 1]
    assert [fact.drawing for fact in found] == [True, True, True, False, True]
    assert found[1].motion == pytest.approx(4 / 96, rel=0.25)
    assert found[1].unexplained < 3
    assert found[2].before == 1
    grey = cv2.cvtColor(frames[0].permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2GRAY)
    assert found[0].luma == pytest.approx(grey.mean(), abs=0.01)
    dissolve = [(scene(3), Fraction(0)), (scene(4), Fraction(1))]
    assert list(measure(dissolve, [(0, 2)]))[1].unexplained > 20
    taken = list(measure([(f, Fraction(n)) for n, f in enumerate(frames)], [(0, 4), (4, 5)], every=2))
    assert [fact.number for fact in taken] == [0, 2, 4]
    assert unlike(found[0].look, found[3].look) < unlike(found[0].look, found[4].look)


def test_repeats_are_found_and_videos_divided() -> None:
    def clip(name: str, shot: int, *looks: int) -> dict:
        film = name.split("/")[0]
        return {"name": name, "video": film, "movie": film, "shot": shot, "looks": [f"{look:016x}" for look in looks]}

    clips = [clip("a/1", 0, 0, 0, 0), clip("a/2", 1, 0, 0, 255), clip("b/1", 0, 1, 3, 0)]
    assert find_repeats(clips, 4) == {"b/1": "a/1"}
    assert find_repeats(clips, 8) == {"a/2": "a/1", "b/1": "a/1"}
    assert find_repeats(clips, None) == {}
    same = [clip("a/1", 0, 0, 0, 0), clip("a/2", 0, 1, 0, 2), clip("a/3", 0, 0, 0, 0)]
    assert find_repeats(same, 4) == {"a/3": "a/1"}  # in a shot only a cycle that is shown again
    many = [clip(f"{film}/{n}", n, n) for film in "abcdefgh" for n in range(4)]
    sides, by_film = divide(many, 0.1)
    films = {side: {name[0] for name in names} for side, names in sides.items()}
    assert by_film
    assert [len(films[side]) for side in ("train", "val", "test")] == [6, 1, 1]
    assert len(set.union(*films.values())) == 8
    one, by_film = divide([c for c in many if c["video"] == "a"], 0.1)
    assert not by_film
    assert one == {"train": ["a/0", "a/1"], "val": ["a/2"], "test": ["a/3"]}


def test_what_belongs_to_one_movie() -> None:
    def found(*paths: str) -> dict[str, str]:
        return movies_of({path: Path("/films") / path for path in paths})

    flat = found("show_e01_part1.mkv", "show_e01_part2.mkv", "show_e02.mkv", "Film (CD 1).avi", "Film (CD 2).avi")
    assert list(flat.values()) == ["show_e01", "show_e01", "show_e02", "Film", "Film"]
    assert list(found("part1.mkv", "part2.mkv").values()) == ["part1", "part2"]  # nothing but a count
    assert list(found("apartment3.mkv", "departed.mkv").values()) == ["apartment3", "departed"]
    folders = found("a/1.mkv", "a/extra/2.mkv", "b/1.mkv", "c.mkv")
    assert list(folders.values()) == ["a/", "a/", "b/", "c"]
    # A folder that holds all of them is none.
    assert list(found("mine/a.mkv", "mine/b.mkv").values()) == ["a", "b"]
    assert list(found("alone.mkv").values()) == ["alone"]


def test_no_movie_is_on_two_sides_whatever_its_files_are_called() -> None:
    clips, movie_of = [], {}
    for movie in range(12):
        for part in range(4):
            film = f"m{movie}-{part}"
            movie_of[film] = f"movie{movie}/"
            clips += [{"name": f"{film}/{n}", "video": film, "movie": f"movie{movie}/", "shot": n} for n in range(3)]
    sides, by_movie = divide(clips, 0.2)
    assert by_movie
    movies = {side: {movie_of[name.split("/")[0]] for name in names} for side, names in sides.items()}
    assert [len(movies[side]) for side in ("train", "val", "test")] == [8, 2, 2]
    assert len(movies["train"] | movies["val"] | movies["test"]) == 12
    assert sum(len(names) for names in sides.values()) == len(clips)
    # Two movies in parts are divided by moment: the last shots of each, over its parts.
    sides, by_movie = divide(clips[:24], 0.1)
    assert not by_movie
    assert sides["test"] == ["m1-3/2", "m0-3/2"] or sides["test"] == ["m0-3/2", "m1-3/2"]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of two shots: one moves, the other is a drawing on twos; one has bars; and one file is broken."""
    folder = tmp_path_factory.mktemp("films")
    for film in range(3):
        first = [scene(10 * film, 3 * n) for n in range(8)]
        second = [scene(10 * film + 5, 6 * (n // 2)) for n in range(12)]
        frames = [frame.clone() for frame in (*first, *second)]
        if film == 0:
            for frame in frames:
                frame[:, :8], frame[:, -8:] = 0, 0
        write_film(folder / f"film{film}.mkv", frames, encoding=EXACT)
    (folder / "broken.mp4").write_bytes(b"no film")
    return folder


def run(films: Path, output: Path, *words: str) -> int:
    return run_verb(prepare.main, f"input={films}", f"output={output}", "length=[3,8]", "format=png", *words)


def test_videos_become_lists_of_clips_that_the_sources_read(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "set"
    assert run(films, output, "shard=0/2") == 1  # the broken one is reported
    assert "are left to other shards" in capsys.readouterr().out
    assert not (output / "report.json").exists()
    assert run(films, output, "shard=1/2") == 1
    report = json.loads((output / "report.json").read_text())
    assert report["videos"] == 4
    assert report["frames"] == 60
    assert report["fates"]["held"] == 3 * 6
    assert report["fates"]["kept"] == 3 * (8 + 6)
    assert sum(report["fates"].values()) == 60
    assert report["clips"] == {"train": 2, "val": 2, "test": 2}
    assert report["divided"] == "by movie"
    assert "96x64 to 96x48" in (output / "REPORT.md").read_text()
    assert {f"{rule}.jpg" for rule in report["sheets"]} == {p.name for p in (output / "sheets").iterdir()}
    for side in ("train", "val", "test"):
        clips = TripletFolders(output, split=side)
        assert len(clips) == 2
        assert {clips.length(0), clips.length(1)} == {8, 6}
        assert EpisodeFolders(output, split=side).clips == clips.clips
    assert len(TripletFolders(output, split="all")) == 6
    record = json.loads((output / ".curation/film1.json").read_text())
    assert record["clips"][1]["frames"] == [8, 10, 12, 14, 16, 18]
    from animegen.media.images import read_image

    assert torch.equal(read_image(output / "film1/clip0000/000003.png"), scene(10, 9))
    # What is done is not done again; other settings are refused.
    before = (output / "film1").stat().st_mtime_ns
    (output / ".curation/film2.json").unlink()
    capsys.readouterr()
    assert run(films, output) == 1
    text = capsys.readouterr().out
    assert "2 videos are finished already" in text
    assert "film2: 2 clips of 14 frames" in text
    assert (output / "film1").stat().st_mtime_ns == before
    told = refused(capsys, run(films, output, "dark=20"))
    assert "was made with other settings (dark)" in told
    assert json.loads((output / "report.json").read_text()) == report


def test_a_data_set_is_made_again_unless_other_shards_are_at_work(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, film = tmp_path / "set", films / "film1.mkv"
    assert run(film, output) == 0
    (output / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with locked(output, tidy=True, shared=True):  # as another shard does
        assert "Another command is at work" in refused(capsys, run(film, output, "length=[3,4]", "overwrite=true"))
        assert run(film, output, "overwrite=true") == 0  # of the same settings: nothing to do
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert run(film, output, "length=[3,4]", "overwrite=true") == 0
    assert {len(list(clip.iterdir())) for clip in (output / "film1").iterdir()} == {3, 4}
    assert (output / "notes.txt").read_text() == "mine"
    assert not (output / LOCK).exists()


def test_videos_of_one_folder_stay_together(films: Path, tmp_path: Path) -> None:
    for number, place in enumerate(("a/1.mkv", "a/2.mkv", "b/1.mkv", "c_part1.mkv", "c_part2.mkv", "d.mkv")):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        frames = [scene(10 * number + 100, 3 * n) for n in range(5)]
        write_film(tmp_path / "in" / place, frames, encoding=EXACT)
    output = tmp_path / "set"
    assert run(tmp_path / "in", output) == 0
    lists = {side: (output / f"{side}.txt").read_text().split() for side in ("train", "val", "test")}
    sides = {name.split("/")[0]: side for side, names in lists.items() for name in names}
    assert len(sides) == 6
    assert sides["1"] == sides["2"]  # those of a/; b/1.mkv is 1-2
    assert sides["c_part1"] == sides["c_part2"]
    assert len(set(sides.values())) == 3
    report = json.loads((output / "report.json").read_text())
    assert (report["videos"], report["movies"], report["divided"]) == (6, 4, "by movie")
    assert "They belong to 4 movies" in (output / "REPORT.md").read_text()


def test_every_second_frame_in_long_scenes_and_a_single_video(films: Path, tmp_path: Path) -> None:
    output = tmp_path / "scenes"
    assert run_verb(prepare.main, f"input={films}/film1.mkv", f"output={output}", "length=[3,6]", "every=2") == 0
    report = json.loads((output / "report.json").read_text())
    assert report["divided"] == "by moment"
    assert report["fates"]["skipped"] == 10
    assert report["fates"]["kept"] == 4 + 6
    assert "fewer than three movies" in (output / "REPORT.md").read_text()


def test_shards_through_hydras_launcher(films: Path, tmp_path: Path) -> None:
    output = tmp_path / "swept"
    words = ("-m", f"input={films}/", f"output={output}", "length=[3,8]", "shard=0,1")
    assert run_verb(prepare.main, *words) == 0
    assert json.loads((output / "report.json").read_text())["frames"] == 60


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["input={t}/none", "output={t}/o"], "does not exist"),
        (["input={t}", "output={t}/o"], "no videos"),
        (["input={f}", "output={t}/full"], "not a data set of animegen"),
        (["input={f}", "output={t}/o", "shard=4/4"], "shard=4/4 is not valid"),
        (["input={f}", "output={t}/o", "length=5"], "film"),
        (["input={f}"], "needs output="),
        (["input={f}", "output={t}/o", "format=gif"], "format=gif is not valid: use one of jpg, png, webp"),
    ],
)
def test_invalid_values_are_reported(
    films: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("")
    if message == "film":  # length=5 means clips of five drawings
        assert run_verb(prepare.main, *(w.format(f=films / "film1.mkv", t=tmp_path) for w in words)) == 0
        return
    assert message in refused(capsys, run_verb(prepare.main, *(w.format(f=films, t=tmp_path) for w in words)))
    assert not (tmp_path / "o").exists()


def test_a_still_image_has_no_bars() -> None:
    bars = Bars()
    bars.add(level(0).permute(1, 2, 0).numpy())
    assert bars.box() == (0, 16, 0, 24)


def test_movies_that_are_held_out_are_named() -> None:
    assert held_out({"train": ["c"], "val": ["a"], "test": ["b"]}).startswith(
        "2 of 3 movies are held out: a for validation, b for test. holdout= changes the share; to train on a clip"
    )
