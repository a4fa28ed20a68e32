"""Capture without a driver: what a set of six costs from the ioctl that gives a picture to the frame set.

The devices below the seam always have a picture and write nothing: our own work alone is timed. One round is
one set.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque

import numpy as np
import pytest

from fsmde_edge.capture.live import LiveOptions, LiveSource
from fsmde_edge.capture.sync import tightest
from fsmde_edge.capture.v4l2.camera import Settings, begin_cameras
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.capture.v4l2.structs import BufFlags, Request
from fsmde_edge.rig import Camera, Rig

CAMERAS, SIZE = 6, (64, 32)
FLAGS = int(BufFlags.TIMESTAMP_MONOTONIC) | int(BufFlags.SOURCE_START_OF_EXPOSURE)


class ReadyKernel(FakeKernel):
    """Fake devices whose queues are this class's own: DQBUF always gives the oldest buffer, filled.

    Every device's picture is of the same instant: that of the last `expose`.
    """

    def __init__(self, cameras: list[FakeCamera]) -> None:
        """With nothing queued."""
        super().__init__(cameras)
        self._instant = (0, 0)
        self._queues: dict[int, deque[int]] = defaultdict(deque)
        self._taken: dict[int, int] = defaultdict(int)

    def expose(self) -> None:
        """All devices, now."""
        self._instant = divmod(time.monotonic_ns() // 1000, 1_000_000)

    def ioctl(self, fd, request, argument):
        """Carry out a request."""
        if request == Request.QBUF:
            self._queues[fd].append(argument.index)
        elif request == Request.DQBUF:
            self._taken[fd] += 1
            argument.index = self._queues[fd].popleft()
            argument.sequence, argument.flags = self._taken[fd], FLAGS
            argument.bytesused = 2 * SIZE[0] * SIZE[1]
            argument.timestamp.tv_sec, argument.timestamp.tv_usec = self._instant
        else:
            return super().ioctl(fd, request, argument)
        return 0


@pytest.fixture
def source():
    """Cameras that stream, and what makes sets of them; no thread runs."""
    fakes = [FakeCamera(f"/dev/video{number}") for number in range(CAMERAS)]
    k = np.array([[50.0, 0, SIZE[0] / 2], [0, 50.0, SIZE[1] / 2], [0, 0, 1]])
    rig = Rig(
        tuple(
            Camera(name=f"C{n}", width=SIZE[0], height=SIZE[1], intrinsics=k, camera_to_vehicle=np.eye(4))
            for n in range(CAMERAS)
        )
    )
    devices = {camera.name: fake.path for camera, fake in zip(rig.cameras, fakes, strict=True)}
    options = LiveOptions(settings=Settings(format="YUYV"))
    kernel = ReadyKernel(fakes)
    live = LiveSource(rig, devices, options, kernel=kernel)
    begin_cameras(live._cameras)
    yield live, kernel
    live.close()


@pytest.mark.benchmark(group="capture: one set of six cameras")
def test_take_and_release(benchmark, source):
    """Driver to lease and back."""
    live, kernel = source

    def one_set():
        kernel.expose()
        leases = [camera.take().lease for camera in live._cameras]
        for lease in leases:
            lease.release()

    benchmark(one_set)


@pytest.mark.benchmark(group="capture: one set of six cameras")
def test_take_match_and_release(benchmark, source):
    """And matched."""
    live, kernel = source

    def one_set():
        kernel.expose()
        for camera in live._cameras:
            live._outlet.put(camera.take())
        live._outlet.take(0).release()

    benchmark(one_set)


@pytest.mark.benchmark(group="capture: one set of six cameras")
def test_take_match_frame_set_and_release(benchmark, source):
    """And given out as a frame set."""
    live, kernel = source

    def one_set():
        kernel.expose()
        for camera in live._cameras:
            live._outlet.put(camera.take())
        taken = live._outlet.take(0)
        live._frame_set(taken, 0)
        taken.release()

    benchmark(one_set)


@pytest.mark.benchmark(group="capture: the tightest of two pictures each")
@pytest.mark.parametrize("cameras", [6, 8])
def test_tightest(benchmark, cameras):
    """Free-running cameras with two pictures each."""
    generator = np.random.default_rng(0)
    lanes = [(offset, offset + 33_333_333) for offset in generator.integers(0, 33_333_333, cameras).tolist()]
    benchmark(tightest, lanes, [33_333_333] * cameras)
