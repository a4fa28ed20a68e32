"""How a device reaches a camera's buffers: in place, or by one copy. Asked, measured, chosen, and told.

On a Jetson CPU and GPU share their memory, and yet none of the three ways wins everywhere: what is registered
is not cached by the GPU, a copy engine needs a command for each buffer, and the CPU's copy needs the CPU.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np

from fsmde_edge.errors import DeviceError
from fsmde_edge.gpu.cuda import DeviceMemory, PinnedArray, RegisteredMemory, Stream, can_register

Way = Literal["in place", "copy engine", "processor"]
WAYS: tuple[Way, ...] = ("in place", "copy engine", "processor")
"""Read where the camera wrote; one DMA copy to the device; one copy by the CPU into pinned memory."""

_ROUNDS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The way that was taken, and why.

    Attributes:
        way: the fastest.
        seconds: of each that works here, the median for one buffer.
        refused: the others, each with the reason.
    """

    way: Way
    seconds: Mapping[Way, float]
    refused: Mapping[Way, str]

    @property
    def copies(self) -> int:
        """Copies of each buffer."""
        return int(self.way != "in place")

    def __str__(self) -> str:
        times = ", ".join(f"{way} {1e3 * seconds:.2f} ms" for way, seconds in self.seconds.items())
        refused = "".join(f"; {way} not possible: {reason}" for way, reason in self.refused.items())
        return f"{self.way} ({times}{refused})"


class CameraMemory:
    """One camera's ring of buffers, and the ways by which the device reaches it.

    Args:
        bindings: of CUDA's runtime.
        address: of the ring, a multiple of the page size.
        ring: its bytes.
        buffer: bytes of the largest picture.
        stream: where copies run; the caller's, and open for longer.

    Attributes:
        refused: ways that do not work here, each with the reason.
    """

    def __init__(self, bindings: Any, *, address: int, ring: int, buffer: int, stream: Stream) -> None:
        self._stream, self._size = stream, buffer
        self.refused: dict[Way, str] = {}
        self._registered: RegisteredMemory | None = None
        with ExitStack() as owned:
            if not can_register(bindings):
                self._refuse("the device registers no memory")
            else:
                try:
                    self._registered = RegisteredMemory(bindings, address, ring)
                    owned.callback(self._registered.close)
                except DeviceError as error:  # memory of a driver, for one
                    self._refuse(str(error))
            self._device = DeviceMemory(bindings, buffer)
            owned.callback(self._device.close)
            self._pinned = PinnedArray(bindings, (buffer,), np.dtype(np.uint8))
            owned.callback(self._pinned.close)
            self._pinned_on_device = self._pinned.on_device()
            self._owned = owned.pop_all()
        self._open = True

    @property
    def ways(self) -> tuple[Way, ...]:
        """Those that work here."""
        return tuple(way for way in WAYS if way not in self.refused)

    def reach(self, address: int, way: Way) -> int:
        """Where the device finds a buffer once the stream is there; copies, if any, are started.

        The buffer before must be done with: one is in flight.

        Raises:
            DeviceError: closed, a way that does not work here, or CUDA fails.
        """
        if not self._open:
            raise DeviceError("the camera's memory on the GPU is closed")
        if way == "processor":
            ctypes.memmove(self._pinned.pointer, address, self._size)
            return self._pinned_on_device
        if self._registered is None:
            raise DeviceError(f"the device cannot reach a camera's buffers {way}: {self.refused[way]}")
        if way == "in place":
            return self._registered.on_device(address)
        self._stream.upload_from(self._device, address, self._size)
        return self._device.pointer

    def close(self) -> None:
        """Give everything back when the device is done; a second call does nothing."""
        if self._open:
            self._open = False
            with self._owned:
                self._stream.wait()

    def _refuse(self, reason: str) -> None:
        self.refused["in place"] = self.refused["copy engine"] = reason


def choose(
    memory: CameraMemory,
    address: int,
    work: Callable[[int], None],
    *,
    stream: Stream,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """Measure the ways that work, with the kernel that reads, and take the fastest.

    Args:
        memory: of one camera.
        address: of one of its buffers.
        work: starts on the stream what reads a buffer at a device address.
        stream: where copies and work run.
        clock: in seconds.
    """
    seconds = {}
    for way in memory.ways:
        times = []
        for _ in range(_ROUNDS + 1):
            start = clock()
            work(memory.reach(address, way))
            stream.wait()
            times.append(clock() - start)
        seconds[way] = median(times[1:])  # the first one warms up
    fastest = min(seconds, key=lambda way: seconds[way])
    return Choice(way=fastest, seconds=seconds, refused=dict(memory.refused))
