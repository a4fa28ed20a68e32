"""How long a whole build takes and where the time goes, into docs/results/build.json.

    python tools/measure_build.py [--sets 64] [--size 384 640] [--threads 2] [--work runs/build]

Synthetic streets are written once as a DGP data set (that is not timed) and read from there, as a recording
would be. Stages are what `build` says it does, timed from line to line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from fsmde_edge.files import atomic_write
from fsmde_edge.inference.machine import processor

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "build.json"
PROGRAM = str(Path(sys.executable).with_name("fsmde-edge"))
RECIPE = """\
version: 1
size: [{height}, {width}]
data:
  - {{path: train, split: train}}
gate:
  - {{split: dev, count: 4, seed: 5}}
"""


def main() -> int:
    """Write the data where they are missing, build, record."""
    parser = argparse.ArgumentParser(description="How long a build takes.")
    parser.add_argument("--sets", type=int, default=64)
    parser.add_argument("--size", nargs=2, type=int, default=[384, 640], metavar=("H", "W"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "build")
    options = parser.parse_args()
    height, width = options.size
    options.work.mkdir(parents=True, exist_ok=True)
    data = options.work / "train"
    if not data.is_dir():
        size = ["--size", str(height), str(width)]
        subprocess.run(
            [
                PROGRAM,
                "synth",
                str(data),
                "--split",
                "train",
                "--scenes",
                str(options.sets),
                "--length",
                "1",
                *size,
            ],
            check=True,
        )
    recipe = options.work / "recipe.yaml"
    recipe.write_text(RECIPE.format(height=height, width=width), encoding="utf-8")
    stages = timed_build(recipe, options.work, options.threads)
    whole = sum(stages.values())
    rows = [[what, f"{seconds:.1f}", f"{seconds / whole:.0%}"] for what, seconds in stages.items()]
    rows.append(["in all", f"{whole:.1f}", ""])
    title = (
        f"build --precision int8, {options.sets} frame sets, 6×{height}×{width}, {options.threads} threads"
    )
    table = {"title": title, "header": ["", "seconds", "share"], "rows": rows}
    record = {"data": "synthetic streets as a DGP data set", "machine": processor(), "tables": [table]}
    atomic_write(RECORD, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    return 0


def timed_build(recipe: Path, work: Path, threads: int) -> dict[str, float]:
    """What `build` says it does next, to the seconds until it says something else."""
    arguments = ["--calib", str(recipe), "--data-root", str(work), "--out", str(work / "bundle"), "--force"]
    child = subprocess.Popen(
        [PROGRAM, "build", "--precision", "int8", "--threads", str(threads), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    start, stage, stages = time.monotonic(), "starting Python", dict[str, float]()
    for line in child.stdout:
        now = time.monotonic()
        stages[stage] = stages.get(stage, 0.0) + now - start
        start, stage = now, line.strip() if line.startswith(STAGES) else stage
        print(line, end="", flush=True)
    child.wait()
    stages[stage] = stages.get(stage, 0.0) + time.monotonic() - start
    return stages


STAGES = ("reading", "calibrating", "choosing", "searching", "comparing", "learning", "correcting")
"""How the lines begin with which `build` starts something."""


if __name__ == "__main__":
    sys.exit(main())
