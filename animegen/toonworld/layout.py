"""Layout of a scene from far to near: camera, sky, land, city, trees, people, ball."""

from __future__ import annotations

import numpy as np

from animegen.toonworld import geometry as g
from animegen.toonworld.person import add_person
from animegen.toonworld.stage import Stage
from animegen.toonworld.streams import Stream

SKY, CLOUD, MOUNTAIN, FAR_HILL, NEAR, GROUND, FRONT = 0.03, 0.08, 0.20, 0.38, 0.60, 1.0, 1.25
SKY_TOP, SKY_BOTTOM = -0.62, 0.60
LAND_BOTTOM = 0.62  # hidden by the ground, even when the camera is close


class Camera:
    """Position (T, 2) and zoom (T,) of the camera over the clip, eased at both ends."""

    def __init__(self, stream: Stream, time: np.ndarray, frames: int, speed: float) -> None:
        u = g.ease(time / max(frames - 1, 1))
        # Travel per 32 frames, so that longer clips do not pan more slowly; limited by the extent of the land.
        pan = stream.signed(0.10, 0.34) * min(speed * frames / 32, 1.5)
        tilt = stream.uniform(-0.04, 0.04)
        close = stream.chance(0.4)
        start = stream.uniform(1.25, 1.7) if close else stream.uniform(0.95, 1.25)
        zoom_change = stream.uniform(-0.18, 0.18)
        offset = 0.10 * max(start - 1.2, 0.0) if start > 1.25 else 0.0
        sway_phase = stream.uniform(0, 2 * np.pi)
        sway = 0.003 * np.sin(time * speed * 0.21 + sway_phase)
        self.position = np.stack([pan * (u - 0.5), tilt * (u - 0.5) - offset + sway], 1)
        self.zoom = start * np.exp(zoom_change * u)

    def view(self, layer: float, height: int, width: int) -> np.ndarray:
        """Return the (T, 3, 3) matrices from the world coordinates of a layer to pixels."""
        scale = height * (1 + (self.zoom - 1) * (0.25 + 0.75 * layer))
        return (
            g.shift(width / 2, height / 2)
            @ g.stretch(scale, scale)
            @ g.shift(-layer * self.position[:, 0], -layer * self.position[:, 1])
        )


def build(stage: Stage) -> dict[str, float]:
    """Lay out the scene on the stage; return the parameters of the skies: sun_x, sun_y and horizon."""
    stream = stage.stream("geometry")
    half = 0.70 * stage.aspect + 0.24
    horizon = stream.uniform(0.10, 0.20)
    still = g.pose(1)
    sun = (stream.uniform(-0.36, 0.36) * stage.aspect, stream.uniform(-0.40, -0.24))
    stage.add("sky", g.box(-half, SKY_TOP, half, SKY_BOTTOM), "sky", still, SKY)
    stage.add("sun", g.ellipse(0.055, 0.055, points=40), "sun", g.shift(*sun), SKY)
    add_clouds(stage)
    add_land(stage, half, horizon)
    people = 1 + stream.below(3)
    add_ground(stage, half, horizon)
    add_trees(stage, horizon)
    add_actors(stage, people)
    if stream.chance(0.6):
        add_bush(stage)
    return {"sun_x": sun[0], "sun_y": sun[1], "horizon": horizon}


def _blob(stream: Stream, circles: int, reach: float, low: float, high: float, flatten: float) -> np.ndarray:
    """Return the outline of a union of random circles around the origin."""
    angle = np.array([2 * np.pi * (k + stream.uniform(-0.3, 0.3)) / circles for k in range(circles)])
    radius = np.array([stream.uniform(low, high) for _ in range(circles)])
    far = np.array([reach * stream.uniform(0.75, 1.1) for _ in range(circles)])
    centres = np.stack([far * np.cos(angle), flatten * far * np.sin(angle)], 1)
    return g.circles_outline(np.concatenate([centres, [[0.0, 0.0]]]), np.concatenate([radius, [reach]]))


def add_clouds(stage: Stage) -> None:
    """Add three to five drifting clouds with flat bases."""
    stream = stage.stream("clouds")
    count = 3 + stream.below(3)
    for k in range(count):
        size = stream.uniform(0.055, 0.095)
        wide = stream.uniform(1.5, 2.2)
        centres = np.array([[wide * size * (j / 3.5 - 1), -stream.uniform(0, 0.5) * size] for j in range(8)])
        radii = np.array([size * stream.uniform(0.6, 0.95) * (1.1 - 0.45 * abs(j / 3.5 - 1)) for j in range(8)])
        outline = g.circles_outline(centres, radii)
        outline[:, 1] = np.where(outline[:, 1] > 0, outline[:, 1] * 0.35, outline[:, 1])
        x = ((k + stream.uniform(0.2, 0.8)) / count - 0.5) * 1.15 * stage.aspect
        y = stream.uniform(-0.46, -0.16)
        drift = stream.signed(0.0006, 0.003) * stage.speed
        stage.add(f"cloud_{k}", outline, "cloud", g.shift(x + drift * (stage.time - len(stage.time) / 2), y), CLOUD)


