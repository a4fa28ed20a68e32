"""What a run at a fixed rate counts: from the instant a set was due, warm-up aside."""

import numpy as np
import pytest
from test_paced import FakeClock

from fsmde_edge.benchmark.pipeline import PacedRun, RateResult, run_paced


def run(rate, work_s, *, seconds=2.0, warmup=3, into=None, stop_at=None):
    clock = FakeClock()

    def work(published):
        if published.index == stop_at:
            raise KeyboardInterrupt
        clock.ns += round(work_s(published.index) * 1e9)
        return work_s(published.index) / 4, work_s(published.index) * 3 / 4

    return run_paced(
        work, rate, seconds=seconds, warmup=warmup, into=into, now_ns=clock.now, sleep=clock.sleep
    )


def test_latency_counts_from_the_instant_a_set_was_due():
    found = run(10, lambda _: 0.15)  # every other set waits 50 ms for the one before
    assert min(found.seconds["latency"]) == pytest.approx(0.15, abs=1e-3)
    assert max(found.seconds["latency"]) == pytest.approx(0.2, abs=1e-3)
    assert max(found.seconds["total"]) == pytest.approx(0.15, abs=1e-6)


def test_the_warm_up_counts_nowhere():
    found = run(10, lambda index: 5.0 if index == 0 else 0.01, warmup=60, seconds=2)
    assert (found.published, found.done, found.missed) == (20, 20, 0)
    assert max(found.seconds["latency"]) < 0.02


def test_missed_sets_are_counted():
    found = run(20, lambda _: 0.1)
    assert (found.published, found.done) == (40, 20)
    assert found.missed == pytest.approx(0.5)


def test_a_run_without_any_result_is_all_missed():
    found = run(10, lambda _: 100.0, warmup=1)
    assert (found.published, found.done, found.missed) == (20, 0, 1.0)
    result = RateResult.of([found])
    assert (result.missed, dict(result.stages), result.cpu) == (20, {}, 0.0)


def test_control_c_leaves_what_there_is():
    into = PacedRun(rate_hz=10)
    with pytest.raises(KeyboardInterrupt):
        run(10, lambda _: 0.01, into=into, stop_at=13)
    assert (into.published, into.done) == (10, 10)


def test_jitter_is_the_mean_change_of_latency():
    one = PacedRun(rate_hz=10, published=4)
    for index, latency in enumerate((0.010, 0.014, 0.010, 0.012)):
        one.add(index * 100_000_000, 0.001, 0.002, latency)
    result = RateResult.of([one])
    assert result.jitter_ms == pytest.approx((4 + 4 + 2) / 3)
    assert result.stages["latency"].max == pytest.approx(14)
    assert result.stages["total"].p50 == pytest.approx(3)


def test_jitter_does_not_reach_from_one_run_into_the_next():
    runs = []
    for latency in (0.010, 0.050):
        each = PacedRun(rate_hz=10, published=2)
        each.add(0, 0.001, 0.002, latency)
        each.add(1, 0.001, 0.002, latency)
        runs.append(each)
    result = RateResult.of(runs)
    assert result.jitter_ms == 0
    assert np.allclose(result.runs["latency p50"], (10, 50))
