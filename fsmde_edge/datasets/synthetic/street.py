"""The ground of a scene: road, kerbs, side streets, verges and banks, with what is painted on them.

The world's x runs along the road, y to the left, z up; the road's centre line is y = 0. The road is level
around x = 0 and may climb or fall beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.synthetic.objects import tint
from fsmde_edge.datasets.synthetic.solids import Colour, Material, Paint, Solid, half_spaces

FAR = 600.0
"""Metres: how far the ground reaches."""
FAR_OPENING = 400.0
"""Metres: how far a side street's asphalt reaches."""
ROAD, PAVEMENT, GRASS, SOIL, LOT = range(5)
"""Kinds of ground."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A painted line along the road: dash of `on` metres every `period` (0: solid)."""

    y: float
    width: float
    yellow: bool = False
    period: float = 0.0
    on: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """One side of the road.

    Attributes:
        sign: +1 left, -1 right.
        kerb: distance of the kerb from the centre line.
        step: height of the kerb.
        bounds, kinds: zones outward from the kerb: kinds[i] reaches to bounds[i], the last to the far end.
        bank, climb: from this distance the ground rises with this slope.
        openings: x ranges of side streets and driveways.
        style: what stands there.
    """

    sign: int
    kerb: float
    step: float
    bounds: tuple[float, ...]
    kinds: tuple[int, ...]
    bank: float
    climb: float
    openings: tuple[tuple[float, float], ...]
    style: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Street:
    """The ground's shape and paint.

    Attributes:
        knees, slopes: the road climbs with slopes[i] from x = knees[i] on (slopes[i] before it comes from
            the one before; level around x = 0). Knees are sorted.
        sides: left, right.
        lines: painted lines.
        crossings: x ranges of zebra crossings.
        palette: five colours, by kind of ground.
    """

    knees: tuple[float, ...]
    slopes: tuple[float, ...]
    sides: tuple[Side, Side]
    lines: tuple[Line, ...]
    crossings: tuple[tuple[float, float], ...]
    palette: tuple[Colour, ...]

    def profile(self, x: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Height of the road's surface at x."""
        edges = np.array((-FAR, *self.knees, FAR))
        rises = np.concatenate(([0.0], np.cumsum(np.diff(edges) * np.array(self.slopes))))
        rises -= np.interp(0.0, edges, rises)
        return np.asarray(np.interp(x, edges, rises))

    def height(self, x: float, y: float) -> float:
        """Height of the ground at a point."""
        side = self.sides[0] if y > 0 else self.sides[1]
        level = float(self.profile(x))
        if abs(y) < side.kerb or any(a < x < b for a, b in side.openings):
            return level
        return level + side.step + max(0.0, abs(y) - side.bank) * side.climb


_STYLES = ("city", "suburb", "trees", "open", "lot", "highway")
_STYLE_SHARE = (0.3, 0.19, 0.29, 0.06, 0.09, 0.07)


def random_street(generator: np.random.Generator, lane_width: float, lanes: int, travel: float) -> Street:
    """Draw the ground of a scene.

    Args:
        generator: the source of randomness.
        lane_width: metres.
        lanes: in each direction.
        travel: metres from x = 0 that stay level.
    """
    knees, slopes = (
        [-float(generator.uniform(20, 80)), travel + float(generator.uniform(25, 90))],
        [0.0, 0.0, 0.0],
    )
    if generator.random() < 0.45:
        slopes = [float(generator.normal(0, 0.035)), 0.0, float(generator.normal(0, 0.035))]
    left, right = _side(generator, 1, lane_width * lanes), _side(generator, -1, lane_width * lanes)
    crossings = []
    for side in (left, right):
        for start, end in side.openings:
            if end - start > 6 and generator.random() < 0.4:
                crossings.append((start - 4.5, start - 1.5))
    return Street(
        knees=tuple(knees),
        slopes=tuple(slopes),
        sides=(left, right),
        lines=_lines(generator, lane_width, lanes, (left.kerb, right.kerb)),
        crossings=tuple(crossings),
        palette=_ground_palette(generator),
    )


def _ground_palette(generator: np.random.Generator) -> tuple[Colour, ...]:
    bright = math.exp(generator.normal(0, 0.35))
    road: Colour = (0.11 * bright, 0.11 * bright, 0.115 * bright)
    green = (0.09, 0.13, 0.035) if generator.random() < 0.7 else (0.2, 0.17, 0.08)
    return (
        tint(generator, road, 0.1),
        tint(generator, (0.3, 0.29, 0.27), 0.3),
        tint(generator, green, 0.35),
        tint(generator, (0.25, 0.2, 0.15), 0.3),
        tint(generator, road, 0.3),
    )


def _side(generator: np.random.Generator, sign: int, lanes_end: float) -> Side:
    style = str(generator.choice(_STYLES, p=_STYLE_SHARE))
    shoulder = float(generator.choice((0.3, 2.3, 0.8), p=(0.35, 0.4, 0.25)))
    if style == "highway":
        shoulder = float(generator.uniform(1.5, 4.0))
    kerb = lanes_end + shoulder
    verge, walk = float(generator.uniform(0.8, 4)), float(generator.uniform(1.3, 4.5))
    bounds, kinds = {
        "city": ((kerb + walk, kerb + walk + 1.5), (PAVEMENT, PAVEMENT, PAVEMENT)),
        "suburb": ((kerb + verge, kerb + verge + 1.6), (GRASS, PAVEMENT, GRASS)),
        "trees": (
            (kerb + verge, kerb + verge + 1.6),
            (GRASS, PAVEMENT if generator.random() < 0.6 else SOIL, GRASS),
        ),
        "open": ((kerb + verge, kerb + 30.0), (SOIL, GRASS, GRASS)),
        "lot": ((kerb + verge, kerb + verge + float(generator.uniform(14, 60))), (GRASS, LOT, GRASS)),
        "highway": ((kerb + 1.0, kerb + 8.0), (SOIL, GRASS, GRASS)),
    }[style]
    openings, x = [], -130.0 + float(generator.uniform(0, 60))
    while x < 220:
        wide = float(generator.choice((generator.uniform(3, 5), generator.uniform(7, 13))))
        if style not in ("highway", "open"):
            openings.append((x, x + wide))
        x += wide + float(generator.uniform(18, 90))
    flat = generator.random() < 0.5 or style in ("city", "lot")
    return Side(
        sign=sign,
        kerb=kerb,
        step=0.02 if style == "open" else float(generator.uniform(0.08, 0.2)),
        bounds=bounds,
        kinds=kinds,
        bank=bounds[1] + float(generator.uniform(0, 8)),
        climb=0.0 if flat else float(generator.uniform(0.01, 0.16)),
        openings=tuple(openings),
        style=style,
    )


def _lines(
    generator: np.random.Generator, lane: float, lanes: int, kerbs: tuple[float, float]
) -> tuple[Line, ...]:
    if generator.random() < 0.12:
        return ()
    wide, yellow = float(generator.uniform(0.1, 0.18)), bool(generator.random() < 0.55)
    period, on = float(generator.uniform(4, 12)), float(generator.uniform(1.5, 4))
    lines = []
    if generator.random() < 0.55:
        lines += [Line(y=offset, width=wide, yellow=yellow) for offset in (-0.15, 0.15)]
    else:
        lines.append(Line(y=0.0, width=wide, yellow=yellow, period=period, on=on))
    for index in range(1, lanes):
        lines += [Line(y=s * index * lane, width=wide, period=period, on=on) for s in (-1, 1)]
    if generator.random() < 0.7:
        lines += [Line(y=s * (lanes * lane + 0.05), width=wide) for s in (-1, 1)]
    if generator.random() < 0.15:
        lines += [
            Line(y=s * (kerb - 0.3), width=wide, yellow=True) for s, kerb in zip((1, -1), kerbs, strict=True)
        ]
    return tuple(lines)


def ground_solids(street: Street) -> list[Solid]:
    """The road and the raised ground beside it, one solid for each stretch of even slope."""
    edges = (-FAR, *street.knees, FAR)
    paint = Paint(material=Material.GROUND, layer=0)
    solids = []
    for start, end, slope in zip(edges[:-1], edges[1:], street.slopes, strict=True):
        level = float(street.profile(start))
        solids.append(_wedge((start, end), (-FAR, FAR), (start, 0.0, level), (slope, 0.0), paint))
        for side in street.sides:
            for a, b in _between(side.openings, start, end):
                near, far = side.sign * side.kerb, side.sign * FAR
                corner = (start, near, level + side.step)
                solids.append(_wedge((a, b), (near, far), corner, (slope, 0.0), paint))
                if side.climb > 0:
                    foot = side.sign * side.bank
                    corner = (start, foot, level + side.step)
                    solids.append(_wedge((a, b), (foot, far), corner, (slope, side.sign * side.climb), paint))
    return solids


def _between(
    openings: tuple[tuple[float, float], ...], start: float, end: float
) -> list[tuple[float, float]]:
    """The parts of a range that no opening takes."""
    parts, x = [], start
    for a, b in openings:
        if b > start and a < end:
            if a > x:
                parts.append((x, a))
            x = max(x, b)
    if x < end:
        parts.append((x, end))
    return parts


def _wedge(
    xs: tuple[float, float],
    ys: tuple[float, float],
    corner: tuple[float, float, float],
    slope: tuple[float, float],
    paint: Paint,
) -> Solid:
    """What lies under a plane through a point with slopes along x and y, within a rectangle."""
    low, high = np.array((xs[0], min(ys), 0.0)), np.array((xs[1], max(ys), 0.0))
    tops = [corner[2] + slope[0] * (x - corner[0]) + slope[1] * (y - corner[1]) for x in xs for y in ys]
    low[2], high[2] = min(tops) - 0.3, max(tops)
    normals = np.array(((-slope[0], -slope[1], 1.0), (-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0)))
    points = np.array((corner, low, high, low, high))
    return half_spaces(normals, points, low, high, paint)
