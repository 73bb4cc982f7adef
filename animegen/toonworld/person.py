"""Articulated person of about thirty parts that walks, waves or stands, blinks and speaks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from animegen.toonworld import geometry as g
from animegen.toonworld.stage import Stage
from animegen.toonworld.streams import Stream

# Joints in units of the person's height: the hip relative to the feet, the others relative to the hip.
HIP, NECK, SHOULDER = -0.36, -0.30, -0.185
THIGH, SHIN = 0.175, 0.15
UPPER_ARM, FOREARM = 0.115, 0.105
TIPS = 7  # of the fringe
BLINK_PERIOD = 34.0  # frames
WALK_SPEED = 0.010  # frame heights per frame at speed 1


@dataclass(frozen=True)
class Look:
    """Appearance of a person, drawn once per scene."""

    height: float
    skin: str
    hair: str
    hair_style: str
    top: str
    bottom: str
    skirt: bool
    short_sleeves: bool
    iris: str
    tips: tuple[float, ...]
    side_lock: float
    parting: float
    fringe: float


def draw_look(stream: Stream) -> Look:
    """Draw a person's proportions, hair and clothes."""
    cloths = [f"cloth_{i}" for i in range(6)]
    top = stream.pick(cloths)
    skirt = stream.chance(0.45)
    bottoms = (
        [c for c in cloths if c != top] if skirt else ["denim", "denim", "khaki", *[c for c in cloths if c != top]]
    )
    return Look(
        height=stream.uniform(0.46, 0.60),
        skin=f"skin_{stream.below(3)}",
        hair=f"hair_{stream.below(5)}",
        hair_style=stream.pick(("long", "long", "short", "bob", "tails")),
        top=top,
        bottom=stream.pick(bottoms),
        skirt=skirt,
        short_sleeves=stream.chance(0.3),
        iris=f"iris_{stream.below(3)}",
        tips=tuple(stream.uniform(-0.014, 0.014) for _ in range(TIPS)),
        side_lock=stream.uniform(0.0, 0.06),
        parting=stream.uniform(-0.07, 0.07),
        fringe=stream.uniform(-0.012, 0.012),
    )


@dataclass(frozen=True)
class Action:
    """Joint angles (T,) and body translation (T,) of a person."""

    x: np.ndarray
    bob: np.ndarray
    hips: tuple[np.ndarray, ...]
    knees: tuple[np.ndarray, ...]
    shoulders: tuple[np.ndarray, ...]
    elbows: tuple[np.ndarray, ...]
    lean: np.ndarray
    head: np.ndarray
    lids: np.ndarray
    mouth: np.ndarray
    sway: np.ndarray
    side: float


def draw_action(stream: Stream, time: np.ndarray, speed: float, x: float) -> Action:
    """Draw the action of a person: walk (45%), wave (35%) or stand (20%).

    ``time`` (T,) is in frames, constant while a drawing is held. Positive angles move a limb towards -x; limb 0 is the
    one at -x. A walker passes ``x`` in the middle frame.
    """
    side = 1.0 if stream.chance(0.5) else -1.0
    beat = time * speed * (2 * np.pi / stream.uniform(15, 20)) + stream.uniform(0, 2 * np.pi)
    walks, waves, raised = stream.chance(0.45), stream.chance(0.64), stream.below(2)
    blink = (time + stream.uniform(0, BLINK_PERIOD)) % BLINK_PERIOD
    still, breath, gait = 0 * beat, 0.05 * np.sin(beat), np.sin(beat)
    rest = Action(
        x=x + still,
        bob=0.004 * (1 + gait),
        hips=(still + 0.04, still - 0.04),
        knees=(still, still),
        shoulders=(0.14 + breath, -0.14 - breath),
        elbows=(still - 0.1, still + 0.1),
        lean=0.4 * breath,
        head=0.07 * np.sin(beat / 2 + stream.uniform(0, 6)),
        lids=1 - 0.9 * np.exp(-(((blink - 4) / 1.3) ** 2)),  # at least 0.1, since poses must be invertible
        mouth=0.725 + 0.275 * np.sin(time * speed * 0.9 + stream.uniform(0, 6)),
        sway=0.03 * np.sin(beat - 0.8),
        side=side,
    )
    if walks:
        return replace(
            rest,
            x=x + side * WALK_SPEED * speed * (time - len(time) / 2),
            bob=0.018 * np.abs(np.cos(beat)),
            hips=(-side * 0.55 * gait, side * 0.55 * gait),
            # Knees only bend backwards, in opposite phase.
            knees=(side * np.maximum(0, 0.7 * np.sin(beat + 1.1)), side * np.maximum(0, -0.7 * np.sin(beat + 1.1))),
            shoulders=(side * 0.44 * gait + 0.10, -side * 0.44 * gait - 0.10),
            elbows=(-side * (0.25 + 0.15 * gait), -side * (0.25 - 0.15 * gait)),
            lean=still + side * 0.04,
            sway=0.05 * np.sin(beat - 0.8),
        )
    if waves:
        outward = 1.0 if raised == 0 else -1.0
        upper, fore = outward * (1.85 + 0.06 * np.sin(2 * beat)), outward * (0.30 + 0.45 * np.sin(2 * beat))
        shoulders, elbows = list(rest.shoulders), list(rest.elbows)
        shoulders[raised], elbows[raised] = upper, fore
        return replace(rest, shoulders=tuple(shoulders), elbows=tuple(elbows), side=-outward)
    return rest


