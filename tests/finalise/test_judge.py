from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.compiler.bounds import Bounds, Deviation
from fsmde_edge.evaluation.deviation import GOLDEN_DEVIATION, mean_deviation
from fsmde_edge.evaluation.gate import GateBudget
from fsmde_edge.finalise.judge import GATE_NUMBERS, Judge

FP32 = np.random.default_rng(0).uniform(2, 80, (2, 32, 48)).astype(np.float32)
LIMIT = Deviation(mean=0.004, p99=0.03, worst_tile=0.02)


def judge(**changes) -> Judge:
    right = {
        "fp32": FP32,
        "cameras": ("a", "b"),
        "metric": True,
        "disparity": False,
        "budget": GateBudget(),
        "bounds": Bounds(depth=LIMIT, blocks=()),
    }
    return Judge(**(right | changes))


def test_an_int8_model_that_is_not_the_golden_frames_own_is_wrong():
    own = judge(int8_exact=FP32)
    assert own.int8(FP32, FP32).right
    other = FP32 * np.float32(1.01)
    verdict = own.int8(other, other)
    assert not verdict.right
    assert any("the files differ" in reason for reason in verdict.reasons)


def test_what_equals_its_references_is_right():
    assert judge().int8(FP32, FP32).right
    assert judge().floating(FP32, precision="fp32").right
    assert judge().int8(FP32, FP32).numbers == dict.fromkeys(("exact", *GATE_NUMBERS), 0.0) | {"p99": 1e-4}


@given(st.floats(0.9, 1.1))
def test_a_uniform_change_is_right_exactly_within_the_bounds_of_exact_int8(factor):
    apart = abs(factor - 1)
    found = judge(budget=GateBudget(deviation=9, p99=9, worst_tile=9, farther=1)).int8(FP32 * factor, FP32)
    if abs(apart - LIMIT.mean) > 1e-4:
        assert found.right == (apart < LIMIT.mean)
    assert found.numbers["exact"] == pytest.approx(apart, abs=1e-4)


def test_the_gates_budget_holds_for_int8_and_names_its_number():
    found = judge(bounds=Bounds(depth=Deviation(mean=9, p99=9, worst_tile=9), blocks=()))
    verdict = found.int8(FP32 * 1.03, FP32)
    assert [reason.split()[0] for reason in verdict.reasons] == ["deviation"]
    assert "(of FP32)" in verdict.reasons[0]


def test_an_engine_may_be_as_far_from_fp32_as_exact_int8_itself():
    exact = FP32 * 1.03
    assert judge().int8(exact, exact).right
    assert not judge().int8(FP32 * 1.04, exact).right


def test_fp32_has_no_slack_but_rounding_and_fp16_has_the_gates():
    near = FP32 * (1 + 2 * GOLDEN_DEVIATION)
    assert not judge().floating(near, precision="fp32").right
    assert judge().floating(near, precision="fp16").right
    assert not judge().floating(FP32 * 1.03, precision="fp16").right


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pixel_that_is_no_number_is_never_right(value):
    broken = FP32.copy()
    broken[1, 3, 3] = value
    assert not judge().int8(broken, FP32).right
    assert not judge().floating(broken, precision="fp32").right
    assert mean_deviation(broken, FP32, metric=True) == np.inf


def test_golden_fp32_that_is_no_number_widens_no_limit():
    assert not judge(fp32=FP32 * np.float32(np.nan)).int8(FP32, FP32).right
