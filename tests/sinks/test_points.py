from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plyfile import PlyData
from surround import camera, result, ring

from fsmde_edge.errors import InputError, OutputError, UsageError
from fsmde_edge.rig import Rig
from fsmde_edge.sinks.ply import PlySink
from fsmde_edge.sinks.points import CloudMaker, PointChoice

ALL = PointChoice(stride=1)


@given(
    yaw=st.floats(-180, 180),
    pitch=st.floats(-40, 40),
    roll=st.floats(-40, 40),
    fx=st.floats(4, 40),
    at=st.tuples(*[st.floats(-3, 3)] * 3),
    stride=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_point_is_seen_again_in_its_own_pixel_at_its_own_depth(yaw, pitch, roll, fx, at, stride, seed):
    one = camera("one", yaw, pitch_deg=pitch, roll_deg=roll, fx=fx, at=at)
    _, images, depth_set = result(Rig.of([one]), seed=seed)
    cloud = CloudMaker(PointChoice(stride=stride)).cloud(images, depth_set)
    to_camera = np.linalg.inv(one.camera_to_vehicle)
    uv, z = one.project(cloud.xyz.astype(np.float64) @ to_camera[:3, :3].T + to_camera[:3, 3])
    column, row = np.floor(uv).astype(int).T
    rows, columns = np.mgrid[stride // 2 : 8 : stride, stride // 2 : 16 : stride]
    np.testing.assert_array_equal(row, rows.ravel())
    np.testing.assert_array_equal(column, columns.ravel())
    np.testing.assert_allclose(z, depth_set.depth[0, row, column], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(cloud.rgb, images[0, row, column])


def test_a_point_straight_ahead_lies_where_the_vehicles_axes_say():
    left = camera("left", 90, at=(0.5, 0.2, 1.5))
    k = np.array([[9.0, 0, 8.5], [0, 9.0, 4.5], [0, 0, 1]])
    _, images, depth_set = result(Rig.of([replace(left, intrinsics=k)]))
    cloud = CloudMaker(ALL).cloud(images, depth_set)
    metres = depth_set.depth[0, 4, 8]
    np.testing.assert_allclose(cloud.xyz.reshape(8, 16, 3)[4, 8], (0.5, 0.2 + metres, 1.5), rtol=1e-6)


def test_every_view_stands_where_its_own_camera_is():
    rig = Rig.of([camera("front", 0, at=(2, 0, 1)), camera("left", 90, at=(0, 1, 2))])
    _, images, depth_set = result(rig)
    cloud = CloudMaker(ALL).cloud(images, replace(depth_set, depth=np.full_like(depth_set.depth, 1e-6)))
    front, left = cloud.xyz.reshape(2, -1, 3)
    np.testing.assert_allclose(front, np.broadcast_to((2, 0, 1), front.shape), atol=1e-5)
    np.testing.assert_allclose(left, np.broadcast_to((0, 1, 2), left.shape), atol=1e-5)


def test_pixels_without_depth_give_no_points():
    _, images, depth_set = result(ring())
    depth = depth_set.depth.copy()
    depth[0, 0, :5] = 0, -1, np.nan, np.inf, -np.inf
    depth[3] = 0  # own car, or a view that is not current
    cloud = CloudMaker(ALL).cloud(images, replace(depth_set, depth=depth))
    assert len(cloud.xyz) == len(cloud.rgb) == 5 * 8 * 16 - 5
    assert np.isfinite(cloud.xyz).all()


def test_pixels_that_the_network_trusts_less_are_left_out():
    _, images, depth_set = result(ring())
    confidence = np.random.default_rng(1).random(depth_set.depth.shape, dtype=np.float32)
    maker = CloudMaker(PointChoice(stride=2, least_confidence=0.7))
    cloud = maker.cloud(images, replace(depth_set, confidence=confidence))
    assert len(cloud.xyz) == (confidence[:, 1::2, 1::2] >= 0.7).sum()
    with pytest.raises(InputError, match="tells no confidence"):
        maker.cloud(images, depth_set)


def test_another_rig_is_noticed():
    maker = CloudMaker(ALL)
    maker.cloud(*result(ring())[1:])
    moved = ring(at=(5, 0, 3))
    _, images, depth_set = result(moved)
    again = maker.cloud(images, depth_set).xyz
    np.testing.assert_array_equal(again, CloudMaker(ALL).cloud(images, depth_set).xyz)


def test_depth_without_a_rig_makes_no_points():
    _, images, depth_set = result(ring())
    with pytest.raises(InputError, match="which cameras"):
        CloudMaker().cloud(images, replace(depth_set, rig=None))


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"least_confidence": 1.1}, {"least_confidence": -0.1}])
def test_a_choice_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError):
        PointChoice(**wrong)


def test_another_reader_opens_the_file(tmp_path):
    frame_set, images, depth_set = result(ring())
    sink = PlySink(tmp_path / "points", ALL)
    sink.write(frame_set, images, depth_set)
    sink.close()
    sink.close()
    assert [file.name for file in (tmp_path / "points").iterdir()] == ["000007.ply"]
    ply = PlyData.read(str(tmp_path / "points/000007.ply"))
    assert (ply.text, ply.byte_order) == (False, "<")
    cloud = CloudMaker(ALL).cloud(images, depth_set)
    vertices = ply["vertex"]
    np.testing.assert_array_equal(np.stack([vertices[name] for name in "xyz"], axis=1), cloud.xyz)
    colours = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)
    np.testing.assert_array_equal(colours, cloud.rgb)
    assert colours.dtype == np.uint8


def test_a_set_without_any_depth_is_an_empty_cloud(tmp_path):
    frame_set, images, depth_set = result(ring(), depth=np.zeros((6, 8, 16), np.float32))
    PlySink(tmp_path).write(frame_set, images, depth_set)
    assert PlyData.read(str(tmp_path / "000007.ply"))["vertex"].count == 0


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_half_written(tiny_disk):
    frame_set, images, depth_set = result(ring(width=128, height=64))
    with pytest.raises(OutputError, match="No space left"):
        PlySink(tiny_disk, ALL).write(frame_set, images, depth_set)
    assert not list(tiny_disk.iterdir())
