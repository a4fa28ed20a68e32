"""The arithmetic of symmetric INT8."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fsmde_edge.compiler.quantiser import SMALLEST_SCALE, channel_scales, dequantise, quantise, scale_of

LIMITS = st.floats(2.0**-12, 2.0**20, width=32)


@given(LIMITS)
def test_scale_reaches_the_range_with_127_steps_and_is_a_float16(limit: float):
    scale = scale_of(limit)
    assert float(np.float16(scale)) == scale
    assert 127 * scale >= limit
    step = max(limit / 127, SMALLEST_SCALE)
    assert scale - step <= max(step * 2.0**-10, 2.0**-24), "one float16 above at most"


def test_scale_of_nothing_is_small_but_not_zero():
    assert scale_of(0.0) == SMALLEST_SCALE


@given(LIMITS, arrays(np.float32, array_shapes(max_dims=2), elements=st.floats(-1, 1, width=32)))
def test_error_inside_the_range_is_at_most_half_a_step(limit: float, unit):
    values = unit * np.float32(limit)
    scale = scale_of(float(np.abs(values).max()))
    error = np.abs(dequantise(quantise(values, scale), scale).astype(np.float64) - values)
    assert error.max() <= scale / 2 * (1 + 1e-6)


def test_ties_round_to_even_and_values_beyond_saturate():
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, 400, -128.5, -400], dtype=np.float32)
    assert quantise(values, 1.0).tolist() == [0, 2, 2, 0, -2, 126, 127, 127, -128, -128]


@given(arrays(np.int8, array_shapes(max_dims=2)), LIMITS)
def test_integers_survive_the_round_trip(integers, limit: float):
    scale = scale_of(limit)
    assert (quantise(dequantise(integers, scale), scale) == integers).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_each_channel_has_its_own_scale(axis: int):
    weight = np.zeros((3, 3, 2, 2), dtype=np.float32)
    for channel, size in enumerate((0.1, 1.0, 10.0)):
        weight[(slice(None),) * axis + (channel,)] = size
    scales = channel_scales(weight, axis)
    assert scales == tuple(scale_of(float(np.float32(size))) for size in (0.1, 1.0, 10.0))
    back = dequantise(quantise(weight, scales, axis=axis), scales, axis=axis)
    np.testing.assert_allclose(back, weight, rtol=1e-3)
