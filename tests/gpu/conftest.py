"""Tests that need hardware: what cannot run here is skipped narrowly and reported NOT RUN, never passed."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE: a driver without a GPU


def no_cuda() -> str | None:
    """Why CUDA cannot be tested here. A driver that is there but broken is no reason: its tests fail."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver: libcuda.so.1 does not load"
    return "an NVIDIA driver, but no GPU" if driver.cuInit(0) == NO_DEVICE else None


def no_tensorrt() -> str | None:
    """Why TensorRT cannot be tested here."""
    if reason := no_cuda():
        return reason
    try:
        version = importlib.import_module("tensorrt").__version__
    except ModuleNotFoundError as error:
        if error.name != "tensorrt":
            raise
        return "TensorRT is not installed: the module tensorrt does not import"
    old = tuple(map(int, version.split(".")[:2])) < (10, 3)
    return f"TensorRT {version} is older than 10.3" if old else None


def no_orin() -> str | None:
    """Why nothing of an Orin can be tested here."""
    model = Path("/proc/device-tree/model")
    name = model.read_text(errors="replace").strip("\0 \n") if model.exists() else "no device tree"
    return None if "Orin" in name else f"this is not a Jetson Orin: {name}"


MISSING: Mapping[str, Callable[[], str | None]] = {"cuda": no_cuda, "tensorrt": no_tensorrt, "orin": no_orin}
"""Mark to why its tests cannot run on this machine, or None where they can."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark, why_not in MISSING.items():
        if item.get_closest_marker(mark) and (reason := why_not()):
            pytest.skip(reason)


def pytest_terminal_summary(terminalreporter) -> None:
    terminalreporter.section("hardware")
    for mark, why_not in MISSING.items():
        ran = {
            outcome: sum(
                mark in getattr(report, "keywords", ()) for report in terminalreporter.getreports(outcome)
            )
            for outcome in ("passed", "failed", "error")
        }
        if any(ran.values()):
            counts = ", ".join(f"{count} {outcome}" for outcome, count in ran.items() if count)
            terminalreporter.write_line(f"{mark}: {counts}")
        else:
            terminalreporter.write_line(f"{mark}: NOT RUN ({why_not() or 'not selected'})")
