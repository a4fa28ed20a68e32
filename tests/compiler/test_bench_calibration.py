"""The calibration benchmark runs both sides on one graph; random frames here, and only here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from toy_depth import depth_network

from fsmde_edge.graph.model import save_model

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_calibration.py"


def test_the_benchmark_measures_both_sides_in_child_processes(tmp_path):
    save_model(depth_network(), tmp_path / "toy.onnx")
    frames = np.random.default_rng(0).integers(0, 256, size=(2, 2, 32, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    command = [sys.executable, SCRIPT, tmp_path / "toy.onnx", "--frames", tmp_path / "frames.npy"]
    done = subprocess.run(
        [*map(str, command), "--sets", "2", "3", "--peer-sets", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [run["sets"] for run in result["ours"]] == [2, 3]
    assert all(run["peak_mb"] > 0 and run["bytes"] > 0 for run in (*result["ours"], *result["peer"]))
    assert len(result["ratios"]) == 1
    assert set(result["memory_growth"]) == {"sets", "ratio"}
