"""Options of commands that run cameras, and what they say of each camera at the end."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.cli.arguments import positive

if TYPE_CHECKING:
    from fsmde_edge.bundle import Bundle
    from fsmde_edge.capture.live import LiveReport, LiveSource
    from fsmde_edge.capture.source import Source
    from fsmde_edge.capture.tending import Outage
    from fsmde_edge.runtime import RunReport

LEAST_BUFFERS, MOST_BUFFERS = 6, 32
MOST_MS = 1e6
DEFAULTS = {
    "memory": "auto",
    "missing": "drop",
    "tolerance": None,
    "size": None,
    "pixel_format": None,
    "rate": None,
    "buffers": LEAST_BUFFERS,
    "max_age": 1000.0,
    "patience": 30.0,
}
"""Of the options that go with live pictures alone."""

MATCHING = ("missing", "tolerance", "max_age", "patience")
"""Those among them that go with GStreamer pipelines too."""


def add_camera_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that go with --cameras."""
    group = parser.add_argument_group(
        "cameras",
        "options that go with --cameras; --missing, --tolerance, --max-age and --patience with GStreamer "
        "pipelines too",
    )
    group.add_argument(
        "--memory",
        choices=("auto", "userptr", "dmabuf", "copy"),
        help="how pictures come from the driver: into our memory, in its own, or copied once "
        "(default: the first that it takes); one that is named and fails is an error",
    )
    group.add_argument(
        "--missing",
        choices=("drop", "mask"),
        help="a set that lacks a camera is dropped, or its view is marked invalid (default: drop)",
    )
    group.add_argument(
        "--tolerance",
        type=milliseconds,
        metavar="MS",
        help="most time between the first and the last exposure of a set (default: one period)",
    )
    group.add_argument(
        "--max-age",
        type=milliseconds,
        metavar="MS",
        help="depth of older pictures is marked invalid and written as none (default: 1000)",
    )
    group.add_argument("--size", type=size, metavar="WxH", help="of the pictures (default: the rig's)")
    group.add_argument("--pixel-format", metavar="CODE", help="such as UYVY (default: the best offered)")
    group.add_argument("--rate", type=rate, metavar="HZ", help="pictures a second (default: as it is set)")
    group.add_argument("--buffers", type=buffers, metavar="N", help="of each camera (default: 6)")
    group.add_argument(
        "--patience", type=seconds, metavar="S", help="without a set for so long, give up (default: 30)"
    )
    parser.set_defaults(**DEFAULTS)


def refuse_camera_arguments(args: argparse.Namespace) -> None:
    """What goes with cameras alone does not go with a recording, nor all of it with pipelines.

    Errors:
        UsageError: one of them was given.
    """
    from fsmde_edge.capture.gstreamer.names import is_pipeline
    from fsmde_edge.errors import UsageError

    allowed = MATCHING if is_pipeline(args.source[0]) else ()
    for name, default in DEFAULTS.items():
        if name not in allowed and getattr(args, name) != default:
            raise UsageError(f"--{name.replace('_', '-')} goes with --cameras", hint="leave it away")


def open_live(args: argparse.Namespace, bundle: Bundle) -> LiveSource:
    """Open the cameras that the command line names.

    Errors:
        UsageError: options that do not go together, or devices that do not fit the rig.
        InputError: a rig file that cannot be used, or one that does not fit the bundle.
        DeviceError: a camera that cannot be opened or does not give what was asked for.
    """
    from fsmde_edge.capture.devices import name_cameras
    from fsmde_edge.capture.live import LiveOptions, LiveSource
    from fsmde_edge.capture.plugged import plugged_specs, rig_and_offsets
    from fsmde_edge.capture.sync import Missing
    from fsmde_edge.capture.v4l2.buffers import Memory
    from fsmde_edge.capture.v4l2.camera import Settings
    from fsmde_edge.errors import UsageError
    from fsmde_edge.fit import refuse_other_count

    for name in ("split", "scenes"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} does not go with --cameras", hint=f"leave --{name} away")
    specs, rig_file = _rig_file(args)
    if rig_file is not None and args.size is not None:
        raise UsageError("--size does not go with a rig, whose calibration is for one size")
    rig, offsets = rig_and_offsets(rig_file, bundle.manifest.views)
    refuse_other_count(rig, bundle.manifest)
    devices = name_cameras(specs or plugged_specs(rig_file), rig.names)
    if rig_file is None:
        print(f"without --rig the devices are the bundle's views, in this order: {_pairs(devices)}")
    options = LiveOptions(
        settings=Settings(
            format=args.pixel_format,
            size=args.size,
            rate=args.rate,
            buffers=args.buffers,
            memory=None if args.memory == "auto" else Memory(args.memory),
        ),
        tolerance_ms=args.tolerance,
        missing=Missing(args.missing),
        patience_s=args.patience,
        offsets_ms=offsets,
    )
    return LiveSource(rig, devices, options, squash=rig_file is None, masks=args.masks, say=_say)


