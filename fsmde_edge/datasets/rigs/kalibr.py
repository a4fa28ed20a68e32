"""Kalibr's camera chain: camchain.yaml, or camchain-imucam.yaml, which also has the IMU.

Source: Kalibr's wiki, "YAML formats" and "Supported models": intrinsics are fu, fv, pu, pv; T_cn_cnm1 moves
points from the camera before; T_cam_imu moves them from the IMU; `radtan` is k1, k2, p1, p2.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fsmde_edge.datasets.poses import Pose, inverse
from fsmde_edge.datasets.reading import parsing
from fsmde_edge.datasets.rigs.yaml_file import need, numbers, read_yaml, rigid
from fsmde_edge.errors import InputError
from fsmde_edge.rig import BrownConrady, Camera, Distortion, Fisheye, NoDistortion, Rig


def kalibr_rig(path: Path, poses: Mapping[str, Pose] | None) -> Rig:
    """The chain's cameras.

    Args:
        path: the chain.
        poses: of the IMU or of one camera on the vehicle; None if the IMU's axes are the vehicle's.

    Errors:
        InputError: a missing key, an unknown model, a pose that is none, or no tie to the vehicle.
    """
    content = read_yaml(path, "camera chain")
    with parsing(path):
        chain = {name: values for name, values in content.items() if name.startswith("cam")}
        if not chain:
            raise InputError("holds no camera (cam0, cam1, …)")
        names = sorted(chain, key=lambda name: (len(name), name))
        to_first = _to_first(names, chain)
        first_to_vehicle = _first_to_vehicle(names, chain, to_first, poses)
        return Rig.of(_camera(name, chain[name], first_to_vehicle @ to_first[name]) for name in names)


def _to_first(names: list[str], chain: Mapping[str, Any]) -> dict[str, Pose]:
    """Each camera's pose in the first one's frame."""
    poses = {names[0]: np.eye(4)}
    for before, name in pairwise(names):
        step = rigid(need(chain[name], "T_cn_cnm1", name), f"T_cn_cnm1 of {name}")
        poses[name] = poses[before] @ inverse(step)
    return poses


def _first_to_vehicle(
    names: list[str], chain: Mapping[str, Any], to_first: Mapping[str, Pose], poses: Mapping[str, Pose] | None
) -> Pose:
    known = {} if poses is None else poses
    for name in names:
        if name in known:
            return np.asarray(known[name] @ inverse(to_first[name]))
    with_imu = "T_cam_imu" in chain[names[0]]
    if not with_imu or (poses is not None and "imu" not in known):
        raise InputError(
            "does not say where the cameras are on the vehicle",
            hint=f"give --poses YAML with the pose of {'imu' if with_imu else names[0]} on the vehicle",
        )
    from_imu = rigid(chain[names[0]]["T_cam_imu"], f"T_cam_imu of {names[0]}")
    return np.asarray(known.get("imu", np.eye(4)) @ inverse(from_imu))


def _camera(name: str, values: Mapping[str, Any], camera_to_vehicle: Pose) -> Camera:
    model = need(values, "camera_model", name)
    if model != "pinhole":
        raise InputError(
            f"{name} has the camera model {model!r}, which is not known",
            hint="calibrate it as pinhole-radtan or pinhole-equi",
        )
    fx, fy, cx, cy = numbers(need(values, "intrinsics", name), 4, f"intrinsics of {name}")
    width, height = numbers(need(values, "resolution", name), 2, f"resolution of {name}")
    return Camera(
        name=name,
        width=int(width),
        height=int(height),
        intrinsics=np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]]),
        camera_to_vehicle=camera_to_vehicle,
        distortion=_lens(name, values),
    )


def _lens(name: str, values: Mapping[str, Any]) -> Distortion:
    model = need(values, "distortion_model", name)
    if model == "none":
        return NoDistortion()
    if model not in {"radtan", "equidistant"}:
        raise InputError(
            f"{name} has the unknown distortion model {model!r}", hint="known are none, radtan, equidistant"
        )
    terms = numbers(need(values, "distortion_coeffs", name), 4, f"distortion_coeffs of {name}").tolist()
    if model == "equidistant":
        return Fisheye(**dict(zip(("k1", "k2", "k3", "k4"), terms, strict=True)))
    return BrownConrady(**dict(zip(("k1", "k2", "p1", "p2"), terms, strict=True)))
