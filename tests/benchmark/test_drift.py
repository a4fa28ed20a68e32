"""Whether ages grow: slope and interval against what was put in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.benchmark.drift import drift_of

TIMES = np.arange(0, 600, 0.1)


def ages(slope_ms_per_min: float, seed: int, noise_ms: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).gamma(2.0, noise_ms, len(TIMES))
    return (30 + noise + slope_ms_per_min * TIMES / 60) / 1e3


@given(seed=st.integers(0, 10_000), slope=st.floats(-3, 3))
def test_the_slope_is_what_was_put_in(seed, slope):
    found = drift_of(TIMES, ages(slope, seed))
    assert found.slope == pytest.approx(slope, abs=0.1)
    assert found.low <= found.slope <= found.high


def test_the_interval_covers_as_often_as_it_says():
    inside = [(d := drift_of(TIMES, ages(0.5, seed))).low <= 0.5 <= d.high for seed in range(200)]
    assert np.mean(inside) > 0.92


def test_growth_is_found_and_noise_is_not():
    assert all(drift_of(TIMES, ages(0.3, seed)).grows for seed in range(50))
    assert not any(drift_of(TIMES, ages(0.0, seed)).grows for seed in range(100))
    assert not drift_of(TIMES, ages(-0.5, 1)).grows


def test_growth_that_is_sure_but_tiny_does_not_matter():
    found = drift_of(TIMES, ages(0.01, 3, noise_ms=0.001))
    assert found.low > 0
    assert not found.grows


def test_growth_that_may_be_chance_is_none():
    few = slice(0, len(TIMES), 600)
    found = [drift_of(TIMES[few], ages(0.0, seed, noise_ms=20.0)[few]) for seed in range(50)]
    assert any(each.slope * each.minutes > 0.05 * each.median for each in found)
    assert np.mean([each.grows for each in found]) < 0.1


def test_one_burst_is_no_drift():
    values = ages(0.0, 5)
    values[-200:] += 1.0
    found = drift_of(TIMES, values)
    assert not found.grows
    assert abs(found.slope) < 0.1  # a mean of slopes, or least squares, would say 10 ms a minute


def test_too_few_sets_have_no_drift():
    assert drift_of(TIMES[:7], ages(0, 0)[:7]) is None
