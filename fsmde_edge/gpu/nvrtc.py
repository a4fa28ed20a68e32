"""Kernels compiled by NVRTC where they run, and kept in the cache: no GPU and no toolkit is needed for it.

A cubin is native code for one architecture (8.7 runs on 8.7), so it is named after its source, the
architecture, the options and NVRTC's version, and only our own user may have been able to write it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsmde_edge.errors import DeviceError, FsmdeError
from fsmde_edge.files import atomic_write, cache_home, make_folder, refuse_foreign

_OPTIONS = ("--std=c++17", "--ptxas-options=-v")
_USED = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cubin:
    """A compiled kernel.

    Attributes:
        code: for one architecture.
        architecture: `sm_87`, …
        version: of NVRTC.
        log: what the assembler said of it; empty where it came from the cache.
    """

    code: bytes
    architecture: str
    version: str
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one thread or block of a kernel takes, as the assembler says.

    Attributes:
        registers: of a thread.
        stack, spill_stores, spill_loads: bytes of a thread in local memory.
        shared: bytes of a block that the source fixes; what a launch asks for comes on top.
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int


def load_cubin(source: Path, architecture: str) -> Cubin:
    """A kernel for an architecture, from the cache or compiled now.

    Raises:
        DeviceError: no NVRTC, a source that it refuses, or a cache that cannot be used.
    """
    version = nvrtc_version()
    identity = "\n".join((version, architecture, *_OPTIONS)).encode()
    name = hashlib.sha256(source.read_bytes() + identity).hexdigest()[:24]
    path = cache_home() / "kernels" / f"{source.stem}-{architecture}-{name}.cubin"
    if path.is_file():
        refuse_foreign(path)
        return Cubin(code=path.read_bytes(), architecture=architecture, version=version, log="")
    made = compile_cubin(source, architecture)
    try:
        make_folder(path.parent).chmod(0o700)
        atomic_write(path, made.code)
    except (OSError, FsmdeError) as error:
        raise DeviceError(
            f"the kernel cannot be kept ({error})", where=path, hint="make the cache folder writable"
        ) from error
    return made


def compile_cubin(source: Path, architecture: str) -> Cubin:
    """A kernel for an architecture, compiled now.

    Raises:
        DeviceError: no NVRTC, or a source or architecture that it refuses.
    """
    nvrtc, version = _nvrtc(), nvrtc_version()
    program = _call(nvrtc, nvrtc.nvrtcCreateProgram, source.read_bytes(), source.name.encode(), 0, [], [])
    try:
        options = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in _OPTIONS)]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        log = _text(nvrtc, program)
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            said = next((line for line in log.splitlines() if "error" in line), result.name)
            raise DeviceError(
                f"NVRTC {version} does not compile it for {architecture}: {said.strip()}",
                where=source.name,
                hint="NVRTC must know the GPU: upgrade nvidia-cuda-nvrtc (extra cuda12 or cuda13)",
            )
        code = bytearray(_call(nvrtc, nvrtc.nvrtcGetCUBINSize, program))
        _call(nvrtc, nvrtc.nvrtcGetCUBIN, program, code)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return Cubin(code=bytes(code), architecture=architecture, version=version, log=log)


def resources(cubin: Cubin) -> Resources:
    """What a kernel takes; of a cubin that was compiled now, with one kernel."""
    registers, memory = _USED.search(cubin.log), _SPILLS.search(cubin.log)
    if registers is None or memory is None:
        raise DeviceError("NVRTC's log says nothing of registers", where=cubin.architecture)
    shared = _SHARED.search(cubin.log)
    stack, stores, loads = (int(number) for number in memory.groups())
    return Resources(
        registers=int(registers[1]),
        stack=stack,
        spill_stores=stores,
        spill_loads=loads,
        shared=int(shared[1]) if shared else 0,
    )


def nvrtc_version() -> str:
    """NVRTC's version, as `13.0`.

    Raises:
        DeviceError: there is no NVRTC.
    """
    nvrtc = _nvrtc()
    major, minor = _call(nvrtc, nvrtc.nvrtcVersion)
    return f"{major}.{minor}"


def _nvrtc() -> Any:
    """NVRTC's bindings, with a library behind them."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:  # the library is looked for at the first call
        lacking = "cuda-bindings" if isinstance(error, ModuleNotFoundError) else "nvidia-cuda-nvrtc"
        raise DeviceError(
            f"compiling kernels for a GPU needs the package '{lacking}', which does not load",
            hint="run: pip install 'fsmde-edge[cuda12]' (JetPack 6) or 'fsmde-edge[cuda13]' (JetPack 7)",
        ) from error
    return nvrtc


def _call(nvrtc: Any, function: Any, *arguments: Any) -> Any:
    result, *values = function(*arguments)
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise DeviceError(f"NVRTC failed: {result.name}", where=getattr(function, "__name__", None))
    return values[0] if len(values) == 1 else tuple(values)


def _text(nvrtc: Any, program: Any) -> str:
    log = bytearray(_call(nvrtc, nvrtc.nvrtcGetProgramLogSize, program))
    _call(nvrtc, nvrtc.nvrtcGetProgramLog, program, log)
    return log.decode(errors="replace").rstrip("\0 \n")
