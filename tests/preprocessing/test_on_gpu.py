"""The kernel's way onto a device, with CUDA faked: order and pairing of its calls, and what comes out.

The fake's launch runs the kernel itself, on this processor; tests/gpu runs it on a GPU.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from blocks_on_cpu import BlocksOnCpu
from photographs import camera, photograph, raw_of

from fsmde_edge.errors import DeviceError, InputError
from fsmde_edge.gpu.cuda import Stream
from fsmde_edge.gpu.nvrtc import Cubin, nvrtc_version
from fsmde_edge.preprocessing.launch import plan_launch
from fsmde_edge.preprocessing.on_gpu import GpuPreparation
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.rig import BrownConrady, NoDistortion, VirtualPinhole

FAKES = Path(__file__).parent.parent / "inference" / "fakes"
CUBIN = Cubin(code=b"a cubin with fsmde_prepare", architecture="sm_87", version="13.0", log="")
CALLS = 20
"""Of all the work below, the stream's creation and four questions to the device included."""


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler on this machine")
    try:
        nvrtc_version()
    except DeviceError as error:
        pytest.skip(str(error))
    return BlocksOnCpu(tmp_path_factory.mktemp("prepare"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all: the kernel is compiled once."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def fakes(blocks, cache, monkeypatch):
    """(runtime, driver, stream)."""
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    from fake_cuda import FakeCuda, FakeDriver

    cuda = FakeCuda()
    return cuda, FakeDriver(cuda, blocks.launched), Stream(cuda)


@pytest.fixture
def network(fakes, monkeypatch):
    """The fake TensorRT's program on the fake device: depth = mean of a pixel's colours × focal length."""
    cuda, driver, _ = fakes
    package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
    package.bindings, bindings.runtime, bindings.driver = bindings, cuda, driver
    for name, module in (("cuda", package), ("cuda.bindings", bindings), ("cuda.bindings.runtime", cuda)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    from fsmde_edge.inference.tensorrt import TensorRtProgram

    yield TensorRtProgram
    sys.modules.pop("tensorrt", None)


@pytest.fixture(scope="module")
def views():
    """(launch, buffers) of two cameras."""
    layout = RawLayout(code="UYVY", width=120, height=80)
    cameras = [camera(BrownConrady(k1=k), 120, 80) for k in (-0.1, 0.02)]
    pinholes = [VirtualPinhole.of(each, 40, 30) for each in cameras]
    buffers = [np.frombuffer(raw_of(photograph(120, 80, seed), layout), np.uint8) for seed in range(2)]
    return plan_launch(cameras, pinholes, [layout] * 2), buffers


def work(fakes, views):
    """Open, make two sets (the second with a black view), close."""
    cuda, driver, stream = fakes
    launch, buffers = views
    made = np.full((2, 2, 30, 40, 3), 9, np.uint8)
    first, second = (each.ctypes.data for each in buffers)
    with GpuPreparation(launch, cuda, driver, stream=stream) as preparation:
        preparation.start([first, second], made[0].ctypes.data)
        preparation.start([second, None], made[1].ctypes.data)
    return made


def test_sets_are_made_in_place_from_the_pointers_of_each(fakes, views, blocks):
    launch, buffers = views
    made = work(fakes, views)
    np.testing.assert_array_equal(made[0], blocks.images(launch, buffers))
    np.testing.assert_array_equal(made[1], blocks.images(launch, [buffers[1], None]))


def test_calls_come_in_order_and_what_is_taken_is_given_back_once(fakes, views):
    cuda, _, stream = fakes
    work(fakes, views)
    assert len(cuda.calls) == CALLS
    assert cuda.calls[5:] == [
        *("cudaMalloc", "cudaHostAlloc", "cuModuleLoadData", "cuModuleGetFunction"),
        *("cudaHostAlloc", "copy up", "cudaStreamSynchronize", "cudaFreeHost", "cudaHostGetDevicePointer"),
        *("cuLaunchKernel", "cuLaunchKernel", "cudaStreamSynchronize"),
        *("cuModuleUnload", "cudaFreeHost", "cudaFree"),
    ]
    stream.close()
    assert cuda.held == {}


@pytest.mark.parametrize("step", range(2, CALLS + 1))
def test_a_failure_at_any_step_is_told_and_gives_everything_back(fakes, views, step):
    cuda, _, stream = fakes
    cuda.fail_at = step
    with pytest.raises(DeviceError, match=r"CUDA failed: .*unspecified launch failure") as caught:
        work(fakes, views)
    assert "\n" not in str(caught.value)
    assert list(cuda.held) == [stream.handle]


def test_closing_twice_does_nothing_more(fakes, views):
    cuda, driver, stream = fakes
    preparation = GpuPreparation(views[0], cuda, driver, stream=stream)
    preparation.close()
    done = len(cuda.calls)
    preparation.close()
    assert cuda.calls[done:] == []
    with pytest.raises(DeviceError, match="is closed"):
        preparation.start([None, None], 1)
    assert cuda.calls[done:] == []


def test_a_network_reads_what_the_kernel_wrote_in_place(fakes, network, blocks, monkeypatch):
    cuda, driver, _ = fakes
    layout, made = RawLayout(code="UYVY", width=24, height=16), camera(NoDistortion(), 24, 16)
    launch = plan_launch([made] * 2, [VirtualPinhole.of(made, 6, 4)] * 2, [layout] * 2)
    buffers = [np.frombuffer(raw_of(photograph(24, 16, seed), layout), np.uint8) for seed in range(2)]
    addresses, focal = [each.ctypes.data for each in buffers], np.array([1, 3], np.float32)
    monkeypatch.setattr("fsmde_edge.preprocessing.on_gpu.load_cubin", lambda *_: CUBIN)
    with network(b"{}") as program:
        with GpuPreparation(launch, cuda, driver, stream=program.stream) as preparation:
            started = len(cuda.calls)
            found = program.run_in_place(
                {"images": lambda place: preparation.start(addresses, place)}, {"focal": focal}
            )["depth"]
        assert cuda.calls[started:][:4] == [
            *("cuLaunchKernel", "copy up", "copy down", "cudaStreamSynchronize")  # focal up, depth down
        ]
        np.testing.assert_allclose(
            found, blocks.images(launch, buffers).mean(axis=3) * focal[:, None, None], rtol=1e-6
        )
        with pytest.raises(InputError, match="takes images, focal, not images"):
            program.run_in_place({"images": print}, {})
        with pytest.raises(InputError, match=r"takes float32 \[2\] for focal"):
            program.run_in_place({"images": print}, {"focal": focal[:1]})
    with pytest.raises(DeviceError, match="is closed"):
        program.run_in_place({"images": print}, {"focal": focal})


def test_as_many_buffers_as_views_are_needed(fakes, views):
    cuda, driver, stream = fakes
    preparation = GpuPreparation(views[0], cuda, driver, stream=stream)
    with preparation, pytest.raises(InputError, match="1 pictures and 2 views"):
        preparation.start([1], 1)
    assert "cuLaunchKernel" not in cuda.calls
