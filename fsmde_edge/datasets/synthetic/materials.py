"""What surfaces look like up close: the albedo of every material at the points that rays met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.synthetic.solids import Material, SolidTable
from fsmde_edge.datasets.synthetic.street import FAR_OPENING, ROAD, Street
from fsmde_edge.datasets.synthetic.textures import LAYERS, Values, sample

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class PaintTable:
    """The paints of a `SolidTable` as arrays, one row a solid."""

    material: NDArray[np.int8]
    colour: Values
    second: Values
    layer: Indices
    scale: Values
    contrast: Values
    gloss: Values
    parameters: Values

    @classmethod
    def of(cls, table: SolidTable) -> PaintTable:
        """Collect the paints."""
        paints = [solid.paint for solid in table.solids]

        def column(name: str, dtype: type = np.float32) -> NDArray[np.float32]:
            return np.array([getattr(paint, name) for paint in paints], dtype=dtype)

        return cls(
            np.array([paint.material for paint in paints], dtype=np.int8),
            column("colour"),
            column("second"),
            np.array([paint.layer for paint in paints], dtype=np.intp),
            column("scale"),
            column("contrast"),
            column("gloss"),
            column("parameters"),
        )


@dataclass(slots=True, eq=False)
class Surface:
    """The points that rays met, P of them.

    Attributes:
        solid: [P], index in the table.
        point, ray, normal: [P, 3], in the world; a ray has length 1 along its sensor's axis.
        local, local_normal: [P, 3], in the solid's own frame.
        z: [P], metres along the sensor's axis.
        footprint: [P], metres that a pixel covers across its ray.
        facing: [P], cosine of the angle of incidence.
    """

    solid: Indices
    point: Values
    ray: Values
    normal: Values
    local: Values
    local_normal: Values
    z: Values
    footprint: Values
    facing: Values


def albedo(
    street: Street, paints: PaintTable, table: SolidTable, surface: Surface, stack: tuple[Values, ...]
) -> Values:
    """Linear RGB albedo, float32 [P, 3], of the points.

    Args:
        street: what is painted on the ground.
        paints, table: the solids.
        surface: the points.
        stack: the scene's textures.
    """
    colour = paints.colour[surface.solid]
    u, v = _texture_position(surface)
    scale = paints.scale[surface.solid]
    spread = surface.footprint / np.sqrt(surface.facing) * scale
    salt = (surface.solid * 37 % 64).astype(np.float32) / 64
    grain = sample(stack, paints.layer[surface.solid], u * scale + salt, v * scale, spread)
    colour *= np.clip(1 + paints.contrast[surface.solid] * grain * np.float32(0.6), 0.12, 2.5)[:, None]
    material = paints.material[surface.solid]
    half = table.half.astype(np.float32)
    for kind, painter in _PAINTERS.items():
        which = np.flatnonzero(material == kind)
        if len(which):
            colour[which] = painter(colour[which], _take(surface, which), paints, half)
    which = np.flatnonzero(material == Material.GROUND)
    if len(which):
        colour[which] = _ground(street, _take(surface, which), stack)
    return np.asarray(np.clip(colour, 0.003, 0.95), dtype=np.float32)


def _take(surface: Surface, which: Indices) -> Surface:
    return Surface(*(getattr(surface, name)[which] for name in Surface.__slots__))


def _texture_position(surface: Surface) -> tuple[Values, Values]:
    """Metres along a face: (x, y) on level ones, (along, z) on upright ones."""
    n = np.abs(surface.local_normal)
    x, y, z = surface.local[:, 0], surface.local[:, 1], surface.local[:, 2]
    level = n[:, 2] > np.float32(0.7)
    u = np.where(level, x, np.where(n[:, 0] > n[:, 1], y, x))
    return u, np.where(level, y, z)


def _pulse(position: Values, period: Values | float, share: Values | float, width: Values) -> Values:
    """A train of stripes, each `share` of a period wide, averaged over `width` (all in the same unit)."""
    phase = (position / period) % 1
    edge = np.maximum(width / period, np.float32(1e-3))
    inside = (np.minimum(phase, share - phase) + edge / 2) / edge
    soft = np.clip(edge - np.float32(0.5), 0, 1)
    return np.asarray(np.clip(inside, 0, 1) * (1 - soft) + share * soft, dtype=np.float32)


def _ground(street: Street, surface: Surface, stack: tuple[Values, ...]) -> Values:
    x, y = surface.point[:, 0], surface.point[:, 1]
    kind = _ground_kind(street, x, y)
    colour = np.array(street.palette, np.float32)[kind]
    footprint = surface.footprint / np.sqrt(surface.facing)
    layer = np.array((0, 2, 4, 5, 1), np.intp)[kind]
    rough = np.array((0.1, 0.12, 0.32, 0.32, 0.12), np.float32)[kind]
    fine = sample(stack, layer, x * np.float32(0.31), y * np.float32(0.31), footprint * np.float32(0.31))
    broad = sample(stack, np.full(len(x), LAYERS - 1, np.intp), x * np.float32(0.017), y * np.float32(0.043),
                   footprint * np.float32(0.03))  # fmt: skip
    patch = sample(
        stack,
        np.full(len(x), 4, np.intp),
        x * np.float32(0.06),
        y * np.float32(0.06),
        footprint * np.float32(0.06),
    )
    colour *= np.clip(1 + rough * (fine + 0.6 * patch) + 0.1 * broad, 0.25, 2.2)[:, None]
    on_road = kind == ROAD
    paint = _markings(street, surface, x, y) * on_road[:, None]
    worn = np.clip(0.85 + 0.12 * fine, 0.3, 1)[:, None]
    white, yellow = np.array((0.62, 0.62, 0.6), np.float32), np.array((0.6, 0.4, 0.06), np.float32)
    colour = colour * (1 - paint.max(axis=1, keepdims=True) * worn)
    colour += (paint[:, :1] * white + paint[:, 1:] * yellow) * worn
    kerb = surface.local_normal[:, 2] < np.float32(0.5)
    colour[kerb] = np.float32(0.9) * np.array(street.palette[1], np.float32)
    return np.asarray(colour, dtype=np.float32)


def _ground_kind(street: Street, x: Values, y: Values) -> NDArray[np.intp]:
    kind = np.full(len(x), ROAD, np.intp)
    for side in street.sides:
        which = np.flatnonzero(y * side.sign > side.kerb - 0.01)
        away = np.abs(y[which])
        zone = np.searchsorted(np.array(side.bounds, np.float32), away)
        own = np.array(side.kinds, np.intp)[zone]
        for start, end in side.openings:
            reach = FAR_OPENING if end - start > 6 else side.bounds[1] + 8
            own[(x[which] > start) & (x[which] < end) & (away < reach)] = ROAD
        kind[which] = own
    return kind


def _markings(street: Street, surface: Surface, x: Values, y: Values) -> Values:
    """Share of white and of yellow paint, float32 [P, 2]."""
    flat = np.maximum(np.hypot(surface.ray[:, 0], surface.ray[:, 1]), np.float32(1e-6))
    ahead, aside = np.abs(surface.ray[:, 0]) / flat, np.abs(surface.ray[:, 1]) / flat
    long = surface.footprint / surface.facing
    wide_y = np.maximum(long * aside, surface.footprint * ahead)
    wide_x = np.maximum(long * ahead, surface.footprint * aside)
    paint = np.zeros((len(x), 2), np.float32)
    for line in street.lines:
        cover = np.clip((line.width / 2 - np.abs(y - line.y)) / wide_y + 0.5, 0, 1)
        cover *= np.minimum(1, line.width / wide_y)
        if line.period:
            cover = cover * _pulse(x, line.period, line.on / line.period, wide_x)
        paint[:, int(line.yellow)] = np.maximum(paint[:, int(line.yellow)], cover)
    inner = min(side.kerb for side in street.sides)
    for start, end in street.crossings:
        band = np.clip((end - x) / wide_x + 0.5, 0, 1) * np.clip((x - start) / wide_x + 0.5, 0, 1)
        cover = band * _pulse(y, 1.1, 0.5, wide_y) * (np.abs(y) < inner - 0.3)
        paint[:, 0] = np.maximum(paint[:, 0], cover)
    return paint


def _facade(colour: Values, surface: Surface, paints: PaintTable, half: Values) -> Values:
    parameters = paints.parameters[surface.solid]
    storey, pitch, share, shop = parameters.T
    n = np.abs(surface.local_normal)
    along = np.where(n[:, 0] > n[:, 1], surface.local[:, 1], surface.local[:, 0])
    height = surface.local[:, 2] + half[surface.solid, 2] - 2.0  # houses reach 2 m into the ground
    wide = surface.footprint / np.maximum(surface.facing, np.float32(0.15))
    floor = np.floor(height / storey)
    ground = (floor < 1) & (shop > 0)
    share = np.where(ground, np.float32(0.85), share)
    tall = np.where(share > 0.8, np.float32(0.78), np.float32(0.52))
    columns = _pulse(along + pitch * (1 - share) / -2 + 500 * pitch, pitch, share, wide)
    rows = _pulse(height - storey * np.float32(0.24), storey, tall, surface.footprint)
    glass = columns * rows * (n[:, 2] < 0.5) * (height > 0.3) * (height < 2 * half[surface.solid, 2] - 2.3)
    cell = np.floor(along / pitch + 500) * 12.9898 + floor * 78.233 + surface.solid * 3.7
    chance = (np.sin(cell.astype(np.float32)) * np.float32(4375.85)) % 1
    pane = paints.second[surface.solid] * (np.float32(0.4) + 1.6 * chance)[:, None]
    pane = np.where((chance > 0.86)[:, None], pane + np.float32(0.18), pane)  # curtains
    door = ((chance < 0.12) & (floor < 1) & (height < 2.2) & (shop == 0))[:, None] * columns[:, None]
    colour = colour * (1 - 0.5 * door)
    band = (np.abs(height - storey * np.round(height / storey)) < 0.12) & (share < 0.8)
    colour = colour * np.where(band, np.float32(0.85), np.float32(1))[:, None]
    return np.asarray(colour * (1 - glass[:, None]) + pane * glass[:, None], dtype=np.float32)


def _car_body(colour: Values, surface: Surface, _paints: PaintTable, half: Values) -> Values:
    q = surface.local / half[surface.solid]
    n = surface.local_normal
    colour = np.array(colour)
    colour[q[:, 2] < -0.72] = 0.02
    end, upright = np.abs(q[:, 0]) > 0.9, np.abs(n[:, 0]) > 0.45
    lamp = end & upright & (np.abs(q[:, 1]) > 0.6) & (q[:, 2] > 0.05) & (q[:, 2] < 0.75)
    colour[lamp & (q[:, 0] > 0)] = (0.6, 0.6, 0.58)
    colour[lamp & (q[:, 0] < 0)] = (0.35, 0.02, 0.015)
    grille = (q[:, 0] > 0) & upright & (np.abs(q[:, 1]) < 0.5) & (q[:, 2] > -0.3) & (q[:, 2] < 0.35)
    colour[grille] *= np.float32(0.25)
    plate = end & upright & (np.abs(q[:, 1]) < 0.28) & (np.abs(q[:, 2] + 0.15) < 0.16)
    colour[plate] = (0.6, 0.6, 0.55)
    doors = (np.abs(n[:, 1]) > 0.7) & (np.abs(np.abs(surface.local[:, 0] - 0.1) - 0.55) < 0.012)
    colour[doors] *= np.float32(0.4)
    return colour


def _car_cabin(colour: Values, surface: Surface, paints: PaintTable, half: Values) -> Values:
    q = surface.local / half[surface.solid]
    n = surface.local_normal
    glass = n[:, 2] < 0.85
    sides = np.abs(n[:, 1]) > 0.6
    pillar = np.abs(surface.local[:, 0]) < 0.05
    rim = (q[:, 2] > 0.82) | (q[:, 2] < -0.85) | (~sides & (np.abs(q[:, 1]) > 0.86))
    glass &= ~rim & ~(sides & (pillar | (np.abs(q[:, 0]) > 0.86)))
    return np.where(glass[:, None], paints.second[surface.solid], colour)


def _wheel(colour: Values, surface: Surface, paints: PaintTable, half: Values) -> Values:
    radius = np.hypot(surface.local[:, 0], surface.local[:, 2]) / half[surface.solid, 2]
    angle = np.arctan2(surface.local[:, 2], surface.local[:, 0])
    hub = (radius < 0.66) & (np.abs(surface.local_normal[:, 1]) > 0.7)
    spokes = np.float32(0.4) + np.float32(0.6) * (np.cos(5 * angle) > -0.3)
    return np.where(hub[:, None], paints.second[surface.solid] * spokes[:, None], colour)


def _truck(colour: Values, surface: Surface, paints: PaintTable, half: Values) -> Values:
    q = surface.local / half[surface.solid]
    n = surface.local_normal
    glazed = paints.parameters[surface.solid, 0]
    sides, end = np.abs(n[:, 1]) > 0.7, n[:, 0] > 0.7
    windows = _pulse(surface.local[:, 0] + 100, 1.35, 0.86, surface.footprint) > 0.5
    bus = (glazed == 1) & (q[:, 2] > 0.05) & (q[:, 2] < 0.72) & ((sides & windows) | (np.abs(n[:, 0]) > 0.7))
    cab = (glazed == 2) & (q[:, 2] > 0.05) & (q[:, 2] < 0.8) & (end | (sides & (np.abs(q[:, 0]) < 0.7)))
    colour = np.where((bus | cab)[:, None], paints.second[surface.solid], colour)
    lamps = (np.abs(n[:, 0]) > 0.7) & (np.abs(q[:, 1]) > 0.75) & (q[:, 2] < -0.75)
    colour[lamps & (q[:, 0] < 0)] = (0.35, 0.02, 0.015)
    lower = (glazed == 0) & (q[:, 2] < -0.93)
    colour[lower] = 0.05
    return colour


def _sign(colour: Values, surface: Surface, paints: PaintTable, half: Values) -> Values:
    q = surface.local[:, 1:] / half[surface.solid, 1:]
    inner = np.abs(q).max(axis=1) < 0.72
    bars = inner & (np.abs((q[:, 1] * 2.5) % 1 - 0.5) < 0.22) & (np.abs(q[:, 0]) < 0.6)
    front = surface.local_normal[:, 0] < -0.5
    colour = np.where((bars & front)[:, None], paints.second[surface.solid], colour)
    return np.where(front[:, None], colour, np.float32(0.25))


def _foliage(colour: Values, surface: Surface, _paints: PaintTable, half: Values) -> Values:
    inner = np.clip(0.75 + 0.45 * surface.local[:, 2] / half[surface.solid, 2], 0.35, 1.25)
    return np.asarray(colour * inner[:, None], dtype=np.float32)


_PAINTERS: dict[Material, Callable[[Values, Surface, PaintTable, Values], Values]] = {
    Material.FACADE: _facade,
    Material.CAR_BODY: _car_body,
    Material.CAR_CABIN: _car_cabin,
    Material.WHEEL: _wheel,
    Material.TRUCK: _truck,
    Material.SIGN: _sign,
    Material.FOLIAGE: _foliage,
}
