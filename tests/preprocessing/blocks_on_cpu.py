"""`prepare.cu` itself, compiled for this processor: `cuda_on_cpu/blocks.h` says what stands in for CUDA."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsmde_edge.preprocessing.launch import SOURCE, Launch

HOST = Path(__file__).with_name("cuda_on_cpu")


class BlocksOnCpu:
    """The kernel's blocks, one after the other, and each one's threads as fibers.

    Args:
        folder: where to build.
        source: of the kernel, where it is not the package's.
    """

    def __init__(self, folder: Path, source: str | None = None) -> None:
        (folder / SOURCE.name).write_text(source or SOURCE.read_text())
        library = folder / "prepare.so"
        flags = ("-O1", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-shared", "-fPIC")
        subprocess.run(
            ["g++", *flags, f"-I{folder}", "-o", str(library), str(HOST / "prepare.cpp")],
            check=True,
            capture_output=True,
        )
        self._library = ctypes.CDLL(str(library))

    def images(
        self,
        launch: Launch,
        buffers: Sequence[bytes | np.ndarray | None],
        *,
        threads: int = 16,
        seed: int = 0,
        shared: int | None = None,
    ) -> np.ndarray:
        """The network's images, uint8 [V, H, W, 3].

        Args:
            launch: what to make.
            buffers: of each view; black if None.
            threads: of a block.
            seed: of the order in which they run.
            shared: bytes of shared memory, where not those that the launch asks for.
        """
        (width, height), views = launch.shape[:2], len(launch.views)
        room = np.empty(launch.tables.nbytes + 16, np.uint8)
        tables = room[-room.ctypes.data % 16 :][: launch.tables.nbytes]
        tables[:] = launch.placed(tables.ctypes.data)
        made = np.full((views, height, width, 3), 99, np.uint8)
        kept = [None if buffer is None else np.frombuffer(buffer, np.uint8) for buffer in buffers]
        wrong = self._library.prepare_on_cpu(
            ctypes.c_void_p(tables.ctypes.data),
            (ctypes.c_void_p * views)(*(None if each is None else each.ctypes.data for each in kept)),
            ctypes.c_void_p(made.ctypes.data),
            (ctypes.c_int * 4)(*launch.shape),
            *launch.grid,
            threads,
            launch.shared if shared is None else shared,
            seed,
        )
        assert wrong == 0, ("", "wrote beyond its shared memory", "threads met different barriers")[wrong]
        return made

    def launched(self, grid: tuple[int, int], threads: int, shared: int, arguments: int) -> None:
        """A launch as a driver gets it: `arguments` is the address of their addresses."""
        places = (ctypes.c_void_p * 4).from_address(arguments)
        views, buffers, images = (ctypes.c_void_p.from_address(place) for place in places[:3])
        wrong = self._library.prepare_on_cpu(
            views, buffers, images, ctypes.c_void_p(places[3]), *grid, threads, shared, 0
        )
        assert wrong == 0
