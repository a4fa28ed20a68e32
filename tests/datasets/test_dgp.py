from __future__ import annotations

import json
import pickle
import shutil

import cv2
import numpy as np
import pytest
from dgp_writer import CAMERAS, FX, HEIGHT, LATER, POINTS, RING, WIDTH, picture, write_calibration, write_dgp

from fsmde_edge.datasets import open_dataset
from fsmde_edge.datasets.dgp import stamp_ns
from fsmde_edge.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return write_dgp(tmp_path / "tiny")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_yields_all_samples_in_file_order_with_views_in_ring_order(folder):
    dataset = open_dataset(folder)
    assert (dataset.name, dataset.kind) == ("tiny", "dgp")
    assert dataset.sample_names == tuple(dataset[i].frame_set.name for i in range(len(dataset)))
    assert list(dataset.sample_names) == [
        "scene_a/000000",
        "scene_a/000001",
        "scene_b/000000",
        "scene_b/000001",
    ]
    sample = dataset[2]
    assert sample.frame_set.cameras == RING
    assert sample.frame_set.index == 2
    with pytest.raises(IndexError):
        dataset[4]


def test_pictures_are_rgb_and_belong_to_their_camera(folder):
    sample = open_dataset(folder)[1]
    for frame in sample.frame_set.frames:
        np.testing.assert_array_equal(frame.image, picture(100 + CAMERAS.index(frame.camera)))


def test_lidar_goes_through_the_world_with_each_datums_own_pose(folder):
    depth = open_dataset(folder)[1].depth["CAMERA_01"]
    expected = np.zeros((HEIGHT, WIDTH), np.float32)
    for x, y, z in POINTS:
        ahead, right, down = x + LATER, -y, 1.5 - z  # the camera looks along x, 1.5 m up, LATER metres behind
        u, v = FX * right / ahead + WIDTH / 2, FX * down / ahead + HEIGHT / 2
        if ahead > 0 and 0 <= u < WIDTH and 0 <= v < HEIGHT:
            expected[int(v), int(u)] = ahead
    assert (expected > 0).sum() == 2
    np.testing.assert_array_equal(depth > 0, expected > 0)
    np.testing.assert_allclose(depth, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["scene_b", "scene_scene_b", "scene_scene_b.json", "scene_b/scene_scene_b.json"]
)
def test_scenes_are_chosen_by_folder_or_file_name(folder, name):
    dataset = open_dataset(folder, scenes=[name])
    assert len(dataset) == 2
    assert dataset[0].frame_set.name == "scene_b/000000"


@pytest.mark.parametrize("path", ["", "scene_dataset_v1.0.json", "scene_a", "scene_a/scene_scene_a.json"])
def test_a_data_set_a_scene_and_their_files_can_be_opened(folder, path):
    assert open_dataset(folder / path, scenes=["scene_a"])[0].frame_set.name == "scene_a/000000"


def test_a_split_selects_its_scenes_and_a_scene_in_two_splits_comes_once(folder):
    both = {"0": {"filenames": ["scene_a/scene_scene_a.json"]}}
    edit(folder / "scene_dataset_v1.0.json", lambda content: content["scene_splits"].update(both))
    assert len(open_dataset(folder)) == 4
    assert len(open_dataset(folder, split="train")) == 2
    assert len(open_dataset(folder, split="val")) == 4
    with pytest.raises(InputError, match="no split 'mini'; choose from train, val, dev, test"):
        open_dataset(folder, split="mini")
    with pytest.raises(InputError, match="holds no scenes"):
        open_dataset(folder, split="test")


def test_cameras_can_be_chosen(folder):
    sample = open_dataset(folder, cameras=["CAMERA_09", "CAMERA_01"])[0]
    assert sample.rig.names == ("CAMERA_01", "CAMERA_09")
    assert set(sample.depth) == {"CAMERA_01", "CAMERA_09"}
    with pytest.raises(InputError, match="no camera camera_77"):
        open_dataset(folder, cameras=["CAMERA_77"])


def test_clouds_are_not_touched_without_lidar(folder):
    shutil.rmtree(folder / "scene_a/point_cloud")
    assert open_dataset(folder, lidar=False)[0].depth == {}


def test_samples_are_loaded_lazily(folder):
    dataset = open_dataset(folder)
    shutil.rmtree(folder / "scene_b/rgb")
    assert dataset[1].frame_set.index == 1
    with pytest.raises(InputError, match="picture is missing"):
        dataset[2]


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-01-02T03:04:00.100000Z", 1767323040_100000000),
        (
            "2464-11-12T01:04:09.936530Z",
            1561645824_993653000,
        ),  # tenths of microseconds written as microseconds
    ],
)
def test_stamps(text, ns):
    assert stamp_ns(text) == ns


# Masks


def write_masks(folder, value=0):
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[30:] = value
    cv2.imwrite(str(folder / "CAMERA_07_mask.png"), mask)
    return folder