def _waves(stream: Stream, half: float, terms: tuple[tuple[float, float], ...], folded: bool = False) -> np.ndarray:
    """Return a sum of sines over [-half, half] of (amplitude, waves per unit length); ``folded`` gives sharp peaks."""
    x = np.linspace(-half, half, 97)
    total = 0 * x
    for amplitude, frequency in terms:
        wave = np.sin(2 * np.pi * frequency * stream.uniform(0.8, 1.2) * x + stream.uniform(0, 2 * np.pi))
        total += amplitude * ((1 - 2 * np.abs(wave)) if folded else wave)
    return total


def add_land(stage: Stage, half: float, horizon: float) -> None:
    """Add mountains (80%), far hills, and a city (50%) or near hills."""
    stream = stage.stream("land")
    still = g.pose(1)
    if stream.chance(0.8):
        top = horizon - stream.uniform(0.12, 0.20) + _waves(stream, half, ((0.09, 0.7), (0.03, 2.2)), folded=True)
        stage.add("mountain", g.ridge(half, top, LAND_BOTTOM), "mountain", still, MOUNTAIN, haze=0.55)
    top = horizon - stream.uniform(0.05, 0.09) + _waves(stream, half, ((0.035, 0.7), (0.012, 2.0)))
    stage.add("hill_far", g.ridge(half, top, LAND_BOTTOM), "hill_far", still, FAR_HILL, haze=0.36)
    if stream.chance(0.5):
        add_city(stage, half, horizon)
    else:
        top = horizon - stream.uniform(0.01, 0.05) + _waves(stream, half, ((0.03, 0.9), (0.008, 2.6)))
        stage.add("hill_near", g.ridge(half, top, LAND_BOTTOM), "hill_near", still, NEAR, haze=0.18)


def add_city(stage: Stage, half: float, horizon: float) -> None:
    """Add a row of buildings with windows (one multi-polygon part per building) and roofs."""
    stream = stage.stream("city")
    x = -half + stream.uniform(0, 0.15)
    number = 0
    while x < half:
        width, height = stream.uniform(0.10, 0.22), stream.uniform(0.16, 0.42)
        wall = f"wall_{stream.below(3)}"
        has_roof = stream.chance(0.5)
        base = g.shift(x + width / 2, horizon + 0.08)
        high = height + 0.08
        name = f"building_{number}"
        stage.add(name, g.box(-width / 2, -high, width / 2, 0.42), wall, base, NEAR, haze=0.22)
        columns = max(2, int(width / 0.065))
        cell = width / (columns + 0.35)
        windows = [
            g.box(left, up, left + 0.55 * cell, up + 0.040)
            for left in (-width / 2 + cell * (c + 0.40) for c in range(columns))
            for up in np.arange(-high + 0.035, -0.03, 0.072)
        ]
        stage.add(f"{name}/windows", windows, "glass", base, NEAR, group=name, haze=0.22)
        if has_roof:
            rise = stream.uniform(0.03, 0.06)
            w = width / 2 + 0.012
            roof = np.array([(-w, -high), (0.02 - w, -high - rise), (w - 0.02, -high - rise), (w, -high)])
            stage.add(f"{name}/roof", roof, "roof", base, NEAR, haze=0.22)
        x += width + (stream.uniform(0.02, 0.20) if stream.chance(0.75) else 0.0)
        number += 1


def add_ground(stage: Stage, half: float, horizon: float) -> None:
    """Add the meadow and the path across it."""
    stream = stage.stream("ground")
    still = g.pose(1)
    bottom = 0.78
    top = horizon + 0.03 + _waves(stream, half, ((0.010, 0.8), (0.004, 2.3)))
    stage.add("grass", g.ridge(half, top, bottom), "grass", still, GROUND, group="ground")
    upper = horizon + stream.uniform(0.11, 0.16) + _waves(stream, half, ((0.015, 0.5),))
    lower = upper + stream.uniform(0.09, 0.14) + _waves(stream, half, ((0.012, 0.6),))
    x = np.linspace(-half, half, len(upper))
    band = np.concatenate([np.stack([x, upper], 1), np.stack([x, lower], 1)[::-1]])
    stage.add("path", band, "path", still, GROUND, group="ground")


