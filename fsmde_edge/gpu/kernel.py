"""A kernel on the device: loaded once, launched on a stream, unloaded once. All that needs CUDA's driver API.

The driver loads cubins in every CUDA 12 and 13. It shares the primary context with the runtime, which has
made it current by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import DeviceError
from fsmde_edge.gpu.cuda import Stream


def driver() -> Any:
    """The CUDA driver's bindings.

    Raises:
        DeviceError: they are not installed.
    """
    try:
        from cuda.bindings import driver as bindings
    except ImportError as error:
        raise DeviceError(
            "running on a GPU needs the package 'cuda-bindings', which does not load",
            hint="run: pip install 'fsmde-edge[cuda12]' (JetPack 6) or 'fsmde-edge[cuda13]' (JetPack 7)",
        ) from error
    return bindings


class Kernel:
    """An owned module with one function.

    Args:
        bindings: of the driver; the primary context is current.
        code: a cubin for this device.
        name: of the function.
    """

    def __init__(self, bindings: Any, code: bytes, name: str) -> None:
        self._bindings, self._name = bindings, name
        self._module: Any = _call(bindings, bindings.cuModuleLoadData, code)
        try:
            self._function: Any = _call(bindings, bindings.cuModuleGetFunction, self._module, name.encode())
        except DeviceError:
            self.close()
            raise

    def launch(
        self,
        arguments: Sequence[NDArray[Any]],
        *,
        grid: tuple[int, int],
        threads: int,
        shared: int,
        stream: Stream,
    ) -> None:
        """Start it.

        Args:
            arguments: each an array that holds one argument's bytes.
            grid: blocks (x, y).
            threads: of a block.
            shared: bytes of dynamic shared memory of a block.
            stream: where it runs.

        Raises:
            DeviceError: the driver refuses.
        """
        places = np.array([argument.ctypes.data for argument in arguments], np.uint64)
        _call(
            *(self._bindings, self._bindings.cuLaunchKernel, self._function),
            *(*grid, 1, threads, 1, 1, shared, stream.handle, places.ctypes.data, 0),
        )

    def close(self) -> None:
        """Unload it; a second call does nothing."""
        if self._module is not None:
            module, self._module = self._module, None
            _call(self._bindings, self._bindings.cuModuleUnload, module)


def _call(bindings: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    result, *values = function(*arguments)
    if result != bindings.CUresult.CUDA_SUCCESS:
        name = bindings.cuGetErrorName(result)[1]
        words = bindings.cuGetErrorString(result)[1]
        raise DeviceError(
            f"CUDA failed: {_text(name)}, {_text(words)}",
            where=getattr(function, "__name__", None),
            hint="run: fsmde-edge doctor",
        )
    return values[0] if values else None


def _text(words: bytes | None) -> str:
    return "unknown error" if words is None else words.decode(errors="replace")