@pytest.mark.parametrize("inner", ["", "scene_a"])
def test_named_masks_are_used_per_scene_or_for_all(folder, tmp_path, inner):
    write_masks(tmp_path / "masks" / inner)
    rig = open_dataset(folder, scenes=["scene_a"], masks=tmp_path / "masks")[0].rig
    assert rig["CAMERA_07"].ego_mask[:30].all()
    assert not rig["CAMERA_07"].ego_mask[30:].any()
    assert rig["CAMERA_01"].ego_mask is None


def test_the_data_sets_own_masks_are_used_for_their_scene(folder):
    write_masks(folder / "masks/scene_a")
    dataset = open_dataset(folder)
    assert dataset[0].rig["CAMERA_07"].ego_mask is not None
    assert dataset[2].rig["CAMERA_07"].ego_mask is None
    assert open_dataset(folder / "scene_a")[0].rig["CAMERA_07"].ego_mask is not None


def test_named_masks_that_fit_nothing_are_an_error(folder, tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match="holds no ego mask for scene scene_a"):
        open_dataset(folder, masks=tmp_path / "masks")[0]
    with pytest.raises(InputError, match="folder of ego masks is missing"):
        open_dataset(folder, masks=tmp_path / "absent")


def test_a_mask_of_another_size_is_refused(folder, tmp_path):
    write_masks(tmp_path / "masks")
    cv2.imwrite(str(tmp_path / "masks/CAMERA_07_mask.png"), np.zeros((10, 20), np.uint8))
    with pytest.raises(InputError, match="ego mask is 20x10, the pictures of camera CAMERA_07 are 64x40"):
        open_dataset(folder, masks=tmp_path / "masks")[0]


# Bad input


def first_error(folder, **options) -> str:
    with pytest.raises(InputError) as caught:
        open_dataset(folder, **options)[0]
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_truncated_picture(tmp_path, suffix, share):
    folder = write_dgp(tmp_path, suffix=suffix)
    path = folder / f"scene_a/rgb/CAMERA_05/0{suffix}"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "CAMERA_05/0" in first_error(folder)
    assert "truncated" in first_error(folder)


def test_an_empty_picture_and_one_that_is_none(folder):
    path = folder / "scene_a/rgb/CAMERA_05/0.png"
    path.write_bytes(b"")
    assert "is empty" in first_error(folder)
    path.write_bytes(b"hello")
    assert "not a picture that can be decoded" in first_error(folder)


def test_a_picture_of_another_size_than_its_calibration(folder):
    cv2.imwrite(str(folder / "scene_a/rgb/CAMERA_05/0.png"), np.zeros((10, 20, 3), np.uint8))
    assert "is 20x10, its calibration is for 64x40" in first_error(folder)


def test_a_cloud_with_nan(folder):
    cloud = np.ones((5, 4))
    cloud[2, 1] = np.nan
    np.savez(folder / "scene_a/point_cloud/LIDAR/0.npz", data=cloud)
    assert "1 of 5 points of the cloud are not finite" in first_error(folder)


def test_a_cloud_with_nan_intensity_alone_is_fine(folder):
    cloud = np.ones((5, 4))
    cloud[:, 3] = np.nan
    np.savez(folder / "scene_a/point_cloud/LIDAR/0.npz", data=cloud)
    open_dataset(folder)[0]


class Bomb:
    exploded = False

    def __reduce__(self):
        return (setattr, (Bomb, "exploded", True))


def test_a_pickle_in_a_cloud_is_never_loaded(folder):
    path = folder / "scene_a/point_cloud/LIDAR/0.npz"
    np.savez(path, data=np.array([Bomb()], dtype=object), allow_pickle=True)
    assert "it holds pickled objects" in first_error(folder)
    path.write_bytes(pickle.dumps(Bomb()))
    assert "the point cloud cannot be read" in first_error(folder)
    assert not Bomb.exploded


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_damaged_cloud(folder, share):
    path = folder / "scene_a/point_cloud/LIDAR/0.npz"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "point cloud" in first_error(folder)


def test_a_missing_cloud_one_without_data_and_one_of_another_shape(folder):
    path = folder / "scene_a/point_cloud/LIDAR/0.npz"
    np.savez(path, points=np.ones((2, 4)))
    assert "has no array 'data'" in first_error(folder)
    np.savez(path, data=np.ones((2, 2)))
    assert "shape (2, 2)" in first_error(folder)
    path.unlink()
    assert "point cloud is missing" in first_error(folder)


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "rgb/../../secret.png"])
def test_a_scene_that_points_outside_its_folder(folder, name):
    scene = folder / "scene_a/scene_scene_a.json"
    edit(scene, lambda content: content["data"][1]["datum"]["image"].update(filename=name))
    with pytest.raises(InputError, match="names a file outside its folder"):
        open_dataset(folder)


def test_a_scene_dataset_that_points_outside_its_folder(folder):
    outside = {"1": {"filenames": ["../other/scene_x.json"]}}
    edit(folder / "scene_dataset_v1.0.json", lambda content: content.update(scene_splits=outside))
    assert "names a file outside its folder" in first_error(folder)


