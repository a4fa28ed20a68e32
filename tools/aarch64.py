"""Install and run the package in a Debian arm64 userland that QEMU emulates, into docs/results/aarch64.json.

    sudo python tools/aarch64.py BUNDLE [--work runs/aarch64]

debootstrap fills a folder, pip on this side fetches wheels for aarch64 alone, and inside (chroot, programs
translated by qemu-user) the project's own wheel is installed from them; then the V4L2 struct test runs there
against the arm64 kernel headers, and `run --frames 2` on the bundle, whose depth is held against this side's.
Root is needed for chroot and for telling the kernel of the translator. Exit 1 if a step fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsmde_edge.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "aarch64.json"
PROGRAM = str(Path(sys.executable).with_name("fsmde-edge"))
PACKAGES = ("qemu-user-static", "debootstrap")
SUITE, PYTHON = "bookworm", "3.11"
INSIDE = ("python3-venv", "gcc", "libc6-dev", "linux-libc-dev")
PLATFORMS = (
    "manylinux_2_28_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux2014_aarch64",
)
TRANSLATOR = Path("/usr/bin/qemu-aarch64-static")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
MAGIC = (
    r":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    f":{TRANSLATOR}:F"
)
"""ELF, 64 bits, little-endian, a program or a library, of machine 183; F: opened now, so a chroot sees it."""


def main() -> int:
    """Fill the userland where it is missing, install, test, run, record."""
    parser = argparse.ArgumentParser(description="The package on aarch64, emulated.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "aarch64")
    options = parser.parse_args()
    missing = [name for name in ("debootstrap", "qemu-aarch64-static") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        sys.exit(f"needs root and: apt-get install --no-install-recommends {' '.join(PACKAGES)}")
    root = options.work / "root"
    translate()
    fill(root)
    wheel = install(root, options.work / "wheels")
    structs = inside(
        root, "/venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "/test_structs.py"
    )
    start = time.monotonic()
    deviation = run_both(root, options.bundle, options.work)
    seconds = time.monotonic() - start
    python = inside(root, "/venv/bin/python", "--version").strip()
    runtime = inside(root, "/venv/bin/python", "-c", "import onnxruntime as o; print(o.__version__)").strip()
    tested = structs.strip().splitlines()[-1].partition(" in ")[0]
    rows = [[precision, f"{value:.1%}"] for precision, value in deviation.items()]
    title = "run --frames 2 there and here"
    record = {
        "data": f"Debian {SUITE} arm64 under qemu-user, {python}, ONNX Runtime {runtime}, {wheel}; "
        f"V4L2 structs against the arm64 headers: {tested}; {seconds:.0f} s for both runs there and here",
        "machine": inside(
            root, "/venv/bin/python", "-c", "import platform; print(platform.machine())"
        ).strip(),
        "tables": [{"title": title, "header": ["", "largest relative difference of depth"], "rows": rows}],
    }
    atomic_write(RECORD, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    print(json.dumps(record, indent=1, ensure_ascii=False))
    return 0


def translate() -> None:
    """Tell the kernel who runs aarch64 programs."""
    if not (BINFMT / "register").exists():
        call("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT))
    if not (BINFMT / "qemu-aarch64").exists():
        (BINFMT / "register").write_text(MAGIC)


def fill(root: Path) -> None:
    """A userland with Python, a compiler and the kernel's headers."""
    done = root / ".filled"
    if not done.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        call(
            "debootstrap",
            "--arch=arm64",
            "--variant=minbase",
            f"--include={','.join(INSIDE)}",
            SUITE,
            str(root),
        )
        done.touch()


def install(root: Path, wheels: Path) -> str:
    """Fetch wheels for aarch64 and install ours from them; its name."""
    shutil.rmtree(wheels, ignore_errors=True)
    pip = [sys.executable, "-m", "pip"]
    call(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
    (own,) = wheels.glob("*.whl")
    platforms = [f"--platform={name}" for name in PLATFORMS]
    binary = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms]
    call(*pip, "download", "--quiet", *binary, "--dest", str(wheels), str(own), "pytest")
    shutil.rmtree(root / "wheels", ignore_errors=True)
    shutil.copytree(wheels, root / "wheels")
    shutil.copy(ROOT / "tests" / "capture" / "v4l2" / "test_structs.py", root / "test_structs.py")
    inside(root, "python3", "-m", "venv", "--clear", "/venv")
    offline = ("--quiet", "--no-index", "--find-links", "/wheels")
    inside(root, "/venv/bin/pip", "install", *offline, f"/wheels/{own.name}", "pytest")
    return own.name


def run_both(root: Path, bundle: Path, work: Path) -> dict[str, float]:
    """`run --frames 2` on both sides: each model's largest relative difference of depth.

    Each side renders its own pictures: a grey level's difference there is in it.
    """
    shutil.rmtree(root / "bundle", ignore_errors=True)
    shutil.copytree(bundle, root / "bundle")
    found = {}
    for precision in ("fp32", "int8"):
        out = Path("out") / precision
        common = ("--source", "synthetic", "--frames", "2", "--format", "npz", "--precision", precision)
        for side in (root / out, work / out):
            shutil.rmtree(side, ignore_errors=True)
        inside(root, "/venv/bin/fsmde-edge", "run", "/bundle", *common, "--out", f"/{out}")
        call(PROGRAM, "run", str(bundle), *common, "--out", str(work / out))
        found[precision] = largest_difference(root / out, work / out)
    return found


def largest_difference(there: Path, here: Path) -> float:
    """Of all depths in two folders of the same names."""
    names = sorted(path.relative_to(here) for path in here.rglob("*.npz"))
    assert names, "nothing was written"
    worst = 0.0
    for name in names:
        with np.load(there / name) as one, np.load(here / name) as other:
            a, b = one["depth"].astype(np.float64), other["depth"].astype(np.float64)
            assert ((a > 0) == (b > 0)).all(), "other pixels are valid"
            worst = max(worst, float((np.abs(a - b)[b > 0] / b[b > 0]).max()))
    return worst


def inside(root: Path, *command: str) -> str:
    """Run in the userland; what it printed."""
    clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
    return call("chroot", str(root), *command, env=clean)


def call(*command: str, env: dict[str, str] | None = None) -> str:
    """Run; what it printed. Ends the program where it fails."""
    result = subprocess.run(command, check=False, env=env, text=True, capture_output=True)
    if result.returncode:
        said = (result.stdout + result.stderr)[-2000:]
        sys.exit(f"{_line(command)} failed with {result.returncode}:\n{said}")
    return result.stdout


def _line(command: Sequence[str]) -> str:
    return " ".join(command)


if __name__ == "__main__":
    sys.exit(main())
