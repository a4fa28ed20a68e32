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
    """

    cudaError_t = cudaError_t
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")
    cudaDeviceAttr = SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor="major", cudaDevAttrComputeCapabilityMinor="minor"
    )
    cudaHostAllocDefault = 0

    def __init__(self, devices=1):
        super().__init__(devices=devices, held={}, calls=[], failing={})

    def _say(self, name, *values):
        self.calls.append(name)
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
        return self._say("cudaDeviceGetAttribute", {"major": 8, "minor": 7}[attribute])

    def cudaGetDeviceProperties(self, device):
        return self._say("cudaGetDeviceProperties", SimpleNamespace(name=b"Orin"))

    def cudaRuntimeGetVersion(self):
        return self._say("cudaRuntimeGetVersion", 12060)

    def cudaGetErrorString(self, error):
        return cudaError_t.cudaSuccess, b"out of memory" if error == 2 else b"unspecified launch failure"

    def cudaStreamCreate(self):
        self.held[77] = "stream"
        return self._say("cudaStreamCreate", 77)

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

    def cudaFree(self, address):
        del self.held[address]
        return self._say("cudaFree")

    def cudaFreeHost(self, address):
        del self.held[address]
        return self._say("cudaFreeHost")

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        assert stream in self.held
        assert {target, source} <= self.held.keys()
        ctypes.memmove(target, source, size)
        return self._say(f"copy {kind}")
