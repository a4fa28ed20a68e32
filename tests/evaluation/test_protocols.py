from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import ring, sample

from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.metrics import depth_metrics
from fsmde_edge.evaluation.protocols import PROTOCOLS, ViewErrors, flipped_mean, pair, pair_set, summarise
from fsmde_edge.evaluation.sampling import at_pixels, lidar_pixels

DEPLOY = PROTOCOLS["deploy"]
RIG = ring(6)
CAMERA = RIG.cameras[0]


def lidar(*returns, shape=(48, 64)):
    """A sparse map from (row, column, metres)."""
    truth = np.zeros(shape, dtype=np.float32)
    for row, column, metres in returns:
        truth[row, column] = metres
    return truth


def flat(value, shape=(24, 32)):
    return np.full(shape, value, dtype=np.float32)


def values(camera, *pairs):
    depth, truth = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return ViewErrors(camera=camera, depth=depth, truth=truth)


def test_the_presets_are_those_of_the_designs_table():
    rows = {
        name: (p.at, p.valid, p.clamp, p.ego_mask, p.flip, p.pool, p.batch_size)
        for name, p in PROTOCOLS.items()
    }
    assert rows == {
        "surrounddepth": ("native", (0.1, 200.0), (0.1, 200.0), False, True, "image", 1),
        "vfdepth": ("network", (0.0, 200.0), (0.0, 200.0), True, False, "batch", 4),
        "deploy": ("native", (0.1, 200.0), None, True, False, "image", 1),
    }


def test_another_largest_depth_changes_range_and_clamp_alone():
    assert PROTOCOLS["surrounddepth"].up_to(80.0) == replace(
        PROTOCOLS["surrounddepth"], valid=(0.1, 80.0), clamp=(0.1, 80.0)
    )
    assert DEPLOY.up_to(80.0).clamp is None


@pytest.mark.parametrize(
    ("name", "kept"),
    [("surrounddepth", [0.2, 199.0]), ("deploy", [0.2, 199.0]), ("vfdepth", [0.05, 0.1, 0.2, 199.0])],
)
def test_both_ends_of_the_valid_range_are_outside(name, kept):
    truth = lidar(*((10, 4 * i, d) for i, d in enumerate((0.05, 0.1, 0.2, 199.0, 200.0, 240.0))))
    found = pair(flat(5), truth, CAMERA, PROTOCOLS[name])
    assert found.truth.tolist() == pytest.approx(kept)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("surrounddepth", 0.1, 200), ("vfdepth", 0.0, 200), ("deploy", -1.0, 500)]
)
def test_predictions_are_clamped_where_the_protocol_says(name, low, high):
    truth = lidar((5, 5, 10.0))
    assert pair(flat(-1.0), truth, CAMERA, PROTOCOLS[name]).depth.tolist() == pytest.approx([low])
    assert pair(flat(500.0), truth, CAMERA, PROTOCOLS[name]).depth.tolist() == [high]


@pytest.mark.parametrize(("name", "count"), [("surrounddepth", 2), ("vfdepth", 1), ("deploy", 1)])
def test_the_own_car_is_left_out_where_the_protocol_says(name, count):
    mask = np.ones((48, 64), dtype=bool)
    mask[40:] = False
    truth = lidar((5, 5, 10.0), (45, 5, 2.0))
    assert pair(flat(5), truth, CAMERA.with_ego_mask(mask), PROTOCOLS[name]).truth.size == count


def test_at_network_size_a_pixel_that_touches_the_own_car_is_left_out():
    mask = np.ones((48, 64), dtype=bool)
    mask[41, 5] = False
    truth = lidar((40, 4, 2.0), (20, 20, 3.0))  # the first shares a network pixel with the masked one
    masked = CAMERA.with_ego_mask(mask)
    assert pair(flat(5), truth, masked, PROTOCOLS["vfdepth"]).truth.tolist() == [3.0]
    assert pair(flat(5), truth, masked, DEPLOY).truth.tolist() == [3.0, 2.0]


def test_at_network_size_a_return_is_compared_with_its_own_pixel():
    depth = np.arange(24 * 32, dtype=np.float32).reshape(24, 32) + 1
    found = pair(depth, lidar((47, 63, 10.0)), CAMERA, replace(PROTOCOLS["vfdepth"], clamp=None))
    assert found.depth.tolist() == [depth[23, 31]]


