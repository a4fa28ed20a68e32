"""Options of commands that watch a run, and what the watch says at its end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fsmde_edge.cli.live import clock_time, seconds

if TYPE_CHECKING:
    from fsmde_edge.bundle import Bundle
    from fsmde_edge.capture.source import Source
    from fsmde_edge.inference.session import Session
    from fsmde_edge.runtime import RunReport
    from fsmde_edge.watch.guard import Finding
    from fsmde_edge.watch.watch import Watch


def add_watch_arguments(parser: argparse.ArgumentParser) -> None:
    """--guard, --health, --watch-accuracy."""
    group = parser.add_argument_group("watching", "what looks at the run while it goes")
    group.add_argument(
        "--guard",
        choices=("mask", "tell", "off"),
        default="mask",
        help="depth that cannot be right, frozen cameras and covered lenses: mark the view's depth invalid "
        "and tell of it, only tell, or do not look (default: mask)",
    )
    group.add_argument(
        "--health", type=Path, metavar="FILE", help="keep the run's state there as JSON, once a second"
    )
    group.add_argument(
        "--watch-accuracy",
        type=seconds,
        metavar="S",
        help="every S seconds one set goes through the FP32 model too, and the difference is told",
    )


def open_watch(args: argparse.Namespace, bundle: Bundle, source: Source, session: Session) -> Watch:
    """What the command line asks to watch with; systemd is told where it asks by its environment.

    Errors:
        OutputError: --health cannot be written.
        DeviceError, BundleError: the FP32 model cannot be opened for --watch-accuracy.
    """
    from fsmde_edge.capture.live import LiveSets
    from fsmde_edge.watch.accuracy import AccuracyWatch
    from fsmde_edge.watch.guard import FROZEN_AFTER, DepthRange, Guard
    from fsmde_edge.watch.health import HealthFile
    from fsmde_edge.watch.systemd import Notifier
    from fsmde_edge.watch.vitals import Vitals
    from fsmde_edge.watch.watch import Watch

    live = isinstance(source, LiveSets)
    guard = None
    if args.guard != "off":
        guard = Guard(
            DepthRange.of(bundle),
            frozen_after=FROZEN_AFTER if live else None,
            mask=args.guard == "mask",
            say=_say,
        )
    every = args.watch_accuracy
    health = None if args.health is None else HealthFile(args.health, _say)
    watch = Watch(
        vitals=Vitals(source, bundle.hash, f"{session.precision} on {session.detail}"),
        guard=guard,
        accuracy=None if every is None else AccuracyWatch.of(bundle, every, _say),
        health=health,
        notifier=Notifier(os.environ, _say),
    )
    if isinstance(source, LiveSets):
        source.while_waiting = watch.beat
    return watch


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def watch_lines(report: RunReport) -> Iterator[str]:
    """What the guard found, and how accurate the depth was."""
    for finding in report.findings:
        yield f"  {_finding(finding)}"
    for camera, view in report.accuracy.items():
        yield (
            f"  off FP32   mean {view.deviation:.2%}  p99 {view.p99:.2%}  farther {view.farther:.3%}  "
            f"{camera} ({view.sets} sets compared)"
        )


def _finding(finding: Finding) -> str:
    until = "the end" if finding.lasts else clock_time(finding.until_ns)
    sets = "1 set" if finding.sets == 1 else f"{finding.sets} sets, {finding.first} to {finding.last}"
    return (
        f"{finding.camera} gave {finding.fault.value} from {clock_time(finding.since_ns)} to {until}: {sets}"
    )
