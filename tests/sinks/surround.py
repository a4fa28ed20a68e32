"""Results of a small rig whose every pixel tells where it is from."""

from __future__ import annotations

import math

import numpy as np

from fsmde_edge.frames import Clock, DepthSet, Frame, FrameSet, Stamp
from fsmde_edge.rig import Camera, Rig


def camera(name, yaw_deg, *, width=16, height=8, fx=9.0, fy=8.0, pitch_deg=0.0, roll_deg=0.0, at=(0, 0, 1.5)):
    yaw, pitch, roll = (math.radians(angle) for angle in (yaw_deg, pitch_deg, roll_deg))
    forward = np.array((math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), math.sin(pitch)))
    right = np.array((math.sin(yaw), -math.cos(yaw), 0.0))
    down = np.cross(forward, right)
    right, down = (
        math.cos(roll) * right + math.sin(roll) * down,
        math.cos(roll) * down - math.sin(roll) * right,
    )
    pose = np.eye(4)
    pose[:3, :3] = np.stack((right, down, forward), axis=1)
    pose[:3, 3] = at
    k = np.array([[fx, 0, width / 2 + 0.3], [0, fy, height / 2 - 0.2], [0, 0, 1]])
    return Camera(name=name, width=width, height=height, intrinsics=k, camera_to_vehicle=pose)


def ring(count=6, **changes):
    names = ("front", "front-left", "back-left", "back", "back-right", "front-right")
    return Rig.of(camera(names[n], n * 360 / count, **changes) for n in range(count))


def result(rig, *, index=7, clock=Clock.RECORDED, offset=None, depth=None, valid=None, seed=0, start=1_000):
    """A frame set at the rig's own size, the network's pictures and random depth."""
    random = np.random.default_rng(seed)
    height, width = rig.cameras[0].height, rig.cameras[0].width
    images = random.integers(0, 256, (len(rig), height, width, 3), dtype=np.uint8)
    stamps = tuple(start + 10 * view for view in range(len(rig)))
    frames = tuple(
        Frame(camera=name, image=image, stamp=Stamp(ns, clock), sequence=index)
        for name, image, ns in zip(rig.names, images, stamps, strict=True)
    )
    if depth is None:
        depth = random.uniform(0.5, 80, (len(rig), height, width)).astype(np.float32)
    depth_set = DepthSet(
        depth=depth,
        cameras=rig.names,
        stamps_ns=stamps,
        focal=np.array([c.intrinsics[0, 0] for c in rig.cameras], np.float32),
        index=index,
        valid=valid,
        rig=rig,
    )
    frame_set = FrameSet(frames=frames, index=index, name=f"scene/{index}", realtime_offset_ns=offset)
    return frame_set, images, depth_set
