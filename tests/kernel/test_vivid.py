"""What only the kernel's own driver can show."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import pytest
from camera_contract import running
from test_contract_vivid import VividStage
from vivid import DROPPED_PERCENT, WRAP_SEQUENCE, opened, tell

from fsmde_edge.capture.v4l2.buffers import Memory
from fsmde_edge.capture.v4l2.camera import Settings, open_cameras
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.inbox import Inbox
from fsmde_edge.capture.v4l2.ioctls import (
    formats,
    get_control,
    next_event,
    rates,
    set_control,
    set_rate,
    sizes,
    subscribe,
)
from fsmde_edge.capture.v4l2.kernel import LinuxKernel
from fsmde_edge.capture.v4l2.loop import CaptureThread
from fsmde_edge.capture.v4l2.structs import BufType, EventType

DRIVER = Path("/sys/bus/platform/drivers/vivid")
BRIGHTNESS = 0x00980900
MULTIPLANAR, CONTIGUOUS = "/dev/video6", "/dev/video7"


@pytest.fixture
def stage():
    return VividStage()


def first_picture(path: str, memory: Memory | None):
    (camera,), _ = open_cameras(
        {"one": path}, Settings(format="YUYV", size=(320, 180), memory=memory), kernel=LinuxKernel()
    )
    try:
        until = time.monotonic() + 5
        while (captured := camera.take()) is None and time.monotonic() < until:
            time.sleep(0.01)
        assert captured is not None
        picture = bytes(captured.lease.view())
        captured.lease.release()
        return picture, camera.memory, camera.reason
    finally:
        camera.close()


def test_what_a_device_offers_is_listed():
    with opened("/dev/video0") as node:
        assert node.queue is BufType.CAPTURE
        assert (node.driver, node.card) == ("vivid", "vivid")
        assert {"YUYV", "UYVY", "NV12", "NV16", "RGB3", "GREY", "RGGB", "RG10"} <= set(formats(node))
        assert (1280, 720) in list(sizes(node, "YUYV"))
        assert max(rates(node, "YUYV", 320, 180)) >= 30
        assert list(sizes(node, "????")) == []
        assert set_rate(node, Fraction(15)) == 15


def test_controls_are_read_and_set_and_told_of():
    with opened("/dev/video0") as node, opened("/dev/video0") as other:
        assert subscribe(node, EventType.CONTROL, id=BRIGHTNESS)
        before = get_control(node, BRIGHTNESS)
        assert next_event(node) is None
        set_control(other, BRIGHTNESS, before + 1)
        event = next_event(node)
        assert (event.type, event.id) == (EventType.CONTROL, BRIGHTNESS)
        assert get_control(node, BRIGHTNESS) == before + 1
        set_control(other, BRIGHTNESS, before)
        with pytest.raises(CameraError, match="set its control 0x7fff"):
            set_control(node, 0x7FFF, 0)


@pytest.mark.parametrize("memory", Memory)
def test_a_multiplanar_device_shows_the_same_picture_in_every_mode(memory):
    with opened(MULTIPLANAR) as node:
        assert node.queue is BufType.CAPTURE_MPLANE
    picture, used, _ = first_picture(MULTIPLANAR, memory)
    assert used is memory
    luma = picture[::2]
    assert len(picture) == 2 * 320 * 180
    assert luma[320 * 100 : 320 * 100 + 16] == luma[320 * 101 : 320 * 101 + 16]  # colour bars: rows are alike
    assert picture[320 * 2 * 100 :][:2] != b"\0\0"


def test_a_device_that_cannot_write_to_our_memory_says_so():
    _, memory, reason = first_picture(CONTIGUOUS, None)
    assert memory is Memory.DMABUF
    assert "userptr refused: cannot make" in reason
    with pytest.raises(CameraError, match="with memory userptr"):
        first_picture(CONTIGUOUS, Memory.USERPTR)


def test_pictures_that_the_driver_drops_are_counted(stage):
    with running(stage) as run:
        run.see("left", 2)
        tell(stage.paths[0], DROPPED_PERCENT, 50)
        run.wait_for(lambda: run.report("left").drops["gap"] >= 5)
        tell(stage.paths[0], DROPPED_PERCENT, 0)
        assert run.report("right").outages == ()


def test_a_camera_that_gives_nothing_is_restarted_and_the_other_goes_on(stage):
    with running(stage) as run:
        run.see("left", 2)
        tell(stage.paths[0], DROPPED_PERCENT, 100)
        run.wait_for(lambda: bool(run.report("left").outages))
        assert "gives no pictures" in run.report("left").outages[0].why
        tell(stage.paths[0], DROPPED_PERCENT, 0)
        run.see("left", 2)
        run.see("right", 2)


def test_numbers_that_wrap_are_no_loss(stage):
    tell(stage.paths[0], WRAP_SEQUENCE, 1)
    try:
        with running(stage, rate=Fraction(40)) as run:
            numbers = []
            for captured in run.pictures("left", 150):
                numbers.append(captured.sequence)
                captured.lease.release()
            report = run.report("left")
    finally:
        tell(stage.paths[0], WRAP_SEQUENCE, 0)
    assert min(numbers) < 30
    assert max(numbers) > 2**32 - 128
    lost = (numbers[-1] - numbers[0]) % 2**32 + 1 - len(numbers)
    assert 0 <= lost <= report.drops["gap"] + report.drops["slow consumer"] < 1000


def test_six_cameras_go_and_come_back_when_their_driver_does():
    names = {f"camera{i}": f"/dev/video{i}" for i in range(6)}
    cameras, _ = open_cameras(names, Settings(format="UYVY", size=(320, 180)), kernel=LinuxKernel())
    thread = CaptureThread(cameras, inbox := Inbox(names))
    thread.start()

    def drain_until(what) -> None:
        until = time.monotonic() + 20
        while not what():
            assert time.monotonic() < until
            for captured in inbox.take(0.05):
                captured.lease.release()

    try:
        drain_until(lambda: all(report.frames >= 10 for report in thread.reports()))
        assert {report.memory for report in thread.reports()} == {"userptr"}
        (DRIVER / "unbind").write_text("vivid.0")
        drain_until(lambda: thread.streaming == 0)
        (DRIVER / "bind").write_text("vivid.0")
        drain_until(lambda: thread.streaming == 6)
        seen = {report.name: report.frames for report in thread.reports()}
        drain_until(lambda: all(report.frames > seen[report.name] for report in thread.reports()))
        assert all(report.outages[0].until_ns for report in thread.reports())
        assert {report.copied for report in thread.reports()} == {0}
    finally:
        thread.stop()
