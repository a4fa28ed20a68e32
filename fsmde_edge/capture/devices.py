"""Cameras by name: which nodes a command line means, and what there is on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.formats import KNOWN
from fsmde_edge.capture.v4l2.ioctls import Node, formats, open_node, rates, sizes
from fsmde_edge.capture.v4l2.kernel import Kernel, LinuxKernel
from fsmde_edge.errors import UsageError

BY_PATH = Path("/dev/v4l/by-path")
RANGE = re.compile(r"(.*?)([0-9]{1,4})-([0-9]{1,4})")
MOST = 64
"""Devices that one name may stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One size in one pixel format, and the most pictures a second there; 0 if the driver does not say."""

    format: str
    width: int
    height: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A camera on this machine.

    Attributes:
        path: its node, whose number may change from boot to boot.
        by_path: a name that names the socket it is plugged into; empty where the system keeps none.
        card, driver, bus: what it calls itself and where it is.
        modes: what it gives, in formats that we understand.
        others: pixel formats that it offers besides.
    """

    path: str
    by_path: str
    card: str
    driver: str
    bus: str
    modes: tuple[Mode, ...] = field(default=())
    others: tuple[str, ...] = field(default=())

    @property
    def best_name(self) -> str:
        """What to call it on a command line."""
        return self.by_path or self.path


def find_devices(kernel: Kernel | None = None, *, by_path: Path = BY_PATH) -> tuple[list[Device], list[str]]:
    """All cameras of this machine, by bus and number, and what could not be asked: one line each.

    Args:
        kernel: a fake; the operating system if None.
        by_path: where the system keeps names by socket.
    """
    system, found, troubles = kernel or LinuxKernel(), [], []
    names = _names_by_node(by_path)
    for path in system.nodes():
        try:
            node = open_node(path, system)
        except CameraError as error:
            if error.number:  # 0: a node of another kind, such as a webcam's metadata
                troubles.append(str(error))
            continue
        try:
            found.append(_described(node, names.get(path, "")))
        except CameraError as error:
            troubles.append(str(error))
        finally:
            node.close()
    return sorted(found, key=lambda device: (device.bus, _natural(device.path))), troubles


def expand(specs: Sequence[str], kernel: Kernel | None = None, *, by_path: Path = BY_PATH) -> list[str]:
    """The nodes that a command line names, in its order.

    Args:
        specs: each a node, a range (/dev/video0-5), a glob, a name below /dev/v4l/by-path, or several of
            them with commas between.
        kernel: a fake; the operating system if None.
        by_path: where the system keeps names by socket.

    Errors:
        UsageError: a glob without a match, a range that runs backwards, or a device that is named twice.
    """
    system = kernel or LinuxKernel()
    given = [part for spec in specs for part in spec.split(",") if part]
    paths = [path for part in given for path in _meant(part, system, by_path)]
    if not paths:
        raise UsageError(
            "no camera is named", hint="write --cameras /dev/video0-5, or see: fsmde-edge cameras"
        )
    first: dict[str, str] = {}
    for path in paths:
        real = str(Path(path).resolve())
        if real in first:
            raise UsageError(
                f"the camera {path} is named twice", hint=f"leave out one; the other is {first[real]}"
            )
        first[real] = path
    return paths


def name_cameras(
    specs: Sequence[str], ring: Sequence[str], kernel: Kernel | None = None, *, by_path: Path = BY_PATH
) -> dict[str, str]:
    """Which device is which camera of a rig.

    Args:
        specs: as for `expand`, in ring order; or CAMERA=DEVICE, for all of them.
        ring: the rig's cameras in ring order.
        kernel: a fake; the operating system if None.
        by_path: where the system keeps names by socket.

    Returns:
        Camera to node, in ring order.

    Errors:
        UsageError: another number of devices than of cameras, or a camera that the rig does not have.
    """
    pairs = [part.partition("=") for spec in specs for part in spec.split(",") if part]
    named = {camera: device for camera, equals, device in pairs if equals}
    if not named:
        paths = expand(specs, kernel, by_path=by_path)
        _compare(len(paths), ring)
        return dict(zip(ring, paths, strict=True))
    if len(named) != len(pairs):
        raise UsageError(
            "some cameras are named and some are not", hint="write CAMERA=DEVICE for all or for none"
        )
    if unknown := sorted(set(named) - set(ring)):
        raise UsageError(f"the rig has no camera {', '.join(unknown)}", hint=f"it has {', '.join(ring)}")
    _compare(len(named), ring)
    paths = expand([named[camera] for camera in ring], kernel, by_path=by_path)
    _compare(len(paths), ring)
    return dict(zip(ring, paths, strict=True))


def _compare(devices: int, ring: Sequence[str]) -> None:
    if devices != len(ring):
        raise UsageError(
            f"{devices} devices are named, the rig has {len(ring)} cameras ({', '.join(ring)})",
            hint="name one device for each, in this order",
        )


def _meant(part: str, kernel: Kernel, by_path: Path) -> list[str]:
    if any(sign in part for sign in "*?["):
        matches = [name for name in _candidates(kernel, by_path) if fnmatchcase(name, part)]
        cameras = [name for name in sorted(matches, key=_natural) if _streams(name, kernel)]
        if not cameras:
            raise UsageError(f"no camera matches {part}", hint="fsmde-edge cameras lists what is there")
        return cameras
    span = RANGE.fullmatch(part)
    if span is None or part in _candidates(kernel, by_path):
        return [part]
    stem, first, last = span[1], int(span[2]), int(span[3])
    if not first <= last < first + MOST:
        raise UsageError(f"{part} is no range of cameras", hint="write it as /dev/video0-5")
    return [f"{stem}{number}" for number in range(first, last + 1)]


def _candidates(kernel: Kernel, by_path: Path) -> list[str]:
    return [*kernel.nodes(), *(str(path) for path in by_path.glob("*"))]


def _streams(path: str, kernel: Kernel) -> bool:
    try:
        open_node(path, kernel).close()
    except CameraError as error:
        return error.number != 0  # a camera that cannot be opened now is one all the same
    return True


def _names_by_node(by_path: Path) -> dict[str, str]:
    links = sorted(by_path.glob("*")) if by_path.is_dir() else []
    return {str(link.resolve()): str(link) for link in reversed(links)}


def _described(node: Node, by_path: str) -> Device:
    offered = list(dict.fromkeys(formats(node)))
    modes = [
        Mode(
            format=code,
            width=width,
            height=height,
            rate=float(max(rates(node, code, width, height), default=0)),
        )
        for code in KNOWN
        if code in offered
        for width, height in sizes(node, code)
    ]
    return Device(
        path=node.path,
        by_path=by_path,
        card=node.card,
        driver=node.driver,
        bus=node.bus,
        modes=tuple(modes),
        others=tuple(code for code in offered if code not in KNOWN),
    )


def _natural(name: str) -> tuple[object, ...]:
    """video10 comes after video9."""
    return tuple(part.zfill(6) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name))
