from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools/kernel/run_tests.py"


def test_without_its_programs_the_kernel_test_is_skipped_and_says_what_to_install(tmp_path):
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "FSMDE_APT")}
    environment = {**kept, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(TOOL)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told, skipped = done.stdout.splitlines()
    assert told.startswith(
        "as root: apt-get update && apt-get install -y --no-install-recommends qemu-system-x86"
    )
    assert skipped.startswith("SKIPPED: kernel-test needs qemu-system-x86_64")
    assert list(tmp_path.iterdir()) == []