def test_a_calibration_key_that_points_outside_its_folder(folder):
    scene = folder / "scene_a/scene_scene_a.json"
    edit(scene, lambda content: content["samples"][0].update(calibration_key="../../../x"))
    assert "names a file outside its folder" in first_error(folder)


def test_a_link_to_the_outside_is_refused(folder, tmp_path):
    path = folder / "scene_a/rgb/CAMERA_05/0.png"
    shutil.move(path, tmp_path / "elsewhere.png")
    path.symlink_to(tmp_path / "elsewhere.png")
    assert "names a file outside its folder" in first_error(folder)


def test_the_data_set_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert len(open_dataset(tmp_path / "link")[0].frame_set.frames) == 6


def test_a_calibration_that_names_five_of_six_cameras(folder):
    write_calibration(folder / "scene_a/calibration/calib.json", [c for c in CAMERAS if c != "CAMERA_08"])
    line = first_error(folder)
    assert "names 5 of the scene's 6 cameras" in line
    assert "CAMERA_08" in line


def test_a_calibration_in_lower_case_is_understood(folder):
    path = folder / "scene_a/calibration/calib.json"
    path.write_text(path.read_text().replace("CAMERA_", "camera_"))
    assert open_dataset(folder)[0].rig.names == RING


def test_a_calibration_with_unknown_lens_terms_or_no_focal_length(folder):
    path = folder / "scene_a/calibration/calib.json"
    original = path.read_text()
    edit(path, lambda content: content["intrinsics"][1].update(k1=-0.3))
    assert "lens terms that are not known: k1" in first_error(folder)
    path.write_text(original)
    edit(path, lambda content: content["intrinsics"][1].update(fx=0.0))
    assert "calib.json: camera CAMERA_06 has a focal length that is not positive" in first_error(folder)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("scene_dataset_v1.0.json", "scene_splits"),
        ("scene_a/scene_scene_a.json", "data"),
        ("scene_a/scene_scene_a.json", "samples"),
        ("scene_a/calibration/calib.json", "names"),
        ("scene_a/calibration/calib.json", "extrinsics"),
    ],
)
def test_missing_keys(folder, file, what):
    edit(folder / file, lambda content: content.pop(what))
    line = first_error(folder)
    assert what in line or "known" in line


@pytest.mark.parametrize("text", ["{", "", "[1, 2]", "null", '{"data": 3, "samples": 4}', "\xff\xfe"])
def test_broken_json(folder, text):
    path = folder / "scene_a/scene_scene_a.json"
    path.write_bytes(text.encode("latin-1"))
    assert str(path) in first_error(folder)


def test_a_datum_key_that_leads_nowhere(folder):
    edit(
        folder / "scene_a/scene_scene_a.json",
        lambda content: content["samples"][0]["datum_keys"].append("gone"),
    )
    assert "misses the key 'gone'" in first_error(folder)


def test_an_unknown_scene_lists_those_there(folder):
    assert "has no scene 'scene_c'; choose from scene_a, scene_b" in first_error(folder, scenes=["scene_c"])


def test_an_empty_selection(folder):
    assert "the selection holds no scene" in first_error(folder, scenes=[])
    edit(folder / "scene_a/scene_scene_a.json", lambda content: content.update(samples=[]))
    assert "the selection holds no sample" in first_error(folder, scenes=["scene_a"])


# Real recordings


def test_real_scene_02(shared_data):
    dataset = open_dataset(
        shared_data / "ddad_sample", scenes=["scene_02"], masks=shared_data / "ddad_masks/0"
    )
    assert len(dataset) == 3
    sample = dataset[0]
    assert sample.rig.names == RING
    hits = {camera: int((depth > 0).sum()) for camera, depth in sample.depth.items()}
    assert all(4_000 < count < 14_000 for count in hits.values()), hits
    assert max(float(depth.max()) for depth in sample.depth.values()) < 250
    ego = {camera.name: 1 - camera.ego_mask.mean() for camera in sample.rig.cameras}
    assert 0.2 < ego["CAMERA_07"] < 0.45
    assert 0.2 < ego["CAMERA_08"] < 0.45
    assert sample.rig["CAMERA_01"].intrinsics[0, 0] == pytest.approx(2181.5, abs=0.1)
    gap = dataset[1].frame_set.stamps_ns[0] - sample.frame_set.stamps_ns[0]
    assert gap == pytest.approx(1e8, rel=0.01)


def test_real_scene_01_has_three_cameras(shared_data):
    dataset = open_dataset(shared_data / "ddad_sample/scene_01")
    assert len(dataset) == 3
    assert dataset[0].rig.names == ("CAMERA_01", "CAMERA_05", "CAMERA_06")


def test_what_the_system_refuses_to_list_is_one_clear_line(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(type(folder), "glob", refuse)
    assert first_error(folder) == f"{folder}: cannot be read (Permission denied)"
