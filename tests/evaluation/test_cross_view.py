from __future__ import annotations

import numpy as np
import pytest
from scenes import ring, room_depth, sample

from fsmde_edge.evaluation.cross_view import cross_view
from fsmde_edge.rig import Rig

RIG = ring(6, width=96, height=64)
TRUTH = {camera.name: room_depth(camera) for camera in RIG.cameras}
PERFECT = np.stack([TRUTH[name] for name in RIG.names])


def thinned(truth):
    rng = np.random.default_rng(0)
    return {name: np.where(rng.random(d.shape) < 0.2, d, np.float32(0)) for name, d in truth.items()}


SAMPLE = sample(RIG, thinned(TRUTH))


def measure(depth, what=SAMPLE, max_depth=200.0):
    return cross_view([depth], [what], max_depth=max_depth)


def test_a_perfect_surround_agrees_with_itself():
    found = measure(PERFECT)
    assert found.points > 500
    assert found.overlap_accuracy == pytest.approx(0, abs=1e-6)
    assert found.depth_consistency == pytest.approx(0, abs=2e-3)  # the other view is read between pixels


def test_one_scaled_view_spoils_consistency_in_proportion():
    levels = []
    for scale in (1.0, 1.05, 1.2, 1.5):
        depth = PERFECT.copy()
        depth[2] *= scale
        levels.append(measure(depth))
    consistency = [level.depth_consistency for level in levels]
    accuracy = [level.overlap_accuracy for level in levels]
    assert consistency == sorted(consistency)
    assert consistency[-1] > 10 * consistency[0] + 0.1
    assert accuracy == sorted(accuracy)


def test_scaling_all_views_alike_spoils_accuracy_and_not_consistency():
    found = measure(PERFECT * np.float32(1.3))
    assert found.overlap_accuracy == pytest.approx(0.3, abs=1e-5)
    assert found.depth_consistency < 0.02


def test_only_points_that_a_neighbour_sees_count():
    middle = np.zeros((64, 96), dtype=np.float32)
    middle[32, 48] = 10  # straight ahead of c0: neither neighbour sees it
    assert measure(PERFECT, sample(RIG, {"c0": middle})).points == 0
    side = np.zeros((64, 96), dtype=np.float32)
    side[32, 0] = TRUTH["c0"][32, 0]
    found = measure(PERFECT, sample(RIG, {"c0": side}))
    assert found.points == 1
    none = measure(PERFECT, sample(RIG, {}))
    assert (none.overlap_accuracy, none.depth_consistency) == (None, None)


def test_returns_on_either_own_car_and_beyond_the_range_are_left_out():
    everything = measure(PERFECT).points
    blind = np.zeros((64, 96), dtype=bool)
    for name in RIG.names:
        masked = RIG.with_ego_masks({name: blind})
        assert 0 < measure(PERFECT, sample(masked, SAMPLE.depth)).points < everything
    assert measure(PERFECT, max_depth=5.0).points == 0


def test_cameras_that_do_not_overlap_have_nothing_to_compare():
    apart = Rig.of([RIG["c0"], RIG["c3"]])
    found = cross_view(
        [PERFECT[[0, 3]]], [sample(apart, {name: TRUTH[name] for name in apart.names})], max_depth=200.0
    )
    assert found.points == 0
