"""In the guest: start and stop six cameras again and again, or take sets for long: does anything grow?

    python tools/kernel/soak_run.py cycles|sets COUNT FILE

Writes FILE whole at the end, as JSON: samples of descriptors, threads and resident memory, and of `sets` the
ages, drops, and the Python blocks that outlived their set.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
import tracemalloc
from collections import Counter
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fsmde_edge.capture.live import LiveOptions, LiveSource
from fsmde_edge.capture.v4l2.camera import Settings
from fsmde_edge.rig import Camera, Rig

CAMERAS, SIZE, RATE = 6, (320, 180), Fraction(60)
SAMPLES = 50
SETS_OF_A_CYCLE = 3
TRACED = 200
"""Sets between the first and the last look at Python's memory, after the long run."""

BLOCK = 512
"""Bytes of a Python block from which on it counts."""


def main(phase: str, count: str, file: str) -> int:
    """One phase."""
    made = {"cycles": cycles, "sets": sets}[phase](int(count))
    path = Path(file)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"phase": phase, "count": int(count), **made}))
    unfinished.rename(path)
    return 0


def source() -> LiveSource:
    """Six cameras."""
    k = np.array([[250.0, 0, SIZE[0] / 2], [0, 250.0, SIZE[1] / 2], [0, 0, 1]])
    cameras = [
        Camera(name=f"C{n}", width=SIZE[0], height=SIZE[1], intrinsics=k, camera_to_vehicle=np.eye(4))
        for n in range(CAMERAS)
    ]
    devices = {camera.name: f"/dev/video{number}" for number, camera in enumerate(cameras)}
    return LiveSource(Rig(tuple(cameras)), devices, LiveOptions(settings=Settings(format="YUYV", rate=RATE)))


def cycles(count: int) -> dict[str, Any]:
    """Start, take a few sets, stop."""
    samples, begun = [], time.monotonic()
    for number in range(count):
        with closing(source()) as live:
            taken = len(list(islice(live, SETS_OF_A_CYCLE)))
            assert taken == SETS_OF_A_CYCLE
        if (number + 1) % max(1, count // SAMPLES) == 0:
            samples.append(_sample(number + 1))
    return {"seconds": time.monotonic() - begun, "samples": samples}


def sets(count: int) -> dict[str, Any]:
    """One long stream; every picture is looked at, and each set given back."""
    samples, ages, begun, drops = [], list[float](), time.monotonic(), dict[str, Any]()
    every = max(1, count // SAMPLES)
    with closing(source()) as live:
        frame_sets = iter(live)
        for number, frame_set in enumerate(islice(frame_sets, count)):
            ages.append(max(frame_set.ages_ns(time.monotonic_ns()).values()) / 1e6)
            for frame in frame_set.frames:
                assert frame.raw[0] >= 0
            if (number + 1) % every == 0:
                samples.append(_sample(number + 1) | {"age_ms": float(np.median(ages))})
                ages.clear()
        lasted = time.monotonic() - begun
        survivors = _survivors(frame_sets)
        drops = {camera: dict(causes) for camera, causes in live.drops.items()}
    return {"seconds": lasted, "samples": samples, "survivors": survivors, "drops": drops}


def _survivors(frame_sets: Any) -> list[str]:
    """Places whose blocks of `BLOCK` bytes and more became more in both halves of `TRACED` sets.

    What is made once, such as a cache, grows in one of them alone.
    """
    tracemalloc.start()
    next(frame_sets)
    looks = [_blocks()]
    for _ in range(2):
        for _ in islice(frame_sets, TRACED // 2):
            pass
        looks.append(_blocks())
    tracemalloc.stop()
    first, second = looks[1] - looks[0], looks[2] - looks[1]
    return [f"{place}: {first[place] + second[place]} more" for place in first & second]


def _blocks() -> Counter[str]:
    gc.collect()
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)])
    large = (trace for trace in snapshot.traces if trace.size >= BLOCK)
    return Counter(str(trace.traceback[-1]) for trace in large)


def _sample(number: int) -> dict[str, int]:
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
    return {
        "number": number,
        "fds": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": threading.active_count(),
        "tasks": sum(1 for _ in Path("/proc/self/task").iterdir()),
        "resident_kib": resident,
    }


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
