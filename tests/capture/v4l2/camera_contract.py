"""What every device must keep to: run over the fake here, and over the kernel's own driver in the guest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import pytest

from fsmde_edge.capture.lease import Captured, LeaseError
from fsmde_edge.capture.v4l2.buffers import Memory
from fsmde_edge.capture.v4l2.camera import Settings, open_cameras
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.inbox import Inbox
from fsmde_edge.capture.v4l2.kernel import Kernel
from fsmde_edge.capture.v4l2.loop import CaptureThread
from fsmde_edge.frames import Clock

PATIENCE = 15.0
"""Seconds that anything may take: emulated machines are slow."""


class Stage(Protocol):
    """Two devices that take pictures by themselves, and what can go wrong with them."""

    kernel: Kernel
    paths: tuple[str, str]
    size: tuple[int, int]

    def fail_once(self, path: str, call: str) -> None: ...
    def lose(self, path: str) -> None: ...
    def come_back(self, path: str) -> None: ...
    def break_stream(self, path: str) -> None: ...
    def mark_error(self, path: str) -> None: ...
    def shows(self, captured: Captured, pixels: np.ndarray) -> bool: ...


class Running:
    """Cameras, their thread and their inbox."""

    def __init__(self, stage: Stage, settings: Settings, *, depth: int) -> None:
        names = dict(zip(("left", "right"), stage.paths, strict=True))
        cameras, self.ring = open_cameras(names, settings, kernel=stage.kernel)
        self.cameras = {camera.name: camera for camera in cameras}
        self.inbox = Inbox(names, depth=depth)
        self.thread = CaptureThread(cameras, self.inbox)
        self.thread.start()

    def pictures(self, camera: str, count: int) -> Iterator[Captured]:
        """So many pictures of one camera, for the caller to release; those of others are released."""
        until = time.monotonic() + PATIENCE
        while count and time.monotonic() < until:
            for captured in self.inbox.take(0.5):
                if captured.camera == camera and count:
                    count -= 1
                    yield captured
                else:
                    captured.lease.release()
        assert not count, f"{count} pictures of {camera} are missing"

    def keep(self, camera: str) -> Captured:
        """One picture, for the caller to release."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            kept = None
            for captured in self.inbox.take(0.5):
                if captured.camera == camera and kept is None:
                    kept = captured
                else:
                    captured.lease.release()
            if kept is not None:
                return kept
        raise AssertionError(f"no picture of {camera}")

    def see(self, camera: str, count: int) -> None:
        """Wait for so many pictures and release them."""
        for captured in self.pictures(camera, count):
            captured.lease.release()

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Drain the inbox until something is so."""
        until = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < until, "waited too long"
            for captured in self.inbox.take(0.1):
                captured.lease.release()

    def report(self, camera: str):
        return next(report for report in self.thread.reports() if report.name == camera)


@contextmanager
def running(stage: Stage, *, memory: Memory | None = None, depth: int = 2, **more) -> Iterator[Running]:
    settings = Settings(format="YUYV", size=stage.size, memory=memory, **more)
    run = Running(stage, settings, depth=depth)
    try:
        yield run
    finally:
        run.thread.stop()


class CameraContract:
    """Inherit it, and give a fixture `stage`."""

    @pytest.mark.parametrize("memory", Memory)
    def test_every_memory_mode_shows_the_picture_that_its_number_says(self, stage, memory):
        with running(stage, memory=memory) as run:
            for captured in run.pictures("left", 4):
                pixels = np.frombuffer(captured.lease.view(), np.uint8)
                assert len(pixels) == 2 * stage.size[0] * stage.size[1]
                assert stage.shows(captured, pixels)
                assert not pixels.flags.writeable
                assert captured.stamp.clock is Clock.MONOTONIC
                del pixels
                captured.lease.release()
        report = run.report("left")
        assert (report.memory, report.reason) == (memory.value, "asked for")
        assert report.copies == (memory is Memory.COPY)
        assert (report.copied > 0) == (memory is Memory.COPY)

    def test_the_first_mode_is_the_ring_where_the_driver_takes_it(self, stage):
        with running(stage) as run:
            for captured in run.pictures("right", 2):
                assert run.ring.address <= captured.lease.address < run.ring.address + len(run.ring)
                captured.lease.release()
            assert run.report("right").memory == "userptr"

    def test_a_lease_ends_once(self, stage):
        with running(stage) as run:
            captured = run.keep("left")
            captured.lease.release()
            with pytest.raises(LeaseError, match="given back twice"):
                captured.lease.release()
            with pytest.raises(LeaseError, match="after its release"):
                captured.lease.view()
            run.wait_for(lambda: run.report("left").frames > 12)
        assert run.cameras["left"].leased == 0

    @pytest.mark.parametrize("memory", Memory)
    def test_a_picture_on_loan_outlives_its_camera(self, stage, memory):
        with running(stage, memory=memory) as run:
            kept = run.keep("left")
            before = bytes(kept.lease.view())
            stage.lose(stage.paths[0])
            run.wait_for(lambda: run.thread.streaming == 1)
            stage.come_back(stage.paths[0])
            run.wait_for(lambda: run.thread.streaming == 2)
            seen = run.report("left").frames
            run.wait_for(lambda: run.report("left").frames > seen + 12)
            assert bytes(kept.lease.view()) == before
        assert bytes(kept.lease.view()) == before
        kept.lease.release()
        assert run.cameras["left"].leased == 0

    def test_a_lost_camera_comes_back_and_the_other_goes_on(self, stage):
        with running(stage) as run:
            run.see("left", 2)
            stage.lose(stage.paths[0])
            run.wait_for(lambda: run.thread.streaming == 1)
            run.see("right", 5)
            assert run.report("left").outages[0].until_ns is None
            stage.come_back(stage.paths[0])
            run.see("left", 3)
            (outage,) = run.report("left").outages
            assert outage.until_ns > outage.since_ns
            assert stage.paths[0] in outage.why
            assert run.report("right").outages == ()

    def test_a_broken_stream_heals(self, stage):
        with running(stage) as run:
            run.see("left", 2)
            stage.break_stream(stage.paths[0])
            run.wait_for(lambda: bool(run.report("left").outages))
            run.see("left", 3)
            assert run.report("left").outages[0].until_ns is not None

    @pytest.mark.parametrize("memory", Memory)
    def test_a_picture_on_loan_outlives_the_healing_of_its_stream(self, stage, memory):
        with running(stage, memory=memory, buffers=3) as run:
            kept = run.keep("left")
            before = bytes(kept.lease.view())
            stage.break_stream(stage.paths[0])
            run.wait_for(lambda: bool(run.report("left").outages))
            seen = run.report("left").frames
            run.wait_for(lambda: run.report("left").frames > seen + 8)
            assert run.thread.streaming == 2
            assert bytes(kept.lease.view()) == before
            kept.lease.release()

    def test_a_picture_with_the_error_flag_is_dropped_and_counted(self, stage):
        with running(stage) as run:
            run.see("left", 2)
            stage.mark_error(stage.paths[0])
            run.wait_for(lambda: run.report("left").drops["error flag"] == 1)
            run.see("left", 2)
            assert run.report("left").outages == ()

    def test_a_consumer_that_never_releases_starves_its_own_camera_alone(self, stage):
        with running(stage, buffers=4) as run:
            held = [run.keep("left") for _ in range(4)]
            seen = run.report("left").frames
            run.wait_for(lambda: run.report("right").frames > 20)
            assert run.report("left").frames == seen
            for captured in held:
                captured.lease.release()
            run.see("left", 2)
            assert run.report("left").drops["slow consumer"] > 0
            assert run.report("left").drops["gap"] == 0
            assert run.report("left").outages == ()

    def test_a_slow_reader_loses_the_oldest(self, stage):
        with running(stage, depth=2) as run:
            until = time.monotonic() + PATIENCE
            while run.report("left").frames < 8 and time.monotonic() < until:
                time.sleep(0.02)
            waiting = run.inbox.take(1)
            ours = [captured for captured in waiting if captured.camera == "left"]
            assert 1 <= len(ours) <= 2
            assert ours[-1].sequence >= 6
            assert run.report("left").drops["slow consumer"] >= 6
            for captured in waiting:
                captured.lease.release()

    def test_a_buffer_that_the_driver_refuses_is_offered_again(self, stage):
        with running(stage, buffers=3) as run:
            for _ in range(3):  # without a second offer the ring would be empty after these
                run.see("left", 1)
                stage.fail_once(stage.paths[0], "QBUF")
            run.see("left", 6)
            assert run.report("left").outages == ()

    @pytest.mark.parametrize("call", ["REQBUFS", "STREAMON"])
    def test_a_forced_mode_that_fails_is_an_error_and_closes_all(self, stage, call):
        stage.fail_once(stage.paths[1], call)
        wanted = Settings(format="YUYV", size=stage.size, memory=Memory.USERPTR)
        names = dict(zip(("left", "right"), stage.paths, strict=True))
        with pytest.raises(CameraError, match=r"with memory userptr; leave --memory out") as caught:
            open_cameras(names, wanted, kernel=stage.kernel)
        assert caught.value.where == stage.paths[1]
        with running(stage, memory=Memory.USERPTR) as run:
            run.see("right", 1)

    def test_without_a_forced_mode_a_refusal_is_told(self, stage):
        stage.fail_once(stage.paths[1], "REQBUFS")
        with running(stage) as run:
            run.see("right", 1)
            report = run.report("right")
        assert report.memory == "dmabuf"
        assert "userptr refused" in report.reason

    def test_another_format_or_size_than_was_asked_for_is_an_error(self, stage):
        paths, odd = {"left": stage.paths[0]}, Settings(format="YUYV", size=(1234, 567))
        with pytest.raises(CameraError, match="does not give MJPG"):
            open_cameras(paths, Settings(format="MJPG"), kernel=stage.kernel)
        with pytest.raises(CameraError, match=r"does not give YUYV 1234x567; its driver would give YUYV"):
            open_cameras(paths, odd, kernel=stage.kernel)

    def test_a_camera_in_use_says_how_to_find_who_has_it(self, stage):
        with running(stage) as run:
            run.see("left", 1)
            with pytest.raises(CameraError, match=f"fuser -v {stage.paths[0]}"):
                open_cameras({"left": stage.paths[0]}, Settings(size=stage.size), kernel=stage.kernel)
