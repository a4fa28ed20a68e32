"""What the guest boots: Debian's own kernel package, unpacked, and a small initramfs with its modules."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay", "vivid")
PACKAGES = ("qemu-system-x86", "busybox-static", "cpio", "kmod")
PROGRAMS = ("qemu-system-x86_64", "busybox", "cpio", "depmod", "modprobe", "dpkg", "apt-get")
INSTALL = f"apt-get update && apt-get install -y --no-install-recommends {' '.join(PACKAGES)}"
INIT = Path(__file__).with_name("init.sh")
SEARCHED = f"{os.environ.get('PATH', os.defpath)}:/sbin:/usr/sbin"


@dataclass(frozen=True, slots=True)
class Image:
    """What QEMU is given."""

    kernel: Path
    initramfs: Path


def program(name: str) -> str | None:
    """Where a program lies; Debian keeps some in /sbin, which users do not search."""
    return shutil.which(name, path=SEARCHED)


def missing() -> list[str]:
    """Programs that the guest needs and this machine lacks."""
    return [name for name in PROGRAMS if program(name) is None]


def build(cache: Path) -> Image:
    """The image, from the cache where it was built before."""
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / "kernel"
    if not (root / "boot").is_dir():
        _fetch(cache, root)
    kernel = next((root / "boot").glob("vmlinuz-*"))
    version = kernel.name.removeprefix("vmlinuz-")
    key = hashlib.sha256(f"{INIT.read_text()}{version}{MODULES}".encode()).hexdigest()[:12]
    initramfs = cache / f"initramfs-{key}.gz"
    if not initramfs.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _fill(Path(folder), root, version)
            _pack(Path(folder), initramfs)
    return Image(kernel, initramfs)


def _fetch(cache: Path, root: Path) -> None:
    """Download the package that linux-image-amd64 stands for, and unpack it; nothing is installed."""
    depends = _output("apt-cache", "depends", "linux-image-amd64")
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise SystemExit("apt knows no linux-image-amd64: run apt-get update on a Debian machine")
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        where = Path(folder)
        _call("apt-get", "-o", "APT::Sandbox::User=root", "download", found[1], cwd=where)
        _call("dpkg", "-x", str(next(where.glob("*.deb"))), str(where / "tree"))
        version = next((where / "tree/boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
        _call("depmod", "-b", str(where / "tree"), version)
        (where / "tree").rename(root)


def _fill(folder: Path, root: Path, version: str) -> None:
    for name in ("bin", "sbin", "proc", "sys", "dev", "root"):
        (folder / name).mkdir()
    shutil.copy(str(program("busybox")), folder / "bin/busybox")
    shutil.copy(INIT, folder / "init")
    (folder / "init").chmod(0o755)
    own = Path("lib/modules") / version
    for module in MODULES:
        listed = _output("modprobe", "-d", str(root), "-S", version, "--show-depends", module)
        for line in listed.splitlines():
            if line.startswith("insmod"):
                source = Path(line.split()[1])
                target = folder / source.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    for table in (root / own).glob("modules.*"):
        if table.name.startswith(("modules.order", "modules.builtin")):
            shutil.copy(table, folder / own)
    _call("depmod", "-b", str(folder), version)


def _pack(folder: Path, target: Path) -> None:
    names = "\0".join(str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    archive = subprocess.run(
        [str(program("cpio")), "-0", "-o", "-H", "newc", "--quiet"],
        input=names.encode(),
        cwd=folder,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_bytes(gzip.compress(archive, 1))
    unfinished.replace(target)


def _call(name: str, *arguments: str, cwd: Path | None = None) -> None:
    subprocess.run([str(program(name) or name), *arguments], cwd=cwd, stdout=subprocess.DEVNULL, check=True)


def _output(name: str, *arguments: str) -> str:
    command = [str(program(name) or name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
