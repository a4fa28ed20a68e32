"""The building blocks of a synthetic scene: convex solids and ellipsoids, and the table that holds them.

A convex solid is an intersection of half-spaces n · p ≤ offset. Cars, houses, kerbs, poles and the ground
itself are convex solids; crowns of trees, hedges' lumps and people are ellipsoids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Colour = tuple[float, float, float]


class Material(IntEnum):
    """How a solid's surface is painted."""

    PLAIN = 0
    GROUND = 1
    FACADE = 2
    CAR_BODY = 3
    CAR_CABIN = 4
    WHEEL = 5
    FOLIAGE = 6
    SIGN = 7
    ROOF = 8
    EGO = 9
    TRUCK = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Paint:
    """What covers a solid.

    Attributes:
        material: which painter draws it.
        colour, second: linear RGB albedo in 0..1; what the second one is for depends on the material.
        layer: index of the luminance texture.
        scale: texture repeats a metre.
        contrast: strength of the texture in 0..1.
        gloss: share of mirrored sky in 0..1.
        parameters: four numbers for the painter.
    """

    material: Material = Material.PLAIN
    colour: Colour = (0.5, 0.5, 0.5)
    second: Colour = (0.1, 0.1, 0.1)
    layer: int = 0
    scale: float = 0.5
    contrast: float = 0.5
    gloss: float = 0.0
    parameters: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solid:
    """A convex solid or an ellipsoid, placed in the world.

    Attributes:
        origin: float64 [3], where its own frame lies in the world; yaw turns that frame about z.
        half: float64 [3], half extents of its bounding box, whose centre is the origin.
        normals: float64 [N, 3], unit, outward, in its own frame; empty for an ellipsoid.
        offsets: float64 [N], n · p ≤ offset inside, p in its own frame.
        paint: its surface.
        velocity: metres a second along world x and y.
        leafiness: 0..1, how ragged an ellipsoid's silhouette is.
        casts_shadow: whether it darkens the ground.
    """

    origin: Floats
    yaw: float
    half: Floats
    normals: Floats
    offsets: Floats
    paint: Paint
    velocity: tuple[float, float] = (0.0, 0.0)
    leafiness: float = 0.0
    casts_shadow: bool = True

    @property
    def rotation(self) -> Floats:
        """Own frame to world, float64 [3, 3]."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])

    def at(self, seconds: float) -> Solid:
        """The solid after it has moved for some time."""
        if self.velocity == (0.0, 0.0):
            return self
        return replace(self, origin=self.origin + np.array((*self.velocity, 0.0)) * seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a compound object stands: a point on the ground, a heading, a velocity."""

    x: float
    y: float
    z: float = 0.0
    yaw: float = 0.0
    velocity: tuple[float, float] = (0.0, 0.0)

    def offset(self, x: float, y: float, z: float) -> Floats:
        """A point of the object's own frame, in the world."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return np.array((self.x + c * x - s * y, self.y + s * x + c * y, self.z + z))


def ellipsoid(
    place: Place, centre: Sequence[float], half: Sequence[float], paint: Paint, leafiness: float = 0.0
) -> Solid:
    """An ellipsoid with these half axes."""
    return Solid(
        origin=place.offset(centre[0], centre[1], centre[2]),
        yaw=place.yaw,
        half=np.array(half, dtype=np.float64),
        normals=np.empty((0, 3)),
        offsets=np.empty(0),
        paint=paint,
        velocity=place.velocity,
        leafiness=leafiness,
    )


def prism(
    place: Place,
    profile: Sequence[tuple[float, float]],
    span: tuple[float, float],
    axis: int,
    paint: Paint,
    *,
    taper: float = 0.0,
    casts_shadow: bool = True,
) -> Solid:
    """A convex polygon extruded along one axis.

    Args:
        place: the frame that everything is given in.
        profile: the polygon's corners in the two other axes, in cyclic order after `axis`.
        span: from where to where it is extruded.
        axis: 0, 1 or 2.
        paint: its surface.
        taper: how many metres each end cap leans inward for a metre of height above the lowest point
            (axes 0 and 1 only).
        casts_shadow: whether it darkens the ground.
    """
    corners = _counter_clockwise(np.array(profile, dtype=np.float64))
    one, two = (axis + 1) % 3, (axis + 2) % 3
    low, high = np.empty(3), np.empty(3)
    low[axis], high[axis] = span
    low[[one, two]], high[[one, two]] = corners.min(axis=0), corners.max(axis=0)
    edges = np.roll(corners, -1, axis=0) - corners
    normals = np.zeros((len(corners) + 2, 3))
    normals[:-2, one], normals[:-2, two] = edges[:, 1], -edges[:, 0]
    offsets = np.zeros(len(corners) + 2)
    offsets[:-2] = normals[:-2, one] * corners[:, 0] + normals[:-2, two] * corners[:, 1]
    normals[-2:, axis] = (-1.0, 1.0)
    normals[-2:, 2] += taper
    offsets[-2:] = (-span[0] + taper * low[2], span[1] + taper * low[2])
    lengths = np.linalg.norm(normals, axis=1)
    normals, offsets = normals / lengths[:, None], offsets / lengths
    centre = (low + high) / 2
    return Solid(
        origin=place.offset(centre[0], centre[1], centre[2]),
        yaw=place.yaw,
        half=(high - low) / 2,
        normals=normals,
        offsets=offsets - normals @ centre,
        paint=paint,
        velocity=place.velocity,
        casts_shadow=casts_shadow,
    )


def _counter_clockwise(polygon: Floats) -> Floats:
    after = np.roll(polygon, -1, axis=0)
    area = (polygon[:, 0] * after[:, 1] - after[:, 0] * polygon[:, 1]).sum()
    return polygon if area > 0 else polygon[::-1]


def half_spaces(normals: Floats, points: Floats, low: Floats, high: Floats, paint: Paint) -> Solid:
    """A solid in world axes: what lies behind every plane (outward normal [N, 3], a point [N, 3] on it).

    Args:
        normals, points: the planes.
        low, high: corners of a box that holds all of it that can be seen.
        paint: its surface.
    """
    unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    centre = (low + high) / 2
    offsets = (unit * (points - centre)).sum(axis=1)
    return Solid(
        origin=centre,
        yaw=0.0,
        half=(high - low) / 2,
        normals=unit,
        offsets=offsets,
        paint=paint,
        casts_shadow=False,
    )


def box(place: Place, low: Sequence[float], high: Sequence[float], paint: Paint) -> Solid:
    """A box between two corners of the place's frame."""
    profile = ((low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1]))
    return prism(place, profile, (low[2], high[2]), 2, paint)


