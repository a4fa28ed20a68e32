"""Streaming histograms and the ranges that calibrators read from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fsmde_edge.compiler.histogram import BINS, CALIBRATORS, Histogram
from fsmde_edge.errors import InputError

VALUES = arrays(np.float32, st.integers(1, 200), elements=st.floats(-1000, 1000, width=32))


def histogram_of(*parts) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, dtype=np.float32))
    return histogram


@given(st.lists(VALUES, min_size=1, max_size=6))
def test_streaming_equals_one_go(parts):
    streamed, whole = histogram_of(*parts), histogram_of(np.concatenate(parts))
    assert streamed.limit == whole.limit
    assert (streamed.counts == whole.counts).all()
    assert (streamed.largest, streamed.negative) == (whole.largest, whole.negative)


@given(VALUES)
def test_counts_equal_a_plain_histogram(values):
    histogram = histogram_of(values)
    if histogram.limit == 0:
        assert histogram.counts[0] == values.size
        return
    expected, _ = np.histogram(np.abs(values), bins=BINS, range=(0, histogram.limit))
    assert (histogram.counts == expected).all()
    smallest_limit = 2.0**-100  # below it everything counts as zero
    assert histogram.largest == np.abs(values).max() < histogram.limit
    assert histogram.limit <= max(2 * histogram.largest, smallest_limit)


def test_counts_stay_exact_beyond_what_float32_can_count():
    zeros = np.zeros(1 << 22, dtype=np.float32)
    histogram = histogram_of([1.0], *[zeros] * 9)
    assert histogram.counts[0] == 9 << 22 > 1 << 24


def test_a_tensor_of_zeros_has_no_range():
    assert histogram_of(np.zeros(10)).thresholds() == dict.fromkeys(CALIBRATORS, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float):
    with pytest.raises(InputError, match="not finite"):
        histogram_of([1.0, bad])


@given(VALUES)
def test_no_calibrator_goes_beyond_the_largest_value(values):
    histogram = histogram_of(values)
    thresholds = histogram.thresholds()
    assert set(thresholds) == set(CALIBRATORS)
    assert all(0 <= limit <= histogram.largest for limit in thresholds.values())
    assert thresholds["max"] == histogram.largest


def test_percentile_is_that_of_numpy_to_one_bin():
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    histogram = histogram_of(values)
    for percent in (50, 99, 99.9, 99.99):
        expected = np.percentile(np.abs(values), percent, method="inverted_cdf")
        assert histogram.percentile(percent) == pytest.approx(expected, abs=histogram.limit / BINS)


def test_mse_is_the_best_range_on_a_fine_grid():
    values = np.random.default_rng(1).laplace(size=100_000).astype(np.float32)

    def error(limit: float) -> float:
        step = limit / 127
        return float(np.mean(np.square(values - np.clip(np.rint(values / step), -127, 127) * step)))

    histogram = histogram_of(values)
    best = min(error(limit) for limit in np.linspace(0.2, 1, 200) * histogram.largest)
    assert error(histogram.mse()) <= best * 1.01


def test_one_outlier_moves_max_but_not_entropy_and_mse_to_it():
    values = np.random.default_rng(2).normal(size=1_000_000)
    histogram = histogram_of(np.append(values, 60.0))
    assert histogram.largest == 60
    assert 2 < histogram.entropy() < 15
    assert 2 < histogram.mse() < 15
