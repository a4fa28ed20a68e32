"""`make demo`: build, check, run, and one table at the end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

DEMO = Path("build/demo")
PROGRAM = str(Path(sys.executable).with_name("fsmde-edge"))


def main() -> int:
    """Run the main job; the exit code of the first step that fails."""
    start = time.monotonic()
    bundle = str(DEMO / "bundle")
    table = DEMO / "table.json"
    steps = (
        ("build", "--precision", "int8", "--out", bundle, "--force"),
        ("check", bundle, "--report", str(DEMO / "report.html"), "--table", str(table)),
        ("run", bundle, "--source", "synthetic", "--frames", "4",
         "--out", str(DEMO / "depth"), "--mosaic", str(DEMO / "mosaic.png")),
    )  # fmt: skip
    for step in steps:
        print(f"\n$ fsmde-edge {' '.join(step)}", flush=True)
        code = subprocess.run((PROGRAM, *step), check=False).returncode
        if code:
            return code
    print(f"\n{_as_text(json.loads(table.read_text(encoding='utf-8'))['tables'][0])}")
    print(f"\nleft in {DEMO}: bundle/ table.json mosaic.png report.html depth/")
    print(f"demo: {time.monotonic() - start:.0f} s after install")
    return 0


def _as_text(table: dict[str, object]) -> str:
    from fsmde_edge.evaluation.report import Table

    return Table(**table).as_text()  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
