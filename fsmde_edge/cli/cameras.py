"""fsmde-edge cameras: what is plugged in, what it gives, and which of them could be which camera of a rig."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fsmde_edge.capture.devices import Device

EXAMPLES = """examples:
  fsmde-edge cameras
  fsmde-edge cameras --all --json
  fsmde-edge cameras --rig rig.yaml        # proposes which device is which camera
"""

SHOWN = 4
"""Sizes of a format that are shown without --all: the largest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `cameras`."""
    parser.add_argument("--rig", type=Path, metavar="YAML", help="the rig whose cameras they are to be")
    parser.add_argument("--all", action="store_true", help="every size of every format")
    parser.add_argument("--json", action="store_true", help="everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Print every camera; exit 5 if there is none."""
    import json
    from dataclasses import asdict

    from fsmde_edge.capture.devices import find_devices
    from fsmde_edge.datasets.rigfile import load_rig
    from fsmde_edge.errors import DeviceError

    ring = () if args.rig is None else load_rig(args.rig).names
    devices, troubles = find_devices()
    if args.json:
        found = [asdict(device) for device in devices]
        print(json.dumps({"cameras": found, "troubles": troubles}, indent=1))
    else:
        for line in (*_lines(devices, everything=args.all), *troubles):
            print(line)
    if not devices:
        raise DeviceError(
            "no camera that streams is plugged in",
            hint="check cable and power, and see dmesg; without one: fsmde-edge run --source synthetic",
        )
    if not args.json:
        print(_proposal(devices, ring))
    return 0


def _lines(devices: Sequence[Device], *, everything: bool) -> Iterator[str]:
    for device in devices:
        yield f"{device.path}  {device.card} ({device.driver}, {device.bus})"
        if device.by_path:
            yield f"  {device.by_path}"
        for format in dict.fromkeys(mode.format for mode in device.modes):
            modes = [mode for mode in device.modes if mode.format == format]
            modes.sort(key=lambda mode: -mode.width * mode.height)
            shown = modes if everything else modes[:SHOWN]
            each = ", ".join(
                f"{mode.width}x{mode.height}" + (f" at {mode.rate:g}" if mode.rate else "") for mode in shown
            )
            yield f"  {format:5s} {each}{'' if len(shown) == len(modes) else ', ...'}"
        if device.others:
            yield f"  not taken: {' '.join(device.others)}"


def _proposal(devices: Sequence[Device], ring: Sequence[str]) -> str:
    if not ring:
        names = ",".join(device.best_name for device in devices)
        return f"in ring order as you like, or give --rig: --cameras {names}"
    if len(devices) < len(ring):
        return f"the rig has {len(ring)} cameras, {len(devices)} are plugged in: no mapping to propose"
    pairs = ",".join(f"{camera}={device.best_name}" for camera, device in zip(ring, devices, strict=False))
    return f"by bus, in ring order; look at pictures and swap what is wrong: --cameras {pairs}"
