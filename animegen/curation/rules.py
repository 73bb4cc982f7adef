"""Selection of clips from measurements; every frame gets exactly one fate with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from statistics import median

from animegen.curation.facts import Facts
from animegen.curation.options import Rules

#: Fates of frames, in the order of the report, with their reasons.
FATES = {
    "kept": "is in a clip",
    "skipped": "skipped by every=",
    "held": "repeats the previous drawing",
    "dark": "is darker than dark=",
    "bright": "is brighter than bright=",
    "flicker": "next to a jump of brightness (flashes, fast fades)",
    "fast": "next to a pair that moves too far",
    "unexplained": "next to a pair whose difference motion does not explain (dissolves, effects, missed cuts)",
    "uneven": "next to a pause or a change of rhythm",
    "still": "in a clip with almost no motion",
    "short": "in a shot that is too short",
    "rest": "left over after the shot was split into clips",
    "cap": "in a clip beyond per_shot=",
}


@dataclass(frozen=True)
class Clip:
    """A clip: the first frames of its drawings, one after the other."""

    shot: int
    frames: tuple[Facts, ...]

    @property
    def looks(self) -> list[int]:
        """Difference hashes of its first, middle and last drawing."""
        return [self.frames[n].look for n in (0, len(self.frames) // 2, -1)]


@dataclass(frozen=True)
class Case:
    """A close decision: the frame, the frame it was compared with, value and limit.

    Attributes:
        rule: the rule that decided.
        number: number of the frame.
        other: number of the frame that it was compared with; the frame itself where there is none.
        value: the measurement.
        limit: limit of the rule.
        passed: whether the frame met the rule.
    """

    rule: str
    number: int
    other: int
    value: float
    limit: float
    passed: bool

    @property
    def distance(self) -> float:
        """Distance from the limit, relative to the limit."""
        return abs(self.value - self.limit) / max(abs(self.limit), 1.0 if self.rule == "held" else 1e-9)


@dataclass
class Choice:
    """Result of the rules.

    Attributes:
        clips: in the order of the video.
        fates: fates of all examined frames, by number.
        cases: those near a limit, the nearest first.
    """

    clips: list[Clip] = field(default_factory=list)
    fates: dict[int, str] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)

    def counts(self, frames: int) -> dict[str, int]:
        """Return the number of the video's frames per fate."""
        found = Counter(self.fates.values())
        found["skipped"] = frames - len(self.fates)
        return {fate: found[fate] for fate in FATES}


def choose(facts: Sequence[Facts], rules: Rules) -> Choice:
    """Return the clips of a video and the fate of every frame."""
    choice = Choice()
    for shot, members in groupby(facts, key=lambda fact: fact.shot):
        _choose_in_shot(shot, list(members), rules, choice)
    choice.clips.sort(key=lambda clip: clip.frames[0].number)
    choice.cases.sort(key=lambda case: case.distance)
    return choice


def _choose_in_shot(shot: int, facts: list[Facts], rules: Rules, choice: Choice) -> None:
    choice.fates |= {fact.number: "held" for fact in facts if not fact.drawing}
    cases = choice.cases
    for fact in facts:
        if fact.same is not None and fact.before is not None:
            cases.append(Case("held", fact.number, fact.before, fact.same, rules.held, True))
    known = 0
    for fact in facts:
        known = fact.number if fact.drawing else known
        if not fact.drawing and fact.same is not None:
            cases.append(Case("held", fact.number, known, fact.same, rules.held, False))
    whole: list[Clip] = []
    for piece, why in _pieces([fact for fact in facts if fact.drawing], rules, choice):
        if len(piece) < rules.length[0]:
            choice.fates |= {fact.number: why or "short" for fact in piece}
            continue
        for part, fate in _divided(piece, rules.length):
            if fate == "kept":
                motion = median(fact.motion for fact in part[1:])
                cases.append(Case("still", part[-1].number, part[0].number, motion, rules.still, motion >= rules.still))
                fate = "kept" if motion >= rules.still else "still"
            if fate == "kept":
                whole.append(Clip(shot, tuple(part)))
            choice.fates |= {fact.number: fate for fact in part}
    kept = _spread(whole, rules.per_shot)
    for clip in whole:
        if clip not in kept:
            choice.fates |= {fact.number: "cap" for fact in clip.frames}
    choice.clips += kept


def _pieces(drawings: list[Facts], rules: Rules, choice: Choice) -> list[tuple[list[Facts], str | None]]:
    """Split the drawings of a shot where a rule ends a clip; return the pieces with their reasons."""
    pieces: list[tuple[list[Facts], str | None]] = []
    piece: list[Facts] = []
    why: str | None = None
    spans: list[int] = []

    def end(reason: str | None) -> None:
        nonlocal piece, why, spans
        if piece:
            pieces.append((piece, why or reason))
        piece, why, spans = [], reason, []

    for fact in drawings:
        if (fault := _fault(fact, rules, choice.cases)) is not None:
            choice.fates[fact.number] = fault
            end(fault)
            continue
        if piece:
            span = fact.number - piece[-1].number
            reason = _break(fact, rules, choice.cases)
            if reason is None and spans and max(*spans, span) > rules.uneven * min(*spans, span):
                reason = "uneven"
            if reason is not None:
                end(reason)
            else:
                spans.append(span)
        piece.append(fact)
    end(None)
    return pieces


def _fault(fact: Facts, rules: Rules, cases: list[Case]) -> str | None:
    """Return the rule that excludes a frame, or ``None``."""
    for rule, limit, bad in (
        ("dark", rules.dark, fact.luma < rules.dark),
        ("bright", rules.bright, fact.luma > rules.bright),
    ):
        cases.append(Case(rule, fact.number, fact.number, fact.luma, limit, not bad))
        if bad:
            return rule
    return None


def _break(fact: Facts, rules: Rules, cases: list[Case]) -> str | None:
    """Return the rule that ends a clip before a frame, or ``None``."""
    assert fact.before is not None
    for rule, value, limit in (
        ("flicker", abs(fact.jump), rules.flicker),
        ("fast", fact.motion, rules.fast),
        ("unexplained", fact.unexplained, rules.unexplained),
    ):
        cases.append(Case(rule, fact.number, fact.before, value, limit, value <= limit))
        if value > limit:
            return rule
    return None


def _divided(piece: list[Facts], length: Sequence[int]) -> list[tuple[list[Facts], str]]:
    """Split a piece into clips of nearly equal length; unusable frames are at its end."""
    shortest, longest = length[0], length[-1]
    count = -(-len(piece) // longest)
    if len(piece) // count >= shortest:
        bounds = [len(piece) * n // count for n in range(count + 1)]
        return [(piece[a:b], "kept") for a, b in pairwise(bounds)]
    count = len(piece) // longest
    parts = [(piece[n * longest : (n + 1) * longest], "kept") for n in range(count)]
    return [*parts, (piece[count * longest :], "rest")]


def _spread(clips: list[Clip], limit: int | None) -> list[Clip]:
    if limit is None or len(clips) <= limit:
        return clips
    return [clips[(2 * n + 1) * len(clips) // (2 * limit)] for n in range(limit)]
