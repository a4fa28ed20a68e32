"""The seam below which the operating system lies: everything that capture asks of it about a camera."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path
from typing import Any, Protocol


class Kernel(Protocol):
    """Five calls; refusals are OSError. A fake implements them without a driver (see `fake`)."""

    def open(self, path: str) -> int:
        """Open a node for streaming; the descriptor can be polled."""

    def close(self, fd: int) -> None:
        """Close a descriptor that `open` or EXPBUF gave."""

    def ioctl(self, fd: int, request: int, argument: Any) -> object:
        """Carry out a request; the structure is changed in place."""

    def map(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """Map a driver's buffer, or a dmabuf, for reading and writing."""

    def nodes(self) -> list[str]:
        """Paths of the video nodes there are, in the order of their numbers."""


class LinuxKernel:
    """The real one."""

    ioctl = staticmethod(fcntl.ioctl)  # no frame of our own on the path that every picture takes

    def open(self, path: str) -> int:
        """Open without waiting."""
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        """Close."""
        os.close(fd)

    def map(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """Map, shared."""
        return mmap.mmap(fd, length, offset=offset)

    def nodes(self) -> list[str]:
        """All /dev/videoN."""
        numbers = (path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
        return [f"/dev/video{number}" for number in sorted(filter(str.isdecimal, numbers), key=int)]
