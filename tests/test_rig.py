from __future__ import annotations

import itertools
import math
import random

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fsmde_edge.errors import InputError
from fsmde_edge.rig import (
    BrownConrady,
    Camera,
    Fisheye,
    NoDistortion,
    Rig,
    VirtualPinhole,
    overlap,
    ring_order,
    shrink_mask,
)

DDAD_AZIMUTHS = {"01": 1.0, "05": 62.0, "07": 119.0, "09": 181.0, "08": -121.0, "06": -60.0}
DDAD_RING = ("01", "05", "07", "09", "08", "06")


def looking(azimuth_deg: float, pitch_deg: float = 0.0, at=(0.0, 0.0, 1.5)) -> np.ndarray:
    """camera_to_vehicle of a level camera: forward, right and down written out by hand."""
    a, p = math.radians(azimuth_deg), math.radians(pitch_deg)
    forward = np.array((math.cos(a) * math.cos(p), math.sin(a) * math.cos(p), math.sin(p)))
    right = np.array((math.sin(a), -math.cos(a), 0.0))
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, at
    return pose


def camera(name="a", azimuth=0.0, *, width=64, height=40, fx=40.0, fy=38.0, **more) -> Camera:
    k = np.array([[fx, 0, width / 2 + 1], [0, fy, height / 2 - 2], [0, 0, 1]])
    pose = more.pop("pose", looking(azimuth))
    return Camera(name=name, width=width, height=height, intrinsics=k, camera_to_vehicle=pose, **more)


# Ring order


@pytest.mark.parametrize("seed", range(20))
def test_ring_order_of_ddad_comes_from_the_poses_alone(seed):
    cameras = [camera(name, azimuth) for name, azimuth in DDAD_AZIMUTHS.items()]
    random.Random(seed).shuffle(cameras)
    assert Rig.of(cameras).names == DDAD_RING


@given(st.lists(st.integers(-179, 180), min_size=1, max_size=8, unique=True))
def test_ring_order_starts_nearest_to_the_front_and_turns_left(azimuths):
    names = [int(c.name) for c in ring_order([camera(str(a), a) for a in azimuths])]
    assert abs(names[0]) == min(abs(a) for a in azimuths)
    turned = [(a - names[0]) % 360 for a in names]
    assert turned == sorted(turned)


def test_ring_order_does_not_depend_on_rounding_noise():
    for noise in (-1e-13, 0.0, 1e-13):
        cameras = [camera("b", 0.0), camera("a", noise), camera("c", 90.0)]
        for order in itertools.permutations(cameras):
            assert [c.name for c in ring_order(order)] == ["a", "b", "c"]


def test_a_rig_is_refused_out_of_order_with_twins_or_empty():
    front, left, right = camera("f", 0), camera("l", 90), camera("r", -90)
    with pytest.raises(InputError, match="not in ring order"):
        Rig((left, front, right))
    with pytest.raises(InputError, match="twice"):
        Rig.of((front, camera("f", 90)))
    with pytest.raises(InputError, match="without cameras"):
        Rig.of(())
    with pytest.raises(InputError, match=r"no camera x \(it has f, l, r\)"):
        Rig.of((front, left, right))["x"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intrinsics": np.full((3, 3), np.nan)}, "finite 3x3"),
        ({"intrinsics": np.eye(4)}, "finite 3x3"),
        ({"intrinsics": np.diag((-1.0, 1.0, 1.0))}, "not positive"),
        ({"camera_to_vehicle": np.diag((2.0, 1.0, 1.0, 1.0))}, "not a rotation"),
        ({"camera_to_vehicle": np.diag((-1.0, 1.0, 1.0, 1.0))}, "not a rotation"),
        ({"width": 0}, "picture size"),
        ({"ego_mask": np.ones((3, 3), dtype=bool)}, "ego mask"),
    ],
)
def test_an_impossible_camera_is_refused(change, message):
    good = {
        "name": "a",
        "width": 8,
        "height": 6,
        "intrinsics": np.eye(3),
        "camera_to_vehicle": np.eye(4),
    }
    with pytest.raises(InputError, match=message):
        Camera(**{**good, **change})