def test_at_network_size_the_last_of_two_returns_in_one_pixel_stays():
    found = pair(flat(1), lidar((10, 10, 4.0), (11, 11, 9.0)), CAMERA, PROTOCOLS["vfdepth"])
    assert found.truth.tolist() == [9.0]
    assert pair(flat(1), lidar((10, 10, 4.0), (11, 11, 9.0)), CAMERA, DEPLOY).truth.tolist() == [4.0, 9.0]


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(2, 40))
def test_native_size_means_bilinear_enlargement(seed, height, width):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 80, (height, width)).astype(np.float32)
    size = (height * 2 + 3, width * 3)
    u, v, _ = lidar_pixels(np.ones(size, dtype=np.float32))
    ours = at_pixels(depth, u, v, size).reshape(size)
    theirs = cv2.resize(depth, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5)


def test_a_mirrored_pass_is_averaged_over_inverse_depth():
    depth, mirrored = flat(4.0)[None], flat(12.0)[None]
    mirrored[0, :, 0] = 4.0  # of the mirrored picture's left: the right of ours
    mean = flipped_mean(depth, mirrored)
    np.testing.assert_allclose(mean[0, :, -1], 4.0)
    np.testing.assert_allclose(mean[0, :, :-1], 6.0)


def test_averages_go_image_camera_mean():
    a1, a2, b1 = values("a", (12, 10)), values("a", (13, 10), (10, 10), (10, 10)), values("b", (20, 10))
    found = summarise([[a1, b1], [a2]], DEPLOY)
    assert found.cameras["a"].abs_rel == pytest.approx((0.2 + 0.1) / 2)
    assert found.cameras["b"].abs_rel == pytest.approx(1.0)
    assert found.cameras["mean"].abs_rel == pytest.approx((0.15 + 1.0) / 2)
    assert found.images == 3


def test_averages_go_pixels_of_a_batch_camera_batch():
    protocol = replace(PROTOCOLS["vfdepth"], batch_size=2)
    a1, a2, a3 = values("a", (12, 10)), values("a", (13, 10), (10, 10), (10, 10)), values("a", (10, 10))
    b1 = values("b", (20, 10))
    found = summarise([[a1, b1], [a2], [a3]], protocol)
    first_a = (0.2 + 0.3 + 0 + 0) / 4
    assert found.cameras["a"].abs_rel == pytest.approx((first_a + 0) / 2)
    assert found.cameras["mean"].abs_rel == pytest.approx(((first_a + 1.0) / 2 + 0) / 2)
    rmse = depth_metrics(np.array([12.0, 13, 10, 10]), np.full(4, 10.0)).rmse
    assert found.cameras["a"].rmse == pytest.approx(rmse / 2)


def test_views_without_returns_count_nowhere():
    empty = values("a")
    found = summarise([[empty, values("b", (11, 10))]], DEPLOY)
    assert set(found.cameras) == {"b", "mean"}
    assert found.images == 1
    with pytest.raises(InputError, match="nothing can be measured"):
        summarise([[empty]], DEPLOY)
    with pytest.raises(InputError, match="nothing can be measured"):
        summarise([], DEPLOY)


def test_distances_are_split_by_truth_with_the_lower_edge_inside():
    found = summarise([[values("a", (11, 10.0), (9.9, 9.0), (33, 30.0), (60, 100.0))]], DEPLOY)
    assert set(found.distances) == {"0-10", "10-30", "30-80", "80+"}
    assert found.distances["0-10"].abs_rel == pytest.approx(0.1)
    assert found.distances["80+"].abs_rel == pytest.approx(0.4)
    assert set(summarise([[values("a", (11, 10.0))]], DEPLOY).distances) == {"10-30"}


def test_a_set_is_paired_for_the_cameras_that_have_lidar():
    found = pair_set(
        np.stack([flat(i + 1.0) for i in range(6)]), sample(RIG, {"c2": lidar((5, 5, 7.0))}), DEPLOY
    )
    assert [(view.camera, view.depth.tolist(), view.truth.tolist()) for view in found] == [
        ("c2", [3.0], [7.0])
    ]
