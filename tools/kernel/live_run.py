"""In the guest: a bundle on /dev/video0 to 5, and what the run was like as JSON.

    python tools/kernel/live_run.py BUNDLE SETS FOLDER

Writes FOLDER/live.json and FOLDER/mosaic.png.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from fsmde_edge.bundle import open_bundle
from fsmde_edge.capture.live import LiveOptions, LiveSource
from fsmde_edge.capture.v4l2.camera import Settings
from fsmde_edge.capture.video import rig_of_pinholes
from fsmde_edge.evaluation.latency import Latency
from fsmde_edge.inference.backends import open_session
from fsmde_edge.runtime import run
from fsmde_edge.sinks.mosaic import mosaic_sink

SIZE, RATE = (640, 360), Fraction(10)


def main(bundle_folder: str, sets: str, folder: str) -> int:
    """Run and write."""
    bundle, out = open_bundle(Path(bundle_folder)), Path(folder)
    rig = rig_of_pinholes(bundle.manifest.views)
    devices = {camera: f"/dev/video{number}" for number, camera in enumerate(rig.names)}
    options = LiveOptions(settings=Settings(format="UYVY", size=SIZE, rate=RATE), patience_s=60)
    with closing(LiveSource(rig, devices, options, squash=True, say=print)) as source:
        session = open_session(bundle, precision="fp32", backend="onnxruntime", threads=1).session
        begun = time.monotonic()
        with session:
            report = run(
                source,
                session,
                bundle.manifest,
                [mosaic_sink(out / "mosaic.png")],
                frames=int(sets),
                threads=2,
            )
        lasted = time.monotonic() - begun
        source.close()
        cameras = [asdict(each) for each in source.reports()]
    made: dict[str, Any] = {
        "bundle": bundle.hash,
        "sets": report.sets,
        "seconds": lasted,
        "stages": {name: asdict(latency) for name, latency in report.stages.items()},
        "ages": {camera: asdict(latency) for camera, latency in report.ages.items()},
        "skew": _told(report.skew),
        "incomplete": report.incomplete,
        "preparation": report.preparation,
        "cameras": cameras,
    }
    (out / "live.json").write_text(json.dumps(made, indent=1, default=str))
    return 0


def _told(latency: Latency | None) -> dict[str, float] | None:
    return None if latency is None else latency.as_dict()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
