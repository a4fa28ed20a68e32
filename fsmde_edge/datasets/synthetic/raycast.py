"""Exact visibility: inverse depth of convex solids and ellipsoids along a grid of rays.

A ray of a sensor is o + z · d with d = (x, y, 1) in the sensor's frame, so z is depth along its axis. On a
plane n · p = k the inverse depth w = 1 / z = (n · d) / (k - n · o) is affine in x and y: a convex solid is
entered at the smallest w of the planes that the sensor lies outside of and left at the largest w of the
others, without a division.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.synthetic.solids import SolidTable
from fsmde_edge.datasets.synthetic.textures import leaf_noise

Floats = NDArray[np.float64]
Window = tuple[slice, slice]

NEAR = 0.05
"""Metres: nothing nearer is drawn."""
SKY = -1
"""The solid of a ray that meets nothing."""

_EDGES = np.array([(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit])


@dataclass(frozen=True, slots=True, eq=False)
class RayGrid:
    """Rays with directions (x, y, 1) in a sensor's frame (x right, y down, z forward).

    Attributes:
        x: float32 [1, W], increasing.
        y: float32 [H, 1] or [H, W], increasing down each column.
        stretch: y of a row is at most this many times (and at least) its value at x = 0.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    stretch: float = 1.0

    @classmethod
    def of_pinhole(cls, intrinsics: Floats, width: int, height: int, fine: int = 1) -> RayGrid:
        """The rays through the centres of a pinhole's pixels, each split `fine` times a side."""
        columns = (np.arange(width * fine) + 0.5) / fine
        rows = (np.arange(height * fine) + 0.5) / fine
        x = (columns - intrinsics[0, 2]) / intrinsics[0, 0]
        y = (rows - intrinsics[1, 2]) / intrinsics[1, 1]
        return cls(x[None].astype(np.float32), y[:, None].astype(np.float32))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y.shape[0], self.x.shape[1]

    def directions(self) -> NDArray[np.float32]:
        """Float32 [H, W, 3], (x, y, 1)."""
        x, y = np.broadcast_arrays(self.x, self.y)
        return np.stack((x, y, np.ones_like(x)), axis=-1)

    def windows(self, low: Floats, high: Floats) -> list[Window | None]:
        """The rays that may lie within rectangles of the plane z = 1; None where there are none.

        Args:
            low, high: float64 [M, 2], corners of the rectangles.
        """
        left = np.searchsorted(self.x[0], low[:, 0])
        right = np.searchsorted(self.x[0], high[:, 0], side="right")
        rows = self.y[:, self.y.shape[1] // 2] if self.stretch > 1 else self.y[:, 0]
        above = np.where(low[:, 1] < 0, low[:, 1], low[:, 1] / self.stretch)
        below = np.where(high[:, 1] > 0, high[:, 1], high[:, 1] / self.stretch)
        top, bottom = np.searchsorted(rows, above), np.searchsorted(rows, below, side="right")
        return [
            (slice(t, b), slice(lo, hi)) if b > t and hi > lo else None
            for t, b, lo, hi in zip(top.tolist(), bottom.tolist(), left.tolist(), right.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """What each ray meets first.

    Attributes:
        inverse: float32 [H, W], 1 / z, 0 for the sky.
        solid: int16 [H, W], index in the table, SKY for the sky.
        face: int8 [H, W], index of the convex solid's plane; 0 on ellipsoids.
    """

    inverse: NDArray[np.float32]
    solid: NDArray[np.int16]
    face: NDArray[np.int8]

    def depth(self) -> NDArray[np.float32]:
        """Float32 [H, W]: z in metres, 0 for the sky."""
        seen = self.inverse > 0
        return np.where(seen, 1 / np.where(seen, self.inverse, 1), 0).astype(np.float32)


def cast(table: SolidTable, grid: RayGrid, pose: Floats, farthest: float = 1000.0) -> Hits:
    """Cast a grid of rays into a scene.

    Args:
        table: the solids, in world coordinates.
        grid: the rays.
        pose: float64 [4, 4], sensor to world.
        farthest: metres along z; what lies beyond is sky.
    """
    hits = Hits(
        np.full(grid.shape, 1 / farthest, np.float32),
        np.full(grid.shape, SKY, np.int16),
        np.zeros(grid.shape, np.int8),
    )
    for index, window, most in _visible(table, grid, pose):
        if hits.inverse[window].min() >= most:
            continue  # hidden by what is nearer
        if len(table.offsets[index]):
            _cast_convex(table, index, grid, window, pose, hits)
        else:
            _cast_ellipsoid(table, index, grid, window, pose, hits)
    hits.inverse[hits.solid == SKY] = 0
    return hits


def _visible(table: SolidTable, grid: RayGrid, pose: Floats) -> Iterator[tuple[int, Window, float]]:
    """Solids that may be seen, nearest first: index, window of the grid, largest inverse depth."""
    corners = (table.corners - pose[:3, 3]) @ pose[:3, :3]
    ends = corners[:, _EDGES]  # [M, 12, 2, 3]
    z0, z1 = ends[:, :, 0, 2], ends[:, :, 1, 2]
    crosses = (z0 < NEAR) != (z1 < NEAR)
    share = np.where(crosses, (NEAR - z0) / np.where(crosses, z1 - z0, 1), 0)
    cuts = ends[:, :, 0] + share[..., None] * (ends[:, :, 1] - ends[:, :, 0])
    points = np.concatenate((corners, cuts), axis=1)
    ahead = np.concatenate((corners[..., 2] >= NEAR, crosses), axis=1)
    plane = points[..., :2] / np.where(ahead, points[..., 2], 1)[..., None]
    low = np.where(ahead[..., None], plane, np.inf).min(axis=1)
    high = np.where(ahead[..., None], plane, -np.inf).max(axis=1)
    windows = grid.windows(low, high)
    most = 1 / np.maximum(corners[..., 2].min(axis=1, initial=np.inf), NEAR)
    for index in np.argsort(np.linalg.norm(corners.mean(axis=1), axis=1)).tolist():
        window = windows[index]
        if window is not None:
            yield index, window, float(most[index])


def _cast_convex(
    table: SolidTable, index: int, grid: RayGrid, window: Window, pose: Floats, hits: Hits
) -> None:
    rows, columns = window
    gap = table.offsets[index] - table.normals[index] @ pose[:3, 3]
    gap = np.where(np.abs(gap) < 1e-9, 1e-9, gap)
    slopes = ((table.normals[index] @ pose[:3, :3]) / gap[:, None]).astype(np.float32)
    outside = np.flatnonzero(gap < 0)
    if not len(outside):
        return
    x, y = grid.x[:, columns], grid.y[rows, columns if grid.y.shape[1] > 1 else slice(None)]

    def inverse(plane: int) -> NDArray[np.float32]:
        a, b, c = slopes[plane]
        return np.asarray(a * x + (b * y + c), dtype=np.float32)

    enter = inverse(int(outside[0]))
    face = np.full(enter.shape, outside[0], np.int8)
    for plane in outside[1:].tolist():
        other = inverse(plane)
        face[other < enter] = plane
        np.minimum(enter, other, out=enter)
    good = enter > hits.inverse[window]
    good &= enter < 1 / NEAR
    if not good.any():
        return
    for plane in np.flatnonzero(gap > 0).tolist():
        good &= enter >= inverse(plane)
    np.copyto(hits.inverse[window], enter, where=good)
    np.copyto(hits.face[window], face, where=good)
    hits.solid[window][good] = index


def _cast_ellipsoid(
    table: SolidTable, index: int, grid: RayGrid, window: Window, pose: Floats, hits: Hits
) -> None:
    rows, columns = window
    to_unit = table.rotation[index].T / table.half[index][:, None]
    turn = (to_unit @ pose[:3, :3]).astype(np.float32)
    centre = (to_unit @ (pose[:3, 3] - table.origin[index])).astype(np.float32)
    x, y = grid.x[:, columns], grid.y[rows, columns if grid.y.shape[1] > 1 else slice(None)]
    e = [turn[i, 0] * x + (turn[i, 1] * y + turn[i, 2]) for i in range(3)]
    beyond = float(centre @ centre) - 1
    if beyond <= 0:
        return
    towards = -(centre[0] * e[0] + centre[1] * e[1] + centre[2] * e[2])
    length2 = e[0] * e[0] + e[1] * e[1] + e[2] * e[2]
    discriminant = towards * towards - length2 * np.float32(beyond)
    good = (discriminant > 0) & (towards > 0)
    root = np.sqrt(np.maximum(discriminant, 0))
    enter = (towards + root) / np.float32(beyond)
    good &= (enter > hits.inverse[window]) & (enter < 1 / NEAR)
    if not good.any():
        return
    leafiness = table.solids[index].leafiness
    if leafiness > 0:
        depth = 1 / np.maximum(enter[good], np.float32(1e-6))
        spot = [centre[i] + depth * e[i][good] for i in range(3)]
        facing = root[good] / np.sqrt(length2[good])  # cosine of incidence on the unit sphere
        good[good] = facing > leafiness * leaf_noise(spot, table.half[index], index)
    np.copyto(hits.inverse[window], enter, where=good)
    hits.face[window][good] = 0
    hits.solid[window][good] = index
