"""What this machine has, what is missing, and which combinations are known not to work."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from fsmde_edge.errors import FsmdeError
from fsmde_edge.files import state_home

Level = Literal["ok", "note", "problem"]

RELEASE_FILE = Path("/etc/nv_tegra_release")
LEAST_FREE_GB = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: in a word or two.
        level: `ok`; `note` (something optional is absent); `problem`.
        detail: what was found.
        advice: what to do, if anything.
    """

    what: str
    level: Level
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the known-bad list looks at.

    Attributes:
        python: (major, minor).
        l4t: the Jetson's L4T release (36.4 is JetPack 6.1, 38 and later JetPack 7); None elsewhere.
        versions: of packages that import or are installed.
    """

    python: tuple[int, int]
    l4t: tuple[int, int] | None
    versions: Mapping[str, str]

    def at_least(self, package: str, *numbers: int) -> bool:
        """Whether a package is there in this version or a later one."""
        return package in self.versions and _numbers(self.versions[package]) >= numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBad:
    """A combination that is known not to work.

    Attributes:
        applies: whether a machine has it.
        what: what goes wrong.
        advice: what to do.
        source: who says so.
    """

    applies: Callable[[Machine], bool]
    what: str
    advice: str
    source: str


KNOWN_BAD: tuple[KnownBad, ...] = (
    KnownBad(
        applies=lambda m: (
            m.l4t is not None
            and m.at_least("tensorrt", 11)
            and _numbers(m.versions["tensorrt"])[:3] != (11, 4, 1)
        ),
        what="this TensorRT 11 does not support Jetson",
        advice="stay on JetPack's TensorRT 10.x, or use 11.4.1 on an AGX Orin with JetPack 7.2.2 or later",
        source="NVIDIA, Migrating TensorRT from 10.x to 11.x on Jetson/JetPack, of 11.2.1 to 11.4.1",
    ),
    KnownBad(
        applies=lambda m: m.l4t is not None and m.l4t[0] <= 36 and m.at_least("tensorrt", 11),
        what="TensorRT 11 does not run on JetPack 6",
        advice="use JetPack 6's TensorRT 10.3, or upgrade to JetPack 7.2.2",
        source="NVIDIA, Migrating TensorRT from 10.x to 11.x on Jetson/JetPack, page of 11.4.1",
    ),
    KnownBad(
        applies=lambda m: m.l4t is not None and m.l4t[0] <= 36 and m.at_least("cuda-bindings", 13),
        what="cuda-bindings 13 needs a CUDA 13 driver; JetPack 6 has CUDA 12.6",
        advice="pip install 'fsmde-edge[cuda12]'",
        source="NVIDIA, cuda-bindings installation page (major version must match the driver's)",
    ),
    KnownBad(
        applies=lambda m: (
            "tensorrt" in m.versions and not m.at_least("tensorrt", 8, 6) and m.at_least("numpy", 1, 24)
        ),
        what="TensorRT before 8.6 uses np.bool, which NumPy 1.24 removed",
        advice="upgrade JetPack; this package needs TensorRT 10.3 or later",
        source="github.com/NVIDIA/TensorRT issue 2557",
    ),
    KnownBad(
        applies=lambda m: {"opencv-python", "opencv-python-headless"} <= set(m.versions),
        what="opencv-python and opencv-python-headless overwrite each other's cv2",
        advice="pip uninstall opencv-python opencv-python-headless; pip install opencv-python-headless",
        source="opencv-python's README, installation and usage",
    ),
    KnownBad(
        applies=lambda m: m.python < (3, 11) and m.at_least("onnxruntime", 1, 24),
        what="ONNX Runtime 1.24 and later have no build for Python 3.10",
        advice="pip install 'onnxruntime<1.24'",
        source="PyPI, files of onnxruntime 1.23.2 (the last with cp310 wheels)",
    ),
)

_PACKAGES = (
    "numpy", "onnx", "onnxruntime", "opencv-python-headless", "opencv-python", "torch", "onnxsim",
    "openvino", "cuda-core", "cuda-bindings", "tensorrt", "pycuda",
)  # fmt: skip


_BASE = {
    "numpy": "numpy", "onnx": "onnx", "cv2": "opencv-python-headless", "yaml": "pyyaml", "jinja2": "jinja2",
    "tqdm": "tqdm",
}  # fmt: skip
"""Modules that no command does without, to what installs them (ONNX Runtime has a finding of its own)."""


def examine() -> list[Finding]:
    """Look at everything; nothing is changed, no heavy library is loaded but to see whether it loads."""
    l4t = _l4t()
    tensorrt = _tensorrt(l4t is not None)
    machine = Machine(
        python=sys.version_info[:2],
        l4t=l4t,
        versions=_versions() | ({} if tensorrt[1] is None else {"tensorrt": tensorrt[1]}),
    )
    return [
        _python(machine),
        _base(),
        _jetson(l4t),
        _onnxruntime(),
        _optional("OpenVINO backend", "openvino", "openvino", "a second CPU backend"),
        _cuda(l4t),
        tensorrt[0],
        _optional("compile tools", "torch", "compile", "building from a checkpoint, and training"),
        _preprocessing(),
        _cameras(),
        *(_disk(path) for path in (Path.cwd(), state_home())),
        *_known_bad(machine),
    ]


def _python(machine: Machine) -> Finding:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if machine.python < (3, 10):
        return Finding(what="Python", level="problem", detail=detail, advice="use Python 3.10 or later")
    return Finding(what="Python", level="ok", detail=detail)


def _base() -> Finding:
    missing = [name for module, name in _BASE.items() if not _is_there(module)]
    if missing:
        detail = f"not installed: {', '.join(missing)}"
        return Finding(what="packages", level="problem", detail=detail, advice="pip install fsmde-edge")
    return Finding(what="packages", level="ok", detail=", ".join(_BASE.values()))


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # loaded by hand, without a spec
        return module in sys.modules and sys.modules[module] is not None


def _l4t() -> tuple[int, int] | None:
    """The L4T release of a Jetson, from its release file: `# R36 (release), REVISION: 4.3, …` is (36, 4)."""
    try:
        text = RELEASE_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"R(\d+)\s*\(release\)\s*,\s*REVISION:\s*(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _jetson(l4t: tuple[int, int] | None) -> Finding:
    if l4t is None:
        return Finding(what="Jetson", level="note", detail=f"no ({RELEASE_FILE} is absent)")
    jetpack = {35: "5", 36: "6", 38: "7", 39: "7"}.get(l4t[0], "unknown")
    detail = f"L4T {l4t[0]}.{l4t[1]}, JetPack {jetpack}"
    if l4t[0] < 36:
        return Finding(what="Jetson", level="problem", detail=detail, advice="flash JetPack 6 or later")
    return Finding(what="Jetson", level="ok", detail=detail)


def _onnxruntime() -> Finding:
    try:
        runtime = importlib.import_module("onnxruntime")
    except Exception as error:
        return Finding(
            what="ONNX Runtime", level="problem", detail=_said(error), advice="pip install onnxruntime"
        )
    providers = ", ".join(runtime.get_available_providers())
    return Finding(what="ONNX Runtime", level="ok", detail=f"{runtime.__version__} ({providers})")


def _optional(what: str, package: str, extra: str, gives: str) -> Finding:
    try:
        return Finding(what=what, level="ok", detail=f"{package} {version(package)}")
    except PackageNotFoundError:
        return Finding(
            what=what,
            level="note",
            detail=f"{package} is not installed",
            advice=f"for {gives}: pip install 'fsmde-edge[{extra}]'",
        )


def _cuda(l4t: tuple[int, int] | None) -> Finding:
    """Ask the driver library itself: nvidia-smi is absent or wrong on a Jetson."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Finding(
            what="CUDA",
            level="note" if l4t is None else "problem",
            detail="no driver (libcuda.so.1 does not load)",
            advice="" if l4t is None else "sudo apt install nvidia-jetpack",
        )
    number, count = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDriverGetVersion(ctypes.byref(number)):
        return Finding(
            what="CUDA", level="problem", detail="the driver does not start", advice="reboot, or reinstall it"
        )
    driver.cuDeviceGetCount(ctypes.byref(count))
    detail = f"driver for CUDA {number.value // 1000}.{number.value % 1000 // 10}, {count.value} device(s)"
    extra = "cuda12" if number.value < 13000 else "cuda13"
    missing = "cuda-core" not in _versions()
    return Finding(
        what="CUDA",
        level="note" if missing else "ok",
        detail=detail + (", cuda-core is not installed" if missing else ""),
        advice=f"pip install 'fsmde-edge[{extra}]'" if missing else "",
    )


