"""Cameras as a source, over fakes: sets, ages, faults; and raw buffers straight to the network's input."""

from __future__ import annotations

import gc
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsmde_edge.capture import tending
from fsmde_edge.capture.lease import LeaseError
from fsmde_edge.capture.live import LiveOptions, LiveSource
from fsmde_edge.capture.sync import Missing
from fsmde_edge.capture.v4l2 import loop
from fsmde_edge.capture.v4l2.buffers import Memory
from fsmde_edge.capture.v4l2.camera import Settings
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.capture.video import rig_of_pinholes
from fsmde_edge.errors import InputError
from fsmde_edge.frames import Clock
from fsmde_edge.preprocess import own_pinholes, preprocess
from fsmde_edge.preprocessing.prepare import open_preparation
from fsmde_edge.preprocessing.raw import unpack
from fsmde_edge.rig import VirtualPinhole
from fsmde_edge.views import Views

SIZE = (64, 32)
PATIENCE = 15.0


def pinholes(count: int) -> tuple[VirtualPinhole, ...]:
    return tuple(
        VirtualPinhole(
            name=f"c{number}",
            width=SIZE[0],
            height=SIZE[1],
            fx=40.0,
            fy=40.0,
            cx=32.0,
            cy=16.0,
            fx_range=(10.0, 100.0),
            yaw_deg=number * 360 / count,
            pitch_deg=0.0,
            height_m=1.5,
        )
        for number in range(count)
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(loop, "SILENT_LEAST", 0.3)
    monkeypatch.setattr(tending, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(tending, "LONGEST_WAIT", 0.08)


@contextmanager
def live(count=2, *, rate=60.0, kernel=None, say=lambda _: None, **options):
    """(source, fakes) of cameras that take pictures by themselves."""
    made = [FakeCamera(f"/dev/fake{number}", rate=rate) for number in range(count)]
    system = kernel or FakeKernel(made)
    rig = rig_of_pinholes(pinholes(count))
    devices = {name: f"/dev/fake{number}" for number, name in enumerate(rig.names)}
    settings = options.pop("settings", Settings(format="UYVY"))
    with closing(
        LiveSource(rig, devices, LiveOptions(settings=settings, **options), kernel=system, say=say)
    ) as source:
        system.run()
        try:
            yield source, made
        finally:
            source.close()
            system.stop()


def some(source, count):
    """The first sets; each is given back when the next is asked for."""
    for _, frame_set in zip(range(count), source, strict=False):  # in this order it asks for no more
        yield frame_set


def cut(cameras, *, after: float) -> None:
    """Unplug them in a while."""
    threading.Timer(after, lambda: [camera.unplug() for camera in cameras]).start()


def drain(source):
    """Look at sets until there are none."""
    for _ in source:
        pass


def test_sets_rise_and_are_young_and_hold_every_camera_once():
    with live(3) as (source, _):
        before = dict.fromkeys(source.rig.names, 0)
        for number, frame_set in enumerate(some(source, 20)):
            ages = frame_set.ages_ns(time.monotonic_ns())
            assert (frame_set.index, frame_set.cameras) == (number, source.rig.names)
            assert all(frame_set.valid)
            assert {frame.stamp.clock for frame in frame_set.frames} == {Clock.MONOTONIC}
            assert 0 < max(ages.values()) < 2e9
            for frame in frame_set.frames:
                assert frame.stamp.ns > before[frame.camera]
                before[frame.camera] = frame.stamp.ns
            assert abs(frame_set.realtime_offset_ns - (time.time_ns() - time.monotonic_ns())) < 1e9
        reports = source.reports()
    assert [report.camera.name for report in reports] == list(source.rig.names)
    assert {report.camera.memory for report in reports} == {"userptr"}
    assert {report.camera.copied for report in reports} == {0}
    assert {report.bytes_per_set for report in reports} == {64 * 32 * 2}
    assert min(report.behind_ms for report in reports) >= 0


def test_a_set_is_what_its_drivers_wrote_until_it_is_given_back():
    with live() as (source, _):
        for frame_set in some(source, 5):
            for frame in frame_set.frames:
                assert (np.frombuffer(frame.raw, np.uint32) == frame.sequence).all()
            kept = frame_set
            frame_set.release()
            frame_set.release()
            with pytest.raises((ValueError, LeaseError)):
                bytes(kept.frames[0].raw)
    assert all(camera.leased == 0 for camera in source._cameras)


def test_raw_buffers_become_the_networks_input_by_the_definition():
    with live() as (source, _):
        small = own_pinholes(source.rig, 32, 16)
        world = np.ones((2, 16, 32), dtype=bool)
        preparation = open_preparation(source.rig.cameras, small, layouts=source.layouts)
        views = Views(rig=source.rig, pinholes=small, world=world, preparation=preparation)
        defined = replace(views, preparation=None)
        for frame_set in some(source, 3):
            images, focal = views.prepare(frame_set)
            slow, same = defined.prepare(frame_set)
            assert np.abs(images.astype(int) - slow).max() <= 1
            np.testing.assert_array_equal(focal, same)
            for image, frame, camera, pinhole in zip(
                slow, frame_set.frames, source.rig.cameras, small, strict=True
            ):
                picture = unpack(bytes(frame.raw), frame.layout)
                np.testing.assert_array_equal(image, preprocess(picture, camera, pinhole))


def test_a_lost_camera_is_masked_and_told_of_and_taken_back():
    said = []
    with live(3, missing=Missing.MASK, say=said.append) as (source, cameras):
        incoming, until = iter(source), time.monotonic() + PATIENCE
        assert all(next(incoming).valid)
        cameras[1].unplug()
        while (masked := next(incoming)).valid != (True, False, True):
            assert time.monotonic() < until
        assert masked.frames[1].raw is None
        assert not masked.frames[1].image.any()
        assert set(masked.ages_ns(time.monotonic_ns())) == {"c0", "c2"}
        small = own_pinholes(source.rig, 32, 16)
        preparation = open_preparation(source.rig.cameras, small, layouts=source.layouts)
        images = preparation.images([frame.raw for frame in masked.frames])
        assert [image.any() for image in images] == [True, False, True]
        while not said:
            next(incoming)
        cameras[1].plug()
        while not all(next(incoming).valid):
            assert time.monotonic() < until
        next(incoming)
        (outage,) = source.reports()[1].camera.outages
        assert outage.until_ns is not None
    assert said[0].startswith("camera c1 is lost: /dev/fake1")
    assert said[1:] == ["camera c1 is back"]


def test_without_masks_a_lost_camera_ends_in_an_error_that_names_it():
    with live(2, patience_s=0.5) as (source, cameras):
        cut(cameras[:1], after=0.2)
        what = r"no frame set came for 0.5 s: 1 of 2 cameras are lost, c0.*--missing mask"
        with pytest.raises(CameraError, match=what):
            drain(source)


def test_all_cameras_gone_is_an_error_in_time():
    with live(2, patience_s=0.4, missing=Missing.MASK) as (source, cameras):
        cut(cameras, after=0.2)
        with pytest.raises(CameraError, match=r"2 of 2 cameras are lost.*check cables and power$"):
            drain(source)


def test_cameras_that_never_meet_say_so():
    what = r"not of one instant; raise --tolerance"
    with live(2, patience_s=0.4, tolerance_ms=1e-6) as (source, _), pytest.raises(CameraError, match=what):
        drain(source)


def test_stop_ends_the_wait():
    with live(2) as (source, cameras):
        incoming = iter(source)
        next(incoming)
        for camera in cameras:
            camera.silent = True
        timer = threading.Timer(0.1, source.stop)
        timer.start()
        started = time.monotonic()
        assert list(incoming) == [] or time.monotonic() - started < 5
        timer.join()


def test_a_slow_reader_gets_young_sets_and_the_drops_add_up():
    with live(2, rate=100.0) as (source, _):
        ages = []
        for frame_set in some(source, 8):
            ages.append(max(frame_set.ages_ns(time.monotonic_ns()).values()))
            time.sleep(0.08)
        source.close()
        reports = source.reports()
    assert max(ages) < 1e9
    assert max(ages[4:]) < 4 * max(ages[:4]) + 0.1e9  # they do not grow
    for report in reports:
        assert report.camera.drops["slow consumer"] > 10
        assert report.camera.frames == 8 + sum(source._outlet.drops[report.camera.name].values())


def test_a_reader_that_keeps_its_set_leaves_buffers_to_the_driver():
    with live(2) as (source, cameras):
        next(iter(source))
        cameras[1].silent = True  # the other's pictures wait for it in vain
        until = time.monotonic() + PATIENCE
        while source.drops["c0"]["unmatched"] < 5 and time.monotonic() < until:
            assert source._cameras[0].leased <= 4
            time.sleep(0.01)
        assert source.drops["c0"]["unmatched"] >= 5
    assert all(camera.leased == 0 for camera in source._cameras)


@pytest.mark.parametrize("memory", Memory)
def test_every_memory_mode_says_its_copies(memory):
    with live(2, settings=Settings(format="UYVY", memory=memory)) as (source, _):
        for frame_set in some(source, 3):
            assert (np.frombuffer(frame_set.frames[0].raw, np.uint32) == frame_set.frames[0].sequence).all()
        for report in source.reports():
            assert report.camera.memory == memory.value
            assert (report.camera.copied > 0) == (memory is Memory.COPY)


def test_the_size_is_the_rigs_own():
    kernel = FakeKernel([FakeCamera("/dev/fake0")])
    rig = rig_of_pinholes([replace(pinholes(1)[0], width=320, height=180)])
    with closing(LiveSource(rig, {"c0": "/dev/fake0"}, LiveOptions(), kernel=kernel)) as source:
        assert (source.layouts[0].width, source.layouts[0].height) == (320, 180)
    odd = rig_of_pinholes([replace(pinholes(1)[0], width=100, height=50)])
    with pytest.raises(CameraError, match="does not give UYVY 100x50"):
        LiveSource(odd, {"c0": "/dev/fake0"}, LiveOptions(), kernel=kernel)


def test_a_rig_that_is_squashed_follows_the_camera():
    kernel = FakeKernel([FakeCamera("/dev/fake0")])
    rig = rig_of_pinholes(pinholes(1))
    options = LiveOptions(settings=Settings(size=(320, 180)))
    with closing(LiveSource(rig, {"c0": "/dev/fake0"}, options, squash=True, kernel=kernel)) as source:
        (camera,) = source.rig.cameras
        assert (camera.width, camera.height) == (320, 180)
        assert camera.intrinsics[0, 0] == pytest.approx(200)


def test_masks_that_cannot_be_used_close_the_cameras(tmp_path):
    kernel = FakeKernel([FakeCamera("/dev/fake0")])
    (tmp_path / "c0_mask.png").write_bytes(b"no picture")
    with pytest.raises(InputError):
        LiveSource(
            rig_of_pinholes(pinholes(1)), {"c0": "/dev/fake0"}, LiveOptions(), masks=tmp_path, kernel=kernel
        )
    kernel.close(kernel.open("/dev/fake0"))


def test_nothing_is_left_open():
    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    with live(2) as (source, _):
        list(some(source, 1))
    before, threads = descriptors(), threading.active_count()
    for _ in range(3):
        with live(2) as (source, _):
            list(some(source, 2))
    assert (descriptors(), threading.active_count()) == (before, threads)


def test_offsets_of_the_rig_are_added_to_stamps():
    with live(2, offsets_ms={"c1": -400.0}, tolerance_ms=1000.0) as (source, _):
        for frame_set in some(source, 3):
            ages = frame_set.ages_ns(time.monotonic_ns())
            assert ages["c1"] > 350e6
            assert ages["c1"] - ages["c0"] > 300e6
