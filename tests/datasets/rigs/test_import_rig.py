from __future__ import annotations

import numpy as np
import pytest
import yaml

from fsmde_edge.datasets.rigs import IMPORTERS, import_rig
from fsmde_edge.errors import InputError, UsageError
from fsmde_edge.rig import BrownConrady, Fisheye, NoDistortion

FRONT = [[0, 0, 1, 1.5], [-1, 0, 0, 0.1], [0, -1, 0, 1.6], [0, 0, 0, 1]]
LEFT = [[1, 0, 0, 0.5], [0, 0, 1, 0.9], [0, -1, 0, 1.5], [0, 0, 0, 1]]
IMU = [[1, 0, 0, 0.2], [0, 1, 0, 0], [0, 0, 1, 0.5], [0, 0, 0, 1]]


def kalibr():
    """A front camera and a left one, as Kalibr writes them beside an IMU."""
    front, left, imu = (np.array(pose, float) for pose in (FRONT, LEFT, IMU))
    return {
        "cam0": {
            "camera_model": "pinhole",
            "intrinsics": [500.0, 501.0, 319.5, 239.5],
            "distortion_model": "radtan",
            "distortion_coeffs": [-0.2, 0.05, 0.001, -0.002],
            "resolution": [640, 480],
            "T_cam_imu": (np.linalg.inv(front) @ imu).tolist(),
        },
        "cam1": {
            "camera_model": "pinhole",
            "intrinsics": [300.0, 301.0, 400.0, 300.0],
            "distortion_model": "equidistant",
            "distortion_coeffs": [0.01, 0.02, 0.0, -0.001],
            "resolution": [800, 600],
            "T_cn_cnm1": (np.linalg.inv(left) @ front).tolist(),
            "T_cam_imu": (np.linalg.inv(left) @ imu).tolist(),
        },
    }


def written(path, values):
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize(
    "poses", [{"imu": IMU}, {"cam0": FRONT}, {"cam1": LEFT}, {"cam1": LEFT, "unused": IMU}]
)
def test_a_kalibr_chain_is_a_rig_wherever_it_is_tied_to_the_vehicle(tmp_path, poses):
    chain = written(tmp_path / "chain.yaml", kalibr())
    rig = import_rig("kalibr", [chain], written(tmp_path / "poses.yaml", poses))
    assert rig.names == ("cam0", "cam1")
    front, left = rig.cameras
    np.testing.assert_allclose(front.camera_to_vehicle, FRONT, atol=1e-12)
    np.testing.assert_allclose(left.camera_to_vehicle, LEFT, atol=1e-12)
    assert (left.width, left.height) == (800, 600)
    assert front.distortion == BrownConrady(k1=-0.2, k2=0.05, p1=0.001, p2=-0.002)
    assert left.distortion == Fisheye(k1=0.01, k2=0.02, k3=0.0, k4=-0.001)


def test_kalibr_counts_from_pixel_centres(tmp_path):
    rig = import_rig("kalibr", [written(tmp_path / "chain.yaml", kalibr())])
    assert rig["cam0"].intrinsics.tolist() == [[500, 0, 320], [0, 501, 240], [0, 0, 1]]


def test_without_poses_the_imus_axes_are_the_vehicles(tmp_path):
    rig = import_rig("kalibr", [written(tmp_path / "chain.yaml", kalibr())])
    expected = np.linalg.inv(IMU) @ FRONT
    np.testing.assert_allclose(rig["cam0"].camera_to_vehicle, expected, atol=1e-12)


def no_imu(chain):
    for camera in chain.values():
        del camera["T_cam_imu"]


def bent(chain):
    chain["cam1"]["T_cn_cnm1"][0][0] += 0.01


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            no_imu,
            "does not say where the cameras are on the vehicle; give --poses YAML with the pose of cam0",
        ),
        (bent, "T_cn_cnm1 of cam1 is not a rotation and a translation"),
        (lambda c: c["cam1"].pop("T_cn_cnm1"), "cam1 misses the key 'T_cn_cnm1'"),
        (lambda c: c["cam0"].pop("resolution"), "cam0 misses the key 'resolution'"),
        (lambda c: c["cam0"].update(distortion_model="fov"), "cam0 has the unknown distortion model 'fov'"),
        (lambda c: c["cam0"].update(camera_model="omni"), "cam0 has the camera model 'omni'"),
        (lambda c: c["cam0"].update(distortion_coeffs=[1, 2]), "distortion_coeffs of cam0 is not 4 finite"),
        (lambda c: c["cam0"].update(intrinsics=["a", 1, 2, 3]), "intrinsics of cam0 is not 4 finite numbers"),
        (lambda c: c["cam0"].update(intrinsics=[0, 1, 2, 3]), "focal length that is not positive"),
        (lambda c: c["cam0"].update(T_cam_imu=[[1]]), "T_cam_imu of cam0 is not a finite 4x4 matrix"),
        (lambda c: c.update(cam1=[1]), "cam1 misses the key"),
        (lambda c: (c.clear(), c.update(lidar={})), "holds no camera"),
    ],
)
def test_a_wrong_chain_is_one_clear_line(tmp_path, change, says):
    chain = kalibr()
    change(chain)
    with pytest.raises(InputError) as caught:
        import_rig("kalibr", [written(tmp_path / "chain.yaml", chain)])
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def camera_info(**changes):
    values = {
        "image_width": 640,
        "image_height": 480,
        "camera_name": "front",
        "camera_matrix": {"rows": 3, "cols": 3, "data": [500, 0, 319.5, 0, 501, 239.5, 0, 0, 1]},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [-0.2, 0.05, 0.001, -0.002, 0.003]},
    }
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


