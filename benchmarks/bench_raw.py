"""Raw pictures of six cameras to the network's input: ours beside three ways with OpenCV, timed in turn.

    python benchmarks/bench_raw.py [--rounds N]

UYVY 1936x1216 through a lens to 384x640. Prints one JSON object: medians on one thread and on two, and how
far each result lies from the definition (mean and largest difference in grey levels).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fsmde_edge.inference.machine import processor
from fsmde_edge.preprocess import preprocess
from fsmde_edge.preprocessing.prepare import open_preparation
from fsmde_edge.preprocessing.raw import RawLayout, unpack
from fsmde_edge.rig import BrownConrady, Camera, VirtualPinhole

VIEWS, RAW, NETWORK = 6, (1936, 1216), (640, 384)
LENS = BrownConrady(k1=-0.2, k2=0.05)
Way = Callable[[], NDArray[np.uint8]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=41)
    rounds = parser.parse_args().rounds
    pictures = [raw_picture(seed) for seed in range(VIEWS)]
    load = os.getloadavg()[0]
    result: dict[str, Any] = {"machine": processor(), "load": f"{load:.1f} on {os.cpu_count()} cores"}
    for threads in (1, 2):
        ways = {**peers(pictures), "ours, one pass": ours(pictures, threads)}
        result[f"{threads}"] = measured(ways, threads, rounds)
    exact = [preprocess(unpack(picture, layout()), camera(), view()) for picture in pictures[:1]]
    result["from_definition"] = {name: difference(way()[0], exact[0]) for name, way in ways.items()}
    print(json.dumps(result))


def camera() -> Camera:
    """DDAD's side cameras with a lens."""
    k = np.array([[1060.0, 0, RAW[0] / 2], [0, 1060.0, RAW[1] / 2], [0, 0, 1]])
    return Camera(
        name="side", width=RAW[0], height=RAW[1], intrinsics=k, camera_to_vehicle=np.eye(4), distortion=LENS
    )


def view() -> VirtualPinhole:
    """Its own field of view at network size."""
    return VirtualPinhole.of(camera(), *NETWORK)


def layout() -> RawLayout:
    """UYVY without gaps."""
    return RawLayout(code="UYVY", width=RAW[0], height=RAW[1])


def raw_picture(seed: int) -> NDArray[np.uint8]:
    """Rough noise as UYVY, in colours that RGB has: ours averages before it cuts to 0..255."""
    noise = np.random.default_rng(seed).normal(0, 1, (RAW[1], RAW[0], 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 1.2)
    yuv = 128 + np.array((28.0, 8.0, 8.0)) * soft / soft.std()
    raw = np.empty((RAW[1], RAW[0], 2))
    raw[..., 1] = yuv[..., 0]
    raw[:, 0::2, 0], raw[:, 1::2, 0] = yuv[:, 0::2, 1], yuv[:, 0::2, 2]
    return np.clip(raw, 60, 195).astype(np.uint8).reshape(-1)


def ours(pictures: list[NDArray[np.uint8]], threads: int) -> Way:
    """The kernel, or an error: no fall-back is timed."""
    made = open_preparation(
        [camera()] * VIEWS, [view()] * VIEWS, layouts=[layout()] * VIEWS, how="kernel", threads=threads
    )
    if "by the definition" in made.name:
        raise SystemExit(made.name)
    out = np.empty((VIEWS, NETWORK[1], NETWORK[0], 3), np.uint8)
    return lambda: made.images(pictures, out)


def peers(pictures: list[NDArray[np.uint8]]) -> dict[str, Way]:
    """OpenCV's ways, with fixed-point maps made once and results written in place."""
    k, terms = camera().intrinsics, np.array([LENS.k1, LENS.k2, 0, 0, 0])
    # OpenCV counts from pixel centres, we from pixel edges
    k, small = k.copy(), view().intrinsics.copy()
    k[:2, 2] -= 0.5
    small[:2, 2] -= 0.5
    whole = cv2.initUndistortRectifyMap(k, terms, None, k, RAW, cv2.CV_16SC2)
    few = cv2.initUndistortRectifyMap(k, terms, None, small, NETWORK, cv2.CV_16SC2)
    raw = [picture.reshape(RAW[1], RAW[0], 2) for picture in pictures]
    out = np.empty((VIEWS, NETWORK[1], NETWORK[0], 3), np.uint8)

    def each(step: Callable[[NDArray[np.uint8], NDArray[np.uint8]], object]) -> Way:
        def way() -> NDArray[np.uint8]:
            for picture, place in zip(raw, out, strict=True):
                step(cv2.cvtColor(picture, cv2.COLOR_YUV2RGB_UYVY), place)
            return out

        return way

    def undistorted(rgb: NDArray[np.uint8], place: NDArray[np.uint8]) -> None:
        cv2.resize(cv2.remap(rgb, *whole, cv2.INTER_LINEAR), NETWORK, dst=place, interpolation=cv2.INTER_AREA)

    return {
        "cvtColor + full-size undistort + INTER_AREA": each(undistorted),
        "cvtColor + INTER_AREA (no lens)": each(
            lambda rgb, place: cv2.resize(rgb, NETWORK, dst=place, interpolation=cv2.INTER_AREA)
        ),
        "cvtColor + one small remap (aliases)": each(
            lambda rgb, place: cv2.remap(rgb, *few, cv2.INTER_LINEAR, dst=place)
        ),
    }


def measured(ways: dict[str, Way], threads: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of each way; all are run once a round."""
    cv2.setNumThreads(threads)
    os.sched_setaffinity(0, sorted(ALLOWED)[-threads:])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 2):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) * 1e3 for name, times in seconds.items()}


def difference(made: NDArray[np.uint8], exact: NDArray[np.uint8]) -> tuple[float, int]:
    """(mean, largest) in grey levels."""
    error = np.abs(made.astype(np.int16) - exact)
    return float(error.mean()), int(error.max())


ALLOWED = os.sched_getaffinity(0)

if __name__ == "__main__":
    main()
