"""Whatever stands in a description, opening it works or is an InputError of one line: never a traceback."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import yaml
from dgp_writer import write_dgp, write_nuscenes

from fsmde_edge.datasets import open_dataset
from fsmde_edge.datasets.rigfile import load_rig, save_rig
from fsmde_edge.errors import InputError
from fsmde_edge.rig import Camera, Rig

JUNK = (
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    10**400,
    "",
    "x",
    "../x",
    "\0",
    [],
    [1],
    {},
    {"a": 1},
    [[]],
    [None],
)
ROUNDS = 50


def spoil(value, rng):
    """A copy of a JSON value with one random part replaced by junk or removed."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        copy = value.copy()
        key = rng.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
        if rng.random() < 0.1:
            del copy[key]
        else:
            copy[key] = spoil(copy[key], rng)
        return copy
    return rng.choice(JUNK)


def works_or_is_one_line(action):
    try:
        action()
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert error.where  # noqa: PT017


@pytest.mark.parametrize(
    "file", ["scene_dataset_v1.0.json", "scene_a/scene_scene_a.json", "scene_a/calibration/calib.json"]
)
def test_dgp(tmp_path, file):
    folder = write_dgp(tmp_path, scenes=("scene_a",), samples=1)
    original, rng = json.loads((folder / file).read_text()), random.Random(file)
    for _ in range(ROUNDS):
        (folder / file).write_text(json.dumps(spoil(original, rng)))
        works_or_is_one_line(lambda: open_dataset(folder)[0])


@pytest.mark.parametrize(
    "table", ["scene", "sample", "sample_data", "calibrated_sensor", "ego_pose", "sensor"]
)
def test_nuscenes(tmp_path, table):
    path = write_nuscenes(tmp_path, scenes=("scene-0001",), samples=1) / f"v1.0-mini/{table}.json"
    original, rng = json.loads(path.read_text()), random.Random(table)
    for _ in range(ROUNDS):
        path.write_text(json.dumps(spoil(original, rng)))
        works_or_is_one_line(lambda: open_dataset(tmp_path)[0])


def test_one_sample(tmp_path):
    folder = write_nuscenes(tmp_path, scenes=("scene-0001",), samples=1)
    pose = np.eye(4).tolist()
    images = {
        camera: {
            "img_path": f"samples/{camera}/scene-0001-0.png",
            "cam2img": [[40, 0, 32], [0, 40, 20], [0, 0, 1]],
            "cam2ego": pose,
            "lidar2cam": pose,
            "timestamp": 1.5e9,
        }
        for camera in ("CAMERA_01", "CAMERA_09")
    }
    points = {"lidar_path": "samples/lidar/scene-0001-0.pcd.bin", "num_pts_feats": 5}
    original, rng = {"images": images, "lidar_points": points}, random.Random(1)
    (folder / "sample.json").write_text(json.dumps(original))
    assert len(open_dataset(folder / "sample.json")[0].depth) == 2
    for _ in range(ROUNDS):
        (folder / "sample.json").write_text(json.dumps(spoil(original, rng)))
        works_or_is_one_line(lambda: open_dataset(folder / "sample.json")[0])


def test_rig_file(tmp_path):
    path = tmp_path / "rig.yaml"
    pose = np.array([[0, 0, 1, 1.5], [-1, 0, 0, 0.1], [0, -1, 0, 1.6], [0, 0, 0, 1.0]])
    k = np.array([[50.0, 0, 32.5], [0, 51.0, 20.25], [0, 0, 1]])
    mask = np.ones((40, 64), bool)
    camera = Camera(name="a", width=64, height=40, intrinsics=k, camera_to_vehicle=pose, ego_mask=mask)
    save_rig(path, Rig.of([camera]))
    original, rng = yaml.safe_load(path.read_text()), random.Random(2)
    for _ in range(ROUNDS):
        path.write_text(yaml.safe_dump(spoil(original, rng)))
        works_or_is_one_line(lambda: load_rig(path))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_pictures(tmp_path, suffix):
    folder = write_dgp(tmp_path, scenes=("scene_a",), samples=1, suffix=suffix)
    path = folder / f"scene_a/rgb/CAMERA_01/0{suffix}"
    original, rng = path.read_bytes(), random.Random(3)
    for _ in range(ROUNDS):
        data = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        works_or_is_one_line(lambda: open_dataset(folder, cameras=["CAMERA_01"], lidar=False)[0])


def test_clouds(tmp_path):
    folder = write_dgp(tmp_path, scenes=("scene_a",), samples=1)
    path = folder / "scene_a/point_cloud/LIDAR/0.npz"
    original, rng = path.read_bytes(), random.Random(4)
    dataset = open_dataset(folder, cameras=["CAMERA_01"])
    for _ in range(4 * ROUNDS):
        data = bytearray(original)
        data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        works_or_is_one_line(lambda: dataset[0])
