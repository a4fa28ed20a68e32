"""`make kernel-test`: tests/kernel in a guest, on the kernel's virtual cameras.

Packages are installed only as root and with CI or FSMDE_APT=1 set; otherwise the command is printed, no more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import guest
import image
from bundle import small_bundle

TESTS = ("-m", "pytest", "tests/kernel", "-q", "-ra", "-o", "addopts=", "-p", "no:cacheprovider",
         "--confcutdir=tests/kernel")  # fmt: skip
LIMIT = 480
"""Seconds for booting and all tests."""


def main() -> int:
    """The tests' status; 0 and a line that says SKIPPED where the guest cannot be made."""
    if lacking := image.missing():
        if not _may_install():
            print(f"as root: {image.INSTALL}")
            print(f"SKIPPED: kernel-test needs {', '.join(lacking)} (as root, FSMDE_APT=1 installs them)")
            return 0
        subprocess.run(["sh", "-c", image.INSTALL], stdout=subprocess.DEVNULL, check=True)
    if not (guest.CACHE / "kernel").is_dir() and not _may_install():
        print("FSMDE_APT=1 make kernel-test")
        print("SKIPPED: kernel-test needs Debian's kernel package; the command above fetches it, as root")
        return 0
    os.environ["FSMDE_KERNEL_BUNDLE"] = str(small_bundle(guest.CACHE))
    with tempfile.TemporaryDirectory() as share:
        command = [str(Path(sys.executable)), *TESTS, *sys.argv[1:]]
        return guest.run(command, Path(share), vivid=guest.vivid_options(), timeout=LIMIT)


def _may_install() -> bool:
    return os.geteuid() == 0 and bool(os.environ.get("CI") or os.environ.get("FSMDE_APT") == "1")


if __name__ == "__main__":
    sys.exit(main())
