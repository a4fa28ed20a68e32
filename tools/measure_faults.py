"""What each fault of a camera looks like to whoever runs it, and what it costs: docs/results/faults.json.

    python tools/measure_faults.py [NAME ...]

In the guest of `make kernel-test`, on the kernel's virtual cameras, by the real `run` (see
tools/kernel/fault_run.py).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "kernel"))

import guest
import image
from bundle import small_bundle

from fsmde_edge.files import atomic_write
from fsmde_edge.inference.machine import processor

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "faults.json"
HIT = "/dev/video2"
COSTLY = ("gap", "late", "error flag")
"""Drops that are the fault's; others are the slow reader's in an emulated machine."""


def main() -> int:
    """Run in the guest, record here."""
    parser = argparse.ArgumentParser(description="Faults of cameras, and what is seen of them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of tools/kernel/fault_run.py; all if none")
    parser.add_argument("--timeout", type=float, default=3600, metavar="S")
    options = parser.parse_args()
    if lacking := image.missing():
        print(f"SKIPPED: needs {', '.join(lacking)}; as root: {image.INSTALL}")
        return 0
    with tempfile.TemporaryDirectory() as name:
        share, bundle = Path(name), small_bundle(guest.CACHE)
        script = str(ROOT / "tools" / "kernel" / "fault_run.py")
        command = [sys.executable, script, str(bundle), "/run/guest-share", *options.names]
        status = guest.run(command, share, vivid=guest.vivid_options(), timeout=options.timeout)
        if status:
            return status
        found = json.loads((share / "faults.json").read_text())
    record(found, bundle=json.loads((bundle / "manifest.json").read_text())["self_sha256"])
    return 0


def record(found: dict[str, Any], *, bundle: str) -> None:
    """Write docs/results/faults.json."""
    made = {
        "bundle": bundle,
        "data": "six vivid cameras, 320x180 at 10/s, in a guest emulated by QEMU (TCG, 2 CPUs); golden depth "
        "in the network's place",
        "machine": processor(),
        "faults": {name: {**each, "report": None, "health": None} for name, each in found.items()},
        "tables": [_table(found)],
    }
    atomic_write(RECORD, json.dumps(made, indent=1, ensure_ascii=False).encode() + b"\n")


def _table(found: dict[str, Any]) -> dict[str, Any]:
    header = ["fault", "made by", "on", "what the user saw", "lost", "exit"]
    rows = [
        [each["fault"], each["how"], each["on"], _plain(each["saw"]), lost(each), str(each["exit"])]
        for each in found.values()
    ]
    return {"title": "Faults of one of six cameras, or all", "header": header, "rows": rows}


def lost(fault: dict[str, Any]) -> str:
    """Seconds, sets and pictures that a fault cost, in words.

    Pictures count beyond what the other cameras lost: an emulated machine that is starved loses some of all.
    """
    state = fault["health"]
    if not state.get("sets"):
        return "no set was made" if fault["exit"] else ""
    camera = next(each for each in state["cameras"].values() if each["path"] == HIT)
    others = [each["drops"] for each in state["cameras"].values() if each["path"] != HIT]
    more = {
        cause: camera["drops"][cause] - round(median(drops[cause] for drops in others)) for cause in COSTLY
    }
    parts = [f"{camera['outage_s']:.1f} s of the camera"] if camera["outage_s"] else []
    parts += [f"{count} pictures ({cause})" for cause, count in more.items() if count > 0]
    if state["incomplete"]:
        parts.append(f"{state['incomplete']} of {state['sets']} sets lacked a view")
    if masked := state["invalid"] - state["incomplete"]:
        parts.append(f"{masked} of {state['sets']} sets had a view marked invalid")
    return ", ".join(parts) or "nothing"


def _plain(line: str) -> str:
    """A line as a cell."""
    return re.sub(r"\s+", " ", line).replace("|", "/")


if __name__ == "__main__":
    sys.exit(main())
