"""ROS's camera_info: the YAML of camera_calibration, or a printed sensor_msgs/CameraInfo.

Source: sensor_msgs/CameraInfo and REP 104: plumb_bob is k1, k2, t1, t2, k3; rational_polynomial adds k4, k5,
k6; equidistant has four terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsmde_edge.datasets.poses import Pose
from fsmde_edge.datasets.reading import parsing
from fsmde_edge.datasets.rigs.yaml_file import need, numbers, read_yaml
from fsmde_edge.errors import InputError
from fsmde_edge.rig import BrownConrady, Camera, Distortion, Fisheye, NoDistortion, Rig

_PLUMB_BOB = ("k1", "k2", "p1", "p2", "k3")
_RATIONAL = (*_PLUMB_BOB, "k4", "k5", "k6")
_EQUIDISTANT = ("k1", "k2", "k3", "k4")
_MODELS = {
    "plumb_bob": _PLUMB_BOB,
    "rational_polynomial": _RATIONAL,
    "equidistant": _EQUIDISTANT,
    "fisheye": _EQUIDISTANT,
}


def ros_rig(files: Sequence[Path], poses: Mapping[str, Pose], poses_path: Path) -> Rig:
    """A rig of one camera a file.

    Args:
        files: camera_info files; a camera is called by its camera_name, else by its file.
        poses: camera to its pose on the vehicle.
        poses_path: where they are from, for errors.

    Errors:
        InputError: a missing key, an unknown model, or a camera without a pose.
    """
    return Rig.of([_read(path, poses, poses_path) for path in files])


def _read(path: Path, poses: Mapping[str, Pose], poses_path: Path) -> Camera:
    content = read_yaml(path, "camera_info")
    with parsing(path):
        name = str(content.get("camera_name") or path.stem)
        if name not in poses:
            raise InputError(
                f"has no pose of camera {name} (it has {', '.join(poses)})",
                where=poses_path,
                hint="call it as camera_name in its camera_info",
            )
        k = _matrix(content, name)
        return Camera(
            name=name,
            width=_whole(content, "width", name),
            height=_whole(content, "height", name),
            intrinsics=k + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]),
            camera_to_vehicle=poses[name],
            distortion=_lens(content, name),
        )


def _matrix(content: Mapping[str, Any], name: str) -> Pose:
    values = _either(content, ("camera_matrix", "k", "K"), name)
    data = values.get("data") if isinstance(values, Mapping) else values
    return numbers(data, 9, f"the camera matrix of {name}").reshape(3, 3)


def _whole(content: Mapping[str, Any], side: str, name: str) -> int:
    value = _either(content, (f"image_{side}", side), name)
    if not isinstance(value, int):
        raise InputError(f"the {side} of {name} is not a whole number ({value!r})")
    return value


def _lens(content: Mapping[str, Any], name: str) -> Distortion:
    values = _either(content, ("distortion_coefficients", "d", "D"), name)
    terms = numbers(
        values.get("data") if isinstance(values, Mapping) else values, None, f"the distortion of {name}"
    ).tolist()
    model = str(need(content, "distortion_model", name))
    if model not in _MODELS:
        raise InputError(
            f"{name} has the unknown distortion model {model!r}", hint=f"known are {', '.join(_MODELS)}"
        )
    names = _MODELS[model]
    if any(terms[len(names) :]):  # rational lenses often carry zeros for terms that we do not have
        raise InputError(f"{name} has {len(terms)} distortion terms, {model} has {len(names)}")
    lens = dict(zip(names, terms, strict=False))
    if names is _EQUIDISTANT:
        return Fisheye(**lens)
    return BrownConrady(**lens) if any(terms) else NoDistortion()


def _either(content: Mapping[str, Any], keys: tuple[str, ...], name: str) -> Any:
    for key in keys:
        if key in content:
            return content[key]
    raise InputError(f"camera {name} misses the key {keys[0]!r}")
