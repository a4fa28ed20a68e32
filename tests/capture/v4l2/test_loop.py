"""The capture thread, where only a fake can fail as it should."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from camera_contract import running
from test_contract_fake import FakeStage

from fsmde_edge.capture import tending
from fsmde_edge.capture.v4l2 import loop
from fsmde_edge.capture.v4l2.buffers import Memory
from fsmde_edge.capture.v4l2.camera import Camera, Settings, open_cameras
from fsmde_edge.capture.v4l2.inbox import Inbox
from fsmde_edge.frames import ExposurePoint


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setattr(loop, "SILENT_LEAST", 0.2)
    monkeypatch.setattr(tending, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(tending, "LONGEST_WAIT", 0.08)
    stage = FakeStage()
    stage.kernel.run()
    yield stage
    stage.kernel.stop()


def test_a_silent_camera_is_restarted_then_opened_anew_and_the_other_goes_on(stage):
    with running(stage) as run:
        run.see("left", 2)
        stage.kernel.cameras[stage.paths[0]].silent = True
        run.wait_for(lambda: bool(run.report("left").outages))
        assert "gives no pictures" in run.report("left").outages[0].why
        run.wait_for(lambda: run.thread.streaming == 1)
        run.see("right", 3)
        stage.kernel.cameras[stage.paths[0]].silent = False
        run.see("left", 3)
        assert len(run.report("left").outages) == 1


def test_a_camera_whose_pictures_are_all_on_loan_is_not_taken_for_silent(stage):
    with running(stage, buffers=3) as run:
        kept = [run.keep("left") for _ in range(3)]
        until = time.monotonic() + 0.6
        run.wait_for(lambda: time.monotonic() > until)
        for captured in kept:
            captured.lease.release()
        run.see("left", 2)
        assert run.report("left").outages == ()


def test_all_cameras_gone_and_back(stage):
    with running(stage) as run:
        for path in stage.paths:
            stage.lose(path)
        run.wait_for(lambda: run.thread.streaming == 0)
        assert run.inbox.is_open
        for path in stage.paths:
            stage.come_back(path)
        run.see("left", 2)
        run.see("right", 2)


def test_a_source_that_changes_its_format_is_lost_until_it_is_as_it_was(stage):
    camera = stage.kernel.cameras[stage.paths[0]]
    with running(stage) as run:
        run.see("left", 2)
        camera.change_source(320, 180)
        run.wait_for(lambda: bool(run.report("left").outages))
        assert "its source changed" in run.report("left").outages[0].why
        run.see("left", 3)
        assert run.report("left").layout == "YUYV 64x32"


def test_pictures_that_never_came_are_counted_as_gaps(stage):
    with running(stage) as run:
        run.see("left", 3)
        stage.kernel.cameras[stage.paths[0]].skip = 5
        run.wait_for(lambda: run.report("left").drops["gap"] >= 5)
        assert run.report("left").drops["gap"] == 5
        assert run.report("right").drops["gap"] == 0


def test_a_camera_whose_pictures_are_all_on_loan_at_its_return_waits_for_them(stage):
    with running(stage, memory=Memory.USERPTR, buffers=2) as run:
        kept = [run.keep("left"), run.keep("left")]
        stage.lose(stage.paths[0])
        run.wait_for(lambda: run.thread.streaming == 1)
        stage.come_back(stage.paths[0])
        time.sleep(0.3)
        before = [bytes(captured.lease.view()) for captured in kept]
        run.see("right", 3)
        assert [bytes(captured.lease.view()) for captured in kept] == before
        assert run.thread.streaming == 1
        for captured in kept:
            captured.lease.release()
        run.see("left", 2)


def test_a_fault_of_the_program_is_raised_by_stop_and_closes_everything(stage, monkeypatch):
    def broken(_self):
        raise ZeroDivisionError

    with running(stage) as run:
        run.see("left", 1)
        monkeypatch.setattr(Camera, "take", broken)
        while run.inbox.is_open:
            time.sleep(0.01)
        with pytest.raises(ZeroDivisionError):
            run.thread.stop()
    stage.kernel.close(stage.kernel.open(stage.paths[0]))


def test_a_thread_that_never_began_closes_its_cameras_all_the_same(stage):
    names = {"left": stage.paths[0]}
    cameras, _ = open_cameras(names, Settings(), kernel=stage.kernel)
    thread = loop.CaptureThread(cameras, inbox := Inbox(names))
    thread.stop()
    assert not inbox.is_open
    stage.kernel.close(stage.kernel.open(stage.paths[0]))


def test_a_rate_is_set_and_stamps_name_their_exposure(stage):
    with running(stage, rate=Fraction(50)) as run:
        captured = run.keep("left")
        assert captured.stamp.exposure is ExposurePoint.END
        assert 0 <= captured.arrival_ns - captured.stamp.ns < 10**10
        captured.lease.release()
        assert run.report("left").rate == 50
        run.thread.stop()
        run.thread.stop()
