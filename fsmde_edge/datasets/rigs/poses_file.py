"""Where cameras are on the vehicle, for calibrations that do not say so.

    front: {xyz: [1.6, 0.0, 1.5], xyzw: [-0.5, 0.5, -0.5, 0.5]}
    left: [[1, 0, 0, 0.2], [0, 0, 1, 0.9], [0, -1, 0, 1.5], [0, 0, 0, 1]]

Each is the pose of the camera (x right, y down, z forward: ROS's optical frame) in the vehicle (x forward,
y left, z up: ROS's base_link); quaternions in ROS's order. For Kalibr one is enough: `imu`, or any camera.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fsmde_edge.datasets.poses import Pose, pose
from fsmde_edge.datasets.reading import parsing
from fsmde_edge.datasets.rigs.yaml_file import need, numbers, read_yaml, rigid

Poses = Mapping[str, Pose]


def read_poses(path: Path) -> Poses:
    """Name to camera-to-vehicle pose, float64 [4, 4].

    Errors:
        InputError: missing, broken, or a pose that is none.
    """
    content = read_yaml(path, "file of poses")
    with parsing(path):
        return {name: _pose(name, value) for name, value in content.items()}


def _pose(name: str, value: object) -> Pose:
    if not isinstance(value, Mapping):
        return rigid(value, f"the pose of {name}")
    x, y, z, w = numbers(need(value, "xyzw", f"the pose of {name}"), 4, f"xyzw of {name}")
    return pose((w, x, y, z), list(numbers(need(value, "xyz", f"the pose of {name}"), 3, f"xyz of {name}")))
