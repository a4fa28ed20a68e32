"""fsmde-edge cameras: what is plugged in, what it gives, and which of them could be which camera of a rig."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.cli.live import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fsmde_edge.capture.devices import Device
    from fsmde_edge.capture.offsets import Offset
    from fsmde_edge.capture.v4l2.camera import Settings

EXAMPLES = """examples:
  fsmde-edge cameras
  fsmde-edge cameras --all --json
  fsmde-edge cameras --rig rig.yaml        # proposes which device is which camera
  fsmde-edge cameras --sync --rig rig.yaml # learns what to add to each camera's stamps, writes it there
"""

SECONDS = 20.0
SHOWN = 4
"""Sizes of a format that are shown without --all: the largest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `cameras`."""
    parser.add_argument("--rig", type=Path, metavar="YAML", help="the rig whose cameras they are to be")
    parser.add_argument("--all", action="store_true", help="every size of every format")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    group = parser.add_argument_group("sync", "learning offset_ms of cameras that one trigger exposes")
    group.add_argument(
        "--sync",
        action="store_true",
        help="compare the stamps of live cameras with the first's, and write offset_ms into the rig file",
    )
    group.add_argument(
        "--cameras", nargs="+", metavar="DEVICE", help="as for run; without it, the rig file's devices"
    )
    group.add_argument("--seconds", type=seconds, metavar="S", help="to measure for (default: 20)")
    parser.set_defaults(cameras=None)


def run(args: argparse.Namespace) -> int:
    """Print every camera, or learn their offsets; exit 5 if there is none."""
    if args.sync:
        return _sync(args)
    _refuse_sync_arguments(args)
    return _list(args)


def _list(args: argparse.Namespace) -> int:
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


def _refuse_sync_arguments(args: argparse.Namespace) -> None:
    from fsmde_edge.errors import UsageError

    for name in ("cameras", "seconds"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} goes with --sync", hint="add --sync, or leave it away")


def _sync(args: argparse.Namespace) -> int:
    """Learn offsets from live cameras; into the rig file where there is one."""
    from fsmde_edge.capture.offsets import learn_offsets, record_stamps
    from fsmde_edge.datasets.rigfile import load_plugged, set_offsets
    from fsmde_edge.errors import UsageError
    from fsmde_edge.files import check_writable

    for name in ("all", "json"):
        if getattr(args, name):
            raise UsageError(f"--{name} does not go with --sync", hint="leave it away")
    devices, settings = _meant(args)
    if args.rig is not None:
        check_writable(args.rig)
    wait = SECONDS if args.seconds is None else args.seconds
    print(f"comparing the stamps of {len(devices)} cameras for {wait:g} s; they must share one trigger")
    offsets = learn_offsets(record_stamps(devices, settings, wait))
    first = 0.0 if args.rig is None else load_plugged(args.rig)[next(iter(offsets))].offset_ms
    added = {name: round(first + offset.offset_ms, 3) + 0.0 for name, offset in offsets.items()}
    for line in _offset_lines(offsets, added):
        print(line)
    if args.rig is None:
        print("nothing was written: --rig FILE names the rig file that offset_ms is to go into")
    else:
        set_offsets(args.rig, added)
        print(f"wrote offset_ms into {args.rig}")
    return 0


def _meant(args: argparse.Namespace) -> tuple[dict[str, str], dict[str, Settings]]:
    """Camera to device, and how each is to be opened."""
    from dataclasses import replace

    from fsmde_edge.capture.devices import expand, name_cameras
    from fsmde_edge.capture.plugged import plugged_specs
    from fsmde_edge.capture.v4l2.camera import Settings
    from fsmde_edge.datasets.rigfile import load_rig
    from fsmde_edge.errors import UsageError

    if args.rig is None:
        if args.cameras is None:
            raise UsageError("--sync lacks cameras", hint="give --rig FILE or --cameras DEVICES")
        paths = expand(args.cameras)
        devices, settings = dict(zip(paths, paths, strict=True)), dict.fromkeys(paths, Settings())
    else:
        rig = load_rig(args.rig)
        devices = name_cameras(args.cameras or plugged_specs(args.rig), rig.names)
        sizes = {camera.name: (camera.width, camera.height) for camera in rig.cameras}
        settings = {name: replace(Settings(), size=size) for name, size in sizes.items()}
    if len(devices) < 2:
        raise UsageError("--sync compares cameras, and one is named", hint="name all that share the trigger")
    return devices, settings


def _offset_lines(offsets: Mapping[str, Offset], added: Mapping[str, float]) -> Iterator[str]:
    width = max(map(len, offsets))
    for number, (name, offset) in enumerate(offsets.items()):
        if number == 0:
            yield f"{name:{width}s}  offset_ms {added[name]:8.3f}  the others are compared with it"
            continue
        yield (
            f"{name:{width}s}  offset_ms {added[name]:8.3f}  spread ± {offset.spread_ms:.3f} ms, "
            f"drift {offset.drift_ppm:+.1f} ± {offset.drift_error_ppm:.1f} ppm, {offset.matched} pictures"
        )
    yield (
        "stamps cannot tell exposures that begin apart or last unequally long: photograph one flashing light "
        "with all cameras to see those"
    )
