"""The pure parts of the ROS 2 example: what its messages would hold. ROS itself is not needed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsmde_edge.datasets.rigs.ros import ros_rig
from fsmde_edge.datasets.synthetic.dataset import SyntheticStreets
from fsmde_edge.frames import Clock, Frame, FrameSet, Stamp
from fsmde_edge.sinks.points import Cloud

PACKAGE = Path(__file__).parents[1] / "examples/ros2/fsmde_edge_ros"


@pytest.fixture(scope="module")
def fields():
    sys.path.insert(0, str(PACKAGE))
    try:
        from fsmde_edge_ros import fields
    finally:
        sys.path.remove(str(PACKAGE))
    return fields


@pytest.fixture(scope="module")
def rig():
    return SyntheticStreets("test", scenes=1, width=160, height=96)[0].rig


def frame_set(offset: int | None) -> FrameSet:
    black = np.zeros((2, 4, 3), np.uint8)
    frames = [
        Frame(camera=name, image=black, stamp=Stamp(ns, Clock.MONOTONIC)) for name, ns in (("a", 5), ("b", 7))
    ]
    return FrameSet(frames=tuple(frames), realtime_offset_ns=offset)


def test_live_stamps_become_system_time_and_recorded_ones_stay(fields):
    assert fields.stamps_ns(frame_set(10**18)) == (10**18 + 5, 10**18 + 7)
    assert fields.stamps_ns(frame_set(None)) == (5, 7)
    stamp = fields.header(3_000_000_007, "vehicle")
    assert (stamp.sec, stamp.nanosec) == (3, 7)


def test_depth_is_metres_and_nan_where_there_is_none(fields, rig):
    metres = np.array([[1.5, 0.0], [2.0, 80.0]], np.float32)
    made = fields.depth(rig.cameras[0], 0, metres, valid=True)
    assert (made.encoding, made.height, made.width, made.step) == ("32FC1", 2, 2, 8)
    np.testing.assert_array_equal(np.frombuffer(made.data, "<f4"), [1.5, np.nan, 2.0, 80.0])
    late = fields.depth(rig.cameras[0], 0, metres, valid=False)
    assert np.isnan(np.frombuffer(late.data, "<f4")).all()


def test_pictures_are_rgb_row_after_row(fields, rig):
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    made = fields.picture(rig.cameras[0], 1, image[:, ::-1])
    assert (made.encoding, made.step, len(made.data)) == ("rgb8", 12, 24)
    assert made.data == image[:, ::-1].tobytes()
    assert made.header.frame_id == f"camera_{rig.names[0]}"


def test_camera_info_comes_back_as_the_same_camera(fields, rig, tmp_path):
    """Through our own reader of ROS's camera_info YAML."""
    import yaml

    from fsmde_edge.datasets.rigs.poses_file import read_poses

    camera = rig.cameras[1]
    made = fields.camera_info(camera, 0)
    (pose,) = [each for each in fields.transforms(rig, 0) if each.child_frame_id == f"camera_{camera.name}"]
    content = {
        "image_width": made.width,
        "image_height": made.height,
        "camera_name": camera.name,
        "distortion_model": made.distortion_model,
        "camera_matrix": {"rows": 3, "cols": 3, "data": list(made.k)},
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": list(made.d)},
    }
    poses = {camera.name: {"xyz": list(pose.translation), "xyzw": list(pose.rotation)}}
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "poses.yaml").write_text(yaml.safe_dump(poses))
    back = ros_rig([tmp_path / "camera.yaml"], read_poses(tmp_path / "poses.yaml"), tmp_path / "poses.yaml")
    np.testing.assert_allclose(back.cameras[0].intrinsics, camera.intrinsics)
    np.testing.assert_allclose(back.cameras[0].camera_to_vehicle, camera.camera_to_vehicle, atol=1e-9)
    assert made.p == (*made.k[:3], 0.0, *made.k[3:6], 0.0, *made.k[6:], 0.0)


def test_points_are_packed_as_the_fields_say(fields):
    xyz = np.array([[1, 2, 3], [-4, 5, 6]], np.float32)
    made = fields.points(Cloud(xyz=xyz, rgb=np.array([[255, 128, 1], [0, 0, 9]], np.uint8)), 0)
    assert (made.header.frame_id, made.width, made.point_step) == ("vehicle", 2, 16)
    assert made.fields == (("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("rgb", 12, 7))
    kinds = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])
    back = np.frombuffer(made.data, kinds)
    np.testing.assert_array_equal(np.stack([back["x"], back["y"], back["z"]], axis=1), xyz)
    assert [hex(value) for value in back["rgb"]] == ["0xff8001", "0x9"]


def test_a_depth_set_that_does_not_say_is_all_usable(fields, rig):
    from fsmde_edge.frames import DepthSet

    depth = DepthSet(
        depth=np.ones((2, 2, 2), np.float32),
        cameras=("a", "b"),
        stamps_ns=(0, 0),
        focal=np.ones(2, np.float32),
    )
    assert fields.usable(depth) == (True, True)
    assert fields.usable(replace(depth, valid=(True, False))) == (True, False)
