"""In the guest: ways to capture from /dev/video0 to 5 beside each other, each in a process of its own.

    python tools/kernel/capture_run.py FOLDER PROTOTYPE PEERS [ROUNDS]
        all of them; writes FOLDER/capture.json
    python tools/kernel/capture_run.py --one WAY WIDTH HEIGHT RATE SETS CONSUMER PROTOTYPE
        one; prints JSON

PROTOTYPE is v4l2thin.py and PEERS a folder with linuxpy, both outside this project ("-": leave it out).
System calls are counted by the kernel: a histogram trigger on its tracepoint, for every way alike.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

CAMERAS = 6
PATHS = [f"/dev/video{number}" for number in range(CAMERAS)]
WARMUP = 20
"""Sets before counting."""

CASES = ((640, 360, "30", 150), (1280, 720, "25/2", 60))
"""Width, height, rate and counted sets; what six devices of an emulated machine keep up with."""

SLOW = {"OpenCV BGR": 5}
"""A way that is so many times too slow: its sets are fewer by that."""

CONSUMERS = ("ready", "half", "gil")
"""Takes every set; rests two periods after each; a thread beside it holds the interpreter's lock."""

HELD, FREE = 0.05, 0.02
"""Seconds that the lock is held and left alone."""

START_OF_EXPOSURE = 0xF0F018
TRACING = Path("/sys/kernel/tracing")
SYSCALLS = TRACING / "events/raw_syscalls/sys_enter"
CLOCK_GETTIME = 228
"""On x86-64. A call here, where the guest's clock is emulated; none where the vDSO answers."""


@dataclass(slots=True)
class Taken:
    """One set: each camera's stamp on CLOCK_MONOTONIC."""

    stamps_ns: list[int]


Way = Callable[[tuple[int, int], Fraction], Iterator[Taken]]
"""Sets until it is closed. What it copied it adds to COPIED."""


@dataclass(slots=True)
class Copied:
    """Bytes that are known to be copied: where the peer does not say, those of what it returns."""

    total: int = 0


COPIED = Copied()


def ours(size: tuple[int, int], rate: Fraction) -> Iterator[Taken]:
    """LiveSource: matching, leases, faults, one capture thread."""
    from fsmde_edge.capture.live import LiveOptions, LiveSource
    from fsmde_edge.capture.v4l2.camera import Settings
    from fsmde_edge.rig import Camera, Rig

    eye, k = np.eye(4), np.array([[500.0, 0, size[0] / 2], [0, 500.0, size[1] / 2], [0, 0, 1]])
    cameras = [
        Camera(name=f"C{i}", width=size[0], height=size[1], intrinsics=k, camera_to_vehicle=eye)
        for i in range(CAMERAS)
    ]
    rig = Rig(tuple(cameras))
    devices = {camera.name: path for camera, path in zip(cameras, PATHS, strict=True)}
    options = LiveOptions(settings=Settings(format="YUYV", rate=rate))
    with closing(LiveSource(rig, devices, options)) as source:
        for frame_set in source:
            yield Taken(list(frame_set.stamps_ns))


