from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.datasets.lidar import sparse_depth
from fsmde_edge.datasets.poses import inverse, move, pose
from fsmde_edge.errors import InputError
from fsmde_edge.rig import Camera

finite = st.floats(-50, 50, allow_nan=False)
quaternions = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(v * v for v in q) > 0.01)
METRES = st.floats(-9, 9)
CAMERA = Camera(
    name="c",
    width=30,
    height=20,
    intrinsics=np.array([[25.0, 0, 15.5], [0, 24.0, 9.5], [0, 0, 1]]),
    camera_to_vehicle=np.eye(4),
)


def brute_force(points):
    """The contract in a loop: z > 0, floor, last write wins."""
    depth = np.zeros((20, 30), np.float32)
    for x, y, z in points:
        if z > 0:
            u, v = 25.0 * (x / z) + 15.5, 24.0 * (y / z) + 9.5
            if 0 <= u < 30 and 0 <= v < 20:
                depth[int(np.floor(v)), int(np.floor(u))] = z
    return depth


@given(st.lists(st.tuples(METRES, METRES, st.floats(-3, 12).filter(lambda z: abs(z) > 1e-6)), max_size=60))
def test_equals_the_contract_written_as_a_loop(points):
    cloud = np.array(points, dtype=np.float64).reshape(-1, 3)
    np.testing.assert_array_equal(sparse_depth(cloud, CAMERA), brute_force(cloud))


@given(
    st.integers(0, 29), st.integers(0, 19), st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.1, 250)
)
def test_a_point_on_a_pixels_ray_lands_in_that_pixel(column, row, du, dv, z):
    ray = CAMERA.rays(np.array([column + du, row + dv]))
    depth = sparse_depth((ray * z)[None], CAMERA)
    assert np.argwhere(depth).tolist() == [[row, column]]
    assert depth[row, column] == np.float32(z)


def test_the_last_point_of_a_pixel_wins_even_if_it_is_farther():
    near, far = [0.0, 0, 5], [0.0, 0, 50]
    assert sparse_depth(np.array([near, far]), CAMERA)[9, 15] == 50
    assert sparse_depth(np.array([far, near]), CAMERA)[9, 15] == 5


def test_points_behind_and_an_empty_cloud_leave_no_depth():
    assert not sparse_depth(np.array([[0.0, 0, -5], [0, 0, 0], [1, 1, 5e-324]]), CAMERA).any()
    assert not sparse_depth(np.zeros((0, 3)), CAMERA).any()


@given(quaternions, st.tuples(finite, finite, finite), st.tuples(finite, finite, finite))
def test_a_pose_is_rigid_and_its_inverse_undoes_it(quaternion, translation, point):
    matrix = pose(quaternion, translation)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    points = np.array([point])
    np.testing.assert_allclose(move(inverse(matrix), move(matrix, points)), points, atol=1e-9)


def test_a_quarter_turn_about_z_takes_x_to_y():
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        move(pose((half, 0, 0, half), (0, 0, 1)), np.array([[1.0, 0, 0]])), [[0, 1, 1]], atol=1e-12
    )


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (float("nan"), 0, 0, 1), (1, 0, 0)])
def test_a_quaternion_that_is_none_is_refused(quaternion):
    with pytest.raises(InputError):
        pose(quaternion, (0, 0, 0))
