"""Two benches beside each other: ratio, interval, verdict, and what may not be compared."""

from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.benchmark.compare import Ratio, _outside, compare, differences, hodges_lehmann
from fsmde_edge.benchmark.machine import MachineState
from fsmde_edge.benchmark.pipeline import PacedRun, RateResult
from fsmde_edge.benchmark.record import Fed, Measurement, PipelineRecord
from fsmde_edge.benchmark.throughput import Throughput
from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.latency import Latency

STATE = MachineState(cpu_mhz={}, celsius={})


def record(medians, *, hz=10.0, throughput=50.0) -> Measurement:
    runs = []
    for median in medians:
        run = PacedRun(rate_hz=hz, published=2)
        run.add(0, median / 4e3, median / 2e3, median / 1e3)
        run.add(1, median / 4e3, median / 2e3, median / 1e3)
        runs.append(run)
    pipeline = PipelineRecord(
        fed=Fed(what="golden frames", layouts=("UYVY 8x8",), bytes_per_set=128, digest="d"),
        precision="int8",
        session="a session",
        preparation="a kernel",
        seconds=2.0,
        repeats=len(runs),
        warmup=5,
        rates=(RateResult.of(runs),),
        throughput=Throughput(hz=throughput, probes=((throughput, 0.0),)),
        peak_mib=100.0,
        before=STATE,
        after=STATE,
    )
    return Measurement(
        bundle="b" * 64,
        views=6,
        threads=1,
        machine={"processor": "p"},
        versions={},
        latency={"fp32": Latency(p50=3.0, p90=4.0, p99=5.0, runs=9)},
        sessions={"fp32": "s"},
        pipeline=pipeline,
    )


def row(rows: list[Ratio], name: str) -> Ratio:
    return next(each for each in rows if each.row == name)


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    saved = record([10, 11, 12, 13])
    saved.save(tmp_path / "bench.json")
    assert Measurement.load(tmp_path / "bench.json") == saved


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"version": 1}', '{"version": 2, "bundle": 3}', "\x00\xff", None]
)
def test_what_is_no_bench_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "bench.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        Measurement.load(path)
    assert "bench.json" in str(caught.value)
    assert caught.value.hint


def test_a_clear_difference_is_told_with_its_direction():
    rows = compare(record([10, 11, 10.5, 10.2, 10.8]), record([20, 21, 20.5, 22, 20.1]))
    found = row(rows, "10 Hz, latency p50")
    assert found.verdict == "B is slower"
    assert found.ratio == pytest.approx(1.97, abs=0.05)
    assert found.interval[0] > 1.5
    back = compare(record([20, 21, 20.5, 22, 20.1]), record([10, 11, 10.5, 10.2, 10.8]))
    assert row(back, "10 Hz, latency p50").verdict == "B is faster"


def test_runs_that_overlap_show_no_difference():
    rows = compare(record([10, 12, 11, 13, 9]), record([11, 10, 13, 12, 9.5]))
    assert row(rows, "10 Hz, latency p50").verdict == "no difference seen"


def test_one_run_is_too_few_to_say():
    rows = compare(record([10, 12, 11]), record([20, 22, 21]))
    assert {each.verdict for each in rows} == {"too few runs to say"}


def test_of_a_rate_more_is_better():
    more = Ratio(row="throughput", a=10, b=20, ratio=2, interval=(1.9, 2.1), more_is_better=True)
    assert more.verdict == "B is faster"
    assert replace(more, interval=(0.4, 0.6)).verdict == "B is slower"
    assert row(compare(record([1]), record([1])), "throughput").more_is_better


def test_different_bundles_and_pictures_are_named():
    a, b = record([1]), replace(record([1]), bundle="c" * 64)
    assert differences(a, a) == []
    assert "bundles" in differences(a, b)[0]
    other = replace(
        a, pipeline=replace(a.pipeline, fed=replace(a.pipeline.fed, digest="e"), precision="fp32")
    )
    assert [each.split()[0] for each in differences(a, other)] == ["pictures", "models"]


@pytest.mark.parametrize(("m", "n"), [(4, 4), (5, 5), (4, 6), (3, 7)])
def test_the_interval_leaves_out_no_more_than_one_in_forty_at_each_end(m, n):
    def statistic(places):
        return sum(1 for x in places for y in range(m + n) if y not in places and x > y)

    counts = [statistic(places) for places in combinations(range(m + n), m)]
    outside = _outside(m, n)
    assert sum(c <= outside for c in counts) <= 0.025 * comb(m + n, m) < sum(c <= outside + 1 for c in counts)


def test_three_runs_of_each_cannot_say():
    assert _outside(3, 3) is None
    assert hodges_lehmann([1, 2, 3], [4, 5, 6])[1] is None


@given(st.integers(0, 1000), st.floats(-1, 1))
def test_the_shift_follows_the_data(seed, shift):
    a = np.random.default_rng(seed).normal(0, 1, 6).tolist()
    middle, interval = hodges_lehmann(a, [value + shift for value in a])
    assert middle == pytest.approx(shift, abs=1e-9)
    assert interval[0] <= middle <= interval[1]
