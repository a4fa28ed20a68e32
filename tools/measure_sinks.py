"""What each sink costs a run, and what its files weigh: docs/results/sinks.json, docs/images/view.jpg.

    fsmde-edge build
    python tools/measure_sinks.py [bundle]

Depth of synthetic streets is made once; then every sink gets the same sets, one after another, alone. CPU
time is that of this process with all its threads, so other work on the machine counts little. The live view
is looked at by headless Chromium (another process, not counted) while sets come at a camera's pace.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "sinks"))

import cv2
import numpy as np
from headless import opened

from fsmde_edge.bundle import Bundle, open_bundle
from fsmde_edge.capture import open_source
from fsmde_edge.files import atomic_write
from fsmde_edge.frames import DepthSet, FrameSet
from fsmde_edge.inference.backends import open_session
from fsmde_edge.inference.machine import processor
from fsmde_edge.runtime import run
from fsmde_edge.sinks import MosaicVideo, NpzSink, PngSink, Sink
from fsmde_edge.sinks.mcap import McapSink
from fsmde_edge.sinks.ply import PlySink
from fsmde_edge.sinks.points import PointChoice
from fsmde_edge.sinks.view import ViewSink

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "sinks.json"
PICTURE = ROOT / "docs" / "images" / "view.jpg"
RATE = 20.0
"""Frame sets a second while the view is measured."""

Result = tuple[FrameSet, Any, DepthSet]


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.results: list[Result] = []

    def write(self, frame_set: FrameSet, images: Any, depth_set: DepthSet) -> None:
        """Keep it."""
        self.results.append((frame_set, images, depth_set))

    def close(self) -> None:
        """Nothing is open."""


def main() -> int:
    """Make depth, feed the sinks, look at the view, record."""
    parser = argparse.ArgumentParser(description="What each sink costs.")
    parser.add_argument("bundle", nargs="?", type=Path, default=Path("bundle"))
    parser.add_argument("--sets", type=int, default=8, help="different sets (default: 8)")
    parser.add_argument("--seconds", type=float, default=15.0, help="that the view is looked at")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    bundle = open_bundle(options.bundle)
    results = _results(bundle, options.sets)
    files = [_cost(*each, results) for each in _file_sinks()]
    alone, watched = _unwatched(results), asyncio.run(_watched(results, options.seconds))
    height, width = bundle.manifest.size
    record = {
        "bundle": bundle.hash,
        "data": f"synthetic streets, {len(bundle.manifest.views)} views of {width}x{height}",
        "machine": f"{processor()}, {os.cpu_count()} cores shared with other work (load average "
        f"{os.getloadavg()[0]:.0f}), files on a RAM disk",
        "tables": [_files_table(files), _pictures_table(results), _view_table(alone, watched)],
    }
    atomic_write(RECORD, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
    return 0


def _results(bundle: Bundle, sets: int) -> list[Result]:
    kept = Kept()
    height, width = bundle.manifest.size
    source = open_source("synthetic", size=(width, height), sets=sets)
    with open_session(bundle, precision="fp32", threads=1).session as session:
        run(source, session, bundle.manifest, [kept], frames=sets)
    return kept.results


def _file_sinks() -> Iterator[tuple[str, Callable[[Path], Sink]]]:
    yield "PNG, 16 bit (`--out`)", PngSink
    yield "npz (`--out --format npz`)", NpzSink
    yield "mosaic video (`--mosaic FILE.mp4`)", lambda folder: MosaicVideo(folder / "a.mp4")
    yield "PLY, every 4th pixel (`--points`)", PlySink
    yield "PLY, every pixel (`--points-stride 1`)", lambda folder: PlySink(folder, PointChoice(stride=1))
    yield "MCAP, lossless (`--record`)", lambda folder: McapSink(folder / "a.mcap")
    yield "MCAP, JPEG 90 (`--record-jpeg 90`)", lambda folder: McapSink(folder / "a.mcap", jpeg_quality=90)


def _cost(name: str, make: Callable[[Path], Sink], results: list[Result]) -> dict[str, Any]:
    """CPU time a set, and megabytes a set on disk; the first set warms up and its time is not counted."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        sink = make(Path(folder))
        sink.write(*results[0])
        cpu = time.process_time()
        for result in results[1:]:
            sink.write(*result)
        sink.close()
        cpu = time.process_time() - cpu
        weight = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    count = len(results) - 1
    return {
        "name": name,
        "cpu_ms": cpu / count * 1e3,
        "mb": weight / len(results) / 1e6,
    }


