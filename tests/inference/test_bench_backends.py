"""The benchmark of backends names what each really used, and its numbers hang together."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from test_lowering import compile_int8
from toy_depth import depth_network, focals, pictures

from fsmde_edge.graph.model import model_bytes

pytest.importorskip("openvino", reason="the extra openvino is not installed")


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_backends.py"
    spec = importlib.util.spec_from_file_location("bench_backends", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_way_is_timed_and_says_what_ran(bench):
    model = depth_network()
    int8 = model_bytes(compile_int8(model)[1])
    feeds = {"images": pictures(), "focal": focals()}
    found = bench.measure(model_bytes(model), int8, feeds, threads=1, runs=2)
    rows = {row["name"]: row for row in found}
    assert list(rows)[:4] == ["ONNX Runtime FP32", "ONNX Runtime INT8", "OpenVINO FP32", "OpenVINO INT8"]
    assert all(row["runs"] == 2 and row["p50"] > 0 for row in found)
    assert rows["ONNX Runtime FP32"]["times_fp32"] == 1
    assert rows["ONNX Runtime FP32"]["from_fp32"] == 0
    assert rows["OpenVINO FP32"]["from_fp32"] < 1e-5
    assert 0 < rows["OpenVINO INT8"]["from_fp32"] < 0.1
    assert ", 0 of 13 convolutions in INT8" in rows["ONNX Runtime FP32"]["used"]
    assert ", 12 of 13 convolutions in INT8" in rows["ONNX Runtime INT8"]["used"]
    assert "float32" in rows["OpenVINO FP32"]["used"]
    assert "OpenVINO, " in rows["OpenVINO FP32, as it comes"]["used"]
