"""A spinning LiDAR on the roof: rays into the scene, range noise, lost returns; and its projection."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.lidar import sparse_depth
from fsmde_edge.datasets.poses import inverse, move
from fsmde_edge.datasets.synthetic.raycast import RayGrid, cast
from fsmde_edge.datasets.synthetic.rig import camera_rotation
from fsmde_edge.datasets.synthetic.solids import SolidTable
from fsmde_edge.rig import Camera

Floats = NDArray[np.float64]

RANGE_M = 250.0
SECTORS = 6
_POSITION = (0.75, 0.0)


def scan(
    table: SolidTable,
    vehicle_pose: Floats,
    height: float,
    generator: np.random.Generator,
    *,
    beams: int = 96,
    columns: int = 1020,
    noise_m: float = 0.02,
) -> NDArray[np.float32]:
    """One sweep at one instant.

    Args:
        table: the solids without the own car, in world coordinates.
        vehicle_pose: float64 [4, 4], vehicle to world.
        height: of the sensor above the ground, in metres.
        generator: of noise and losses.
        beams: rows, from -28° to +14°, dense about the horizon.
        columns: rays of a row in a full turn (a multiple of 6).
        noise_m: deviation of the range.

    Returns:
        float32 [N, 4]: x, y, z in the vehicle frame and intensity in 0..1.
    """
    mount = np.eye(4)
    mount[:3, 3] = (*_POSITION, height)
    grid = _sector(beams, columns // SECTORS)
    clouds = []
    for sector in range(SECTORS):
        mount[:3, :3] = camera_rotation(360.0 / SECTORS * sector, 0.0, 0.0)
        hits = cast(table, grid, vehicle_pose @ mount)
        rays = grid.directions().reshape(-1, 3).astype(np.float64)
        stretch = np.linalg.norm(rays, axis=1)
        depth = hits.depth().reshape(-1)
        distance = depth * stretch
        lost = generator.random(len(depth)) < 0.04 + 0.5 * (distance / RANGE_M) ** 2
        good = (depth > 0) & (distance < RANGE_M) & (distance > 1.0) & ~lost
        noisy = distance[good] + generator.normal(0, noise_m, int(good.sum()))
        points = (rays[good] / stretch[good, None] * noisy[:, None]) @ mount[:3, :3].T + mount[:3, 3]
        intensity = np.clip(generator.normal(0.25, 0.12, len(points)), 0, 1)
        clouds.append(np.concatenate((points, intensity[:, None]), axis=1))
    return np.concatenate(clouds).astype(np.float32)


def _sector(beams: int, columns: int) -> RayGrid:
    """Rays of one sector as a grid of the plane z = 1."""
    half = math.pi / SECTORS
    azimuth = (np.arange(columns) + 0.5) / columns * 2 * half - half
    spread = np.linspace(-1, 1, beams)
    elevation = np.radians(np.where(spread < 0, 14 * np.abs(spread) ** 1.5, -28 * np.abs(spread) ** 1.5))
    x = np.tan(azimuth)
    y = -np.tan(elevation)[:, None] * np.sqrt(1 + x * x)[None]
    return RayGrid(x[None].astype(np.float32), y.astype(np.float32), stretch=float(1 / math.cos(half)))


def depth_map(points: NDArray[np.float32], camera: Camera) -> NDArray[np.float32]:
    """A sweep (vehicle frame, [N, ≥ 3]) as a camera's sparse depth, float32 [H, W]; 0 = none."""
    return sparse_depth(move(inverse(camera.camera_to_vehicle), points[:, :3].astype(np.float64)), camera)
