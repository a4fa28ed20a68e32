"""Writes small data sets in the DGP layout and in nuScenes' tables, for tests."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np

CAMERAS = ("CAMERA_06", "CAMERA_01", "CAMERA_09", "CAMERA_05", "CAMERA_08", "CAMERA_07")  # not in ring order
RING = ("CAMERA_01", "CAMERA_05", "CAMERA_07", "CAMERA_09", "CAMERA_08", "CAMERA_06")
YAW_DEG = dict(zip(RING, (0, 60, 120, 180, 240, 300), strict=True))
FX = 40.0
WIDTH, HEIGHT = 64, 40
POINTS = np.array([[10.0, 0.5, 1.5], [20.0, -2.0, 3.0], [-8.0, 0.0, 1.0], [3.0, 9.0, 0.0], [3.0, -9.0, 2.0]])
LATER = 0.25
"""How far (metres) the vehicle has driven when the LiDAR fires."""


def looking(yaw_deg: float) -> tuple[float, float, float, float]:
    """Quaternion w, x, y, z of a camera that looks to a yaw, in the vehicle's frame."""
    half = math.radians(yaw_deg) / 2
    cos, sin = math.cos(half), math.sin(half)
    w, x, y, z = 0.5, -0.5, 0.5, -0.5
    return cos * w - sin * z, cos * x - sin * y, cos * y + sin * x, cos * z + sin * w


def dgp_pose(quaternion, translation) -> dict:
    return {
        "rotation": dict(zip(("qw", "qx", "qy", "qz"), quaternion, strict=True)),
        "translation": dict(zip("xyz", translation, strict=True)),
    }