def _tensorrt(jetson: bool) -> tuple[Finding, str | None]:
    """Import it: on a Jetson it comes from apt, and pip's metadata are absent or wrong."""
    try:
        found = str(importlib.import_module("tensorrt").__version__)
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError)
        advice = "pip install 'fsmde-edge[tensorrt]' (x86-64 with an NVIDIA GPU)"
        if jetson:
            advice = "sudo apt install python3-libnvinfer, and make the venv with --system-site-packages"
        level: Level = "problem" if jetson or not absent else "note"
        detail = "not installed" if absent else _said(error)
        return Finding(what="TensorRT", level=level, detail=detail, advice=advice), None
    if _numbers(found) < (10, 3):
        old = Finding(
            what="TensorRT", level="problem", detail=found, advice="10.3 is the oldest that is supported"
        )
        return old, found
    return Finding(what="TensorRT", level="ok", detail=found), found


def _preprocessing() -> Finding:
    """Whether `run` can have the C kernel; nothing is compiled."""
    from fsmde_edge.preprocessing.kernel import find_compiler

    try:
        return Finding(what="preprocessing", level="ok", detail=f"C kernel, compiled by {find_compiler()}")
    except FsmdeError as error:
        detail = f"the slow definition in NumPy ({error})"
        return Finding(what="preprocessing", level="note", detail=detail, advice="sudo apt install gcc")


def _cameras() -> Finding:
    nodes = sorted(Path("/dev").glob("video[0-9]*"), key=lambda p: int(p.name[5:]))
    if not nodes:
        return Finding(what="cameras", level="note", detail="no /dev/video*")
    closed = [node.name for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        return Finding(
            what="cameras",
            level="problem",
            detail=f"no permission for {', '.join(closed)}",
            advice="sudo usermod -aG video $USER, then log in again",
        )
    return Finding(what="cameras", level="ok", detail=", ".join(node.name for node in nodes))


def _disk(path: Path) -> Finding:
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free / 1e9
    level: Level = "ok" if free >= LEAST_FREE_GB else "problem"
    advice = "" if level == "ok" else f"free some space: builds want {LEAST_FREE_GB:g} GB"
    writable = os.access(path, os.W_OK)
    detail = f"{free:.1f} GB free at {path}" + ("" if writable else ", not writable")
    return Finding(what="disk", level=level if writable else "problem", detail=detail, advice=advice)


def _known_bad(machine: Machine) -> list[Finding]:
    return [
        Finding(what="known bad", level="problem", detail=f"{bad.what} ({bad.source})", advice=bad.advice)
        for bad in KNOWN_BAD
        if bad.applies(machine)
    ]


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:4])


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
