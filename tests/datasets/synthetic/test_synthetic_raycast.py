import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmde_edge.datasets.synthetic.lidar import SECTORS, _sector
from fsmde_edge.datasets.synthetic.raycast import RayGrid, cast
from fsmde_edge.datasets.synthetic.rig import camera_rotation
from fsmde_edge.datasets.synthetic.solids import (
    Paint,
    Place,
    Solid,
    SolidTable,
    box,
    circle,
    ellipsoid,
    prism,
)

K = np.array([[40.0, 0, 32], [0, 40.0, 20], [0, 0, 1]])
GRID = RayGrid.of_pinhole(K, 64, 40)

angles = st.floats(-180, 180)
places = st.builds(
    Place, x=st.floats(-25, 25), y=st.floats(-25, 25), z=st.floats(-3, 3), yaw=st.floats(-math.pi, math.pi)
)
sizes = st.tuples(*[st.floats(0.3, 6)] * 3)
boxes = st.builds(lambda place, half: box(place, [-h for h in half], half, Paint()), places, sizes)
balls = st.builds(lambda place, half: ellipsoid(place, (0, 0, 0), half, Paint()), places, sizes)
wheels = st.builds(
    lambda place, radius: prism(place, circle(radius, 0, radius, 9), (0, 1), 1, Paint(), taper=0.2),
    places,
    st.floats(0.3, 4),
)


def pose_of(azimuth: float, pitch: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = camera_rotation(azimuth, pitch, 0.0)
    pose[:3, 3] = (0.3, -0.2, 1.5)
    return pose


def nearest_by_hand(solids: list[Solid], grid: RayGrid, pose: np.ndarray) -> np.ndarray:
    """z of the nearest entry for every ray, in float64, each solid in its own frame, without any culling."""
    rays = grid.directions().astype(np.float64) @ pose[:3, :3].T
    best = np.full(grid.shape, np.inf)
    for solid in solids:
        origin = solid.rotation.T @ (pose[:3, 3] - solid.origin)
        d = rays @ solid.rotation
        with np.errstate(divide="ignore", invalid="ignore"):
            if len(solid.normals):
                gap, speed = solid.offsets - solid.normals @ origin, d @ solid.normals.T
                t = gap / speed
                enter = np.where(speed < 0, t, -np.inf).max(axis=-1)
                leave = np.where(speed > 0, t, np.inf).min(axis=-1)
                hit = (enter <= leave) & ~((speed == 0) & (gap < 0)).any(axis=-1)
            else:
                o, e = origin / solid.half, d / solid.half
                a, b, c = (e * e).sum(-1), (e * o).sum(-1), o @ o - 1
                enter = (-b - np.sqrt(b * b - a * c)) / a
                hit = b * b > a * c
        best = np.where(hit & (enter > 0.05) & (enter < best), enter, best)
    return best


def outside_of(solids: list[Solid], point: np.ndarray) -> bool:
    return all(np.linalg.norm(solid.origin - point) > 1.05 * np.linalg.norm(solid.half) for solid in solids)


def assert_same(solids: list[Solid], grid: RayGrid, pose: np.ndarray) -> None:
    depth = cast(SolidTable(tuple(solids)), grid, pose).depth()
    expected = nearest_by_hand(solids, grid, pose)
    expected = np.where(expected < 1000, expected, 0)
    agree = np.isclose(depth, expected, rtol=1e-3, atol=1e-3)
    assert agree.mean() > 0.995  # single rays graze an edge in float32


@settings(max_examples=80, deadline=None)
@given(st.lists(boxes | balls | wheels, min_size=1, max_size=5), angles, st.floats(-25, 25))
def test_cast_equals_ray_by_ray_intersection(solids, azimuth, pitch):
    pose = pose_of(azimuth, pitch)
    if outside_of(solids, pose[:3, 3]):
        assert_same(solids, GRID, pose)


@settings(max_examples=40, deadline=None)
@given(st.lists(boxes | balls, min_size=1, max_size=4), angles)
def test_windows_of_a_lidar_sector_cut_nothing_off(solids, azimuth):
    pose = pose_of(azimuth, 0.0)
    if outside_of(solids, pose[:3, 3]):
        assert_same(solids, _sector(48, 40), pose)


def test_sectors_cover_the_full_turn_once():
    grid = _sector(8, 30)
    azimuth = np.degrees(np.arctan(grid.x[0]))
    assert np.allclose(np.diff(azimuth), 360 / SECTORS / 30, atol=1e-4)
    assert azimuth[-1] - azimuth[0] == pytest.approx(360 / SECTORS * 29 / 30, abs=1e-4)


def test_nearer_solid_hides_the_farther_in_any_order():
    near = box(Place(x=10, y=0), (-1, -1, 0), (1, 1, 3), Paint())
    far = box(Place(x=20, y=0), (-1, -9, 0), (1, 9, 9), Paint())
    pose = pose_of(0.0, 0.0)
    for solids in ((near, far), (far, near)):
        hits = cast(SolidTable(solids), GRID, pose)
        assert solids[hits.solid[20, 32]] is near
        assert hits.depth()[20, 32] == pytest.approx(10 - 1 - 0.3, abs=1e-4)
        assert solids[hits.solid[20, 46]] is far


def test_a_sensor_inside_a_solid_does_not_see_it():
    around = box(Place(x=0, y=0), (-5, -5, -5), (5, 5, 5), Paint())
    assert not cast(SolidTable((around,)), GRID, pose_of(0.0, 0.0)).depth().any()


def test_an_empty_scene_is_sky():
    hits = cast(SolidTable(()), GRID, pose_of(0.0, 0.0))
    assert (hits.solid == -1).all()
    assert not hits.depth().any()