def picture(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """RGB noise over a ramp, so that no two pictures look alike."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width)[None, :, None] * np.ones((height, 1, 3))
    return np.clip(ramp + rng.integers(0, 50, (height, width, 3)), 0, 255).astype(np.uint8)


def write_picture(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_dgp(
    root: Path, *, scenes=("scene_a", "scene_b"), samples=2, cameras=CAMERAS, suffix=".png", split="1"
) -> Path:
    """A DGP data set; the vehicle drives along world x, a metre a sample. Returns its folder."""
    files = [f"{scene}/{write_scene(root / scene, samples, cameras, suffix).name}" for scene in scenes]
    content = {"metadata": {"name": "tiny"}, "scene_splits": {split: {"filenames": files}}}
    (root / "scene_dataset_v1.0.json").write_text(json.dumps(content))
    return root


def write_scene(folder: Path, samples: int, cameras, suffix: str) -> Path:
    data, rows = [], []
    (folder / "point_cloud/LIDAR").mkdir(parents=True, exist_ok=True)
    for index in range(samples):
        keys = []
        stamp = f"2026-01-02T03:04:{index:02d}.100000Z"
        cloud = f"point_cloud/LIDAR/{index}.npz"
        np.savez(folder / cloud, data=np.concatenate((POINTS, np.ones((len(POINTS), 1))), axis=1))
        datum = {
            "point_cloud": {
                "filename": cloud,
                "point_format": ["X", "Y", "Z", "INTENSITY"],
                "pose": dgp_pose((1, 0, 0, 0), (index + LATER, 0, 0)),
            }
        }
        keys.append(f"lidar{index}")
        data.append(_datum(datum, "LIDAR", stamp, keys[-1]))
        for number, camera in enumerate(cameras):
            name = f"rgb/{camera}/{index}{suffix}"
            write_picture(folder / name, picture(100 * index + number))
            pose = dgp_pose(looking(YAW_DEG[camera]), (index, 0, 1.5))
            datum = {
                "image": {"filename": name, "width": WIDTH, "height": HEIGHT, "channels": 3, "pose": pose}
            }
            keys.append(f"{camera}{index}")
            data.append(_datum(datum, camera, stamp, keys[-1]))
        rows.append({"calibration_key": "calib", "datum_keys": keys, "id": {"name": "", "timestamp": stamp}})
    write_calibration(folder / "calibration/calib.json", cameras)
    path = folder / f"scene_{folder.name}.json"
    path.write_text(json.dumps({"name": "", "data": data, "samples": rows}))
    return path


def write_calibration(path: Path, cameras) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lens = {"fx": FX, "fy": FX, "cx": WIDTH / 2, "cy": HEIGHT / 2, "skew": 0.0}
    content = {
        "names": ["LIDAR", *cameras],
        "intrinsics": [dict.fromkeys(lens, 0.0), *(lens for _ in cameras)],
        "extrinsics": [
            dgp_pose((1, 0, 0, 0), (0, 0, 0)),
            *(dgp_pose(looking(YAW_DEG[camera]), (0, 0, 1.5)) for camera in cameras),
        ],
    }
    path.write_text(json.dumps(content))


def _datum(datum: dict, name: str, stamp: str, key: str) -> dict:
    return {
        "datum": datum,
        "id": {"name": name, "timestamp": stamp, "index": "0", "log": ""},
        "key": key,
        "next_key": "",
        "prev_key": "dangling",
    }


def write_nuscenes(root: Path, *, scenes=("scene-0001", "scene-0002"), samples=2) -> Path:
    """nuScenes' official tables with the same vehicle, pictures and points. Returns the folder."""
    tables: dict[str, list] = {
        name: [] for name in ("scene", "sample", "sample_data", "calibrated_sensor", "ego_pose", "sensor")
    }
    for camera in CAMERAS:
        tables["sensor"].append({"token": f"s-{camera}", "channel": camera, "modality": "camera"})
        k = [[FX, 0, WIDTH / 2], [0, FX, HEIGHT / 2], [0, 0, 1]]
        tables["calibrated_sensor"].append(
            {
                "token": f"c-{camera}",
                "sensor_token": f"s-{camera}",
                "rotation": looking(YAW_DEG[camera]),
                "translation": [0, 0, 1.5],
                "camera_intrinsic": k,
            }
        )
    tables["sensor"].append({"token": "s-lidar", "channel": "LIDAR_TOP", "modality": "lidar"})
    lidar = {"rotation": [1, 0, 0, 0], "translation": [0, 0, 0], "camera_intrinsic": []}
    tables["calibrated_sensor"].append({"token": "c-lidar", "sensor_token": "s-lidar", **lidar})
    for scene in scenes:
        tables["scene"].append({"token": f"t-{scene}", "name": scene})
        for index in reversed(range(samples)):  # the tables' order is not the order in time
            _keyframe(root, tables, scene, index)
    folder = root / "v1.0-mini"
    folder.mkdir(parents=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))
    return root


def _keyframe(root: Path, tables: dict[str, list], scene: str, index: int) -> None:
    token, time = f"{scene}-{index}", 1_500_000_000_000_000 + index * 500_000
    tables["sample"].append({"token": token, "scene_token": f"t-{scene}", "timestamp": time})
    for number, sensor in enumerate((*CAMERAS, "lidar")):
        moved = index + (LATER if sensor == "lidar" else 0)
        pose = f"e-{token}-{sensor}"
        tables["ego_pose"].append({"token": pose, "rotation": [1, 0, 0, 0], "translation": [moved, 0, 0]})
        name = f"samples/{sensor}/{token}" + (".pcd.bin" if sensor == "lidar" else ".png")
        for key_frame in (True, False):
            row = {
                "token": f"d-{token}-{sensor}-{key_frame}",
                "sample_token": token,
                "ego_pose_token": pose,
                "calibrated_sensor_token": f"c-{sensor}",
                "filename": name if key_frame else name.replace("samples", "sweeps"),
                "timestamp": time + number,
                "is_key_frame": key_frame,
            }
            tables["sample_data"].append(row)
        if sensor == "lidar":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            rows = np.concatenate((POINTS, np.zeros((len(POINTS), 2))), axis=1)
            (root / name).write_bytes(rows.astype("<f4").tobytes())
        else:
            write_picture(root / name, picture(100 * index + number))
