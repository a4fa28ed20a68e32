"""Six of the kernel's cameras as one source: sets, their skew and age, a camera that goes and comes back."""

from __future__ import annotations

import os
import time
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from vivid import DISCONNECT, DROPPED_PERCENT, ERROR_NEXT, tell

from fsmde_edge.capture.live import LiveOptions, LiveSource
from fsmde_edge.capture.sync import Missing
from fsmde_edge.capture.v4l2.camera import Settings
from fsmde_edge.capture.v4l2.ioctls import open_node, set_control
from fsmde_edge.capture.v4l2.kernel import LinuxKernel
from fsmde_edge.capture.video import rig_of_pinholes
from fsmde_edge.rig import VirtualPinhole

CAMERAS = tuple(f"camera{number}" for number in range(6))
DEVICES = {camera: f"/dev/video{number}" for number, camera in enumerate(CAMERAS)}
SIZE = (320, 180)
HOUR = 3600
PATIENCE = 30.0


@contextmanager
def live(**options):
    rig = rig_of_pinholes(
        VirtualPinhole(
            name=camera, width=SIZE[0], height=SIZE[1], fx=200.0, fy=200.0, cx=160.0, cy=90.0,
            fx_range=(1.0, 1000.0), yaw_deg=60.0 * number, pitch_deg=0.0, height_m=1.5,
        )
        for number, camera in enumerate(CAMERAS)
    )  # fmt: skip
    devices = dict(zip(rig.names, DEVICES.values(), strict=True))
    settings = Settings(format="UYVY", rate=Fraction(30))
    with closing(LiveSource(rig, devices, LiveOptions(settings=settings, **options))) as source:
        yield source


def seen(source: LiveSource, count: int):
    """The first sets; each is given back when the next is asked for."""
    for _, frame_set in zip(range(count), source, strict=False):
        yield frame_set


def after(sets, what) -> None:
    """Look at sets until one is so."""
    until = time.monotonic() + PATIENCE
    while not what(next(sets)):
        assert time.monotonic() < until, "waited too long"


def test_sets_of_six_rise_hold_everyone_once_and_keep_the_tolerance():
    with live(tolerance_ms=60.0) as source:
        before = np.zeros(6)
        for frame_set in seen(source, 40):
            stamps = np.array(frame_set.stamps_ns)
            assert all(frame_set.valid)
            assert (stamps > before).all()
            before = stamps
            assert frame_set.skew_ms <= 60
            for frame in frame_set.frames:
                assert len(frame.raw) == 2 * SIZE[0] * SIZE[1]
        source.close()
        reports = source.reports()
    for report in reports:
        assert report.camera.memory == "userptr"
        assert (report.camera.copied, report.foreign_clock) == (0, False)
        behind = source._outlet.drops[report.camera.name]
        assert report.camera.frames == 40 + sum(behind.values())


def test_ages_do_not_change_when_the_clock_on_the_wall_does():
    now = time.time()
    try:
        with live() as source:
            sets = iter(source)
            for _ in range(5):
                next(sets)
            time.clock_settime(time.CLOCK_REALTIME, now + HOUR)
            for _ in range(5):
                ages = next(sets).ages_ns(time.monotonic_ns())
                assert max(ages.values()) < 5e9
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.time() - HOUR)


def test_a_camera_that_is_gone_is_masked_and_the_five_others_go_on():
    with live(missing=Missing.MASK) as source:
        sets = iter(source)
        after(sets, lambda each: all(each.valid))
        kept = open_node(DEVICES["camera2"], LinuxKernel())  # while it is open the device stays away
        set_control(kept, DISCONNECT, 1)
        after(sets, lambda each: each.valid == (True, True, False, True, True, True))
        kept.close()
        after(sets, lambda each: all(each.valid))
        (outage,) = source.reports()[2].camera.outages
        assert outage.until_ns > outage.since_ns
        assert all(
            not report.camera.outages
            for report in source.reports()
            if report.camera.path != DEVICES["camera2"]
        )


@pytest.mark.parametrize("missing", Missing)
def test_pictures_that_are_lost_or_broken_are_counted_and_cost_no_more_than_their_sets(missing):
    with live(missing=missing) as source:
        sets = iter(source)
        after(sets, lambda each: all(each.valid))
        tell(DEVICES["camera1"], DROPPED_PERCENT, 30)
        tell(DEVICES["camera4"], ERROR_NEXT)
        until = time.monotonic() + PATIENCE
        while source.drops["camera1"]["gap"] < 5 or not source.drops["camera4"]["error flag"]:
            next(sets)
            assert time.monotonic() < until
        tell(DEVICES["camera1"], DROPPED_PERCENT, 0)
        after(sets, lambda each: all(each.valid))
        assert all(not report.camera.outages for report in source.reports())


def test_six_cameras_to_depth(tmp_path, capfd):
    from fsmde_edge.bundle import open_bundle
    from fsmde_edge.cli.main import main

    bundle = os.environ.get("FSMDE_KERNEL_BUNDLE", "")
    if not Path(bundle, "manifest.json").is_file():
        pytest.skip("NOT RUN: no bundle; tools/kernel/run_tests.py builds one")
    out = tmp_path / "depth"
    given = ["run", bundle, "--cameras", "/dev/video0-5", "--frames", "2", "--precision", "fp32"]
    more = [
        "--size",
        "320x180",
        "--max-age",
        "100000",
        "--out",
        str(out),
        "--format",
        "npz",
        "--threads",
        "2",
    ]
    assert main([*given, *more]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "2 frame sets" in said.out
    assert said.out.count("memory userptr, copies 0, 0 bytes copied") == 6
    made = np.load(out / "000001.npz")
    height, width = open_bundle(Path(bundle)).manifest.size
    assert made["depth"].shape == (6, height, width)
    assert made["valid"].all()
    assert np.ptp(made["stamps_ns"]) < 1e9  # a loaded emulator's cameras are slow
