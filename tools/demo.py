"""`make demo`: build, check, run on a surround recording, and one table at the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from fsmde_edge.evaluation.report import Table

DEMO = Path("build/demo")
PROGRAM = str(Path(sys.executable).with_name("fsmde-edge"))


def main() -> int:
    """Run the main job; the exit code of the first step that fails."""
    start = time.monotonic()
    bundle, recording = str(DEMO / "bundle"), str(DEMO / "recording")
    shutil.rmtree(recording, ignore_errors=True)
    table = DEMO / "table.json"
    steps = (
        ("build", "--precision", "int8", "--out", bundle, "--force"),
        ("check", bundle, "--report", str(DEMO / "report.html"), "--table", str(table)),
        ("synth", recording, "--scenes", "1", "--length", "6"),
        ("run", bundle, "--source", recording,
         "--out", str(DEMO / "depth"), "--mosaic", str(DEMO / "mosaic.png")),
    )  # fmt: skip
    for step in steps:
        print(f"\n$ fsmde-edge {' '.join(step)}", flush=True)
        code = subprocess.run((PROGRAM, *step), check=False).returncode
        if code:
            return code
    summary = json.loads(table.read_text(encoding="utf-8"))["tables"][0]
    print(f"\n{Table(**summary).as_text()}")
    print(f"\nleft in {DEMO}: bundle/ table.json mosaic.png report.html depth/ recording/")
    print(f"demo: {time.monotonic() - start:.0f} s after install")
    return 0


if __name__ == "__main__":
    sys.exit(main())
