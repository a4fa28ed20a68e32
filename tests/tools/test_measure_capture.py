"""The tables of the capture comparison, from made runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def tool():
    path = Path(__file__).resolve().parents[2] / "tools/measure_capture.py"
    spec = importlib.util.spec_from_file_location("measure_capture", path)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def run(way, cpu_ms, *, consumer="ready", age=30.0):
    return {
        "way": way,
        "width": 640,
        "consumer": consumer,
        "sets": 10,
        "rate": 30.0,
        "cpu_ms": cpu_ms,
        "user_ms": cpu_ms,
        "copied": 2_764_800.0,
        "syscalls": 20.0,
        "clock_calls": 0.0,
        "faults": 1.0,
        "age_p50": age,
        "age_p99": 2 * age,
        "names": {"16": 12.0, "232": 3.0},
    }


def test_ratios_are_of_the_least_troubled_rounds(tool):
    runs = [run("ours", 9.0), run("OpenCV raw", 8.0), run("ours", 3.0), run("OpenCV raw", 6.0)]
    runs += [run(way, 1.0, consumer=c, age=50) for way in ("ours", "OpenCV raw") for c in ("half", "gil")]
    busy, slow = tool._tables(runs, 640)
    ours, opencv = busy["rows"]
    assert (ours[1], opencv[1]) == ("3.0", "6.0")
    assert (ours[2], opencv[2]) == ("", "0.50")
    assert opencv[3] == "≤ 0.5"
    assert ours[5] == "2.76"
    assert ours[6:10] == ["20.0", "12.0", "3.0", "0.0"]
    assert slow["rows"][0] == ["ours", "50", "100", "50", "100"]
    for table in (busy, slow):
        assert all(len(row) == len(table["header"]) for row in table["rows"])


def test_without_its_programs_it_is_skipped_and_says_so(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool.image, "missing", lambda: ["qemu-system-x86_64"])
    monkeypatch.setattr(sys, "argv", ["measure_capture"])
    assert tool.main() == 0
    assert "SKIPPED: needs qemu-system-x86_64" in capsys.readouterr().out