def prototype(module: Path) -> Way:
    """A bare layer: MMAP, one epoll loop, no matching, no leases, no faults. A set: a picture of each."""

    def way(size: tuple[int, int], rate: Fraction) -> Iterator[Taken]:
        spec = importlib.util.spec_from_file_location("v4l2thin", module)
        assert spec is not None
        assert spec.loader is not None
        thin = importlib.util.module_from_spec(spec)
        sys.modules["v4l2thin"] = thin
        spec.loader.exec_module(thin)
        with ExitStack() as stack:
            devices = [stack.enter_context(closing(thin.Device(path))) for path in PATHS]
            watched, arrays, views = select.epoll(), {}, {}
            stack.callback(watched.close)
            for device in devices:
                assert device.set_format(*size, "YUYV")[:3] == (*size, "YUYV")
                device.set_interval(rate.denominator, rate.numerator)
                device.request(4, thin.MMAP)
                maps = device.map()
                arrays[device.fd] = [np.frombuffer(planes[0], np.uint8) for planes in maps]
                for index in range(device.count):
                    device.queue(index)
                device.stream(True)
                watched.register(device.fd, select.EPOLLIN)
            stack.callback(arrays.clear)
            stack.callback(views.clear)
            by_fd = {device.fd: device for device in devices}
            stamps: dict[int, int] = {}
            while True:
                for fd, _ in watched.poll(1.0):
                    frame = by_fd[fd].dequeue()
                    if frame is not None:
                        views[fd] = arrays[fd][frame.index]
                        stamps[fd] = frame.ns
                        by_fd[fd].queue(frame.index)
                if len(stamps) == CAMERAS:
                    yield Taken(list(stamps.values()))
                    stamps.clear()

    return way


def opencv(*, bgr: bool) -> Way:
    """Six VideoCaptures, grabbed and then retrieved one after another."""

    def way(size: tuple[int, int], rate: Fraction) -> Iterator[Taken]:
        import cv2

        cv2.setNumThreads(1)
        captures = [cv2.VideoCapture(path, cv2.CAP_V4L2) for path in PATHS]
        for capture in captures:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"YUYV"))
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
            capture.set(cv2.CAP_PROP_FPS, float(rate))
            capture.set(cv2.CAP_PROP_CONVERT_RGB, float(bgr))
        try:
            while True:
                stamps = []
                for capture in captures:
                    assert capture.grab()
                for capture in captures:
                    done, picture = capture.retrieve()
                    assert done
                    COPIED.total += picture.nbytes
                    stamps.append(round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6))
                yield Taken(stamps)
        finally:
            for capture in captures:
                capture.release()

    return way


def linuxpy(size: tuple[int, int], rate: Fraction) -> Iterator[Taken]:
    """Six of its VideoCaptures, read one after another."""
    from linuxpy.video.device import Device, VideoCapture

    with ExitStack() as stack:
        captures = []
        for path in PATHS:
            device = stack.enter_context(Device(path))
            capture = VideoCapture(device, size=4)
            capture.set_format(*size, "YUYV")
            capture.set_fps(rate)
            captures.append(stack.enter_context(capture))
        readers = [iter(capture) for capture in captures]
        while True:
            frames = [next(reader) for reader in readers]
            COPIED.total += sum(len(frame.data) for frame in frames)
            yield Taken([round(frame.timestamp * 1e9) for frame in frames])


def ways(prototype_file: str) -> dict[str, Way]:
    """Name to way."""
    return {
        "prototype": prototype(Path(prototype_file)),
        "ours": ours,
        "OpenCV raw": opencv(bgr=False),
        "OpenCV BGR": opencv(bgr=True),
        "linuxpy": linuxpy,
    }


