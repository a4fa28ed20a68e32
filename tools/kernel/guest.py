"""Run a command in a guest that has the kernel's own virtual cameras, /dev/video0 and on.

    python tools/kernel/guest.py [--vivid OPTIONS] [--boot OPTIONS] [--timeout S] -- COMMAND ...

QEMU emulates the machine: KVM is not needed, only the programs of `image.PACKAGES`. The guest sees the host's
files read-only at their own paths, below a tmpfs: what it writes vanishes, but for what it writes to
/run/guest-share (here: --share). Ends with the command's status; 124: out of time, 125: the guest failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import image

CAMERAS = 8
PLANAR, CONTIGUOUS = 6, 7
"""The camera that speaks the multi-planar half of V4L2, and the one whose memory cannot be ours."""

TIMED_OUT, GUEST_FAILED = 124, 125
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fsmde-edge" / "kernel"
DROPPED = {"PWD", "OLDPWD", "SHLVL", "_"}


def vivid_options(cameras: int = CAMERAS) -> str:
    """Options of vivid: capture nodes alone, one webcam input each."""
    everyone = {"node_types": "0x1", "num_inputs": "1", "input_types": "0"}
    lists = {name: ",".join([value] * cameras) for name, value in everyone.items()}
    lists["multiplanar"] = ",".join("2" if i == PLANAR else "1" for i in range(cameras))
    lists["allocators"] = ",".join("1" if i == CONTIGUOUS else "0" for i in range(cameras))
    return " ".join([f"n_devs={cameras}", *(f"{name}={value}" for name, value in lists.items())])


def main() -> int:
    """Boot, run, power off."""
    parser = argparse.ArgumentParser(description="Run a command beside the kernel's virtual cameras.")
    parser.add_argument("--vivid", default=vivid_options(), metavar="OPTIONS")
    parser.add_argument("--boot", default="", metavar="OPTIONS", help="more options of the guest's kernel")
    parser.add_argument("--timeout", type=float, default=300, metavar="S")
    parser.add_argument(
        "--share", type=Path, metavar="DIR", help="kept; seen in the guest as /run/guest-share"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if lacking := image.missing():
        print(f"guest: {', '.join(lacking)} missing; as root: {image.INSTALL}", file=sys.stderr)
        return GUEST_FAILED
    with tempfile.TemporaryDirectory() as folder:
        share = (options.share or Path(folder)).resolve()
        share.mkdir(parents=True, exist_ok=True)
        return run(command, share, vivid=options.vivid, timeout=options.timeout, boot=options.boot)


def run(command: list[str], share: Path, *, vivid: str, timeout: float, boot: str = "") -> int:
    """Run a command in the guest; its status.

    Args:
        command: a program and its arguments.
        share: a folder that both sides see.
        vivid: its module options.
        timeout: seconds until it is killed.
        boot: more options of the guest's kernel.
    """
    for stale in ("status", "failed"):
        (share / stale).unlink(missing_ok=True)
    (share / "vivid").write_text(vivid)
    (share / "command.sh").write_text(_script(command))
    try:
        subprocess.run(
            _qemu(image.build(CACHE), share, boot), stdin=subprocess.DEVNULL, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"guest: not done after {timeout:g} s", file=sys.stderr)
        return TIMED_OUT
    status = share / "status"
    return int(status.read_text()) if status.exists() else GUEST_FAILED


def _script(command: list[str]) -> str:
    names = (name for name in os.environ if re.fullmatch(r"[A-Za-z_]\w*", name) and name not in DROPPED)
    exports = "".join(f"export {name}={shlex.quote(os.environ[name])}\n" for name in names)
    return f"{exports}cd {shlex.quote(str(Path.cwd()))} || exit {GUEST_FAILED}\n{shlex.join(command)}\n"


def _qemu(made: image.Image, share: Path, boot: str) -> list[str]:
    folder = "local,path={},mount_tag={},security_model=none,multidevs=remap"
    return [
        str(image.program("qemu-system-x86_64")),
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-m", "3072", "-smp", "2"),
        *("-nographic", "-no-reboot", "-nic", "none"),
        *("-kernel", str(made.kernel), "-initrd", str(made.initramfs)),
        *("-append", f"console=ttyS0 quiet panic=-1 mitigations=off {boot}"),
        *("-virtfs", folder.format("/", "host") + ",readonly=on"),
        *("-virtfs", folder.format(share, "share")),
    ]


if __name__ == "__main__":
    sys.exit(main())
