"""Six-camera rigs: a DDAD-like one, a nuScenes-like one, and the spread around them that training uses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.synthetic.solids import Material, Paint, Place, Solid, ellipsoid, half_spaces
from fsmde_edge.rig import Camera, Rig

Split = Literal["train", "dev", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """Where a camera sits and what it sees: azimuth in degrees, position in metres, fx over the width."""

    name: str
    azimuth: float
    x: float
    y: float
    focal: float


DDAD_LIKE = (
    Mount(name="CAMERA_01", azimuth=0.0, x=1.5, y=0.3, focal=1.127),
    Mount(name="CAMERA_05", azimuth=52.0, x=1.5, y=0.45, focal=0.547),
    Mount(name="CAMERA_07", azimuth=124.0, x=1.1, y=0.45, focal=0.547),
    Mount(name="CAMERA_09", azimuth=180.0, x=0.15, y=0.1, focal=0.549),
    Mount(name="CAMERA_08", azimuth=-124.0, x=1.1, y=-0.45, focal=0.547),
    Mount(name="CAMERA_06", azimuth=-52.0, x=1.5, y=-0.45, focal=0.547),
)
NUSCENES_LIKE = (
    Mount(name="CAMERA_01", azimuth=0.0, x=1.7, y=0.0, focal=0.79),
    Mount(name="CAMERA_05", azimuth=55.0, x=1.5, y=0.5, focal=0.79),
    Mount(name="CAMERA_07", azimuth=109.0, x=1.0, y=0.5, focal=0.79),
    Mount(name="CAMERA_09", azimuth=180.0, x=0.0, y=0.0, focal=0.506),
    Mount(name="CAMERA_08", azimuth=-109.0, x=1.0, y=-0.5, focal=0.79),
    Mount(name="CAMERA_06", azimuth=-55.0, x=1.5, y=-0.5, focal=0.79),
)
DDAD_ASPECT, NUSCENES_ASPECT = 1936 / 1216, 1600 / 900

_HEIGHTS: dict[Split, tuple[float, float]] = {"train": (1.25, 2.15), "dev": (1.35, 1.5), "test": (1.55, 1.7)}


TYPICAL_HEIGHT = 1.6
"""Metres: what training heights close in on as their spread goes to 0."""


def random_rig(
    generator: np.random.Generator, split: Split, width: int, height: int, train_spread: float = 1.0
) -> Rig:
    """Draw a rig whose pictures are squashed to a size.

    Training draws widely (both base rigs, heights 1.2–2.2 m, focal lengths ± 25 %, pitch ± 3°, roll ± 1.5°),
    heights and angles `train_spread` times as widely; dev and test stay within half a degree and 3 % of the
    DDAD-like rig, at heights of their own.
    """
    wide = split == "train"
    nuscenes = wide and generator.random() < 0.35
    mounts, aspect = (NUSCENES_LIKE, NUSCENES_ASPECT) if nuscenes else (DDAD_LIKE, DDAD_ASPECT)
    level = generator.uniform(*_HEIGHTS[split])
    level = TYPICAL_HEIGHT + train_spread * (level - TYPICAL_HEIGHT) if wide else level
    zoom = generator.uniform(0.8, 1.25) if wide else generator.uniform(0.98, 1.02)
    pitch = train_spread * generator.uniform(-2.0, 2.0) if wide else 0.0
    spread = 1.0 if wide else 0.3
    turn = spread * (train_spread if wide else 1.0)
    cameras = []
    for mount in mounts:
        fx = mount.focal * zoom * width * (1 + 0.05 * spread * generator.uniform(-1, 1))
        fy = fx / width * aspect * height
        k = np.array([[fx, 0, 0], [0, fy, 0], [0, 0, 1.0]])
        k[:2, 2] = (np.array((0.5, 0.5)) + 0.012 * spread * generator.uniform(-1, 1, 2)) * (width, height)
        angles = generator.uniform(-1, 1, 3) * turn * np.array((3.0, 1.0, 1.4))
        pose = np.eye(4)
        pose[:3, :3] = camera_rotation(mount.azimuth + angles[0], pitch + angles[1], angles[2])
        position = (mount.x, mount.y, level) + spread * generator.uniform(-0.05, 0.05, 3)
        pose[:3, 3] = position
        cameras.append(
            Camera(name=mount.name, width=width, height=height, intrinsics=k, camera_to_vehicle=pose)
        )
    return Rig.of(cameras)


def camera_rotation(azimuth: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Camera to vehicle, float64 [3, 3].

    Args:
        azimuth: degrees counter-clockwise from vehicle +x.
        pitch: degrees above the horizon.
        roll: degrees, clockwise about the optical axis.
    """
    a, p, r = math.radians(azimuth), math.radians(pitch), math.radians(roll)
    forward = np.array((math.cos(p) * math.cos(a), math.cos(p) * math.sin(a), math.sin(p)))
    right = np.array((math.sin(a), -math.cos(a), 0.0))
    down = np.cross(forward, right)
    return np.stack(
        (math.cos(r) * right + math.sin(r) * down, math.cos(r) * down - math.sin(r) * right, forward), axis=1
    )


def ego_parts(generator: np.random.Generator, rig: Rig) -> tuple[Solid, ...]:
    """The own car as its cameras see it (roof, bonnet, boot), in the vehicle frame."""
    top = min(camera.height_m for camera in rig.cameras) - generator.uniform(0.06, 0.15)
    r, g, b = (10 ** generator.uniform(-2, -0.35) * generator.uniform(0.5, 1.0, 3)).tolist()
    gloss = float(generator.uniform(0.2, 0.9))
    paint = Paint(material=Material.EGO, colour=(r, g, b), gloss=gloss, contrast=0.1, layer=10, scale=0.3)
    here = Place(x=0.0, y=0.0)
    parts = [_roof(generator, top, paint)]
    bonnet = top - generator.uniform(0.15, 0.35)
    parts.append(ellipsoid(here, (1.9, 0.0, bonnet - 0.3), (1.3, 1.05, 0.32), paint))
    if generator.random() < 0.5:
        boot = top - generator.uniform(0.3, 0.45)
        parts.append(ellipsoid(here, (-1.9, 0.0, boot - 0.3), (0.9, 0.95, 0.33), paint))
    return tuple(parts)


def _roof(generator: np.random.Generator, top: float, paint: Paint) -> Solid:
    """Level in the middle, sloping down in front, behind and at the sides."""
    wide, end = generator.uniform(0.66, 0.8), generator.uniform(-0.5, 0.0)
    slope, lean = generator.uniform(0.25, 0.5), generator.uniform(0.25, 0.6)
    normals = np.array(
        ((0, 0, 1), (-slope, 0, 1), (0.7, 0, 1), (0, 1, lean), (0, -1, lean), (0, 0, -1)), dtype=np.float64
    )
    points = np.array(
        ((0, 0, top), (end, 0, top), (1.25, 0, top), (0, wide, top), (0, -wide, top), (0, 0, top - 0.8))
    )
    return half_spaces(normals, points, np.array((-3.5, -1.6, top - 0.8)), np.array((2.5, 1.6, top)), paint)
