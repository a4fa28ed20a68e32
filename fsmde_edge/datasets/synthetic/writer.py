"""Write synthetic streets in the DGP layout, so that the reader of DDAD reads them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.datasets.synthetic.dataset import SyntheticStreets
from fsmde_edge.datasets.synthetic.rig import Split
from fsmde_edge.files import atomic_folder, atomic_write
from fsmde_edge.frames import Sample
from fsmde_edge.rig import Camera, Rig

Floats = NDArray[np.float64]

_SPLIT_KEYS: dict[Split, str] = {"train": "0", "dev": "1", "test": "2"}
_LOG = "FSMDE_SYNTHETIC"


def write_dgp(root: Path, dataset: SyntheticStreets) -> Path:
    """Write all samples of a data set: the whole folder appears at the end, or nothing.

    Args:
        root: a folder that does not exist or is empty.
        dataset: what to write.

    Returns:
        The path of scene_dataset_v1.0.json.

    Errors:
        OutputError: the folder holds something already, or cannot be written.
    """
    name = "scene_dataset_v1.0.json"
    with atomic_folder(root, into_empty=True) as folder:
        scenes = [_write_scene(folder, dataset, number) for number in range(dataset.scenes)]
        _write_json(folder / name, _description(dataset, scenes))
    return root / name


def _description(dataset: SyntheticStreets, scenes: list[str]) -> Mapping[str, Any]:
    return {
        "metadata": {
            "name": f"fsmde_synthetic_{dataset.split}",
            "version": "1.0",
            "description": f"Synthetic streets, split {dataset.split}, seed {dataset.seed}.",
            "origin": "INTERNAL",
            "frame_per_second": 10.0,
        },
        "scene_splits": {_SPLIT_KEYS[dataset.split]: {"filenames": scenes}},
    }


def _write_scene(root: Path, dataset: SyntheticStreets, number: int) -> str:
    """Write one scene's folder and masks; returns its JSON file relative to the root."""
    folder = root / f"scene_{number:06d}"
    data: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    calibration = ""
    first = number * dataset.samples_per_scene
    for instant in range(dataset.samples_per_scene):
        index = first + instant
        sample = dataset[index]
        if not instant:
            calibration = _write_calibration(folder, sample.rig)
            _write_masks(root / "masks" / folder.name, sample.rig)
        points, pose = dataset.lidar_points(index), dataset.vehicle_pose(index)
        entries = [_write_cloud(folder, instant, points, pose, sample)]
        entries += [_write_picture(folder, instant, order, pose, sample) for order in range(len(sample.rig))]
        data.extend(entries)
        rows.append(
            {
                "id": {**_identity("", sample), "index": str(instant)},
                "datum_keys": [entry["key"] for entry in entries],
                "calibration_key": calibration,
                "metadata": {},
            }
        )
    scene = {
        "name": folder.name,
        "log": _LOG,
        "description": "",
        "metadata": {},
        "ontologies": {},
        "data": data,
        "samples": rows,
    }
    path = folder / f"scene_{_key(json.dumps(scene, sort_keys=True))}.json"
    _write_json(path, scene)
    return path.relative_to(root).as_posix()


def _write_calibration(folder: Path, rig: Rig) -> str:
    zero = dict.fromkeys(("fx", "fy", "cx", "cy", "skew"), 0.0)
    content = {
        "names": ["LIDAR", *rig.names],
        "intrinsics": [zero, *(_lens(camera) for camera in rig.cameras)],
        "extrinsics": [_pose(np.eye(4)), *(_pose(camera.camera_to_vehicle) for camera in rig.cameras)],
    }
    key = _key(json.dumps(content, sort_keys=True))
    _write_json(folder / "calibration" / f"{key}.json", content)
    return key


def _lens(camera: Camera) -> dict[str, float]:
    k = camera.intrinsics.tolist()
    return {"fx": k[0][0], "fy": k[1][1], "cx": k[0][2], "cy": k[1][2], "skew": k[0][1]}


def _write_masks(folder: Path, rig: Rig) -> None:
    for camera in rig.cameras:
        if camera.ego_mask is not None:
            atomic_write(folder / f"{camera.name}_mask.png", _png(camera.ego_mask.astype(np.uint8) * 255))


def _write_cloud(
    folder: Path, instant: int, points: NDArray[np.float32], pose: Floats, sample: Sample
) -> dict[str, Any]:
    name = f"point_cloud/LIDAR/{instant:06d}.npz"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, data=points)
    atomic_write(folder / name, buffer.getvalue())
    cloud = {
        "filename": name,
        "pose": _pose(pose),
        "point_format": ["X", "Y", "Z", "INTENSITY"],
        "point_fields": [],
        "annotations": {},
        "metadata": {},
    }
    return _datum("LIDAR", folder, instant, sample, {"point_cloud": cloud})


def _write_picture(folder: Path, instant: int, order: int, pose: Floats, sample: Sample) -> dict[str, Any]:
    frame, camera = sample.frame_set.frames[order], sample.rig.cameras[order]
    name = f"rgb/{camera.name}/{instant:06d}.png"
    atomic_write(folder / name, _png(np.ascontiguousarray(frame.image[..., ::-1])))
    image = {
        "filename": name,
        "height": camera.height,
        "width": camera.width,
        "channels": 3,
        "pose": _pose(pose @ camera.camera_to_vehicle),
        "annotations": {},
        "metadata": {},
    }
    return _datum(camera.name, folder, instant, sample, {"image": image})


def _datum(
    sensor: str, folder: Path, instant: int, sample: Sample, datum: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "id": {**_identity(sensor, sample), "index": str(instant)},
        "key": _key(f"{folder.name}/{sensor}/{instant}"),
        "datum": datum,
        "next_key": "",
        "prev_key": "",
    }


def _identity(sensor: str, sample: Sample) -> dict[str, str]:
    return {"log": _LOG, "name": sensor, "timestamp": _time(sample.frame_set.stamps_ns[0])}


def _time(ns: int) -> str:
    whole = datetime.fromtimestamp(ns // 10**9, tz=timezone.utc)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z"


def _pose(matrix: Floats) -> dict[str, dict[str, float]]:
    w, x, y, z = _quaternion(matrix[:3, :3])
    moved = matrix[:3, 3].tolist()
    return {
        "rotation": {"qw": w, "qx": x, "qy": y, "qz": z},
        "translation": dict(zip("xyz", moved, strict=True)),
    }


def _quaternion(rotation: Floats) -> tuple[float, float, float, float]:
    """(w, x, y, z) of a rotation: the eigenvector of Bar-Itzhack's symmetric matrix, w ≥ 0.

    Source: I. Y. Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", 2000.
    """
    r = rotation
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    x, y, z, w = np.linalg.eigh(k / 3)[1][:, -1].tolist()
    return (w, x, y, z) if w >= 0 else (-w, -x, -y, -z)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", pixels)[1])


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def _key(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
