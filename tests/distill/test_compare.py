"""The paired bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmde_edge.distill.compare import by_scene, paired_difference


def noise(seed, shape=(5, 20)):
    return np.random.default_rng(seed).normal(size=shape)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-3, 3))
def test_what_both_share_cancels(seed, shift):
    scenes = 100 * noise(seed, (1, 20))
    found = paired_difference(scenes + shift + np.zeros((5, 20)), scenes + np.zeros((5, 20)))
    assert found.mean == pytest.approx(shift, abs=1e-9)
    assert found.low == pytest.approx(shift, abs=1e-9)
    assert found.high == pytest.approx(shift, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_changing_sides_changes_the_sign(seed):
    one, other = noise(seed), noise(seed + 1)
    there, back = paired_difference(one, other), paired_difference(other, one)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))
    assert there.low < there.mean < there.high


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    inside = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        effect = random.normal(size=(12, 1)) + random.normal(size=(1, 40)) + random.normal(size=(12, 40))
        found = paired_difference(1 + effect, np.zeros((12, 40)), seed=seed)
        inside += found.low <= 1 <= found.high
    assert 85 <= inside <= 100


def test_a_difference_between_seeds_alone_is_not_hidden_by_many_scenes():
    apart = np.repeat([[-1.0], [1.2], [0.1]], 1000, axis=1)
    found = paired_difference(apart, np.zeros_like(apart))
    assert not found.is_clear
    assert paired_difference(np.abs(apart) + 1, np.zeros_like(apart)).is_clear


def test_results_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference(noise(0), noise(0, (4, 20)))


def run(*values, names="abc"):
    return {"sets": [{"name": n, "x": v} for n, v in zip(names, values, strict=True)]}


def test_scenes_without_a_value_are_left_out_for_all():
    table = by_scene([run(1.0, None, 3.0), run(4.0, 5.0, 6.0)], "x")
    assert table.tolist() == [[1, 3], [4, 6]]
    with pytest.raises(ValueError, match="different frame sets"):
        by_scene([run(1.0, 2.0, 3.0), run(1.0, 2.0, 3.0, names="abd")], "x")
