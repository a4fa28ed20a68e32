"""Six of the kernel's virtual cameras to depth, in the guest of `make kernel-test`: docs/results/live.json.

    python tools/measure_live.py [--sets 200]

Inference there is emulated and some 200 times slower than outside: ages say that frames stay as young as the
slow network allows, not how fast anything is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "kernel"))

import guest
import image
from bundle import small_bundle

from fsmde_edge.files import atomic_write
from fsmde_edge.inference.machine import processor

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "live.json"
PICTURE = ROOT / "docs" / "images" / "live.png"


def main() -> int:
    """Run in the guest, record here."""
    parser = argparse.ArgumentParser(description="Six virtual cameras to depth.")
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--timeout", type=float, default=3600, metavar="S")
    options = parser.parse_args()
    if lacking := image.missing():
        print(f"SKIPPED: needs {', '.join(lacking)}; as root: {image.INSTALL}")
        return 0
    with tempfile.TemporaryDirectory() as name:
        share = Path(name)
        script = str(ROOT / "tools" / "kernel" / "live_run.py")
        command = [
            sys.executable,
            script,
            str(small_bundle(guest.CACHE)),
            str(options.sets),
            "/run/guest-share",
        ]
        status = guest.run(command, share, vivid=guest.vivid_options(), timeout=options.timeout)
        if status:
            return status
        found = json.loads((share / "live.json").read_text())
        atomic_write(PICTURE, (share / "mosaic.png").read_bytes())
    record = {
        "bundle": found["bundle"],
        "data": "six vivid cameras, UYVY 640x360 at 10/s, in a guest emulated by QEMU (TCG, 2 CPUs)",
        "machine": processor(),
        "run": found,
        "tables": [_whole(found), _cameras(found)],
    }
    atomic_write(RECORD, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    return 0


def _whole(found: dict[str, Any]) -> dict[str, Any]:
    stages = {"skew": found["skew"], **found["stages"]}
    rows = [[name, *(f"{each[key]:.1f}" for key in ("p50", "p90", "p99"))] for name, each in stages.items()]
    title = f"{found['sets']} sets in {found['seconds']:.0f} s, {found['incomplete']} of them incomplete"
    return {"title": title, "header": ["ms", "p50", "p90", "p99"], "rows": rows}


def _cameras(found: dict[str, Any]) -> dict[str, Any]:
    header = [
        "", "memory", "copies", "bytes a set", "pictures", "gap", "late", "error flag", "slow consumer",
        "unmatched", "behind ms", "age p50 ms", "age p99 ms",
    ]  # fmt: skip
    rows = []
    for each in found["cameras"]:
        camera, age = each["camera"], found["ages"][each["camera"]["name"]]
        drops = [str(camera["drops"][cause]) for cause in header[5:10]]
        numbers = (each["behind_ms"], age["p50"], age["p99"])
        rows.append(
            [camera["name"], camera["memory"], str(camera["copies"]), str(each["bytes_per_set"]),
             str(camera["frames"]), *drops, *(f"{number:.1f}" for number in numbers)]
        )  # fmt: skip
    return {"title": "Each camera", "header": header, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