def open_pipelines(args: argparse.Namespace, bundle: Bundle) -> Source:
    """Open the GStreamer pipelines that the command line describes.

    Errors:
        UsageError: options that do not go together, or pipelines that do not fit the rig.
        InputError: a rig file that cannot be used, or one that does not fit the bundle.
        DeviceError: no GStreamer, or a pipeline that does not work.
    """
    from fsmde_edge.capture import open_source
    from fsmde_edge.capture.live import Matching
    from fsmde_edge.capture.plugged import rig_and_offsets
    from fsmde_edge.capture.sync import Missing
    from fsmde_edge.fit import refuse_other_count

    rig, offsets = rig_and_offsets(args.rig, bundle.manifest.views)
    refuse_other_count(rig, bundle.manifest)
    if args.rig is None:
        print(f"without --rig the pipelines are the bundle's views: {', '.join(rig.names)}")
    matching = Matching(
        tolerance_ms=args.tolerance,
        missing=Missing(args.missing),
        patience_s=args.patience,
        offsets_ms=offsets,
    )
    return open_source(
        args.source,
        rig=rig,
        squash=args.rig is None,
        scenes=args.scenes,
        split=args.split,
        masks=args.masks,
        matching=matching,
        say=_say,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _rig_file(args: argparse.Namespace) -> tuple[list[str], Path | None]:
    """What is left of --cameras beside a rig file, and the rig file."""
    from fsmde_edge.errors import UsageError

    specs = list(args.cameras)
    if len(specs) == 1 and Path(specs[0]).suffix.lower() in {".yaml", ".yml"}:
        if args.rig is not None:
            raise UsageError("--cameras names a rig file, and so does --rig", hint="name it once")
        return [], Path(specs[0])
    return specs, args.rig


def _pairs(devices: dict[str, str]) -> str:
    return ", ".join(f"{camera} {device}" for camera, device in devices.items())


@contextmanager
def camera_report(source: Source) -> Iterator[None]:
    """At the end, whatever happens, say of each camera how it came and what was lost."""
    from fsmde_edge.capture.live import LiveSets

    try:
        yield
    finally:
        if isinstance(source, LiveSets):
            for report in source.reports():
                for line in _camera_lines(report):
                    print(line)


def live_lines(report: RunReport) -> Iterator[str]:
    """What a run tells of live sets; nothing for a recording."""
    if report.skew is None:
        return
    yield f"  skew       {report.skew}"
    for camera, age in report.ages.items():
        yield f"  age        {age}  {camera}"
    if report.incomplete:
        yield f"  {report.incomplete} sets lacked a view"
    if report.late:
        yield f"  {report.late} sets were older than --max-age: their depth is marked invalid"
    if report.unreadable:
        yield f"  {report.unreadable} sets held a picture that cannot be decoded"


def _camera_lines(report: LiveReport) -> Iterator[str]:
    camera = report.camera
    pace = "" if camera.rate is None else f" at {camera.rate:g}/s"
    memory = f"{camera.memory}, copies {camera.copies}" if camera.memory else "no stream"
    reason = f" ({camera.reason})" if camera.reason else ""
    yield f"{camera.name}  {camera.path}  {camera.layout}{pace}, {report.bytes_per_set} bytes a set"
    yield f"  memory {memory}, {camera.copied} bytes copied{reason}"
    drops = ", ".join(f"{cause} {count}" for cause, count in camera.drops.items() if count)
    yield f"  {camera.frames} pictures; drops: {drops or 'none'}"
    if report.behind_ms is not None:
        yield f"  {report.behind_ms:.1f} ms behind the first of its set; instants are {_point(report)}"
    for outage in camera.outages:
        yield f"  {_outage(outage)}"


def _point(report: LiveReport) -> str:
    if report.foreign_clock:
        return "arrivals: its stamps are another clock's"
    return {
        "start": "the exposure's start",
        "middle": "the exposure's middle",
        "end": "the frame's end, as its driver says",
        "unknown": "stamps of an unknown point of the exposure",
    }[report.exposure.value]


def _outage(outage: Outage) -> str:
    if outage.until_ns is None:
        return f"lost from {clock_time(outage.since_ns)} on: {outage.why}"
    since, until = clock_time(outage.since_ns), clock_time(outage.until_ns)
    return f"lost from {since} to {until}, {(outage.until_ns - outage.since_ns) / 1e9:.1f} s: {outage.why}"


def clock_time(ns: int) -> str:
    """An instant of CLOCK_MONOTONIC as the clock on the wall, to a tenth of a second."""
    whole, rest = divmod(ns + time.time_ns() - time.monotonic_ns(), 1_000_000_000)
    return time.strftime("%H:%M:%S", time.localtime(whole)) + f".{rest // 100_000_000}"


def _number(text: str, unit: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} up to {most:g}")
    return value


def milliseconds(text: str) -> float:
    """A time of up to a quarter of an hour."""
    return _number(text, "milliseconds", MOST_MS)


def seconds(text: str) -> float:
    """A time of up to a day."""
    return _number(text, "seconds", 86_400.0)


def rate(text: str) -> Fraction:
    """Pictures a second."""
    return Fraction(_number(text, "pictures a second", 1000.0)).limit_denominator(1001)


def size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT."""
    width, _, height = text.partition("x")
    return positive(width), positive(height)


def buffers(text: str) -> int:
    """Buffers of one camera."""
    value = positive(text)
    if not LEAST_BUFFERS <= value <= MOST_BUFFERS:
        raise argparse.ArgumentTypeError(f"{value} buffers are not {LEAST_BUFFERS} to {MOST_BUFFERS}")
    return value