def test_matrices_are_copied_and_read_only():
    k = np.eye(3)
    made = Camera(name="a", width=8, height=6, intrinsics=k, camera_to_vehicle=np.eye(4))
    k[0, 0] = 5
    assert made.intrinsics[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        made.intrinsics[0, 0] = 2


def test_azimuth_pitch_and_height():
    made = camera("a", pose=looking(135.0, -10.0, at=(1.0, 2.0, 1.75)))
    assert math.degrees(made.azimuth) == pytest.approx(135)
    assert made.pitch_deg == pytest.approx(-10)
    assert made.height_m == 1.75


# Lenses


@st.composite
def lenses(draw):
    """Brown-Conrady lenses as cars have them, rational ones included."""

    def within(low, high):
        return draw(st.floats(low, high))

    rational = draw(st.booleans())
    return BrownConrady(
        k1=within(-0.4, 0.3),
        k2=within(-0.1, 0.15),
        p1=within(-0.002, 0.002),
        p2=within(-0.002, 0.002),
        k3=within(-0.02, 0.02),
        k4=within(-0.1, 0.2) if rational else 0.0,
        k5=within(-0.02, 0.05) if rational else 0.0,
        k6=within(0.0, 0.01) if rational else 0.0,
    )


fisheyes = st.builds(
    Fisheye,
    k1=st.floats(-0.05, 0.1),
    k2=st.floats(-0.02, 0.02),
    k3=st.floats(-0.005, 0.005),
    k4=st.floats(-0.001, 0.001),
)
planes = hnp.arrays(np.float64, (20, 2), elements=st.floats(-0.75, 0.75, width=32))


def brown_coefficients(lens):
    return np.array([lens.k1, lens.k2, lens.p1, lens.p2, lens.k3, lens.k4, lens.k5, lens.k6])


def grows(lens, radius: float) -> bool:
    """Whether the lens maps farther points farther out, up to a radius: real lenses do."""
    r = np.linspace(0, radius, 200)
    bent = lens.distort(np.stack((r, np.zeros_like(r)), axis=-1))[:, 0]
    return bool((np.diff(bent) > 1e-4 * np.diff(r)).all())


@given(lenses(), planes)
def test_brown_conrady_undistorts_what_it_distorts(lens, xy):
    assume(grows(lens, 1.15))
    back = lens.undistort(lens.distort(xy))
    np.testing.assert_allclose(back, xy, atol=1e-5)


@given(fisheyes, hnp.arrays(np.float64, (20, 2), elements=st.floats(-6, 6, width=32)))
def test_fisheye_undistorts_what_it_distorts(lens, xy):
    np.testing.assert_allclose(lens.undistort(lens.distort(xy)), xy, atol=1e-6, rtol=1e-6)


@given(lenses(), planes)
def test_brown_conrady_agrees_with_opencv(lens, xy):
    k = np.array([[300.0, 0, 160], [0, 310, 120], [0, 0, 1]])
    made = Camera(name="a", width=320, height=240, intrinsics=k, camera_to_vehicle=np.eye(4), distortion=lens)
    points = np.concatenate((xy, np.ones((len(xy), 1))), axis=1) * 3.5
    uv, z = made.project(points)
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, brown_coefficients(lens))
    np.testing.assert_allclose(uv, expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(z, 3.5)


@given(lenses(), planes)
def test_brown_conrady_rays_agree_with_opencv(lens, xy):
    assume(grows(lens, 1.15))
    k = np.array([[300.0, 0, 160], [0, 310, 120], [0, 0, 1]])
    made = Camera(name="a", width=320, height=240, intrinsics=k, camera_to_vehicle=np.eye(4), distortion=lens)
    uv, _ = made.project(np.concatenate((xy, np.ones((len(xy), 1))), axis=1))
    theirs = cv2.undistortPoints(uv[:, None], k, brown_coefficients(lens))[:, 0]
    converged = np.abs(lens.distort(theirs) - lens.distort(xy)).max(axis=1) < 1e-6  # OpenCV stops early
    np.testing.assert_allclose(made.rays(uv)[converged, :2], theirs[converged], atol=1e-4)


@given(fisheyes, hnp.arrays(np.float64, (20, 2), elements=st.floats(-3, 3, width=32)))
def test_fisheye_agrees_with_opencv(lens, xy):
    k = np.array([[200.0, 0, 160], [0, 210, 120], [0, 0, 1]])
    made = Camera(name="a", width=320, height=240, intrinsics=k, camera_to_vehicle=np.eye(4), distortion=lens)
    points = np.concatenate((xy, np.ones((len(xy), 1))), axis=1) * 2.0
    coefficients = np.array([lens.k1, lens.k2, lens.k3, lens.k4])
    expected, _ = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), k, coefficients)
    np.testing.assert_allclose(made.project(points)[0], expected[:, 0], atol=1e-6)


def test_positions_that_no_ray_reaches_are_nan():
    barrel = BrownConrady(k1=-0.4)  # r(1 - 0.4 r²) never exceeds 0.6086
    assert np.isnan(barrel.undistort(np.array([[0.7, 0.0]]))).all()
    assert np.isfinite(barrel.undistort(np.array([[0.55, 0.0]]))).all()
    assert np.isnan(Fisheye().undistort(np.array([[math.pi / 2, 0.0], [2.0, 1.0]]))).all()


