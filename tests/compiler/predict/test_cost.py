"""The roofline: arithmetic that can be checked by hand, scaling to a measurement, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.bundle import open_bundle
from fsmde_edge.compiler.predict.cost import Efficiency, calibrated, estimate
from fsmde_edge.compiler.predict.fusion import Kernel, fuse
from fsmde_edge.compiler.predict.totals import estimate_bundle, read_bench
from fsmde_edge.errors import InputError
from fsmde_edge.targets import PowerMode, Target, Throughput, load_target

FULL = Efficiency(compute=1, memory=1, launch_us=0)


def board(**changes) -> Target:
    """A board of one billion INT8 and 500 million FP16 multiply-accumulates a second, and 1 GB/s."""
    mode = {"name": "only", "gpu_mhz": 10.0, "sms": 1, "bandwidth_gb_s": 1.0} | changes
    return Target(
        version=1,
        description="A board.",
        backend="tensorrt",
        throughput=Throughput(int8=100, fp16=50, fp32=10),
        modes=(PowerMode(**mode),),
    )


def kernel(**changes) -> Kernel:
    return Kernel(**{"name": "k", "nodes": ("k",), "kind": "conv", "precision": "int8"} | changes)


def test_a_kernel_takes_the_longer_of_arithmetic_and_traffic_and_its_launch():
    busy = kernel(macs=1, padded_macs=4_000_000, read_bytes=1_000_000)
    wide = kernel(padded_macs=1_000_000, read_bytes=1_000_000, write_bytes=500_000, weight_bytes=500_000)
    guess = estimate([busy, wide], board(), efficiency=Efficiency(compute=1, memory=1, launch_us=10))
    assert [cost.bound for cost in guess.costs] == ["compute", "memory"]
    assert [cost.ms for cost in guess.costs] == pytest.approx([4.01, 2.01])
    assert guess.ms == pytest.approx(6.02)
    assert guess.launch_ms == pytest.approx(0.02)
    assert guess.moved_bytes == 3_000_000


def test_precision_and_kind_choose_the_rate():
    work = {"padded_macs": 1_000_000}
    some = [
        kernel(**work),
        kernel(**work, precision="fp16"),
        kernel(**work, precision="fp32"),
        kernel(**work, precision="fp16", kind="depthwise"),
    ]
    times = [cost.ms for cost in estimate(some, board(), efficiency=FULL).costs]
    assert times == pytest.approx([1, 2, 10, 10])


@given(
    compute=st.floats(0.05, 1),
    memory=st.floats(0.05, 1),
    macs=st.integers(0, 10**12),
    moved=st.integers(1, 10**9),
)
def test_a_lower_efficiency_never_makes_it_faster(compute, memory, macs, moved):
    some = [kernel(padded_macs=macs, read_bytes=moved)]
    share = Efficiency(compute=compute, memory=memory)
    assert estimate(some, board(), efficiency=share).ms >= estimate(some, board(), efficiency=FULL).ms


@given(measured=st.floats(1e-3, 1e4))
def test_calibration_meets_the_measurement_and_keeps_the_proportions(measured):
    some = [kernel(padded_macs=10**6), kernel(read_bytes=3 * 10**6)]
    guess = estimate(some, board())
    fitted = calibrated(guess, measured)
    assert fitted.ms == pytest.approx(measured)
    assert fitted.costs[0].ms / fitted.costs[1].ms == pytest.approx(guess.costs[0].ms / guess.costs[1].ms)
    assert fitted.scale == pytest.approx(measured / guess.ms)


def test_a_time_that_cannot_be_is_refused():
    guess = estimate([kernel(padded_macs=1)], board())
    for measured in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="cannot be"):
            calibrated(guess, measured)


def test_a_number_that_the_profile_leaves_open_is_named():
    for name in ("gpu_mhz", "sms", "bandwidth_gb_s"):
        with pytest.raises(InputError, match=name):
            estimate([kernel()], board(**{name: None}))


def test_a_wider_network_and_a_smaller_board_take_longer(toy, toy_int8):
    agx, nano = load_target("orin-agx-64gb")[0], load_target("orin-nano-8gb")[0]
    assert estimate(fuse(toy), nano).ms > estimate(fuse(toy), agx).ms
    assert estimate(fuse(toy_int8), nano).ms > estimate(fuse(toy_int8), nano, mode="MAXN_SUPER").ms


def test_a_bundle_is_estimated_in_every_precision_and_fp16_is_derived(small_bundle):
    bundle, (target, _) = open_bundle(small_bundle), load_target("orin-agx-64gb")
    result = estimate_bundle(bundle, target)
    assert list(result.estimates) == ["fp32", "fp16", "int8", "int8-fp16"]
    assert result.derived == ("fp16",)
    assert result.estimates["int8-fp16"].ms < result.estimates["fp32"].ms
    values = json.loads(json.dumps(result.as_dict()))
    assert "estimate" in values["label"]
    for name, total in values["totals"].items():
        assert sum(row["ms"] for row in values["kernels"][name]) == pytest.approx(total["ms"])
        assert sum(total["bound_ms"].values()) == pytest.approx(total["ms"])


def bench_file(path: Path, bundle: str, session: str = "TensorRT 10.3", **p50: float) -> Path:
    values = {
        "bundle": bundle,
        "latency": {name.replace("_", "-"): {"p50": ms} for name, ms in p50.items()},
        "sessions": {name.replace("_", "-"): session for name in p50},
    }
    path.write_text(json.dumps(values))
    return path


def test_a_bench_of_the_board_scales_what_it_measured_and_the_rest_by_the_mean(small_bundle, tmp_path):
    bundle, (target, _) = open_bundle(small_bundle), load_target("orin-agx-64gb")
    plain = estimate_bundle(bundle, target).estimates
    file = bench_file(
        tmp_path / "bench.json", bundle.hash, fp32=2 * plain["fp32"].ms, int8=8 * plain["int8"].ms
    )
    fitted = estimate_bundle(bundle, target, bench=file).estimates
    assert fitted["fp32"].scale == pytest.approx(2)
    assert fitted["int8"].scale == pytest.approx(8)
    assert fitted["int8-fp16"].scale == pytest.approx(4)


def test_a_bench_of_something_else_is_refused(tmp_path):
    good = bench_file(tmp_path / "a.json", "b" * 64, fp32=1.0)
    assert read_bench(good, "b" * 64) == {"fp32": 1.0}
    with pytest.raises(InputError, match="another bundle"):
        read_bench(good, "c" * 64)
    with pytest.raises(InputError, match="not measured with TensorRT"):
        read_bench(bench_file(tmp_path / "b.json", "b" * 64, session="ONNX Runtime", fp32=1.0), "b" * 64)
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(InputError, match="not what a bench writes"):
        read_bench(tmp_path / "c.json", "b" * 64)
    with pytest.raises(InputError, match="cannot be read"):
        read_bench(tmp_path / "absent.json", "b" * 64)
