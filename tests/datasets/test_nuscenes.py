from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from dgp_writer import CAMERAS, RING, picture, write_dgp, write_nuscenes

from fsmde_edge.datasets import open_dataset, reading
from fsmde_edge.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return write_nuscenes(tmp_path / "nu")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_keyframes_by_scene_and_time_with_views_in_ring_order(folder):
    dataset = open_dataset(folder)
    assert dataset.kind == "nuscenes"
    assert dataset.sample_names == tuple(dataset[i].frame_set.name for i in range(len(dataset)))
    assert list(dataset.sample_names) == [
        "scene-0001/000000",
        "scene-0001/000001",
        "scene-0002/000000",
        "scene-0002/000001",
    ]
    sample = dataset[1]
    assert sample.rig.names == RING
    assert sample.frame_set.stamps_ns[0] == 1_500_000_000_500_001 * 1000  # CAMERA_01 is the table's second
    for frame in sample.frame_set.frames:
        np.testing.assert_array_equal(frame.image, picture(100 + CAMERAS.index(frame.camera)))


def test_depth_equals_that_of_the_same_drive_in_the_dgp_layout(folder, tmp_path):
    ours = open_dataset(folder)[1].depth
    theirs = open_dataset(write_dgp(tmp_path / "dgp"))[1].depth
    assert any(depth.any() for depth in theirs.values())
    for camera in RING:
        np.testing.assert_allclose(ours[camera], theirs[camera], rtol=1e-6)


def test_scenes_cameras_and_tables_are_chosen(folder):
    assert open_dataset(folder, scenes=["scene-0002"])[0].frame_set.name == "scene-0002/000000"
    assert open_dataset(folder / "v1.0-mini", cameras=["CAMERA_01"])[0].rig.names == ("CAMERA_01",)
    assert len(open_dataset(folder, split="mini")) == 4
    with pytest.raises(InputError, match=r"no tables v1.0-test; choose from mini"):
        open_dataset(folder, split="test")
    with pytest.raises(InputError, match="has no scene 'x'; choose from scene-0001, scene-0002"):
        open_dataset(folder, scenes=["x"])
    shutil.copytree(folder / "v1.0-mini", folder / "v1.0-trainval")
    with pytest.raises(InputError, match="several sets of tables"):
        open_dataset(folder)


def test_tables_are_read_the_same_in_chunks_of_any_size(folder, monkeypatch):
    path = folder / "v1.0-mini/sample_data.json"
    whole = json.loads(path.read_text())
    for chunk in (7, 64, 1000):
        monkeypatch.setattr(reading, "_CHUNK", chunk)
        assert list(reading.json_rows(path)) == whole


@pytest.mark.parametrize(
    "text", ["", "{}", "[", '[{"a": 1}', '[{"a": 1}, ', '[{"a" 1}]', "[1]", '[{"a": 1}, {"b":']
)
def test_a_broken_table_is_one_clear_line(folder, text):
    (folder / "v1.0-mini/sensor.json").write_text(text)
    with pytest.raises(InputError, match=r"sensor\.json"):
        open_dataset(folder)


def test_an_empty_table_is_valid(tmp_path):
    (tmp_path / "t.json").write_text(" [ ] ")
    assert list(reading.json_rows(tmp_path / "t.json")) == []


@pytest.mark.parametrize("table", ["scene", "sample", "calibrated_sensor", "ego_pose", "sensor"])
def test_a_missing_table(folder, table):
    (folder / f"v1.0-mini/{table}.json").unlink()
    with pytest.raises(InputError, match=rf"{table}\.json: the table is missing"):
        open_dataset(folder)


def test_a_calibration_that_lacks_a_camera(folder):
    edit(folder / "v1.0-mini/calibrated_sensor.json", lambda rows: rows.pop(0))
    with pytest.raises(InputError, match=r"covers 6 of 7 sensors: none for samples/CAMERA_06"):
        open_dataset(folder)


def test_a_missing_pose_and_a_missing_key(folder):
    path = folder / "v1.0-mini/ego_pose.json"
    original = path.read_text()
    edit(path, lambda rows: rows.pop(0))
    with pytest.raises(InputError, match="has no pose"):
        open_dataset(folder)
    path.write_text(original)
    edit(path, lambda rows: rows[0].pop("rotation"))
    with pytest.raises(InputError, match="misses the key 'rotation'"):
        open_dataset(folder)


def test_a_file_outside_the_folder_is_refused(folder):
    path = folder / "v1.0-mini/sample_data.json"
    path.write_text(path.read_text().replace("samples/CAMERA_01", "../samples/CAMERA_01"))
    with pytest.raises(InputError, match="outside its folder"):
        open_dataset(folder)[0]


def test_a_truncated_cloud_and_one_with_nan(folder):
    path = folder / "samples/lidar/scene-0001-0.pcd.bin"
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    with pytest.raises(InputError, match="point cloud is truncated"):
        open_dataset(folder)[0]
    path.write_bytes(np.array([1, np.nan, 2, 0, 0], "<f4").tobytes() + data)
    with pytest.raises(InputError, match="1 of 6 points of the cloud are not finite"):
        open_dataset(folder)[0]


# One sample


@pytest.fixture
def one_sample(shared_data, tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(shared_data / "nuscenes_sample", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    return folder


def test_the_real_keyframe(shared_data):
    dataset = open_dataset(shared_data / "nuscenes_sample")
    sample = dataset[0]
    assert len(dataset) == 1
    assert sample.rig.names == (
        "CAM_FRONT",
        "CAM_FRONT_LEFT",
        "CAM_BACK_LEFT",
        "CAM_BACK",
        "CAM_BACK_RIGHT",
        "CAM_FRONT_RIGHT",
    )
    assert sample.frame_set.stamps_ns[0] == 1532402927_612460000
    for depth in sample.depth.values():
        assert 3000 < (depth > 0).sum() < 5000
        assert depth.max() < 110


def test_the_real_keyframe_by_file_and_by_scene_name(shared_data):
    file = shared_data / "nuscenes_sample/sample.json"
    assert len(open_dataset(file, scenes=["sample"])) == 1
    assert len(open_dataset(file.parent, scenes=["nuscenes_sample"], cameras=["CAM_BACK"])[0].depth) == 1
    with pytest.raises(InputError, match="has no scene 'x'; choose from nuscenes_sample"):
        open_dataset(file, scenes=["x"])


def test_a_sample_that_calibrates_five_of_six_cameras(one_sample):
    edit(one_sample / "sample.json", lambda content: content["images"]["CAM_BACK"].pop("cam2img"))
    with pytest.raises(InputError, match="covers 5 of 6 cameras: CAM_BACK"):
        open_dataset(one_sample)


def test_a_sample_that_points_outside_its_folder(one_sample):
    edit(
        one_sample / "sample.json", lambda content: content["images"]["CAM_BACK"].update(img_path="../x.jpg")
    )
    with pytest.raises(InputError, match="outside its folder"):
        open_dataset(one_sample)[0]


def test_a_sample_with_a_matrix_of_another_shape(one_sample):
    edit(one_sample / "sample.json", lambda content: content["images"]["CAM_BACK"].update(lidar2cam=[1, 2]))
    with pytest.raises(InputError, match="is not laid out as expected"):
        open_dataset(one_sample)


def test_a_path_that_is_no_data_set(tmp_path):
    with pytest.raises(InputError, match="is no data set that is known"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="the data set is missing"):
        open_dataset(tmp_path / "absent")
