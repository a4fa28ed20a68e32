"""`make soak`: six cameras start and stop, and stream for long: does anything grow? docs/results/soak.json.

    python tools/soak.py [--cycles 1000] [--sets 20000] [--fresh]

In the guest of `make kernel-test`, at 320x180. Each half is a boot of its own and is kept once it is done: a
soak that was interrupted goes on with the other half; --fresh begins again. Exit 1 if anything grew.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "kernel"))

import guest
import image

from fsmde_edge.files import atomic_write
from fsmde_edge.inference.machine import processor

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "soak.json"
KEPT = guest.CACHE / "soak"
WARM = 0.1
"""Share of the samples that do not count yet: caches and allocators fill."""

MEMORY = 0.01
"""Share by which resident memory may differ at the end."""

EDGE = 5
"""Samples whose median is the beginning, and the end."""


def main() -> int:
    """Run what is not kept, judge, record."""
    parser = argparse.ArgumentParser(description="Six virtual cameras for long.")
    parser.add_argument("--cycles", type=int, default=1000, help="starts and stops (1000)")
    parser.add_argument("--sets", type=int, default=20_000, help="of one stream (20000)")
    parser.add_argument("--fresh", action="store_true", help="keep nothing of an earlier run")
    parser.add_argument("--record", type=Path, default=RECORD, metavar="FILE")
    parser.add_argument("--timeout", type=float, default=3600, metavar="S", help="of each half")
    options = parser.parse_args()
    if lacking := image.missing():
        print(f"as root: {image.INSTALL}\nSKIPPED: soak needs {', '.join(lacking)}")
        return 0
    found = []
    for phase, count in (("cycles", options.cycles), ("sets", options.sets)):
        made = _run(phase, count, fresh=options.fresh, timeout=options.timeout)
        if made is None:
            return guest.GUEST_FAILED
        found.append(made)
        print("\n".join(f"{phase}: {line}" for line in judged(made)))
    record = {
        "data": "six vivid cameras, YUYV 320x180, in a guest emulated by QEMU (TCG, 2 CPUs)",
        "machine": processor(),
        "runs": found,
        "tables": [_table(found)],
    }
    atomic_write(options.record, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    return 1 if any(growth(made) for made in found) else 0


def _run(phase: str, count: int, *, fresh: bool, timeout: float) -> dict[str, Any] | None:
    kept = KEPT / f"{phase}-{count}.json"
    if fresh:
        kept.unlink(missing_ok=True)
    if not kept.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        script = str(ROOT / "tools" / "kernel" / "soak_run.py")
        command = [sys.executable, script, phase, str(count), f"/run/guest-share/{kept.name}"]
        vivid = guest.vivid_options(6)
        if guest.run(command, KEPT, vivid=vivid, timeout=timeout):
            return None
    return dict(json.loads(kept.read_text()))


def edges(made: dict[str, Any], key: str) -> tuple[float, float]:
    """What it was after the warm-up, and at the end."""
    samples = made["samples"][int(len(made["samples"]) * WARM) :]
    values = [sample[key] for sample in samples]
    return statistics.median(values[:EDGE]), statistics.median(values[-EDGE:])


def growth(made: dict[str, Any]) -> list[str]:
    """What grew; nothing if all is well."""
    found = []
    for key in ("fds", "threads", "tasks"):
        first, last = edges(made, key)
        if last > first:
            found.append(f"{key} grew from {first:g} to {last:g}")
    first, last = edges(made, "resident_kib")
    if last > first * (1 + MEMORY):
        found.append(f"memory grew from {first / 1024:.1f} to {last / 1024:.1f} MiB")
    found += [f"blocks outlive their set: {each}" for each in made.get("survivors", ())]
    return found


def judged(made: dict[str, Any]) -> list[str]:
    """In words."""
    return growth(made) or [f"{made['count']} in {made['seconds']:.0f} s, nothing grew"]


def _table(found: list[dict[str, Any]]) -> dict[str, Any]:
    header = [
        "", "number", "seconds", "descriptors", "threads", "resident MiB", "change",
        "blocks that outlive a set", "age ms",
    ]  # fmt: skip
    rows = []
    for made in found:
        first, last = edges(made, "resident_kib")
        pairs = ["{:g} → {:g}".format(*edges(made, key)) for key in ("fds", "tasks")]
        survivors = made.get("survivors")
        rows.append(
            [
                {"cycles": "start and stop", "sets": "one stream"}[made["phase"]],
                str(made["count"]),
                f"{made['seconds']:.0f}",
                *pairs,
                f"{first / 1024:.1f} → {last / 1024:.1f}",
                f"{last / first - 1:+.2%}",
                "" if survivors is None else str(len(survivors)),
                "{:.0f} → {:.0f}".format(*edges(made, "age_ms")) if survivors is not None else "",
            ]
        )
    return {"title": "After the warm-up, and at the end", "header": header, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
