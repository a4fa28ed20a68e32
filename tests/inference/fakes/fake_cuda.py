# ruff: noqa: N801, N802, N815 - the names are CUDA's own
"""CUDA's runtime on plain memory: what is allocated is counted, what is copied is copied at once."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from types import SimpleNamespace


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorLaunchFailure = 719


class FakeCuda(SimpleNamespace):
    """A module `cuda.bindings.runtime`.

    Attributes:
        held: address to what lies there, of all that is not freed.
        calls: names of the functions that were called, in order.
        failing: a function's name to the error that it gives.
        registers: whether it registers memory of others.
        fail_at: number of the call that fails, whatever it is; None for none.
    """

    cudaError_t = cudaError_t
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")
    cudaDeviceAttr = SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor="major",
        cudaDevAttrComputeCapabilityMinor="minor",
        cudaDevAttrHostRegisterSupported="register",
    )
    cudaHostAllocDefault = 0
    cudaHostRegisterMapped = 2

    def __init__(self, devices=1):
        super().__init__(devices=devices, held={}, calls=[], failing={}, fail_at=None, registers=1)

    def _say(self, name, *values):
        self.calls.append(name)
        if len(self.calls) == self.fail_at:
            return (cudaError_t.cudaErrorLaunchFailure, *values)
        return (self.failing.get(name, cudaError_t.cudaSuccess), *values)

    def _allocate(self, name, size):
        memory = ctypes.create_string_buffer(size)
        address = ctypes.addressof(memory)
        answer = self._say(name, address)
        if answer[0] == 0:
            self.held[address] = memory
        return answer

    def cudaGetDeviceCount(self):
        return self._say("cudaGetDeviceCount", self.devices)

    def cudaDeviceGetAttribute(self, attribute, device):
        values = {"major": 8, "minor": 7, "register": self.registers}
        return self._say("cudaDeviceGetAttribute", values[attribute])

    def cudaGetDeviceProperties(self, device):
        return self._say("cudaGetDeviceProperties", SimpleNamespace(name=b"Orin"))

    def cudaRuntimeGetVersion(self):
        return self._say("cudaRuntimeGetVersion", 12060)

    def cudaGetErrorString(self, error):
        return cudaError_t.cudaSuccess, b"out of memory" if error == 2 else b"unspecified launch failure"

    def cudaStreamCreate(self):
        answer = self._say("cudaStreamCreate", 77)
        if answer[0] == 0:
            self.held[77] = "stream"
        return answer

    def cudaStreamDestroy(self, stream):
        del self.held[stream]
        return self._say("cudaStreamDestroy")

    def cudaStreamSynchronize(self, stream):
        assert stream in self.held
        return self._say("cudaStreamSynchronize")

    def cudaMalloc(self, size):
        return self._allocate("cudaMalloc", size)

    def cudaHostAlloc(self, size, flags):
        return self._allocate("cudaHostAlloc", size)

    def _reaches(self, address, size):
        return any(
            base <= address and address + size <= base + len(memory)
            for base, memory in self.held.items()
            if base != 77
        )

    def cudaHostRegister(self, address, size, flags):
        assert flags == self.cudaHostRegisterMapped
        assert address not in self.held
        answer = self._say("cudaHostRegister")
        if answer[0] == 0:
            self.held[address] = range(size)
        return answer

    def cudaHostUnregister(self, address):
        del self.held[address]
        return self._say("cudaHostUnregister")

    def cudaHostGetDevicePointer(self, address, flags):
        assert address in self.held
        return self._say("cudaHostGetDevicePointer", address)

    def cudaFree(self, address):
        del self.held[address]
        return self._say("cudaFree")

    def cudaFreeHost(self, address):
        del self.held[address]
        return self._say("cudaFreeHost")

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        assert stream in self.held
        assert self._reaches(target, size)
        assert self._reaches(source, size)
        ctypes.memmove(target, source, size)
        return self._say(f"copy {kind}")


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_LAUNCH_FAILED = 719


class FakeDriver:
    """A module `cuda.bindings.driver` beside a `FakeCuda`, which counts for both.

    Attributes:
        run: called with a launch's (grid, threads, shared, addresses of the arguments).
    """

    CUresult = CUresult

    def __init__(self, cuda, run):
        self.cuda, self.run = cuda, run

    def _say(self, name, *values):
        error, *values = self.cuda._say(name, *values)
        return (CUresult(int(error)), *values)

    def cuGetErrorName(self, result):
        return CUresult.CUDA_SUCCESS, result.name.encode()

    def cuGetErrorString(self, result):
        return CUresult.CUDA_SUCCESS, b"unspecified launch failure"

    def cuModuleLoadData(self, code):
        answer = self._say("cuModuleLoadData", 88)
        if answer[0] == 0:
            self.cuda.held[88] = code
        return answer

    def cuModuleGetFunction(self, module, name):
        assert name in self.cuda.held[module]
        return self._say("cuModuleGetFunction", 99)

    def cuModuleUnload(self, module):
        del self.cuda.held[module]
        return self._say("cuModuleUnload")

    def cuLaunchKernel(self, function, x, y, z, threads, ty, tz, shared, stream, arguments, extra):
        assert stream in self.cuda.held
        assert (function, z, ty, tz, extra) == (99, 1, 1, 1, 0)
        answer = self._say("cuLaunchKernel")
        if answer[0] == 0:
            self.run((x, y), threads, shared, arguments)
        return answer
