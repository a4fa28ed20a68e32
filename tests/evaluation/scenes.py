"""Small constructed rigs and samples whose depth is known everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fsmde_edge.frames import Frame, FrameSet, Sample, Stamp
from fsmde_edge.rig import Camera, Rig


def looking(azimuth_deg: float, height_m: float = 1.5, pitch_deg: float = 0.0) -> np.ndarray:
    """camera_to_vehicle of a camera over the vehicle's origin."""
    a, p = math.radians(azimuth_deg), math.radians(pitch_deg)
    forward = np.array((math.cos(a) * math.cos(p), math.sin(a) * math.cos(p), math.sin(p)))
    right = np.array((math.sin(a), -math.cos(a), 0.0))
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, np.cross(forward, right), forward
    pose[2, 3] = height_m
    return pose


def ring(count: int = 6, *, width: int = 64, height: int = 48, fov_deg: float = 80.0) -> Rig:
    """Level cameras c0, c1, …, evenly around; at 80° six of them overlap by 20°."""
    fx = width / 2 / math.tan(math.radians(fov_deg / 2))
    k = np.array([[fx, 0, width / 2], [0, fx, height / 2], [0, 0, 1]])
    return Rig.of(
        Camera(
            name=f"c{i}",
            width=width,
            height=height,
            intrinsics=k,
            camera_to_vehicle=looking(360 / count * i),
        )
        for i in range(count)
    )


def sample(rig: Rig, depth: Mapping[str, np.ndarray], name: str = "scene/0") -> Sample:
    """A black frame set with these depth maps as its LiDAR."""
    frames = tuple(
        Frame(camera=c.name, image=np.zeros((c.height, c.width, 3), dtype=np.uint8), stamp=Stamp(0))
        for c in rig.cameras
    )
    return Sample(frame_set=FrameSet(frames=frames, name=name), rig=rig, depth=depth)


def pixel_rays(camera: Camera) -> np.ndarray:
    """Rays [H, W, 3], z = 1, of the pixels' centres."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    return camera.rays(np.stack((u, v), axis=-1))


def room_depth(camera: Camera, radius: float = 20.0) -> np.ndarray:
    """Depth (z) of the inside of a ball around the vehicle's origin: smooth, and seen by every camera."""
    rays = pixel_rays(camera) @ camera.camera_to_vehicle[:3, :3].T
    centre = camera.camera_to_vehicle[:3, 3]
    along, square = (rays * centre).sum(axis=-1), (rays * rays).sum(axis=-1)
    z = (-along + np.sqrt(along**2 - square * ((centre**2).sum() - radius**2))) / square
    return z.astype(np.float32)