def one(way: Way, size: tuple[int, int], rate: Fraction, sets: int, consumer: str) -> dict[str, Any]:
    """Run one way and say what it took."""
    stop = threading.Event()
    if consumer == "gil":
        threading.Thread(target=_hold, args=(stop,), daemon=True).start()
    ages: list[float] = []
    sets = sets if consumer == "ready" else max(10, sets // 2)
    source = iter(way(size, rate))
    for _ in range(min(WARMUP, sets)):
        next(source)
    COPIED.total, calls = 0, _calls()
    usage, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    for _ in range(sets):
        taken = next(source)
        ages.append((time.monotonic_ns() - min(taken.stamps_ns)) / 1e6)
        if consumer == "half":
            time.sleep(2 / float(rate))
    wall = time.monotonic() - begun
    after, made = resource.getrusage(resource.RUSAGE_SELF), _calls()
    stop.set()
    source.close()  # type: ignore[attr-defined]
    user, system = after.ru_utime - usage.ru_utime, after.ru_stime - usage.ru_stime
    times = made.get(CLOCK_GETTIME, 0) - calls.get(CLOCK_GETTIME, 0)
    return {
        "sets": sets,
        "rate": sets / wall,
        "cpu_ms": 1e3 * (user + system) / sets,
        "user_ms": 1e3 * user / sets,
        "copied": COPIED.total / sets,
        "syscalls": (sum(made.values()) - sum(calls.values())) / sets,
        "clock_calls": times / sets,
        "faults": (after.ru_minflt - usage.ru_minflt + after.ru_majflt - usage.ru_majflt) / sets,
        "age_p50": float(np.percentile(ages, 50)),
        "age_p99": float(np.percentile(ages, 99)),
        "names": {
            str(number): (made[number] - calls.get(number, 0)) / sets
            for number in made
            if made[number] - calls.get(number, 0) > sets / 10
        },
    }


def _hold(stop: threading.Event) -> None:
    """Hold the interpreter's lock: a function that is called through PyDLL does not let go of it."""
    usleep = ctypes.PyDLL(None).usleep
    while not stop.is_set():
        usleep(round(HELD * 1e6))
        time.sleep(FREE)


def _calls() -> dict[int, int]:
    """System calls of this process's threads so far: number to count."""
    threads = {int(path.name) for path in Path("/proc/self/task").iterdir()}
    found: dict[int, int] = {}
    text = (SYSCALLS / "hist").read_text()
    for thread, number, count in re.findall(r"common_pid:\s*(\d+), id:\s*(\d+) }\s*hitcount:\s*(\d+)", text):
        if int(thread) in threads:
            found[int(number)] = found.get(int(number), 0) + int(count)
    return found


def main(folder: str, prototype_file: str, peers: str, rounds: str = "3") -> int:
    """All ways in turn, one after another, several rounds."""
    subprocess.run(["mount", "-t", "tracefs", "tracefs", str(TRACING)], check=False, capture_output=True)
    (SYSCALLS / "trigger").write_text("hist:keys=common_pid,id:size=65536")
    _stamp_exposures()
    names = [name for name in ways(prototype_file) if name != "prototype" or prototype_file != "-"]
    names = [name for name in names if name != "linuxpy" or peers != "-"]
    found: list[dict[str, Any]] = []
    for turn in range(int(rounds)):
        for width, height, rate, sets in CASES:
            for consumer in CONSUMERS if turn == 0 else CONSUMERS[:1]:
                for name in names:
                    counted = sets // SLOW.get(name, 1)
                    words = [name, width, height, rate, counted, consumer, prototype_file]
                    made = _child(words, peers)
                    print(name, width, consumer, json.dumps(made), flush=True)
                    found.append({"way": name, "width": width, "consumer": consumer, **made})
    (Path(folder) / "capture.json").write_text(json.dumps(found))
    return 0


def _child(words: list[Any], peers: str) -> dict[str, Any]:
    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), peers) if part and part != "-")
    child = subprocess.run(
        [sys.executable, __file__, "--one", *map(str, words)],
        env={**os.environ, "PYTHONPATH": path, "OPENCV_LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        timeout=300,
        check=True,
    )
    return dict(json.loads(child.stdout))


def _stamp_exposures() -> None:
    """Let the driver stamp exposures rather than the future ends of frames."""
    from fsmde_edge.capture.v4l2.ioctls import open_node, set_control
    from fsmde_edge.capture.v4l2.kernel import LinuxKernel

    for path in PATHS:
        node = open_node(path, LinuxKernel())
        set_control(node, START_OF_EXPOSURE, 1)
        node.close()


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        name, width, height, rate, sets, consumer, prototype_file = sys.argv[2:]
        way = ways(prototype_file)[name]
        size = (int(width), int(height))
        print(json.dumps(one(way, size, Fraction(rate), int(sets), consumer)))
    else:
        sys.exit(main(*sys.argv[1:]))
