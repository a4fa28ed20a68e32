from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import looking, ring, sample

from fsmde_edge.evaluation.baselines import Rivals, best_constant, ground_plane
from fsmde_edge.rig import Camera, Rig


def abs_rel(constant, truth):
    return float(np.mean(np.abs(constant - truth) / truth))


@given(st.lists(st.floats(0.2, 79.0), min_size=1, max_size=40))
def test_no_constant_is_better_than_the_best(values):
    truth = np.array(values)
    best = abs_rel(best_constant(truth), truth)
    brute = min(abs_rel(c, truth) for c in np.concatenate((truth, np.linspace(0.1, 80, 200))))
    assert best == pytest.approx(brute, abs=1e-9) or best < brute


@given(st.floats(-25, 5), st.floats(1.0, 2.5), st.floats(-180, 180))
def test_the_ground_plane_lies_where_trigonometry_puts_it(pitch, height, azimuth):
    k = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
    camera = Camera(
        name="a",
        width=64,
        height=48,
        intrinsics=k,
        camera_to_vehicle=looking(azimuth, height, pitch),
    )
    v = np.arange(48) + 0.5
    depth = ground_plane(camera, np.full(48, 32.0), v)
    below_axis = np.arctan((v - 24) / 50)  # angle of the ray below the optical axis
    down = below_axis - np.radians(pitch)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.where(down > 0, height / np.sin(down) * np.cos(below_axis), 80.0)
    np.testing.assert_allclose(depth, np.minimum(expected, 80.0), rtol=1e-6)


def test_rivals_are_scored_on_lidar_of_the_world_within_range():
    rig = ring(2, width=8, height=6)
    mask = np.ones((6, 8), dtype=bool)
    mask[5] = False
    rig = rig.with_ego_masks({"c0": mask})
    truth = np.zeros((6, 8), dtype=np.float32)
    truth[1, :4] = (10, 20, 30, 90)  # 90 m is out of range
    truth[5, 0] = 3  # on the own car
    rivals = Rivals()
    rivals.add(sample(rig, {"c0": truth}), {"right": np.stack([truth + np.float32(0.001)] * 2)})
    found = rivals.result()
    assert found["median"] == pytest.approx((10 / 10 + 0 + 10 / 30) / 3)
    assert found["constant"] == pytest.approx(abs_rel(10.0, np.array([10.0, 20, 30])))
    assert found["right"] == pytest.approx(0, abs=1e-3)
    assert set(found) == {"right", "median", "constant", "ground"}


def test_without_lidar_there_are_no_rivals():
    rivals = Rivals()
    rivals.add(sample(Rig(ring(2).cameras), {}), {})
    assert rivals.result() == {}


def test_median_scaling_forgives_any_scale():
    rig = ring(2, width=8, height=6)
    rng = np.random.default_rng(0)
    truth = rng.uniform(2, 60, (6, 8)).astype(np.float32)
    depth = np.stack([truth * np.float32(1.2) ** rng.choice((-1, 1), truth.shape)] * 2).astype(np.float32)
    rivals = Rivals()
    rivals.add(sample(rig, {"c0": truth}), {"one": depth, "seven": depth * 7})
    assert rivals.result()["one"] == pytest.approx(rivals.result()["seven"], rel=1e-5)


def test_the_ground_plane_gets_the_best_of_three_scalings():
    rig = ring(2, width=64, height=48)
    camera = rig.cameras[0]
    v, u = np.meshgrid(np.arange(48) + 0.5, np.arange(64) + 0.5, indexing="ij")
    plane = ground_plane(camera, u.ravel(), v.ravel()).reshape(48, 64)
    truth = np.where(plane < 80, plane, 8.0).astype(np.float32)  # a wall of 8 m above the horizon
    above = float((plane >= 80).mean())
    assert above > 0.5
    wrong = above * (80 - 8) / 8
    as_network = (1 - above) * (1 - 8 / 80)  # by medians: the wall right, the ground ten times too near
    rivals = Rivals()
    rivals.add(sample(rig, {"c0": truth}), {})
    assert rivals.result()["ground"] == pytest.approx(min(wrong, as_network), rel=0.05)


@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_a_flat_world_is_the_ground_planes(scale):
    rig = ring(2, width=64, height=48)
    camera = rig.cameras[0]
    v, u = np.meshgrid(np.arange(48) + 0.5, np.arange(64) + 0.5, indexing="ij")
    plane = ground_plane(camera, u.ravel(), v.ravel()).reshape(48, 64)
    rivals = Rivals()
    rivals.add(sample(rig, {"c0": np.where(plane < 80, plane * scale, 0).astype(np.float32)}), {})
    assert rivals.result()["ground"] < 0.01
