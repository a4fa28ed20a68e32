"""The highest rate that holds is found, in few probes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.benchmark.throughput import ALLOWED, PROBES, search_throughput


@given(capacity=st.floats(0.5, 500), off=st.floats(0.3, 3))
def test_it_comes_close_to_what_a_machine_can_do(capacity, off):
    found = search_throughput(lambda rate: max(0, 1 - capacity / rate), guess=capacity * off)
    assert len(found.probes) <= PROBES
    best = capacity / (1 - ALLOWED)
    assert best / 1.1 < found.hz <= best


def test_what_never_holds_has_no_throughput():
    found = search_throughput(lambda _: 1.0, guess=10)
    assert found.hz is None
    assert len(found.probes) == PROBES


def test_what_always_holds_is_bounded_by_the_probes():
    found = search_throughput(lambda _: 0.0, guess=10)
    assert found.hz == pytest.approx(10 * 2 ** ((PROBES - 1) / 2))


def test_a_twentieth_may_be_missed():
    found = search_throughput(lambda rate: max(0, 1 - 100 / rate), guess=100)
    assert found.hz > 101
