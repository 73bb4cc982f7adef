"""When frames are shown, and what each shows: holds, cuts, variable rates, exact times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest

from animegen.errors import AnimegenError
from animegen.inference.timegrid import Between, Grid, between_frames


def sec(numerator: int, denominator: int = 1) -> Fraction:
    """Return an exact number of seconds, or of frames per second."""
    return Fraction(numerator, denominator)


def film(text: str, rate: int = 1) -> list[tuple[str, Fraction]]:
    """Return a frame per letter; equal letters show the same drawing, in frames of their own."""
    return [(f"{letter}{n}", sec(n, rate)) for n, letter in enumerate(text)]


def made(text: str, grid: Grid, **settings: object) -> list[Between[str]]:
    frames = film(text)
    return list(
        between_frames(frames, lambda: sec(len(text)), grid, lambda a, b: a[0] == b[0], **settings)  # type: ignore[arg-type]
    )


def shown(frames: list[Between[str]]) -> list[str]:
    return [f.first if f.last is None else f"{f.first}-{f.last}@{f.t}" for f in frames]


def test_twice_the_frames_with_exact_times() -> None:
    found = made("abc", Grid(factor=2))
    assert shown(found) == ["a0", "a0-b1@1/2", "b1", "b1-c2@1/2", "c2", "c2"]
    assert [f.time for f in found] == [sec(n, 2) for n in range(6)]
    assert shown(made("ab", Grid(factor=4), hold_last=False)) == ["a0", "a0-b1@1/4", "a0-b1@1/2", "a0-b1@3/4", "b1"]


def test_held_drawings_stay_and_move_in_their_last_interval() -> None:
    assert shown(made("aab", Grid(factor=2))) == ["a0", "a0", "a1", "a1-b2@1/2", "b2", "b2"]


def test_smooth_spreads_motion_over_the_hold_but_not_over_a_pause() -> None:
    assert shown(made("aab", Grid(factor=2), smooth=True)) == [
        *("a0", "a0-b2@1/4", "a0-b2@1/2", "a0-b2@3/4", "b2", "b2")
    ]
    found = shown(made("a" * 9 + "b", Grid(factor=2), smooth=True))
    # Nine frames: the first three are a pause, motion takes the last six.
    assert found[:7] == ["a0", "a0", "a1", "a1", "a2", "a2", "a3"]
    assert found[7:9] == ["a3-b9@1/12", "a3-b9@1/6"]


def test_nothing_is_drawn_across_a_cut() -> None:
    assert shown(made("abc", Grid(factor=2), cuts=[1])) == ["a0", "a0", "b1", "b1-c2@1/2", "c2", "c2"]


def test_a_variable_rate_stays_one() -> None:
    frames = [("a", sec(0)), ("b", sec(1, 10)), ("c", sec(1, 2))]
    found = list(between_frames(frames, lambda: sec(6, 10), Grid(factor=2), lambda a, b: a == b))
    assert [f.time for f in found] == [
        sec(0),
        sec(1, 20),
        sec(1, 10),
        sec(3, 10),
        sec(1, 2),
        sec(11, 20),
    ]


def test_two_hours_at_23_976_become_60_frames_per_second_without_drift() -> None:
    rate, count = sec(24000, 1001), 24 * 60  # a minute stands for two hours: all is exact
    frames = [(n, n / rate) for n in range(count)]
    end = count / rate
    found = list(between_frames(frames, lambda: end, Grid(fps=sec(60)), lambda a, b: a == b))
    assert [f.time for f in found] == [sec(k, 60) for k in range(len(found))]
    assert len(found) == -(-end * 60 // 1)  # every k with k / 60 < end
    for f in found[: 60 * 59]:
        assert f.time == (f.first + f.t) / rate


def test_two_and_a_half_frames_per_frame() -> None:
    found = made("abcde", Grid(factor=sec(5, 2)))
    assert [f.time for f in found] == [sec(2 * k, 5) for k in range(13)]  # every k with 2 k / 5 < 5
    assert shown(found)[:6] == ["a0", "a0-b1@2/5", "a0-b1@4/5", "b1-c2@1/5", "b1-c2@3/5", "c2"]
    assert shown(found)[10:] == ["e4"] * 3
    for f in found[:10]:
        assert f.time == int(f.first[1]) + f.t


def test_two_and_a_half_at_23_976_and_at_a_variable_rate() -> None:
    rate = sec(24000, 1001)
    frames = [(n, n / rate) for n in range(240)]
    found = list(between_frames(frames, lambda: 240 / rate, Grid(factor=sec(5, 2)), lambda a, b: a == b))
    assert [f.time for f in found] == [k / (rate * sec(5, 2)) for k in range(600)]
    # In an interval of any length the frames lie where they would lie in one of a second.
    times = [sec(0), sec(1, 10), sec(1, 2), sec(2, 3)]
    found = list(
        between_frames(zip(range(4), times, strict=True), lambda: sec(1), Grid(sec(5, 2)), lambda a, b: a == b)
    )
    assert [f.time for f in found] == [
        *(sec(0), sec(4, 100), sec(8, 100)),
        *(sec(1, 10) + sec(4, 10) * sec(1, 5), sec(1, 10) + sec(4, 10) * sec(3, 5)),
        *(sec(1, 2), sec(1, 2) + sec(1, 6) * sec(2, 5), sec(1, 2) + sec(1, 6) * sec(4, 5)),
        *(sec(2, 3) + sec(1, 3) * sec(1, 5), sec(2, 3) + sec(1, 3) * sec(3, 5)),
    ]


def test_a_video_that_continues_keeps_the_grid() -> None:
    """From the third frame on, as after a stop: the same frames as in the whole video."""
    grid, rate = Grid(factor=sec(5, 2)), sec(24000, 1001)
    frames = [(n, n / rate) for n in range(8)]
    whole = list(between_frames(frames, lambda: 8 / rate, grid, lambda a, b: a == b))
    rest = list(between_frames(frames[3:], lambda: 8 / rate, grid, lambda a, b: a == b, first=3, origin=sec(0)))
    assert [f for f in whole if f.first >= 3] == rest


def test_the_last_second_of_two_hours_is_as_exact_as_the_first() -> None:
    rate, grid = sec(24000, 1001), Grid(fps=sec(60))
    last = int(7200 * rate)
    found = [time for n in range(last - 24, last) for time in grid.times(n, n / rate, (n + 1) / rate, sec(0))]
    numbers = [time * 60 for time in found]
    assert all(number.denominator == 1 for number in numbers)
    assert numbers == list(range(int(numbers[0]), int(numbers[0]) + len(numbers)))
    assert numbers[-1] == 7200 * 60 - 1  # 431,999: with the first, 432,000 frames


def test_a_grid_begins_at_the_first_frame_and_may_be_coarser() -> None:
    frames = [(n, sec(1, 3) + sec(n, 24)) for n in range(6)]
    found = list(between_frames(frames, lambda: sec(1, 3) + sec(6, 24), Grid(fps=sec(10)), lambda a, b: a == b))
    assert [f.time - sec(1, 3) for f in found] == [sec(0), sec(1, 10), sec(2, 10)]
    assert [(f.first, f.last, f.t) for f in found][1] == (2, 3, sec(2, 5))


def test_a_long_hold_is_reported_as_it_comes() -> None:
    alive: list[int] = []

    def frames():
        for n in range(50):
            alive.append(n)
            yield "a", sec(n)

    stream = between_frames(frames(), lambda: sec(50), Grid(factor=2), lambda a, b: True, smooth=True)
    for _ in range(10):
        next(stream)
    assert len(alive) <= 12  # five frames are out, six wait


@pytest.mark.parametrize("settings", [{}, {"factor": 2, "fps": sec(60)}, {"factor": 1}, {"fps": sec(0)}])
def test_invalid_values_are_reported(settings: dict) -> None:
    with pytest.raises(AnimegenError):
        Grid(**settings)


@pytest.mark.parametrize("hold_last", [True, False])
@pytest.mark.parametrize("grid", [Grid(factor=2), Grid(factor=sec(5, 2)), Grid(fps=sec(3)), Grid(fps=sec(7, 2))])
def test_the_number_of_frames_is_known_in_advance(grid: Grid, hold_last: bool) -> None:
    for text in ("a", "ab", "abc", "abcdefg"):
        assert grid.count(len(text), sec(1), hold_last) == len(made(text, grid, hold_last=hold_last))


def beside(text: str, **settings: object) -> list[str]:
    """Return the pairs in parentheses, with their neighbours and the lengths of these."""
    found = made(text, Grid(factor=2), neighbours=True, **settings)
    shown = []
    for f in found:
        if f.last is not None:
            before = "" if f.before is None else f"{f.before.frame}*{f.before.length:g}"
            after = "" if f.after is None else f"{f.after.frame}*{f.after.length:g}"
            shown.append(f"{before}({f.first}{f.last}){after}")
        else:
            assert f.before is f.after is None
    return shown


def test_pairs_know_the_drawings_before_and_after() -> None:
    assert beside("abcd") == ["(a0b1)c2*1", "a0*1(b1c2)d3*1", "b1*1(c2d3)"]
    assert beside("ab") == ["(a0b1)"]


def test_neighbours_end_at_cuts_and_pauses() -> None:
    assert beside("abcdef", cuts=[3]) == ["(a0b1)c2*1", "a0*1(b1c2)", "(d3e4)f5*1", "d3*1(e4f5)"]
    # b stays for two frames: the motion to it stops, and that from it begins at rest.
    assert beside("abbcd") == ["(a0b1)", "(b2c3)d4*1", "b2*1(c3d4)"]


def test_motion_that_is_spread_over_holds_has_neighbours_of_that_length() -> None:
    assert beside("aabbc", smooth=True) == ["(a0b2)c4*1"] * 3 + ["a0*1(b2c4)"] * 3
    assert beside("aabcc", smooth=True) == ["(a0b2)c3*0.5"] * 3 + ["a0*2(b2c3)"]
    # a takes more than twice as long as b: another rhythm. c pauses: nothing follows.
    assert beside("aaabc", smooth=True)[-1] == "(b3c4)"
    assert beside("ab" + 8 * "c" + "d", smooth=True)[:2] == ["(a0b1)c2*1", "a0*1(b1c2)"]
    assert beside("ab" + 8 * "c" + "d", smooth=True)[2] == "(c4d10)"


def test_neighbours_change_nothing_else() -> None:
    for settings in ({}, {"smooth": True}, {"cuts": [4]}, {"hold_last": False}):
        plain, told = (made("aabcddddefg", Grid(fps=sec(5)), neighbours=n, **settings) for n in (False, True))
        assert shown(plain) == shown(told)
        assert [f.time for f in plain] == [f.time for f in told]


def test_frames_wait_for_one_drawing_only() -> None:
    read: list[str] = []

    def frames() -> Iterator[tuple[str, Fraction]]:
        for frame in film("abcdefgh"):
            read.append(frame[0])
            yield frame

    found = between_frames(frames(), lambda: sec(8), Grid(factor=2), lambda a, b: a[0] == b[0], neighbours=True)
    for frame in found:
        number = int((frame.last or frame.first)[1:])
        assert len(read) <= number + 3