def add_trees(stage: Stage, horizon: float) -> None:
    """Add two to four trees with swaying crowns."""
    stream = stage.stream("trees")
    count = 2 + stream.below(3)
    kind = stream.below(3)
    for k in range(count):
        x = ((k + stream.uniform(0.1, 0.9)) / count - 0.5) * 1.25 * stage.aspect
        size = stream.uniform(0.070, 0.140)
        base = horizon + stream.uniform(0.05, 0.10)
        stem = stream.uniform(0.16, 0.26)
        leaf = f"leaf_{kind if stream.chance(0.7) else stream.below(3)}"
        half = [
            (0, -stem - 0.04),
            (0.20 * size, -stem - 0.04),
            (0.18 * size, -0.5 * stem),
            (0.26 * size, -0.01),
            (0.40 * size, 0.01),
        ]
        stage.cast_shadow(1.3 * size, 0.22 * size, g.shift(x, base))
        stage.add(f"tree_{k}/trunk", g.spline(g.mirrored([*half, (0, 0.012)])), "trunk", g.shift(x, base))
        crown = _blob(stream, 9, size, 0.45 * size, 0.80 * size, 0.8)
        angle = stream.uniform(0.01, 0.03) * np.sin(stage.time * stage.speed * 0.3 + stream.uniform(0, 6))
        pose = g.shift(x, base) @ g.turn(angle) @ g.shift(0.0, -stem - 0.75 * size)
        stage.add(f"tree_{k}/crown", crown, leaf, pose)


def add_actors(stage: Stage, people: int) -> None:
    """Add one to three people from far to near, and the ball in front of or behind them."""
    stream = stage.stream("actors")
    feet = sorted(stream.uniform(0.31, 0.43) for _ in range(people))
    slots = np.array([(k + 0.5) / people - 0.5 for k in range(people)]) * (0.55 + 0.25 * people / 3) * stage.aspect
    order = sorted(range(people), key=lambda _: stream.uniform())
    ball_first = stream.chance(0.5)
    if ball_first:
        add_ball(stage, feet[0] - 0.01)
    for k, slot in enumerate(order):
        add_person(stage, f"person_{k}", float(slots[slot]) + stream.uniform(-0.06, 0.06), feet[k])
    if not ball_first:
        add_ball(stage, feet[-1] + 0.015)


def add_ball(stage: Stage, floor: float) -> None:
    """Add a ball that bounces, squashes at the ground and rolls, with a stripe that shows the rotation."""
    stream = stage.stream("ball")
    radius = stream.uniform(0.04, 0.055)
    high = stream.uniform(0.10, 0.26)
    period = stream.uniform(16, 24) / stage.speed
    velocity = stream.signed(0.004, 0.011) * stage.speed
    clock = stage.time + stream.uniform(0, period)
    x = stream.uniform(-0.3, 0.3) * stage.aspect + velocity * (stage.time - len(stage.time) / 2)
    u = (clock % period) / period
    contact = np.minimum(u, 1 - u) * period
    squash = 1 - 0.28 * np.exp(-(contact**2))
    centre = floor - 4 * u * (1 - u) * high - radius * squash
    body = g.shift(x, centre) @ g.stretch(1 / np.sqrt(squash), squash)
    roll = body @ g.turn(velocity * stage.time / radius + stream.uniform(0, 6))
    shrink = 1 - 0.5 * 4 * u * (1 - u)
    stage.cast_shadow(radius * 1.1, radius * 0.24, g.shift(x, floor) @ g.stretch(shrink, shrink))
    stage.add("ball", g.ellipse(radius, radius, points=28), "ball", roll)
    edge = np.linspace(-1.0, 1.0, 9)
    right = np.stack([0.30 + 0.16 * (1 - edge**2), 0.93 * edge], 1)
    left = np.stack([-0.30 - 0.16 * (1 - edge**2), 0.93 * edge], 1)[::-1]
    stage.add("ball/stripe", np.concatenate([right, left]) * radius, "stripe", roll, group="ball")


def add_bush(stage: Stage) -> None:
    """Add a bush in front of everything at the lower edge."""
    stream = stage.stream("bush")
    size = stream.uniform(0.09, 0.14)
    outline = _blob(stream, 8, size, 0.4 * size, 0.75 * size, 0.6)
    x = stream.signed(0.12, 0.42) * stage.aspect
    stage.add("bush", outline, f"leaf_{stream.below(3)}", g.shift(x, stream.uniform(0.44, 0.5)), FRONT)
