"""What we need of CUDA: one stream, memory on the device, pinned memory here. All of it owned, closed once.

The one place that talks to `cuda.bindings.runtime` (12.8 and later, and 13). `call` unwraps every call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import DeviceError


def runtime() -> Any:
    """The CUDA runtime's bindings, with a device to use.

    Raises:
        DeviceError: no bindings, no driver, or no device.
    """
    try:
        from cuda.bindings import runtime as bindings
    except ImportError as error:
        raise DeviceError(
            "running on a GPU needs the package 'cuda-bindings', which is not installed",
            hint="run: pip install 'fsmde-edge[cuda12]' (JetPack 6) or 'fsmde-edge[cuda13]' (JetPack 7)",
        ) from error
    if not call(bindings, bindings.cudaGetDeviceCount):
        raise DeviceError("there is no CUDA device on this machine", hint="run: fsmde-edge doctor")
    return bindings


def call(bindings: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the runtime and unwrap its result.

    Raises:
        DeviceError: any result but success, with CUDA's name and words for it.
    """
    error, *values = function(*arguments)
    if error != bindings.cudaError_t.cudaSuccess:
        words = bindings.cudaGetErrorString(error)[1].decode(errors="replace")
        memory = error == bindings.cudaError_t.cudaErrorMemoryAllocation
        raise DeviceError(
            f"CUDA failed: {error.name}, {words}",
            where=getattr(function, "__name__", None),
            hint="free some memory and run again" if memory else "run: fsmde-edge doctor",
        )
    return values[0] if len(values) == 1 else tuple(values) or None


def describe(bindings: Any) -> dict[str, str]:
    """The first device, and the runtime: what an engine is valid for besides TensorRT."""
    attributes = bindings.cudaDeviceAttr
    major, minor = (
        call(bindings, bindings.cudaDeviceGetAttribute, attribute, 0)
        for attribute in (
            attributes.cudaDevAttrComputeCapabilityMajor,
            attributes.cudaDevAttrComputeCapabilityMinor,
        )
    )
    name = call(bindings, bindings.cudaGetDeviceProperties, 0).name
    version = call(bindings, bindings.cudaRuntimeGetVersion)
    return {
        "gpu": name.decode(errors="replace") if isinstance(name, bytes) else str(name),
        "sm": f"{major}.{minor}",
        "cuda": f"{version // 1000}.{version % 1000 // 10}",
    }


def can_register(bindings: Any) -> bool:
    """Whether the first device reads memory that was not allocated for it."""
    attribute = bindings.cudaDeviceAttr.cudaDevAttrHostRegisterSupported
    return bool(call(bindings, bindings.cudaDeviceGetAttribute, attribute, 0))


class Stream:
    """An owned stream."""

    def __init__(self, bindings: Any) -> None:
        self._bindings = bindings
        self._stream: Any = call(bindings, bindings.cudaStreamCreate)

    @property
    def handle(self) -> int:
        """As other libraries take it."""
        return int(self._stream)

    def upload(self, target: DeviceMemory, source: PinnedArray) -> None:
        """Start a copy to the device."""
        kind = self._bindings.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(target.pointer, source.pointer, source.array.nbytes, kind)

    def upload_from(self, target: DeviceMemory, address: int, size: int) -> None:
        """Start a copy of bytes that lie at an address here, page-locked, to the device."""
        self._copy(target.pointer, address, size, self._bindings.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, target: PinnedArray, source: DeviceMemory) -> None:
        """Start a copy from the device."""
        kind = self._bindings.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(target.pointer, source.pointer, target.array.nbytes, kind)

    def wait(self) -> None:
        """Until all that was started is done."""
        call(self._bindings, self._bindings.cudaStreamSynchronize, self._stream)

    def close(self) -> None:
        """Give it back; a second call does nothing."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            call(self._bindings, self._bindings.cudaStreamDestroy, stream)

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        call(self._bindings, self._bindings.cudaMemcpyAsync, target, source, size, kind, self._stream)


class DeviceMemory:
    """Owned memory on the device."""

    def __init__(self, bindings: Any, size: int) -> None:
        self._bindings = bindings
        self.pointer = int(call(bindings, bindings.cudaMalloc, max(size, 1)))

    def close(self) -> None:
        """Free it; a second call does nothing."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            call(self._bindings, self._bindings.cudaFree, pointer)


class RegisteredMemory:
    """Somebody else's memory here, page-locked and mapped for the device as long as this is open.

    Args:
        bindings: of CUDA's runtime.
        address: where it starts, a multiple of the page size.
        size: bytes.
    """

    def __init__(self, bindings: Any, address: int, size: int) -> None:
        self._bindings, self.address, self.size = bindings, address, size
        call(bindings, bindings.cudaHostRegister, address, size, bindings.cudaHostRegisterMapped)
        self._registered = True
        try:
            self._on_device = int(call(bindings, bindings.cudaHostGetDevicePointer, address, 0))
        except DeviceError:
            self.close()
            raise

    def on_device(self, address: int) -> int:
        """Where kernels find a byte of it."""
        return self._on_device + address - self.address

    def close(self) -> None:
        """Unregister it; a second call does nothing."""
        if self._registered:
            self._registered = False
            call(self._bindings, self._bindings.cudaHostUnregister, self.address)


class PinnedArray:
    """An array in owned, page-locked memory; not to be used after `close`."""

    def __init__(self, bindings: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._bindings = bindings
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.pointer = int(
            call(bindings, bindings.cudaHostAlloc, max(size, 1), bindings.cudaHostAllocDefault)
        )
        memory = (ctypes.c_uint8 * size).from_address(self.pointer)
        self.array: NDArray[Any] = np.frombuffer(memoryview(memory), dtype=dtype).reshape(shape)

    def on_device(self) -> int:
        """Where kernels find it, as the driver says."""
        return int(call(self._bindings, self._bindings.cudaHostGetDevicePointer, self.pointer, 0))

    def close(self) -> None:
        """Free it; a second call does nothing."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            call(self._bindings, self._bindings.cudaFreeHost, pointer)
