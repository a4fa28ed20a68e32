"""Six of the kernel's virtual cameras, captured by us and by others in one run: docs/results/capture.json.

    python tools/measure_capture.py [--rounds 3]

In the guest of `make kernel-test`, with the processor's own counter as its clock, so that reading it is no
system call, as on hardware. All is emulated: ratios mean something, milliseconds do not. The bare prototype
(../shared/examples/v4l2thin.py, or --prototype) and linuxpy (--peers: a folder with it; GPL, for this
comparison alone) are left out where they are not there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "kernel"))

import guest
import image

from fsmde_edge.files import atomic_write
from fsmde_edge.inference.machine import processor

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "capture.json"
PROTOTYPE = ROOT.parent / "shared" / "examples" / "v4l2thin.py"
PEERS = guest.CACHE / "peers"
GOALS = {"prototype": 1.2, "OpenCV raw": 0.5}
"""What ours may cost at most, as a multiple of the other's CPU time."""

SYSCALLS = 18
EPOLL, IOCTL, FUTEX = "232", "16", "202"
"""Numbers of system calls on x86-64."""


def main() -> int:
    """Run in the guest, record here."""
    parser = argparse.ArgumentParser(description="Ways to capture, beside each other.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prototype", type=Path, default=PROTOTYPE, metavar="FILE")
    parser.add_argument("--peers", type=Path, default=PEERS, metavar="DIR", help="where linuxpy is installed")
    parser.add_argument("--record", type=Path, default=RECORD, metavar="FILE")
    parser.add_argument("--timeout", type=float, default=3000, metavar="S")
    options = parser.parse_args()
    if lacking := image.missing():
        print(f"SKIPPED: needs {', '.join(lacking)}; as root: {image.INSTALL}")
        return 0
    others = [str(path.resolve()) if path.exists() else "-" for path in (options.prototype, options.peers)]
    with tempfile.TemporaryDirectory() as name:
        share = Path(name)
        script = str(ROOT / "tools" / "kernel" / "capture_run.py")
        command = [sys.executable, script, "/run/guest-share", *others, str(options.rounds)]
        vivid = guest.vivid_options(6)
        load = os.getloadavg()[0]
        status = guest.run(command, share, vivid=vivid, timeout=options.timeout, boot=_clock())
        if status:
            return status
        found = json.loads((share / "capture.json").read_text())
    record = {
        "data": "six vivid cameras, YUYV, in a guest emulated by QEMU (TCG, 2 CPUs)",
        "machine": processor(),
        "rounds": options.rounds,
        "load": f"{load:.1f} before, {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores",
        "runs": found,
        "tables": [
            table for width in sorted({run["width"] for run in found}) for table in _tables(found, width)
        ],
    }
    atomic_write(options.record, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    return 0


def _clock() -> str:
    """Kernel options for a guest whose clock is the host's counter.

    It is told how fast that is: a guest that measures it while the host is busy gets it wrong.
    """
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    twice_mhz = float(text.partition("bogomips")[2].partition("\n")[0].strip(" \t:"))
    return f"clocksource=tsc tsc=reliable tsc_early_khz={round(twice_mhz * 500)}"


def _tables(found: list[dict[str, Any]], width: int) -> list[dict[str, Any]]:
    runs = [run for run in found if run["width"] == width]
    names = list(dict.fromkeys(run["way"] for run in runs))
    ready = {
        name: _medians([r for r in runs if r["way"] == name and r["consumer"] == "ready"]) for name in names
    }
    title = f"{width}x{'360' if width == 640 else '720'}, every set taken"
    header = [
        "", "CPU ms a set", "ours as a multiple", "goal", "sets/s", "MB copied a set", "system calls a set",
        "of them ioctl", "epoll", "futex", "page faults a set",
    ]  # fmt: skip
    rows = [_row(name, ready) for name in names]
    ages = {
        name: {
            run["consumer"]: run for run in runs if run["way"] == name and run["consumer"] in ("half", "gil")
        }
        for name in names
    }
    age_rows = [
        [
            name,
            *(f"{each[consumer][key]:.0f}" for consumer in ("half", "gil") for key in ("age_p50", "age_p99")),
        ]
        for name, each in ages.items()
    ]
    age_header = [
        "age in ms of the oldest picture of the set at hand",
        "half speed, p50",
        "p99",
        "lock held, p50",
        "p99",
    ]
    return [
        {"title": title, "header": header, "rows": rows},
        {
            "title": title.replace("every set taken", "a slow consumer"),
            "header": age_header,
            "rows": age_rows,
        },
    ]


def _medians(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Over rounds; of the CPU time the least, since whatever else the machine does only adds to it."""
    keys = ("rate", "copied", "syscalls", "faults")
    names = {name: [run["names"].get(name, 0.0) for run in runs] for name in (IOCTL, EPOLL, FUTEX)}
    return {
        "cpu_ms": min(run["cpu_ms"] for run in runs),
        **{key: statistics.median(run[key] for run in runs) for key in keys},
        **{name: statistics.median(values) for name, values in names.items()},
    }


def _row(name: str, ready: dict[str, dict[str, float]]) -> list[str]:
    made = ready[name]
    ratio = ready["ours"]["cpu_ms"] / made["cpu_ms"]
    goal = f"≤ {SYSCALLS} calls" if name == "ours" else f"≤ {GOALS[name]:g}" if name in GOALS else ""
    calls = (made["syscalls"], made[IOCTL], made[EPOLL], made[FUTEX])
    return [
        name,
        f"{made['cpu_ms']:.1f}",
        "" if name == "ours" else f"{ratio:.2f}",
        goal,
        f"{made['rate']:.1f}",
        f"{made['copied'] / 1e6:.2f}",
        *(f"{value:.1f}" for value in calls),
        f"{made['faults']:.1f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
