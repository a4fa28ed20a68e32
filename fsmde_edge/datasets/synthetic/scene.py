"""Lay out a scene: what stands along a street, what drives on it, and the own vehicle's way through it.

The own vehicle starts at x = 0 and drives towards +x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.synthetic import objects
from fsmde_edge.datasets.synthetic.light import Light, random_light
from fsmde_edge.datasets.synthetic.rig import Split
from fsmde_edge.datasets.synthetic.solids import Place, Solid
from fsmde_edge.datasets.synthetic.street import Side, Street, ground_solids, random_street


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A street with its light and the own vehicle's way through it.

    Attributes:
        street: the ground.
        solids: everything, ground included, at time 0.
        light: how it is lit.
        lane: y of the own vehicle.
        yaw: its heading, radians.
        speed: metres a second.
        texture_seed: which set of textures.
    """

    street: Street
    solids: tuple[Solid, ...]
    light: Light
    lane: float
    yaw: float
    speed: float
    texture_seed: int

    def vehicle_pose(self, seconds: float) -> NDArray[np.float64]:
        """Vehicle to world, float64 [4, 4]."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        pose = np.eye(4)
        pose[:2, :2] = ((c, -s), (s, c))
        pose[:2, 3] = (self.speed * seconds * c, self.lane + self.speed * seconds * s)
        return pose


_TEXTURE_SETS: dict[Split, tuple[int, int]] = {"train": (100, 40), "dev": (200, 6), "test": (300, 6)}


@dataclass(slots=True, eq=False)
class _Layout:
    """What is known while a scene grows."""

    generator: np.random.Generator
    street: Street
    solids: list[Solid] = field(default_factory=list)

    def place(
        self, x: float, y: float, yaw: float = 0.0, velocity: tuple[float, float] = (0.0, 0.0)
    ) -> Place:
        return Place(x=x, y=y, z=self.street.height(x, y), yaw=yaw, velocity=velocity)


def random_scene(generator: np.random.Generator, split: Split, travel_seconds: float = 0.0) -> Scene:
    """Draw a scene.

    Args:
        generator: the source of randomness.
        split: which textures.
        travel_seconds: how long the own vehicle will drive in it.
    """
    mirrored = -1 if generator.random() < 0.3 else 1  # left-hand traffic
    speed = float(generator.choice((0.0, generator.uniform(3, 17)), p=(0.1, 0.9)))
    lane_width, lanes = (
        float(generator.uniform(2.8, 3.7)),
        int(generator.choice((1, 2, 3), p=(0.6, 0.3, 0.1))),
    )
    street = random_street(generator, lane_width, lanes, speed * travel_seconds)
    own_lane = int(generator.integers(lanes))
    lane = -mirrored * lane_width * (own_lane + 0.5) + float(generator.normal(0, 0.15))
    turning = generator.random() < 0.15 and speed * travel_seconds < 8
    yaw = float(generator.normal(0, 0.35 if turning else 0.025))
    layout = _Layout(generator, street)
    layout.solids.extend(ground_solids(street))
    for side in street.sides:
        _furnish(layout, side)
    if generator.random() < 0.08:
        kerb = max(side.kerb for side in street.sides)
        away = float(generator.choice((-1, 1)) * generator.uniform(14, 70))
        layout.solids.extend(objects.bridge(generator, layout.place(away, 0.0), kerb + 0.6))
    _park(layout, lane_width * lanes)
    _drive(layout, lane_width, lanes, mirrored, (lane, speed))
    first, count = _TEXTURE_SETS[split]
    return Scene(
        street=street,
        solids=tuple(layout.solids),
        light=random_light(generator),
        lane=lane,
        yaw=yaw,
        speed=speed,
        texture_seed=first + int(generator.integers(count)),
    )


def _furnish(layout: _Layout, side: Side) -> None:
    """Fill one side of the road by its style."""
    generator = layout.generator
    _poles(layout, side)
    if side.style == "city":
        _houses(layout, side, side.bounds[0] + float(generator.uniform(0, 4)), (2, 12), gap=0.25, step=6.0)
        _row_of_trees(layout, side, side.kerb + 0.9, every=float(generator.uniform(7, 40)))
    elif side.style == "suburb":
        _houses(layout, side, side.bounds[1] + float(generator.uniform(4, 16)), (1, 3), gap=0.9, step=22.0)
        _scatter_trees(layout, side, 16, (side.kerb + 1.0, side.bounds[1] + 35))
        _hedges(layout, side, side.bounds[1] + float(generator.uniform(0.3, 2)), share=0.35)
    elif side.style == "trees":
        _scatter_trees(layout, side, int(generator.uniform(15, 50)), (side.kerb + 2.0, side.bounds[1] + 35))
        if generator.random() < 0.4:
            _hedges(layout, side, side.bounds[1] + float(generator.uniform(0.3, 4)), share=0.6)
    elif side.style == "lot":
        _parking_lot(layout, side)
        _houses(layout, side, side.bounds[1] + float(generator.uniform(2, 10)), (1, 4), gap=0.6, step=15.0)
        _scatter_trees(layout, side, 5, (side.kerb + 0.8, side.bounds[0] + 0.5))
    elif side.style == "highway":
        _hedges(layout, side, side.kerb + 0.7, share=0.9)
        _scatter_trees(layout, side, 10, (side.kerb + 9.0, side.kerb + 60))
    else:
        _scatter_trees(layout, side, 5, (side.kerb + 3.0, side.kerb + 60))
    _tree_line(layout, side)
    for _ in range(int(generator.poisson(3 if side.style == "city" else 0.8))):
        x, y = generator.uniform(-40, 60), side.sign * (side.kerb + generator.uniform(0.3, 3))
        place = layout.place(x, y, generator.uniform(-3, 3), (float(generator.normal(0, 0.9)), 0.0))
        layout.solids.extend(objects.person(generator, place))


def _houses(
    layout: _Layout, side: Side, setback: float, floors: tuple[int, int], *, gap: float, step: float
) -> None:
    generator, x = layout.generator, -110.0
    while x < 190:
        long, deep = float(generator.uniform(7, 26)), float(generator.uniform(8, 16))
        free = not any(a - 1 < x + long and b + 1 > x for a, b in side.openings if b - a > 6)
        if free and not (abs(x) > 80 and generator.random() < 0.3):
            back = float(generator.exponential(gap * 5))
            count = int(generator.integers(floors[0], floors[1] + 1))
            turned = 0.0 if side.sign > 0 else math.pi
            place = layout.place(
                x + long / 2, side.sign * (setback + back), turned + generator.normal(0, 0.01)
            )
            layout.solids.extend(objects.house(generator, place, long, deep, count))
        x += long + (0.0 if generator.random() > gap else float(generator.uniform(1.5, step)))


def _row_of_trees(layout: _Layout, side: Side, distance: float, every: float) -> None:
    generator = layout.generator
    for x in np.arange(-70 + generator.uniform(0, every), 110, every):
        if not any(a - 1 < x < b + 1 for a, b in side.openings):
            place = layout.place(float(x), side.sign * distance)
            layout.solids.extend(objects.tree(generator, place, tall=float(generator.uniform(4, 9))))


def _scatter_trees(layout: _Layout, side: Side, count: int, reach: tuple[float, float]) -> None:
    generator = layout.generator
    for _ in range(int(generator.poisson(count))):
        x, share = float(generator.uniform(-70, 110)), float(generator.uniform(0, 1)) ** 1.5
        place = layout.place(x, side.sign * (reach[0] + share * (reach[1] - reach[0])))
        if any(a - 1 < x < b + 1 for a, b in side.openings):
            continue
        if generator.random() < 0.25:
            layout.solids.extend(objects.bush(generator, place))
        else:
            layout.solids.extend(objects.tree(generator, place))


def _tree_line(layout: _Layout, side: Side) -> None:
    """Woods in the distance, beside the road and at its ends."""
    generator = layout.generator
    near, far = (3, 40) if side.style == "trees" else (15, 120)
    distance = side.bounds[1] + float(generator.uniform(near, far))
    tall, share = float(generator.uniform(7, 18)), float(generator.choice((0.95, 0.6)))
    for x in np.arange(-170, 270, 0.55 * tall):
        if generator.random() < share:
            place = layout.place(
                float(x + generator.uniform(-2, 2)), side.sign * (distance + float(generator.exponential(4)))
            )
            layout.solids.extend(objects.wood(generator, place, tall * float(generator.uniform(0.6, 1.15))))
    for end in (-1, 1):
        away = end * float(generator.uniform(110, 240))
        for y in np.arange(side.kerb + 3, distance, 0.6 * tall):
            if generator.random() < share:
                place = layout.place(away + float(generator.uniform(-8, 8)), side.sign * float(y))
                layout.solids.extend(
                    objects.wood(generator, place, tall * float(generator.uniform(0.6, 1.15)))
                )


def _hedges(layout: _Layout, side: Side, distance: float, share: float) -> None:
    generator = layout.generator
    long = float(generator.uniform(6, 18))
    kind = int(generator.integers(1 << 30))
    for x in np.arange(-60, 90, long):
        if generator.random() < share and not any(
            a < x + long / 2 and b > x - long / 2 for a, b in side.openings
        ):
            same = np.random.default_rng(kind)  # one kind of hedge along one side
            layout.solids.extend(objects.hedge(same, layout.place(float(x), side.sign * distance), long))


def _poles(layout: _Layout, side: Side) -> None:
    generator = layout.generator
    every = float(generator.uniform(16, 45))
    yaw = math.pi if side.sign > 0 else 0.0
    kind = int(generator.integers(1 << 30))
    for x in np.arange(-90 + generator.uniform(0, every), 140, every):
        if generator.random() < 0.85:
            place = layout.place(float(x), side.sign * (side.kerb + 0.6), yaw)
            layout.solids.extend(objects.lamp(np.random.default_rng(kind), place))
    for _ in range(int(generator.poisson(6))):
        x, facing = float(generator.uniform(-50, 80)), 0.0 if side.sign < 0 else math.pi
        place = layout.place(x, side.sign * (side.kerb + float(generator.uniform(0.4, 2.0))), facing)
        layout.solids.extend(objects.sign(generator, place))


def _parking_lot(layout: _Layout, side: Side) -> None:
    generator = layout.generator
    for row in np.arange(side.bounds[0] + 3.0, side.bounds[1] - 2.0, 8.5):
        for x in np.arange(-45, 70, 2.75):
            if generator.random() < 0.35:
                yaw = math.pi / 2 * generator.choice((-1, 1)) + generator.normal(0, 0.03)
                layout.solids.extend(
                    objects.car(generator, layout.place(float(x), side.sign * float(row), yaw))
                )


def _park(layout: _Layout, lanes_end: float) -> None:
    """Cars along the kerb, where the shoulder is wide enough."""
    generator = layout.generator
    for side in layout.street.sides:
        if side.kerb - lanes_end < 2 or side.style == "highway":
            continue
        share, x = float(generator.uniform(0.05, 0.85)), -60.0
        while x < 90:
            x += float(generator.uniform(5.2, 6.5))
            if generator.random() > share or any(a - 2.6 < x < b + 2.6 for a, b in side.openings):
                continue
            yaw = (0.0 if side.sign < 0 else math.pi) + float(generator.normal(0, 0.015))
            place = layout.place(x, side.sign * (side.kerb - 1.12 + float(generator.normal(0, 0.05))), yaw)
            layout.solids.extend(objects.car(generator, place))


def _drive(layout: _Layout, lane_width: float, lanes: int, mirrored: int, own: tuple[float, float]) -> None:
    """Traffic: in every lane, well clear of the own vehicle."""
    generator = layout.generator
    density = float(generator.uniform(0.0, 0.8))
    for index in range(lanes):
        for sign in (-1, 1):
            y = sign * mirrored * lane_width * (index + 0.5)
            speed = (1 if sign < 0 else -1) * (own[1] + float(generator.uniform(-3, 3)) * (own[1] > 3))
            x = -120.0
            while x < 200:
                x += float(generator.uniform(8, 45))
                long = generator.random() < 0.1
                clear = (13 if long else 8.5) if abs(y - own[0]) < 1.5 else 0
                clear = max(clear, 40) if abs(y - own[0]) < 1.5 and speed * own[1] < 0 else clear
                if generator.random() > density or abs(x) < clear:
                    continue
                place = layout.place(
                    x, y + float(generator.normal(0, 0.12)), 0.0 if sign < 0 else math.pi, (speed, 0.0)
                )
                maker = objects.truck if long else objects.car
                layout.solids.extend(maker(generator, place))
                x += 8.0 if long else 0.0
