"""The TensorRT path with TensorRT and CUDA faked at their seams; tests/gpu runs it on the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fsmde_edge.errors import DeviceError, InputError, MissingExtra
from fsmde_edge.inference.program import ModelSession
from fsmde_edge.inference.store import Store
from fsmde_edge.inference.tensorrt import TensorRtBackend, TensorRtProgram
from fsmde_edge.targets import BuilderOptions

FAKES = Path(__file__).parent / "fakes"
IMAGES = np.random.default_rng(0).integers(0, 255, (2, 4, 6, 3), dtype=np.uint8)
FOCAL = np.array([1.0, 2.0], dtype=np.float32)
FEEDS = {"images": IMAGES, "focal": FOCAL}
OPTIONS = BuilderOptions(workspace_mb=64, tactic_memory_mb=32, optimisation_level=2)


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.syspath_prepend(str(FAKES))
    from fake_cuda import FakeCuda

    fake = FakeCuda()
    package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
    package.bindings, bindings.runtime = bindings, fake
    for name, module in (("cuda", package), ("cuda.bindings", bindings), ("cuda.bindings.runtime", fake)):
        monkeypatch.setitem(sys.modules, name, module)
    return fake


@pytest.fixture
def tensorrt(cuda, monkeypatch, tmp_path):
    """The fake, here and in child processes, and an engine store of its own."""
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    import tensorrt

    tensorrt.CALLS.clear()
    yield tensorrt
    sys.modules.pop("tensorrt", None)


def build(say=lambda _: None) -> bytes:
    return TensorRtBackend().build(b"model", precision="int8-fp16", options=OPTIONS, say=say)


def test_a_child_builds_strongly_typed_with_the_targets_options(tensorrt):
    engine = json.loads(build())
    assert engine == {
        "flags": 1 << tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED,
        "model": len(b"model"),
        "level": 2,
        "limits": {"WORKSPACE": 64 * 2**20, "TACTIC_DRAM": 32 * 2**20},
        "verbosity": 2,
    }


def test_timings_are_kept_in_the_store_and_used_by_the_next_build(tensorrt):
    build()
    build()
    (cache,) = (Store().root / "caches").iterdir()
    assert cache.read_bytes() == b"++"


def test_timings_of_another_device_are_not_used(tensorrt):
    build()
    (cache,) = (Store().root / "caches").iterdir()
    Store().keep_cache(cache.name, b"of another device")
    build()
    assert cache.read_bytes() == b"+"


def test_a_builder_that_is_killed_is_one_line_and_exit_code_5(tensorrt, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT", "kill")
    with pytest.raises(DeviceError, match="signal 9, out of memory") as caught:
        build()
    assert caught.value.exit_code == 5
    assert len(str(caught.value).splitlines()) == 1


def test_a_refusal_says_what_the_parser_said(tensorrt, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT", "refuse")
    with pytest.raises(
        InputError, match=r"TensorRT 10\.3\.0 refuses the model \(Invalid Node - conv1: no such"
    ):
        build()


def test_ctrl_c_ends_the_child_and_leaves_nothing(tensorrt, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_TENSORRT", "sleep")
    monkeypatch.setenv("FAKE_TENSORRT_PID", str(tmp_path / "pid"))
    monkeypatch.setattr("fsmde_edge.inference.builder.FIRST_WORD", 0.2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def stop(line):
        if (tmp_path / "pid").exists() and "building" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not list(tmp_path.glob("fsmde-edge-*"))
    assert not list(Store().root.rglob("*.engine"))


def test_a_long_build_tells_its_phase_and_time(tensorrt, monkeypatch, tmp_path):
    from fsmde_edge.inference import builder

    monkeypatch.setenv("FAKE_TENSORRT", "sleep")
    monkeypatch.setenv("FAKE_TENSORRT_PID", str(tmp_path / "pid"))
    monkeypatch.setattr(builder, "FIRST_WORD", 1.0)
    lines: list[str] = []
    job = builder.Job(module="tensorrt", options=OPTIONS)
    start = time.monotonic()
    with pytest.raises(DeviceError, match="took more than 3 s"):
        builder.build_in_child(b"model", job, say=lines.append, limit=3.0)
    assert time.monotonic() - start < 30
    assert [line.partition(", ")[2] for line in lines] == ["1 s so far", "2 s so far"]
    assert lines[-1].startswith(("building", "starting"))


def test_a_program_computes_and_calls_in_order(tensorrt, cuda):
    with ModelSession(TensorRtProgram(b"{}"), precision="fp16") as session:
        cuda.calls.clear()
        for scale in (1, 2):
            found = session.infer(IMAGES, FOCAL * scale)
            right = IMAGES.mean(axis=3) * FOCAL[:, None, None] * scale
            np.testing.assert_allclose(found.depth, right, rtol=1e-6)
    calls = cuda.calls[: cuda.calls.index("cudaStreamSynchronize") + 1]
    assert calls == ["copy up", "copy up", "copy down", "cudaStreamSynchronize"]
    assert tensorrt.CALLS == ["deserialize", "execute on 77", "execute on 77"]


def test_results_are_the_callers_own(tensorrt):
    with TensorRtProgram(b"{}") as program:
        first = program.run(FEEDS)["depth"]
        kept = first.copy()
        program.run({**FEEDS, "focal": FOCAL * 3})
        np.testing.assert_array_equal(first, kept)


def test_a_program_knows_its_ports_and_layers(tensorrt):
    with TensorRtProgram(b"{}") as program:
        assert {name: str(port) for name, port in program.inputs.items()} == {
            "images": "uint8 [2, 4, 6, 3]",
            "focal": "float32 [2]",
        }
        assert program.inspect() == {"Layers": [{"Name": "mean"}]}
        assert "TensorRT 10.3.0, Orin (SM 8.7), CUDA 12.6, 1 layers" in program.detail
        with pytest.raises(InputError, match=r"takes uint8 \[2, 4, 6, 3\] for images, not int64"):
            program.run({**FEEDS, "images": IMAGES.astype(np.int64)})


def test_all_memory_is_given_back_once(tensorrt, cuda):
    program = TensorRtProgram(b"{}")
    assert cuda.held
    program.close()
    program.close()
    assert cuda.held == {}
    with pytest.raises(DeviceError, match="tensorrt program is closed"):
        program.run(FEEDS)


def test_memory_that_runs_out_half_way_is_given_back(tensorrt, cuda):
    from fake_cuda import cudaError_t

    cuda.failing["cudaMalloc"] = cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(DeviceError, match="cudaErrorMemoryAllocation, out of memory; free some memory"):
        TensorRtProgram(b"{}")
    assert cuda.held == {}


def test_a_failure_on_the_device_is_one_line(tensorrt, cuda):
    from fake_cuda import cudaError_t

    with TensorRtProgram(b"{}") as program:
        cuda.failing["cudaStreamSynchronize"] = cudaError_t.cudaErrorLaunchFailure
        with pytest.raises(DeviceError, match="cudaErrorLaunchFailure, unspecified launch failure"):
            program.run(FEEDS)


def test_an_engine_that_does_not_load_says_why(tensorrt):
    with pytest.raises(DeviceError, match=r"cannot load the engine.*version tag does not match"):
        TensorRtProgram(b"something else")


def test_the_identity_names_what_a_plan_is_bound_to(tensorrt):
    assert TensorRtBackend().identity() == {
        "tensorrt": "10.3.0",
        "gpu": "Orin",
        "sm": "8.7",
        "cuda": "12.6",
    }


def test_without_a_device_or_a_package_the_error_says_which(tensorrt, cuda, monkeypatch):
    cuda.devices = 0
    with pytest.raises(DeviceError, match="no CUDA device"):
        TensorRtBackend().identity()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(DeviceError, match=r"fsmde-edge\[cuda12\]"):
        TensorRtBackend().identity()


def test_without_tensorrt_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtra, match=r"fsmde-edge\[tensorrt\]"):
        TensorRtBackend().identity()


def test_the_child_loads_nothing_that_it_does_not_need(tensorrt):
    script = "import sys; import fsmde_edge.inference.builder_child; print(*sys.modules)"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "onnxruntime", "cv2"} & set(child.stdout.split())
