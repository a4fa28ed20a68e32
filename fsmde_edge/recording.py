"""The layout of a recording (MCAP): which channels it has, and the record that completes each set.

    /cameras/<camera>/image         foxglove.CompressedImage    the network's picture: PNG, or JPEG
    /cameras/<camera>/depth         foxglove.RawImage           32FC1: metres along z, 0 = none
    /cameras/<camera>/calibration   foxglove.CameraCalibration  of both: an ideal pinhole
    /cameras/<camera>/own_car       foxglove.RawImage           mono8: 255 = world; with each new rig
    /tf                             foxglove.FrameTransforms    vehicle → each camera
    /points                         foxglove.PointCloud         all views, vehicle frame
    /set                            fsmde_edge.Set              JSON; the last message of each set

Every message of a set has its index as sequence number, and its instant as log time. A set whose `/set` is
there is whole; one without it was cut off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import InputError, MissingExtra
from fsmde_edge.frames import Clock, ExposurePoint

VERSION = 1
VEHICLE = "vehicle"
"""The frame that all cameras hang in."""

SET_TOPIC, TRANSFORMS_TOPIC, POINTS_TOPIC = "/set", "/tf", "/points"
MAGIC = b"\x89MCAP0\r\n"

SET_SCHEMA = {
    "title": "fsmde_edge.Set",
    "description": "A set of views is whole once this message is there",
    "type": "object",
    "properties": {
        "version": {"type": "integer"},
        "index": {"type": "integer"},
        "name": {"type": "string"},
        "clock": {"type": "string"},
        "realtime_offset_ns": {"type": ["integer", "null"]},
        "lossless": {"type": "boolean"},
        "views": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "camera": {"type": "string"},
                    "stamp_ns": {"type": "integer"},
                    "exposure": {"type": "string"},
                    "sequence": {"type": "integer"},
                    "picture": {"type": "boolean"},
                    "depth": {"type": "boolean"},
                },
            },
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRecord:
    """One view of a recorded set.

    Attributes:
        camera: its name.
        stamp_ns: its picture's instant on the set's clock.
        exposure: the point of the exposure that the stamp marks.
        sequence: its source's own running number.
        picture: whether its camera gave one.
        depth: whether its depth was current.
    """

    camera: str
    stamp_ns: int
    exposure: ExposurePoint
    sequence: int
    picture: bool
    depth: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRecord:
    """What completes a recorded set.

    Attributes:
        index, name: the set's own.
        clock: of the stamps, as they were.
        realtime_offset_ns: CLOCK_REALTIME minus CLOCK_MONOTONIC, of a live set.
        lossless: whether its pictures are exactly those that the network saw.
        views: in ring order.
    """

    index: int
    name: str
    clock: Clock
    realtime_offset_ns: int | None
    lossless: bool
    views: tuple[ViewRecord, ...]

    def to_json(self) -> bytes:
        """As a message of `/set`."""
        views = [
            {
                "camera": view.camera,
                "stamp_ns": view.stamp_ns,
                "exposure": view.exposure.value,
                "sequence": view.sequence,
                "picture": view.picture,
                "depth": view.depth,
            }
            for view in self.views
        ]
        content = {
            "version": VERSION,
            "index": self.index,
            "name": self.name,
            "clock": self.clock.value,
            "realtime_offset_ns": self.realtime_offset_ns,
            "lossless": self.lossless,
            "views": views,
        }
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> SetRecord:
        """From a message of `/set`.

        Errors:
            InputError: another version, or not one at all.
        """
        try:
            content = json.loads(data)
            if content["version"] != VERSION:
                raise InputError(
                    f"its sets have version {content['version']!r}, this program reads version {VERSION}"
                )
            offset = content["realtime_offset_ns"]
            return cls(
                index=int(content["index"]),
                name=str(content["name"]),
                clock=Clock(content["clock"]),
                realtime_offset_ns=None if offset is None else int(offset),
                lossless=bool(content["lossless"]),
                views=tuple(_view(view) for view in content["views"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"holds a set that cannot be understood ({error})") from error


def _view(content: Mapping[str, Any]) -> ViewRecord:
    return ViewRecord(
        camera=str(content["camera"]),
        stamp_ns=int(content["stamp_ns"]),
        exposure=ExposurePoint(content["exposure"]),
        sequence=int(content["sequence"]),
        picture=bool(content["picture"]),
        depth=bool(content["depth"]),
    )


def topic(camera: str, what: str) -> str:
    """The channel of one of a camera's things: image, depth, calibration, own_car."""
    return f"/cameras/{camera}/{what}"


def frame_id(camera: str) -> str:
    """A camera's optical frame: x right, y down, z forward."""
    return f"camera_{camera}"


def quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """A rotation matrix [3, 3] as a unit quaternion (x, y, z, w).

    Source: S. W. Shepperd, Quaternion from Rotation Matrix, Journal of Guidance and Control 1(3), 1978:
    of the four squares, the largest is taken from the diagonal and the others from sums and differences.
    """
    diagonal = np.diag(rotation)
    squares = np.append(1 + 2 * diagonal - diagonal.sum(), 1 + diagonal.sum())
    largest = int(np.argmax(squares))
    r = rotation
    if largest == 3:
        q = np.array((r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], squares[3]))
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        q = np.empty(4)
        q[i], q[j], q[k], q[3] = squares[i], r[j, i] + r[i, j], r[k, i] + r[i, k], r[k, j] - r[j, k]
    x, y, z, w = (float(part) for part in q / np.linalg.norm(q))
    return x, y, z, w


def rotation_matrix(x: float, y: float, z: float, w: float) -> NDArray[np.float64]:
    """The rotation matrix [3, 3] of a quaternion of any length but 0 (Euler-Rodrigues formula)."""
    x, y, z, w = np.array((x, y, z, w)) / np.linalg.norm((x, y, z, w))
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
        )
    )


def need_mcap(why: str) -> None:
    """Find out early whether the packages for recordings are there.

    Args:
        why: what needs them, as the message's beginning.

    Errors:
        MissingExtra: they are not.
    """
    try:
        import foxglove_schemas_protobuf  # noqa: F401
        import mcap_protobuf  # noqa: F401
    except ImportError as error:
        raise MissingExtra("mcap", extra="mcap", why=why) from error
