"""fsmde-edge run: cameras or a recording to metric depth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.cli.arguments import add_backend, add_bundle, add_threads, natural, positive
from fsmde_edge.cli.live import add_camera_arguments, live_lines
from fsmde_edge.cli.outputs import add_output_arguments, open_sinks, refuse_lonely
from fsmde_edge.cli.watching import add_watch_arguments, open_watch, watch_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fsmde_edge.bundle import Bundle
    from fsmde_edge.capture.source import Source
    from fsmde_edge.runtime import RunReport
    from fsmde_edge.sinks.base import Sink

EXAMPLES = """examples:
  fsmde-edge run --source synthetic --frames 20 --mosaic mosaic.png
  fsmde-edge run bundle --source /data/ddad --scenes 000150 --masks masks --out depth
  fsmde-edge run bundle --source recording/*.mp4 --rig rig.yaml --mosaic depth.mp4
      one video file a camera, named after its camera in the rig
  fsmde-edge run bundle --cameras /dev/video0-5 --rig rig.yaml --out depth
  fsmde-edge run bundle --cameras rig.yaml --missing mask --max-age 300
      a rig file that says of each camera which device it is
  fsmde-edge run bundle --source 'gst:v4l2src device=/dev/video{index} ! appsink' --rig rig.yaml --out depth
      a GStreamer pipeline for each camera, {index} being its place in ring order and {camera} its name
  fsmde-edge run bundle --cameras rig.yaml --record drive.mcap
  fsmde-edge run bundle --source drive.mcap --points clouds
      a recording, for Foxglove, Lichtblick or rerun, and to be run again
  fsmde-edge run bundle --cameras rig.yaml --view 8080
      a live picture at http://127.0.0.1:8080
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    add_bundle(parser)
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument(
        "--source",
        nargs="+",
        metavar="SOURCE",
        help="synthetic; a data set's path; a recording (FILE.mcap); one video file a camera (CAMERA.mp4 or "
        "CAMERA=FILE); or GStreamer pipelines that end in an appsink: 'gst:...' with {camera} or {index} in "
        "it, or one a camera",
    )
    sources.add_argument(
        "--cameras",
        nargs="+",
        metavar="DEVICE",
        help="V4L2 devices in ring order: nodes, ranges (/dev/video0-5), globs, names by path, "
        "CAMERA=DEVICE; or a rig file that names them",
    )
    parser.add_argument("--rig", type=Path, metavar="YAML", help="the cameras of the devices or video files")
    parser.add_argument("--split", help="which split of the data set (DGP: train, val, test)")
    parser.add_argument("--scenes", nargs="+", metavar="NAME", help="only these scenes of the data set")
    parser.add_argument(
        "--masks", type=Path, metavar="DIR", help="ego masks: depth on the own car is left out"
    )
    parser.add_argument("--frames", type=positive, metavar="N", help="at most this many frame sets")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "fp16", "int8", "int8-fp16"))
    add_backend(parser)
    parser.add_argument(
        "--fit", action="store_true", help="rectify each camera into the bundle's own view (see: rig fit)"
    )
    parser.add_argument(
        "--preprocess",
        choices=("auto", "kernel", "definition"),
        default="auto",
        help="what resizes and rectifies: a C kernel compiled here, or the (slow) definition in NumPy "
        "(default: the kernel where it compiles)",
    )
    parser.add_argument("--allow-failed", action="store_true", help="run a bundle whose gate did not pass")
    parser.add_argument("--seed", type=natural, default=0, help="of the synthetic source")
    add_output_arguments(parser)
    add_camera_arguments(parser)
    add_watch_arguments(parser)
    add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Open everything first, then run; print stage latencies and drops."""
    from contextlib import closing

    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.cli.live import camera_report
    from fsmde_edge.finalise.serve import ensure_engine
    from fsmde_edge.inference.backends import open_session
    from fsmde_edge.runtime import run as run_loop

    refuse_lonely(args)
    bundle = open_bundle(args.bundle)
    _refuse_failed(bundle, args)
    ensure_engine(bundle, args.backend, say=print, threads=args.threads, allow_failed=args.allow_failed)
    source = _source(args, bundle)
    with closing(source):
        choice = open_session(bundle, precision=args.precision, backend=args.backend, threads=args.threads)
        print(f"{choice.session.precision} on {choice.session.detail} ({choice.reason})")
        with (
            choice.session as session,
            camera_report(source),
            open_sinks(args, bundle, precision=session.precision) as sinks,
        ):
            report = run_loop(
                source,
                session,
                bundle.manifest,
                sinks,
                frames=args.frames,
                how=args.preprocess,
                threads=args.threads,
                fit=args.fit,
                max_age_ms=args.max_age,
                mask_unreadable=args.missing == "mask",
                watch=open_watch(args, bundle, source, session),
            )
            _print_report(report, sinks)
    return 0


def _print_report(report: RunReport, sinks: Sequence[Sink]) -> None:
    print(f"{report.sets} frame sets{', stopped by a signal' if report.stopped else ''}")
    print(f"  prepared by {report.preparation}")
    for name, latency in report.stages.items():
        print(f"  {name:10s} {latency}")
    drops = {camera: causes for camera, causes in report.drops.items() if any(causes.values())}
    if not report.ages:
        print(f"  drops      {drops or 'none'}")
    for line in (*live_lines(report), *watch_lines(report)):
        print(line)
    for sink in sinks:
        saturated = getattr(sink, "saturated", 0)
        if saturated:
            print(f"  {saturated} pixels lie beyond what a PNG of this --png-scale can tell")


def _refuse_failed(bundle: Bundle, args: argparse.Namespace) -> None:
    from fsmde_edge.errors import GateFailed

    if args.precision != "fp32" and not (bundle.int8_accepted or args.allow_failed):
        raise GateFailed(
            f"this bundle's gate is {bundle.verdict}: its INT8 depth is not known to be its FP32 depth",
            where=bundle.root,
            hint="run it with --precision fp32, or with --allow-failed if you know why",
        )


def _source(args: argparse.Namespace, bundle: Bundle) -> Source:
    from fsmde_edge.capture import open_source
    from fsmde_edge.capture.gstreamer.names import is_pipeline
    from fsmde_edge.cli.live import open_live, open_pipelines, refuse_camera_arguments
    from fsmde_edge.datasets.rigfile import load_rig

    if args.cameras is not None:
        return open_live(args, bundle)
    refuse_camera_arguments(args)
    if is_pipeline(args.source[0]):
        return open_pipelines(args, bundle)
    height, width = bundle.manifest.size
    source = open_source(
        args.source,
        size=(width, height),
        rig=None if args.rig is None else load_rig(args.rig),
        split=args.split,
        scenes=args.scenes,
        masks=args.masks,
        seed=args.seed,
        sets=args.frames,
    )
    if not getattr(source, "lossless", True):
        print("the recording's pictures are JPEG: its depth will not be what it was, bit for bit")
    return source
