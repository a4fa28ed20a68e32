"""Frames of all views into the network's input on a GPU: `prepare.cu`, its tables, the cameras' pointers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np

from fsmde_edge.errors import DeviceError, InputError
from fsmde_edge.gpu.cuda import DeviceMemory, PinnedArray, Stream, describe
from fsmde_edge.gpu.kernel import Kernel
from fsmde_edge.gpu.nvrtc import load_cubin
from fsmde_edge.preprocessing.launch import FUNCTION, SOURCE, THREADS, Launch


class GpuPreparation:
    """The way from the cameras' buffers to the network's input, on the device that is current.

    Args:
        launch: of these cameras.
        runtime: CUDA's runtime, as `gpu.cuda.runtime` gives it.
        driver: its driver, as `gpu.kernel.driver` gives it.
        stream: where everything runs; the caller's, and open for longer.

    Raises:
        DeviceError: no NVRTC, no room on the device, or the driver refuses; nothing is left behind.
    """

    def __init__(self, launch: Launch, runtime: Any, driver: Any, *, stream: Stream) -> None:
        self.launch, self._stream = launch, stream
        architecture = "sm_" + describe(runtime)["sm"].replace(".", "")
        cubin = load_cubin(SOURCE, architecture)
        self.name = f"the CUDA kernel ({architecture}, NVRTC {cubin.version})"
        with ExitStack() as owned:
            tables = DeviceMemory(runtime, launch.tables.nbytes)
            owned.callback(tables.close)
            self._pointers = PinnedArray(runtime, (len(launch.views),), np.dtype(np.uint64))
            owned.callback(self._pointers.close)
            self._kernel = Kernel(driver, cubin.code, FUNCTION)
            owned.callback(self._kernel.close)
            self._upload(runtime, tables)
            self._fixed = (np.uint64(tables.pointer), np.uint64(self._pointers.on_device()))
            self._owned = owned.pop_all()
        self._open = True

    def start(self, buffers: Sequence[int | None], images: int) -> None:
        """Start one frame set.

        The addresses are read when the kernel runs, so the set before must be done: one is in flight.

        Args:
            buffers: where the device finds each view's buffer; black if None.
            images: where it writes uint8 [V, H, W, 3].

        Raises:
            InputError: another number of buffers.
            DeviceError: closed, or the driver refuses.
        """
        if not self._open:
            raise DeviceError("the preparation on the GPU is closed")
        if len(buffers) != len(self.launch.views):
            raise InputError(f"{len(buffers)} pictures and {len(self.launch.views)} views do not go together")
        self._pointers.array[:] = [buffer or 0 for buffer in buffers]
        arguments = [np.array([value], np.uint64) for value in (*self._fixed, np.uint64(images))]
        self._kernel.launch(
            [*arguments, np.array(self.launch.shape, np.int32)],
            grid=self.launch.grid,
            threads=THREADS,
            shared=self.launch.shared,
            stream=self._stream,
        )

    def close(self) -> None:
        """Give everything back when the device is done; a second call does nothing."""
        if self._open:
            self._open = False
            with self._owned:
                self._stream.wait()

    def __enter__(self) -> GpuPreparation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _upload(self, runtime: Any, tables: DeviceMemory) -> None:
        placed = self.launch.placed(tables.pointer)
        with ExitStack() as owned:
            pinned = PinnedArray(runtime, placed.shape, placed.dtype)
            owned.callback(pinned.close)
            pinned.array[:] = placed
            owned.callback(self._stream.wait)  # also where the copy was not started: nothing to wait for
            self._stream.upload(tables, pinned)
