"""The ways by which a device reaches a camera's ring, with CUDA faked."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from fsmde_edge.errors import DeviceError
from fsmde_edge.gpu.cuda import Stream
from fsmde_edge.gpu.reach import WAYS, CameraMemory, choose

BUFFER, RING = 64, 256
CALLS = 12
"""Of the work below, the stream's creation included."""


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "inference" / "fakes"))
    from fake_cuda import FakeCuda

    return FakeCuda()


@pytest.fixture
def stream(cuda):
    return Stream(cuda)


@pytest.fixture
def ring():
    memory = ctypes.create_string_buffer(bytes(range(RING)), RING)
    return memory, ctypes.addressof(memory)


def opened(cuda, ring, stream):
    return CameraMemory(cuda, address=ring[1], ring=RING, buffer=BUFFER, stream=stream)


def work(cuda, ring, stream):
    """Reach one buffer in each way; what the device finds there."""
    found = {}
    memory = opened(cuda, ring, stream)
    try:
        for way in memory.ways:
            found[way] = ctypes.string_at(memory.reach(ring[1] + BUFFER, way), BUFFER)
    finally:
        memory.close()
    return found


def test_each_way_shows_the_device_the_same_bytes(cuda, ring, stream):
    assert work(cuda, ring, stream) == dict.fromkeys(WAYS, bytes(range(BUFFER, 2 * BUFFER)))


def test_only_copies_copy(cuda, ring, stream):
    memory = opened(cuda, ring, stream)
    buffer = ring[1] + BUFFER
    assert memory.reach(buffer, "in place") == buffer
    assert memory.reach(buffer, "processor") != buffer
    assert "copy up" not in cuda.calls
    assert memory.reach(buffer, "copy engine") != buffer
    assert cuda.calls[-1] == "copy up"
    memory.close()


def test_a_ring_is_registered_once_and_unregistered_once_and_nothing_comes_after(cuda, ring, stream):
    work(cuda, ring, stream)
    assert len(cuda.calls) == CALLS
    assert cuda.calls[1:] == [
        *("cudaDeviceGetAttribute", "cudaHostRegister", "cudaHostGetDevicePointer", "cudaMalloc"),
        *("cudaHostAlloc", "cudaHostGetDevicePointer", "copy up"),
        *("cudaStreamSynchronize", "cudaFreeHost", "cudaFree", "cudaHostUnregister"),
    ]
    assert list(cuda.held) == [stream.handle]
    memory = opened(cuda, ring, stream)
    memory.close()
    done = len(cuda.calls)
    memory.close()
    with pytest.raises(DeviceError, match="is closed"):
        memory.reach(ring[1], "in place")
    assert len(cuda.calls) == done


@pytest.mark.parametrize("step", range(2, CALLS + 1))
def test_a_failure_at_any_step_gives_everything_back(cuda, ring, stream, step):
    cuda.fail_at = step
    if step in {3, 4}:  # the ring cannot be registered: one way is left
        assert list(work(cuda, ring, stream)) == ["processor"]
    else:
        with pytest.raises(DeviceError, match="CUDA failed"):
            work(cuda, ring, stream)
    assert list(cuda.held) == [stream.handle]


def test_a_device_that_registers_nothing_leaves_the_processors_copy_and_says_so(cuda, ring, stream):
    cuda.registers = 0
    memory = opened(cuda, ring, stream)
    assert memory.ways == ("processor",)
    assert "cudaHostRegister" not in cuda.calls
    with pytest.raises(DeviceError, match="in place: the device registers no memory"):
        memory.reach(ring[1], "in place")
    memory.close()


def test_memory_that_cannot_be_registered_is_told_with_cudas_words(cuda, ring, stream):
    cuda.failing["cudaHostRegister"] = type(cuda).cudaError_t.cudaErrorLaunchFailure
    memory = opened(cuda, ring, stream)
    assert memory.ways == ("processor",)
    assert "unspecified launch failure" in memory.refused["copy engine"]
    memory.close()


@pytest.mark.parametrize("fastest", WAYS)
def test_the_fastest_way_is_taken_and_all_are_told(cuda, ring, stream, fastest):
    memory, now = opened(cuda, ring, stream), [0.0]
    places = {memory.reach(ring[1], way): way for way in WAYS}

    def read(pointer):
        now[0] += 0.001 if places[pointer] == fastest else 0.003

    choice = choose(memory, ring[1], read, stream=stream, clock=lambda: now[0])
    assert choice.way == fastest
    assert choice.copies == (fastest != "in place")
    assert f"{fastest} 1.00 ms" in str(choice)
    assert str(choice).count("3.00 ms") == 2
    memory.close()
