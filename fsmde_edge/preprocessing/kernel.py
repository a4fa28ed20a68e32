"""The C kernel: compiled once on the machine that runs it, for its own processor, and kept in the cache.

The package ships `kernel.c` and no binary: it installs from one wheel everywhere, and the compiler may use
all that the processor has. Nothing else is compiled or fetched.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import DeviceError, FsmdeError
from fsmde_edge.files import atomic_file, cache_home, make_folder, refuse_foreign

if TYPE_CHECKING:
    from fsmde_edge.preprocessing.tables import Down

SOURCE = Path(__file__).with_name("kernel.c")
_FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-std=gnu11")
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 120


class Plane(ctypes.Structure):
    """`Plane` of kernel.c."""

    _fields_ = (
        *(
            (name, ctypes.c_int32)
            for name in ("columns", "channels", "step", "quads", "pad", "group", "curves")
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("top", "count", "offset", "down", "base", "kind", "along"),
                *("left", "right", "mix"),
            )
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kernel:
    """The loaded kernel.

    Attributes:
        library: with `fsmde_prepare` and `fsmde_fill_down`.
        compiler: what made it, in its own words.
    """

    library: ctypes.CDLL
    compiler: str


@lru_cache(maxsize=1)
def load_kernel() -> Kernel:
    """The kernel, compiled first if this machine has not done so yet.

    Raises:
        DeviceError: no C compiler, one that fails, or a cache that cannot be used.
    """
    compiler = find_compiler()
    version = _run((compiler, "--version")).splitlines()[0].strip()
    content = SOURCE.read_bytes()
    identity = "\n".join((version, *_FLAGS, platform.machine(), _processor())).encode()
    folder = cache_home() / "kernels"
    path = folder / f"prepare-{hashlib.sha256(content + identity).hexdigest()[:24]}.so"
    if not path.is_file():
        _compile(compiler, path)
    refuse_foreign(path)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceError(
            f"cannot be loaded ({error})", where=path, hint="remove it and run again"
        ) from error
    return Kernel(library=library, compiler=version)


def fill_down(rows: NDArray[np.float32], table: Down, *, halved: int) -> None:
    """Write a vertical table's weights from where output rows cross source columns."""
    height, samples, columns = rows.shape
    load_kernel().library.fsmde_fill_down(
        *(pointer(rows), height, samples, columns, halved),
        *(pointer(table.top), pointer(table.count), pointer(table.offset), pointer(table.weights)),
    )


def pointer(array: NDArray) -> ctypes.c_void_p:  # type: ignore[type-arg]
    """Where an array's values lie; the array must be contiguous and live as long as the pointer is used."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def find_compiler() -> str:
    """The C compiler that would be taken: $CC, else the first of the usual names.

    Raises:
        DeviceError: there is none.
    """
    for name in (os.environ.get("CC", ""), *_COMPILERS):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise DeviceError("no C compiler was found", hint="install one (apt install gcc), or go on without")


def _compile(compiler: str, path: Path) -> None:
    try:
        make_folder(path.parent).chmod(0o700)
        with atomic_file(path) as temporary:
            _run((compiler, *_FLAGS, "-o", str(temporary), str(SOURCE), "-lm"))
    except (OSError, FsmdeError) as error:
        raise DeviceError(
            f"the kernel could not be compiled ({error})", hint="see if the compiler works"
        ) from error


def _run(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"does not run ({error})", where=command[0]) from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["without a word"])[0]
        raise DeviceError(f"failed: {said}", where=command[0])
    return done.stdout


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    words = ("flags", "Features", "CPU part", "model name")
    return "\n".join(sorted({line for line in lines if line.startswith(words)}))
