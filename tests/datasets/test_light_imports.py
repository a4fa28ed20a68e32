from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    ["files", "datasets", "datasets.dgp", "datasets.nuscenes", "datasets.rigfile", "capture", "sinks"],
)
def test_importing_loads_no_heavy_library(module):
    script = f"import sys, fsmde_edge.{module}; print({{'cv2', 'torch', 'onnx', 'yaml'}} & set(sys.modules))"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert child.stdout == "set()\n"