def column(place: Place, x: float, y: float, radius: float, span: tuple[float, float], paint: Paint) -> Solid:
    """An upright eight-sided column."""
    return prism(place, circle(x, y, radius, 8), span, 2, paint)


def circle(x: float, y: float, radius: float, sides: int) -> tuple[tuple[float, float], ...]:
    """A regular polygon, counter-clockwise."""
    angles = (np.arange(sides) + 0.5) * (2 * math.pi / sides)
    return tuple((x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles)


@dataclass(frozen=True, slots=True, eq=False)
class SolidTable:
    """Many solids as arrays, in the world frame, for casting and shading.

    Attributes:
        solids: the solids, in the order of the arrays.
        origin [M, 3], rotation [M, 3, 3] (own frame to world), half [M, 3].
        normals: M arrays [N, 3] in the world frame; offsets: M arrays [N].
        face_normals: float32 [M, F, 3] in the own frame, zero beyond a solid's last face.
        corners: float64 [M, 8, 3], the bounding boxes' corners in the world.
    """

    solids: tuple[Solid, ...]
    origin: Floats = field(init=False)
    rotation: Floats = field(init=False)
    half: Floats = field(init=False)
    normals: tuple[Floats, ...] = field(init=False)
    offsets: tuple[Floats, ...] = field(init=False)
    face_normals: NDArray[np.float32] = field(init=False)
    corners: Floats = field(init=False)

    def __post_init__(self) -> None:
        origin = np.array([s.origin for s in self.solids]).reshape(-1, 3)
        rotation = np.array([s.rotation for s in self.solids]).reshape(-1, 3, 3)
        half = np.array([s.half for s in self.solids]).reshape(-1, 3)
        normals = tuple(s.normals @ r.T for s, r in zip(self.solids, rotation, strict=True))
        offsets = tuple(s.offsets + n @ s.origin for s, n in zip(self.solids, normals, strict=True))
        faces = np.zeros((len(self.solids), max((len(n) for n in normals), default=0) or 1, 3), np.float32)
        for row, solid in zip(faces, self.solids, strict=True):
            row[: len(solid.normals)] = solid.normals
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
        corners = origin[:, None] + np.einsum("mij,mkj->mki", rotation, signs * half[:, None])
        for name, value in (
            ("origin", origin),
            ("rotation", rotation),
            ("half", half),
            ("normals", normals),
            ("offsets", offsets),
            ("face_normals", faces),
            ("corners", corners),
        ):
            object.__setattr__(self, name, value)
