"""The machine that a bench ran on: what it is, and how it stood before and after, read without root.

A Jetson tells by files (L4T 35 and later): its power mode in nvpmodel's status and configuration, clocks and
temperatures in sysfs, the GPU's load in per mille. What a machine does not tell is left out, never guessed.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fsmde_edge.inference.machine import instructions, processor

ROOT = Path("/")
PACKAGES = (
    "fsmde-edge", "numpy", "onnxruntime", "openvino", "tensorrt", "opencv-python-headless",
)  # fmt: skip
GPU_LOADS = ("sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load")
"""L4T 36 and later; L4T 35."""

GPU_NODE = re.compile(r"gpu|ga10b|gv11b|gp10b")
"""A Tegra GPU's name among devfreq's devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """How a machine stands at one instant; None and empty where it does not tell.

    Attributes:
        power_mode: a Jetson's, as nvpmodel names it.
        cpu_mhz: core to its clock.
        gpu_mhz: the GPU's clock.
        gpu_load: the GPU's, 0 to 1.
        celsius: thermal zone to temperature.
    """

    power_mode: str | None = None
    cpu_mhz: Mapping[str, float]
    gpu_mhz: float | None = None
    gpu_load: float | None = None
    celsius: Mapping[str, float]

    def __str__(self) -> str:
        parts = []
        if self.power_mode is not None:
            parts.append(f"power mode {self.power_mode}")
        if self.cpu_mhz:
            parts.append(f"CPU {min(self.cpu_mhz.values()):.0f} to {max(self.cpu_mhz.values()):.0f} MHz")
        if self.gpu_mhz is not None:
            parts.append(f"GPU {self.gpu_mhz:.0f} MHz")
        if self.gpu_load is not None:
            parts.append(f"GPU load {self.gpu_load:.0%}")
        if self.celsius:
            hottest = max(self.celsius, key=lambda zone: self.celsius[zone])
            parts.append(f"{self.celsius[hottest]:.1f} °C ({hottest})")
        return ", ".join(parts) or "this machine tells no power mode, clock or temperature"


def describe_machine(root: Path = ROOT) -> dict[str, str]:
    """What it is: processor, its instructions, system, and the board where it has a name."""
    board = _text(root / "proc/device-tree/model")
    known = {
        "processor": processor(),
        "instructions": instructions(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    return known | ({} if board is None else {"board": board.rstrip("\0")})


def versions() -> dict[str, str]:
    """Python's version, and those of the packages that compute, where they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_state(root: Path = ROOT) -> MachineState:
    """How it stands now.

    Args:
        root: where proc, sys, etc and var lie; another than / for tests.
    """
    load = next((value for path in GPU_LOADS if (value := _number(root / path)) is not None), None)
    return MachineState(
        power_mode=_power_mode(root),
        cpu_mhz=_clocks(root),
        gpu_mhz=_gpu_mhz(root),
        gpu_load=None if load is None else load / 1000,
        celsius=_temperatures(root),
    )


def _power_mode(root: Path) -> str | None:
    """Such as MAXN; its number alone where the configuration does not name it."""
    status = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status") or "")
    if status is None:
        return None
    number = int(status[1])
    modes = re.findall(
        r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", _text(root / "etc/nvpmodel.conf") or "", re.MULTILINE
    )
    return next((name.rstrip(">") for mode, name in modes if int(mode) == number), str(number))


def _clocks(root: Path) -> dict[str, float]:
    clocks = {}
    for core in sorted(
        (root / "sys/devices/system/cpu").glob("cpu[0-9]*"), key=lambda path: int(path.name[3:])
    ):
        khz = _number(core / "cpufreq/scaling_cur_freq")
        if khz is not None:
            clocks[core.name] = khz / 1000
    return clocks


def _gpu_mhz(root: Path) -> float | None:
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        hertz = _number(device / "cur_freq")
        if GPU_NODE.search(device.name) and hertz is not None:
            return hertz / 1e6
    return None


def _temperatures(root: Path) -> dict[str, float]:
    """Zones that answer: a Jetson's that are switched off refuse to be read."""
    found = {}
    for zone in sorted(
        (root / "sys/class/thermal").glob("thermal_zone*"), key=lambda path: int(path.name[12:])
    ):
        milli = _number(zone / "temp")
        if milli is not None:
            name = _text(zone / "type") or zone.name
            found[name if name not in found else f"{name} ({zone.name})"] = milli / 1000
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None