def _unwatched(results: list[Result]) -> float:
    """Microseconds that a set costs while nobody looks."""
    sink = ViewSink()
    cpu = time.process_time()
    for result in itertools.islice(itertools.cycle(results), 2000):
        sink.write(*result)
    cpu = time.process_time() - cpu
    sink.close()
    return cpu / 2000 * 1e6


async def _watched(results: list[Result], seconds: float) -> dict[str, float]:
    sink = ViewSink()
    async with opened(sink.url, size=(1280, 800)) as page:
        feeding = asyncio.ensure_future(asyncio.to_thread(_feed, sink, results, seconds))
        await page.until("Number(document.body.dataset.shown) > 20")
        start, before = time.perf_counter(), int(await page.value("document.body.dataset.shown"))
        cpu = time.process_time()
        await asyncio.sleep(seconds / 2)
        passed = time.perf_counter() - start
        cpu = time.process_time() - cpu
        shown = int(await page.value("document.body.dataset.shown")) - before
        picture = await page.picture()
        writes = await feeding
    sink.close()
    screen = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    atomic_write(PICTURE, bytes(cv2.imencode(".jpg", screen, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]))
    return {
        "shown": shown / passed,
        "cpu_share": cpu / passed,
        "cpu_ms": cpu / shown * 1e3,
        "write_p50": statistics.median(writes) * 1e3,
        "write_p99": statistics.quantiles(writes, n=100)[98] * 1e3,
    }


def _feed(sink: ViewSink, results: list[Result], seconds: float) -> list[float]:
    """Sets at a camera's pace; how long the run was held up by each."""
    writes, start = [], time.perf_counter()
    for number, (frame_set, images, depth_set) in enumerate(itertools.cycle(results)):
        now = time.perf_counter()
        if now - start > seconds + 5:
            return writes
        sink.write(replace(frame_set, index=number), images, replace(depth_set, index=number))
        writes.append(time.perf_counter() - now)
        time.sleep(max(0.0, start + (number + 1) / RATE - time.perf_counter()))
    return writes


def _files_table(files: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [[each["name"], *(f"{each[key]:.1f}" for key in ("cpu_ms", "mb"))] for each in files]
    return {"title": "Files: a frame set costs", "header": ["", "CPU ms", "MB"], "rows": rows}


def _pictures_table(results: list[Result]) -> dict[str, Any]:
    """Ways to write the views of one set as lossless pictures, and JPEG."""
    level = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    ways = {
        "PNG, level 3": (".png", [cv2.IMWRITE_PNG_COMPRESSION, 3]),
        "PNG, level 1": (".png", level),
        "PNG, level 1, Sub filter": (".png", [*level, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]),
        "PNG, run lengths": (".png", [*level, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]),
        "PNG, Huffman only (taken)": (
            ".png", [*level, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
        ),
        "JPEG 90": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
    }  # fmt: skip
    rows = []
    for name, (ending, settings) in ways.items():
        times, weight = [], 0
        for _, images, _ in results:
            start = time.process_time()
            weight = sum(len(cv2.imencode(ending, image[..., ::-1], settings)[1]) for image in images)
            times.append(time.process_time() - start)
        rows.append([name, f"{min(times) * 1e3:.1f}", f"{weight / 1e6:.2f}"])
    return {"title": "Pictures: the views of one set", "header": ["", "CPU ms", "MB"], "rows": rows}


def _view_table(unwatched_us: float, watched: dict[str, float]) -> dict[str, Any]:
    return {
        "title": f"Live view, sets at {RATE:g}/s",
        "header": ["", ""],
        "rows": [
            ["nobody looks: CPU a set", f"{unwatched_us:.1f} µs"],
            ["one browser: shown", f"{watched['shown']:.1f} a second"],
            ["one browser: CPU of the run's process", f"{watched['cpu_share']:.0%} of a core"],
            ["one browser: CPU a shown set", f"{watched['cpu_ms']:.1f} ms"],
            ["one browser: the run is held up, p50", f"{watched['write_p50']:.2f} ms"],
            ["one browser: the run is held up, p99", f"{watched['write_p99']:.2f} ms"],
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
