"""What a rig sees around the vehicle: who sees which directions, where two see the same, where none does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.rig import Camera, Rig

Arc = tuple[float, float]
"""Degrees counter-clockwise from vehicle +x: where it starts (0..360) and where it ends (after the start)."""

STEP_DEG = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surround:
    """Directions on one circle around the vehicle.

    Attributes:
        rig: the cameras.
        distance_m: the circle's radius; what lies nearer may be hidden from cameras that are apart.
        seen: bool [V, directions], one every `STEP_DEG`.
    """

    rig: Rig
    distance_m: float
    seen: NDArray[np.bool_]

    def arcs(self, camera: int) -> tuple[Arc, ...]:
        """What one camera sees."""
        return tuple(_arcs(self.seen[camera]))

    @property
    def blind(self) -> tuple[Arc, ...]:
        """What no camera sees."""
        return tuple(_arcs(np.asarray(self.seen.sum(axis=0) == 0)))

    @property
    def shared(self) -> tuple[Arc, ...]:
        """What two or more cameras see."""
        return tuple(_arcs(np.asarray(self.seen.sum(axis=0) > 1)))

    def overlaps(self) -> Iterator[tuple[str, str, float]]:
        """Ring neighbours, and the degrees that both see."""
        count = len(self.rig)
        for i in range(count if count > 2 else count - 1):
            j = (i + 1) % count
            both = float((self.seen[i] & self.seen[j]).sum() * STEP_DEG)
            yield self.rig.names[i], self.rig.names[j], both


def surround(rig: Rig, distance_m: float = 10.0) -> Surround:
    """Look along the horizon: points on a circle, each at the camera's own height.

    Args:
        rig: the cameras.
        distance_m: radius of the circle around the vehicle's origin.
    """
    angles = np.radians((np.arange(round(360 / STEP_DEG)) + 0.5) * STEP_DEG)
    circle = np.stack((np.cos(angles), np.sin(angles)), axis=-1) * distance_m
    return Surround(
        rig=rig, distance_m=distance_m, seen=np.stack([_sees(camera, circle) for camera in rig.cameras])
    )


def _sees(camera: Camera, circle: NDArray[np.float64]) -> NDArray[np.bool_]:
    points = np.concatenate((circle, np.full((len(circle), 1), camera.height_m)), axis=1)
    pose = camera.camera_to_vehicle
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    uv, z = camera.project(local)
    seen = camera.inside(uv) & (z > 0)
    seen[seen] = _before_fold(camera, local[seen, :2] / z[seen, None])
    return seen


def _before_fold(camera: Camera, plane: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether positions on the plane z = 1 lie where the lens's formula still grows outwards.

    Beyond that it folds back into the picture what no real lens shows.
    """
    steps = np.linspace(0, 1, 65)[:, None, None]
    radii = np.linalg.norm(camera.distortion.distort(steps * plane), axis=-1)
    return np.asarray((np.diff(radii, axis=0) > 0).all(axis=0))


def _arcs(there: NDArray[np.bool_]) -> Iterator[Arc]:
    if there.all():
        yield 0.0, 360.0
        return
    starts = np.flatnonzero(there & ~np.roll(there, 1))
    ends = np.flatnonzero(there & ~np.roll(there, -1)) + 1
    if starts.size and ends[0] <= starts[0]:
        ends = np.roll(ends, -1)
    for start, end in zip(starts * STEP_DEG, ends * STEP_DEG, strict=True):
        yield float(start), float(end if end > start else end + 360)


def in_words(arc: Arc) -> str:
    """An arc as people read it, from -180° to 180°."""
    start, end = (math.remainder(angle, 360) for angle in arc)
    return f"{start:+.0f}° to {end:+.0f}°"
