"""What `run` writes and shows: its options, and the sinks that they open."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.cli.arguments import percent, positive, share

if TYPE_CHECKING:
    from fsmde_edge.bundle import Bundle
    from fsmde_edge.sinks.base import Sink
    from fsmde_edge.sinks.points import PointChoice


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for everything that is made of depth."""
    group = parser.add_argument_group("outputs", "any of them at once")
    group.add_argument("--out", type=Path, metavar="DIR", help="depth maps, as --format says")
    group.add_argument("--format", choices=("png", "npz"), default="png", help="of --out (default: png)")
    group.add_argument("--png-scale", type=positive, metavar="N", help="PNG steps a metre (256)")
    group.add_argument(
        "--mosaic", type=Path, metavar="FILE", help="all views and depths in ring order: .png or .mp4"
    )
    group.add_argument("--points", type=Path, metavar="DIR", help="a coloured point cloud (PLY) of each set")
    group.add_argument(
        "--record",
        type=Path,
        metavar="FILE.mcap",
        help="pictures, depth, calibration, poses and points, for Foxglove, Lichtblick, rerun, and to be run "
        "again",
    )
    group.add_argument(
        "--record-jpeg",
        type=percent,
        metavar="Q",
        help="record pictures as JPEG of this quality (1-100): smaller, but the recording runs to other "
        "depth (default: lossless)",
    )
    group.add_argument(
        "--points-stride", type=positive, metavar="N", help="a point every N columns and rows (default: 4)"
    )
    group.add_argument(
        "--min-confidence", type=share, metavar="C", help="no points that the network trusts less (0-1)"
    )
    group.add_argument(
        "--view",
        type=address,
        metavar="[HOST:]PORT",
        help="a live picture for browsers; of this machine alone unless HOST says otherwise, and then for "
        "those who have the printed address with its token",
    )


def refuse_lonely(args: argparse.Namespace) -> None:
    """Options that say how something is written go with what writes it.

    Errors:
        UsageError: one of them stands alone, or a file has an ending that it cannot have.
    """
    from fsmde_edge.errors import UsageError

    if args.png_scale is not None and (args.out is None or args.format != "png"):
        raise UsageError("--png-scale goes with --out and --format png")
    if args.record_jpeg is not None and args.record is None:
        raise UsageError("--record-jpeg goes with --record")
    if args.points is None and args.record is None:
        for name in ("points_stride", "min_confidence"):
            if getattr(args, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} goes with --points or --record")
    if args.record is not None and args.record.suffix.lower() != ".mcap":
        raise UsageError("a recording is an MCAP file", where=args.record, hint="give it the ending .mcap")


@contextmanager
def open_sinks(args: argparse.Namespace, bundle: Bundle, *, precision: str) -> Iterator[list[Sink]]:
    """Open what the command line asks for; close it at the end, whatever happens.

    Errors:
        UsageError: an output that this bundle's depth cannot go to.
        OutputError: one that cannot be written.
        MissingExtra: one whose packages are not installed.
    """
    from contextlib import ExitStack

    _refuse_other_units(args, bundle)
    with ExitStack() as stack:
        sinks: list[Sink] = []
        for make in _makers(args, bundle, precision):
            sinks.append(make())
            stack.callback(sinks[-1].close)
        yield sinks


def _refuse_other_units(args: argparse.Namespace, bundle: Bundle) -> None:
    from fsmde_edge.errors import UsageError

    in_metres = (args.mosaic, args.points, args.record, args.view, args.out if args.format == "png" else None)
    if any(each is not None for each in in_metres) and not bundle.manifest.metric:
        raise UsageError(
            f"this bundle's depth is {bundle.manifest.kind}, not metres, which all but npz show",
            hint="write it as it is with --out DIR --format npz",
        )


def _makers(args: argparse.Namespace, bundle: Bundle, precision: str) -> Iterator[Callable[[], Sink]]:
    from fsmde_edge.sinks.mosaic import mosaic_sink
    from fsmde_edge.sinks.npz import NpzSink
    from fsmde_edge.sinks.ply import PlySink
    from fsmde_edge.sinks.png import PngSink
    from fsmde_edge.sinks.points import PointChoice

    choice = PointChoice(stride=args.points_stride or 4, least_confidence=args.min_confidence or 0.0)
    if args.out is not None and args.format == "npz":
        yield lambda: NpzSink(args.out)
    elif args.out is not None:
        yield lambda: PngSink(args.out, scale=args.png_scale or 256)
    if args.mosaic is not None:
        yield lambda: mosaic_sink(args.mosaic)
    if args.points is not None:
        yield lambda: PlySink(args.points, choice)
    if args.record is not None:
        yield lambda: _record_sink(args, bundle, precision, choice)
    if args.view is not None:
        yield lambda: _view_sink(args)


def _record_sink(args: argparse.Namespace, bundle: Bundle, precision: str, choice: PointChoice) -> Sink:
    from fsmde_edge.sinks.mcap import McapSink

    source = " ".join(str(each) for each in args.source or args.cameras)
    notes = {"bundle": bundle.hash, "precision": precision, "source": source}
    return McapSink(args.record, choice, jpeg_quality=args.record_jpeg, notes=notes)


def _view_sink(args: argparse.Namespace) -> Sink:
    from fsmde_edge.sinks.view import ViewSink

    sink = ViewSink(*args.view)
    print(f"live view: {sink.url}", flush=True)
    return sink


def address(text: str) -> tuple[str, int]:
    """[HOST:]PORT; an IPv6 address stands in brackets. Port 0 takes a free one."""
    found = re.fullmatch(r"(?:(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):)?([0-9]{1,5})", text)
    if found is None or int(found[3]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not PORT, HOST:PORT or [IPv6]:PORT")
    return found[1] or found[2] or "127.0.0.1", int(found[3])
