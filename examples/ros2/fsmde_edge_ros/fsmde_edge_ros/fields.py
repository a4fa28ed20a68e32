"""What the messages hold, as plain values: no ROS here, so that it is tested without it.

Names are those of sensor_msgs and geometry_msgs. ROS puts a pixel's centre at whole numbers and fsmde-edge at
halves, so principal points move by half a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.frames import DepthSet, FrameSet
from fsmde_edge.recording import VEHICLE, frame_id, quaternion
from fsmde_edge.rig import Camera, Rig
from fsmde_edge.sinks.points import Cloud

HALF_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
FLOAT32 = 7
"""Of sensor_msgs/PointField."""

POINT_STEP = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """std_msgs/Header."""

    sec: int
    nanosec: int
    frame_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFields:
    """sensor_msgs/Image; always little-endian."""

    header: Header
    height: int
    width: int
    encoding: str
    step: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraInfoFields:
    """sensor_msgs/CameraInfo of a rectified picture."""

    header: Header
    height: int
    width: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFields:
    """sensor_msgs/PointCloud2 of one row of points; `fields` are (name, offset, datatype)."""

    header: Header
    width: int
    fields: tuple[tuple[str, int, int], ...]
    point_step: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformFields:
    """geometry_msgs/TransformStamped from the vehicle to a camera's optical frame."""

    header: Header
    child_frame_id: str
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]


def stamps_ns(frame_set: FrameSet) -> tuple[int, ...]:
    """Each view's instant as system time for live sets; of a recording, as its own clock has it."""
    offset = frame_set.realtime_offset_ns or 0
    return tuple(stamp + offset for stamp in frame_set.stamps_ns)


def header(stamp_ns: int, frame: str) -> Header:
    """A header of nanoseconds and a frame."""
    return Header(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9, frame_id=frame)


def picture(camera: Camera, stamp_ns: int, image: NDArray[np.uint8]) -> ImageFields:
    """What the network saw: rgb8, uint8 [H, W, 3]."""
    return _image(camera, stamp_ns, "rgb8", 3, image)


def depth(camera: Camera, stamp_ns: int, metres: NDArray[np.float32], *, valid: bool) -> ImageFields:
    """Depth along the optical axis, 32FC1, float32 [H, W] in metres; NaN where there is none.

    Source: REP 118, and REP 117 for NaN.
    """
    known = np.where(metres > 0, metres, np.float32(np.nan)) if valid else np.full_like(metres, np.nan)
    return _image(camera, stamp_ns, "32FC1", 4, known.astype("<f4"))


def camera_info(camera: Camera, stamp_ns: int) -> CameraInfoFields:
    """The ideal camera that picture and depth are seen by."""
    k = camera.intrinsics - HALF_PIXEL
    return CameraInfoFields(
        header=header(stamp_ns, frame_id(camera.name)),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=(0.0,) * 5,
        k=tuple(k.ravel().tolist()),
        r=tuple(np.eye(3).ravel().tolist()),
        p=tuple(np.hstack((k, np.zeros((3, 1)))).ravel().tolist()),
    )


def points(cloud: Cloud, stamp_ns: int) -> PointFields:
    """Coloured points in the vehicle frame; `rgb` is 0x00RRGGBB in a float's bits, as rviz reads it."""
    packed = np.zeros((len(cloud.xyz), POINT_STEP), np.uint8)
    packed[:, :12] = np.ascontiguousarray(cloud.xyz, "<f4").view(np.uint8).reshape(-1, 12)
    packed[:, 12:15] = cloud.rgb[:, ::-1]
    return PointFields(
        header=header(stamp_ns, VEHICLE),
        width=len(cloud.xyz),
        fields=(("x", 0, FLOAT32), ("y", 4, FLOAT32), ("z", 8, FLOAT32), ("rgb", 12, FLOAT32)),
        point_step=POINT_STEP,
        data=packed.tobytes(),
    )


def transforms(rig: Rig, stamp_ns: int) -> Iterator[TransformFields]:
    """Where each camera hangs."""
    for camera in rig.cameras:
        x, y, z = camera.camera_to_vehicle[:3, 3].tolist()
        yield TransformFields(
            header=header(stamp_ns, VEHICLE),
            child_frame_id=frame_id(camera.name),
            translation=(x, y, z),
            rotation=quaternion(camera.camera_to_vehicle[:3, :3]),
        )


def usable(depth_set: DepthSet) -> tuple[bool, ...]:
    """Which views' depth may be shown as current."""
    return depth_set.valid or (True,) * len(depth_set.cameras)


def _image(
    camera: Camera,
    stamp_ns: int,
    encoding: str,
    pixel_bytes: int,
    pixels: NDArray[np.uint8] | NDArray[np.float32],
) -> ImageFields:
    height, width = pixels.shape[:2]
    return ImageFields(
        header=header(stamp_ns, frame_id(camera.name)),
        height=height,
        width=width,
        encoding=encoding,
        step=width * pixel_bytes,
        data=np.ascontiguousarray(pixels).tobytes(),
    )