POSES = {
    "front": {"xyz": [1.5, 0.1, 1.6], "xyzw": [-0.5, 0.5, -0.5, 0.5]},
    "left": LEFT,
}


def test_camera_infos_are_a_rig_with_their_poses(tmp_path):
    front = written(tmp_path / "a.yaml", camera_info())
    message = {
        **{"width": 800, "height": 600, "k": [300, 0, 399.5, 0, 301, 299.5, 0, 0, 1]},
        **{"distortion_model": "equidistant", "d": [0.01, 0.02, 0.0, -0.001]},
    }
    left = written(tmp_path / "left.yaml", message)
    rig = import_rig("ros", [left, front], written(tmp_path / "poses.yaml", POSES))
    assert rig.names == ("front", "left")
    assert rig["front"].intrinsics.tolist() == [[500, 0, 320], [0, 501, 240], [0, 0, 1]]
    np.testing.assert_allclose(rig["front"].camera_to_vehicle, FRONT, atol=1e-12)
    np.testing.assert_allclose(rig["left"].camera_to_vehicle, LEFT, atol=1e-12)
    assert rig["front"].distortion == BrownConrady(k1=-0.2, k2=0.05, p1=0.001, p2=-0.002, k3=0.003)
    assert rig["left"].distortion == Fisheye(k1=0.01, k2=0.02, k3=0.0, k4=-0.001)


@pytest.mark.parametrize(
    ("changes", "lens"),
    [
        ({"distortion_coefficients": {"data": [0.0] * 5}}, NoDistortion()),
        (
            {
                "distortion_model": "rational_polynomial",
                "distortion_coefficients": {"data": [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]},
            },
            BrownConrady(k1=1, k2=2, p1=3, p2=4, k3=5, k4=6, k5=7, k6=8),
        ),
    ],
)
def test_lenses_of_camera_info(tmp_path, changes, lens):
    file = written(tmp_path / "a.yaml", camera_info(**changes))
    rig = import_rig("ros", [file], written(tmp_path / "poses.yaml", POSES))
    assert rig["front"].distortion == lens


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"camera_name": "rear"}, "has no pose of camera rear (it has front, left)"),
        ({"camera_matrix": None}, "camera front misses the key 'camera_matrix'"),
        ({"image_width": None}, "camera front misses the key 'image_width'"),
        ({"image_width": 640.5}, "the width of front is not a whole number"),
        ({"distortion_model": "double_sphere"}, "unknown distortion model 'double_sphere'"),
        ({"distortion_model": None}, "front misses the key 'distortion_model'"),
        ({"distortion_coefficients": {"data": [1] * 6}}, "front has 6 distortion terms, plumb_bob has 5"),
        ({"camera_matrix": {"data": [1, 2]}}, "the camera matrix of front is not 9 finite numbers"),
    ],
)
def test_a_wrong_camera_info_is_one_clear_line(tmp_path, changes, says):
    file = written(tmp_path / "a.yaml", camera_info(**changes))
    with pytest.raises(InputError) as caught:
        import_rig("ros", [file], written(tmp_path / "poses.yaml", POSES))
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("pose", "says"),
    [
        ({"xyz": [0, 0, 0]}, "the pose of front misses the key 'xyzw'"),
        ({"xyz": [0, 0], "xyzw": [0, 0, 0, 1]}, "xyz of front is not 3 finite numbers"),
        ({"xyz": [0, 0, 0], "xyzw": [0, 0, 0, 0]}, "quaternion of length zero"),
        ([[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "is not a rotation and a translation"),
        ([[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "is not a rotation and a translation"),
    ],
)
def test_a_wrong_pose_is_one_clear_line(tmp_path, pose, says):
    file, poses = written(tmp_path / "a.yaml", camera_info()), written(tmp_path / "p.yaml", {"front": pose})
    with pytest.raises(InputError) as caught:
        import_rig("ros", [file], poses)
    assert says in str(caught.value)
    assert "p.yaml" in str(caught.value)


@pytest.mark.parametrize("kind", IMPORTERS)
@pytest.mark.parametrize("text", [None, "", "- 1\n", "{", "text"])
def test_files_that_are_no_calibration_are_one_clear_line(tmp_path, kind, text):
    file = tmp_path / "file.yaml"
    if text is not None:
        file.write_text(text)
    poses = written(tmp_path / "poses.yaml", POSES) if kind == "ros" else None
    with pytest.raises(InputError) as caught:
        import_rig(kind, [file], poses)
    assert "file.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_go_together_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="takes one file or folder, not 2"):
        import_rig("kalibr", [tmp_path, tmp_path])
    with pytest.raises(UsageError, match="--poses does not go with dgp"):
        import_rig("dgp", [tmp_path], tmp_path)
    with pytest.raises(UsageError, match="does not say where cameras are"):
        import_rig("ros", [tmp_path])


def test_real_rigs_are_taken_from_their_data_sets(shared_data):
    ddad = import_rig("dgp", [shared_data / "ddad_sample" / "scene_02"])
    assert [name[-2:] for name in ddad.names] == ["01", "05", "07", "09", "08", "06"]
    nuscenes = import_rig("nuscenes", [shared_data / "nuscenes_sample"])
    assert nuscenes.names[:2] == ("CAM_FRONT", "CAM_FRONT_LEFT")
    with pytest.raises(InputError, match="is laid out as nuscenes, not dgp"):
        import_rig("dgp", [shared_data / "nuscenes_sample"])