def test_points_behind_a_camera_have_no_position():
    uv, z = camera().project(np.array([[1.0, 1.0, -2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
    assert np.isnan(uv[:2]).all()
    np.testing.assert_allclose(uv[2], (33.0, 18.0))
    assert z.tolist() == [-2.0, 0.0, 2.0]
    assert camera().inside(uv).tolist() == [False, False, True]


@given(planes)
def test_rays_undo_projection_with_skew(xy):
    k = np.array([[50.0, 3.0, 30], [0, 45, 20], [0, 0, 1]])
    made = Camera(name="a", width=64, height=40, intrinsics=k, camera_to_vehicle=np.eye(4))
    uv, _ = made.project(np.concatenate((xy, np.ones((len(xy), 1))), axis=1) * 7)
    np.testing.assert_allclose(made.rays(uv)[:, :2], xy, atol=1e-9)


# Sizes and masks


@given(st.integers(8, 200), st.integers(8, 200), planes)
def test_scaling_k_scales_every_projection(width, height, xy):
    made = camera()
    points = np.concatenate((xy, np.ones((len(xy), 1))), axis=1)
    small = made.scaled(width, height)
    np.testing.assert_allclose(
        small.project(points)[0], made.project(points)[0] * (width / 64, height / 40), atol=1e-9
    )
    assert (small.width, small.height) == (width, height)


def shrunk_by_hand(mask, width, height):
    result = np.ones((height, width), dtype=bool)
    for row, column in itertools.product(range(height), range(width)):
        for y, x in itertools.product(range(mask.shape[0]), range(mask.shape[1])):
            # In whole numbers: do the output pixel and the input pixel share area?
            shares_y = row * mask.shape[0] < (y + 1) * height and y * height < (row + 1) * mask.shape[0]
            shares_x = column * mask.shape[1] < (x + 1) * width and x * width < (column + 1) * mask.shape[1]
            if shares_y and shares_x and not mask[y, x]:
                result[row, column] = False
    return result


@settings(max_examples=60)
@given(
    hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    st.integers(1, 14),
    st.integers(1, 14),
)
def test_a_mask_shrinks_as_counted_by_hand(mask, width, height):
    np.testing.assert_array_equal(shrink_mask(mask, width, height), shrunk_by_hand(mask, width, height))


def test_a_rig_scales_with_its_masks():
    mask = np.ones((40, 64), dtype=bool)
    mask[39, 0] = False
    rig = Rig.of([camera("a"), camera("b", 90)]).with_ego_masks({"a": mask}).scaled(32, 20)
    assert rig["b"].ego_mask is None
    assert rig["a"].ego_mask is not None
    assert np.argwhere(~rig["a"].ego_mask).tolist() == [[19, 0]]


# Neighbours and pinholes


def test_neighbours_go_around_the_ring():
    rig = Rig.of([camera(name, azimuth, fx=30.0) for name, azimuth in DDAD_AZIMUTHS.items()])
    assert rig.neighbours() == tuple(zip(DDAD_RING, (*DDAD_RING[1:], DDAD_RING[0]), strict=True))


def test_views_that_do_not_overlap_are_no_neighbours():
    front, left, back = camera("f", 0), camera("l", 40), camera("b", 180)
    assert Rig.of([front, left, back]).neighbours() == (("f", "l"),)
    assert Rig.of([front, back]).neighbours() == ()
    assert Rig.of([front]).neighbours() == ()


def test_overlap_of_equal_and_opposite_cameras():
    assert overlap(camera("a"), camera("b")) == 1.0
    assert overlap(camera("a"), camera("b", 180)) == 0.0
    narrow, wide = camera("n", fx=80.0, fy=76.0), camera("w")
    assert overlap(narrow, wide) == 1.0
    assert overlap(wide, narrow) == pytest.approx(0.25, abs=0.05)


def test_a_pinhole_keeps_the_field_of_view():
    pinhole = VirtualPinhole.of(camera("a", 30.0), 32, 10)
    assert (pinhole.fx, pinhole.fy, pinhole.cx, pinhole.cy) == pytest.approx((20.0, 9.5, 16.5, 4.5))
    assert pinhole.fx_range == pytest.approx((10.0, 40.0))
    assert (pinhole.yaw_deg, pinhole.pitch_deg, pinhole.height_m) == pytest.approx((30.0, 0.0, 1.5))


def test_identity_of_lenses():
    assert NoDistortion().is_identity
    assert BrownConrady().is_identity
    assert not BrownConrady(p2=1e-4).is_identity
    assert not Fisheye().is_identity