def add_person(stage: Stage, name: str, x: float, foot: float) -> None:
    """Add a person whose feet are at (x, foot) in the middle frame, and its shadow on the ground."""
    look = draw_look(stage.stream(f"{name}/look"))
    action = draw_action(stage.stream(f"{name}/motion"), stage.local_time, stage.speed, x)
    _Figure(stage, name, look, action, foot).add_all()


class _Figure:
    """Adds the parts of one person. Outlines are in person heights, scaled by ``look.height``."""

    def __init__(self, stage: Stage, name: str, look: Look, action: Action, foot: float) -> None:
        self.stage, self.name, self.look, self.action, self.u = stage, name, look, action, look.height
        self.ground = g.shift(action.x, foot)
        body = self.ground @ self.at(0 * action.x, -action.bob)
        self.body = body @ self.at(0, HIP) @ g.turn(action.lean)
        self.pelvis = body @ self.at(0, HIP)
        self.head = self.body @ self.at(0, NECK) @ g.turn(action.head)

    def at(self, x: g.Number, y: g.Number) -> np.ndarray:
        """Return a translation in person heights."""
        return g.shift(x * self.u, y * self.u)

    def add(self, part: str, outline: np.ndarray | list, material: str, pose: np.ndarray, group: str = "") -> None:
        """Add an outline given in person heights."""
        self.stage.add(
            f"{self.name}/{part}", np.asarray(outline) * self.u, material, pose, group=f"{self.name}/{group or part}"
        )

    def add_all(self) -> None:
        """Add all parts from back to front (the near arm before the head, so as not to hide the face)."""
        self.stage.cast_shadow(0.17 * self.u, 0.035 * self.u, self.ground)
        self.back_hair()
        self.arm(0)
        for leg in (0, 1):
            self.leg(leg)
        self.trunk()
        self.arm(1)
        self.face()
        self.front_hair()

    def arm(self, which: int) -> None:
        """Add upper arm, forearm and hand of the far (0) or near arm (1)."""
        look, group = self.look, f"arm_{which}"
        side = 1.0 if which == 0 else -1.0
        shoulder = self.body @ self.at(-0.080 * side, SHOULDER) @ g.turn(self.action.shoulders[which])
        elbow = shoulder @ self.at(0, UPPER_ARM) @ g.turn(self.action.elbows[which])
        wrist = elbow @ self.at(0, FOREARM)
        sleeve = look.skin if look.short_sleeves else look.top
        self.add(f"{group}/hand", g.ellipse(0.026, 0.032, 0, 0.012), look.skin, wrist)
        self.add(f"{group}/fore", g.limb(FOREARM, 0.031, 0.027), sleeve, elbow, group)
        self.add(f"{group}/upper", g.limb(UPPER_ARM, 0.040, 0.034), look.top, shoulder, group)

    def leg(self, which: int) -> None:
        """Add thigh, shin and shoe. The near leg (1) is in the ink group of trousers, without a line at the hip."""
        look = self.look
        group = "near_leg" if which == 1 else "far_leg"
        side = 1.0 if which == 0 else -1.0
        hip = self.pelvis @ self.at(-0.038 * side, 0.0) @ g.turn(self.action.hips[which])
        knee = hip @ self.at(0, THIGH) @ g.turn(self.action.knees[which])
        ankle = knee @ self.at(0, SHIN) @ g.turn(-0.5 * (self.action.hips[which] + self.action.knees[which]))
        cloth = look.skin if look.skirt else look.bottom
        facing = self.action.side
        shoe = [(-0.034, 0.036), (-0.037, 0.0), (-0.022, -0.02), (0.017, -0.02), (0.052, 0.003), (0.060, 0.036)]
        outline = g.spline([(facing * px, py) for px, py in shoe])
        self.add(f"{group}/shin", g.limb(SHIN, 0.039, 0.031), cloth, knee, group)
        self.add(f"{group}/shoe", outline, "shoe", ankle)
        self.add(f"{group}/thigh", g.limb(THIGH, 0.050, 0.040), cloth, hip, group)

    def trunk(self) -> None:
        """Add hips (skirt or trousers), neck and torso."""
        look = self.look
        if look.skirt:
            half = [(0, -0.07), (0.062, -0.065), (0.088, 0.0), (0.122, 0.075), (0.065, 0.090), (0, 0.093)]
        else:
            half = [(0, -0.06), (0.068, -0.05), (0.086, 0.0), (0.080, 0.04), (0.035, 0.045), (0, 0.030)]
        group = "hip" if look.skirt else "near_leg"
        self.add("hip", g.spline(g.mirrored(half)), look.bottom, self.pelvis, group)
        self.add("neck", g.box(-0.030, -0.06, 0.030, 0.09), look.skin, self.body @ self.at(0, NECK), "head")
        half = [(0, -0.252), (0.045, -0.252), (0.092, -0.224), (0.098, -0.15), (0.080, -0.08), (0.088, -0.022)]
        self.add("torso", g.spline(g.mirrored([*half, (0, -0.012)])), look.top, self.body)

    def face(self) -> None:
        """Add face, eyes, brows and mouth. Pupils and mouth are shifted in the direction of movement."""
        look, action, head = self.look, self.action, self.head
        ahead = 0.022 * action.side
        half = [(0, -0.29), (0.095, -0.26), (0.140, -0.17), (0.143, -0.09), (0.122, -0.015), (0.065, 0.034)]
        self.add("face", g.spline(g.mirrored([*half, (0, 0.048)])), look.skin, head, "head")
        for number, side in enumerate((-1.0, 1.0)):
            place = 0.064 * side + 0.35 * ahead
            eye = head @ self.at(place, -0.080) @ g.stretch(1.0, action.lids)
            name = f"eye_{number}"
            self.add(f"{name}/rim", g.ellipse(0.044, 0.062, 0, -0.006), "eye_dark", eye, "head")
            self.add(f"{name}/white", g.ellipse(0.037, 0.053, 0, 0.001), "eye_white", eye, "head")
            self.add(f"{name}/iris", g.ellipse(0.028, 0.045, 0.35 * ahead, 0.002), look.iris, eye, "head")
            self.add(f"{name}/pupil", g.ellipse(0.015, 0.027, 0.4 * ahead, 0.004), "eye_dark", eye, "head")
            self.add(f"{name}/light", g.ellipse(0.0115, 0.015, -0.010, -0.019), "eye_white", eye, "head")
            brow = [(-0.036, -0.150), (0.0, -0.165), (0.036, -0.156), (0.035, -0.148), (0.0, -0.156), (-0.035, -0.143)]
            self.add(f"brow_{number}", [(place - side * px, py) for px, py in brow], "eye_dark", head, "head")
        mouth = [(-0.032, -0.008), (0.0, -0.003), (0.032, -0.008), (0.021, 0.014), (0.0, 0.021), (-0.021, 0.014)]
        pose = head @ self.at(ahead, 0.004) @ g.stretch(1.0, action.mouth)
        self.add("mouth", g.spline(mouth), "mouth", pose, "head")

    def back_hair(self) -> None:
        """Add the hair behind the body, and the tails of that hair style."""
        look, action = self.look, self.action
        low = {"long": 0.21, "short": 0.012, "bob": 0.075, "tails": 0.02}[look.hair_style]
        half = [(0, -0.325), (0.10, -0.305), (0.160, -0.21), (0.170, -0.09), (0.168, 0.5 * low), (0.125, low + 0.015)]
        if look.hair_style == "tails":
            tail = [(-0.02, -0.03), (0.04, -0.025), (0.062, 0.07), (0.050, 0.19), (0.0, 0.27), (-0.028, 0.17)]
            for number, side in enumerate((-1.0, 1.0)):
                root = self.head @ self.at(0.150 * side, -0.19) @ g.turn(-0.30 * side + action.sway)
                self.add(
                    f"tail_{number}", g.spline([(side * px, py) for px, py in [*tail, (-0.035, 0.06)]]), look.hair, root
                )
        pose = self.head @ g.turn(0.4 * action.sway)
        self.add("back_hair", g.spline(g.mirrored([*half, (0, low - 0.005)])), look.hair, pose)

    def front_hair(self) -> None:
        """Add the fringe: a dome with pointed tips, longer at the temples."""
        look = self.look
        low = -0.02 + look.side_lock
        dome = [(-0.140, low), (-0.166, -0.08), (-0.162, -0.18), (-0.130, -0.266), (-0.070, -0.322), (0.0, -0.338)]
        dome += [(-px, py) for px, py in reversed(dome[:-1])]
        curve = g.spline(dome)[: 5 * (len(dome) - 1) + 1]
        half = 0.137
        step = 2 * half / (TIPS - 1)
        fringe: list[tuple[float, float]] = []
        for k, jitter in enumerate(look.tips):
            px = half - step * k
            aside = min(abs(px - look.parting * (1 - abs(px) / half)) / half, 1.0)
            tip = -0.150 + look.fringe + jitter + (0.115 + look.side_lock) * aside**4
            fringe.append((px - 0.25 * step * np.sign(px), min(tip, low)))
            if k < TIPS - 1:
                fringe.append((px - 0.5 * step, min(tip - 0.045, -0.175 - 0.03 * (1 - aside))))
        self.add("front_hair", [*map(tuple, curve), *fringe[1:-1]], look.hair, self.head)
