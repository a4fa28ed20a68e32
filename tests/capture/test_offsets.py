from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.capture import tending
from fsmde_edge.capture.offsets import CLOSEST, learn_offsets, record_stamps
from fsmde_edge.capture.v4l2.camera import Settings
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.fake import FakeCamera, FakeKernel
from fsmde_edge.errors import DeviceError

MS = 1_000_000


def shots(count, period_ms, *, shift_ms=0.0, jitter_ms=0.0, drift_ppm=0.0, lost=0.0, seed=0):
    """Stamps of a camera that a trigger exposes."""
    random = np.random.default_rng(seed)
    times = np.arange(count) * period_ms * (1 + drift_ppm * 1e-6) + shift_ms
    times = times + random.uniform(-jitter_ms, jitter_ms, count)
    kept = times[random.random(count) >= lost]
    return [round(time * MS) + 10**15 for time in kept]


@given(
    period=st.sampled_from([16.7, 33.3, 50.0, 100.0]),
    share=st.floats(-0.35, 0.35),
    jitter=st.floats(0, 0.04),
    lost=st.floats(0, 0.4),
    seed=st.integers(0, 1000),
)
def test_an_offset_is_found_within_the_jitter_whatever_is_lost(period, share, jitter, lost, seed):
    shift, noise = share * period, jitter * period
    stamps = {
        "front": shots(400, period, jitter_ms=noise, lost=lost, seed=seed),
        "left": shots(400, period, shift_ms=shift, jitter_ms=noise, lost=lost, seed=seed + 1),
    }
    found = learn_offsets(stamps)
    assert found["front"].offset_ms == 0
    assert abs(found["left"].offset_ms + shift) <= 0.5 * noise + 1e-5
    assert found["left"].spread_ms <= 2 * noise + 1e-5
    assert abs(found["left"].drift_ppm) <= found["left"].drift_error_ppm or noise < 0.2


@given(shift=st.floats(-5, 5), seed=st.integers(0, 100))
def test_offsets_applied_leave_nothing_to_learn(shift, seed):
    stamps = {
        "front": shots(200, 33.3, jitter_ms=0.2, seed=seed),
        "left": shots(200, 33.3, shift_ms=shift, jitter_ms=0.2, seed=seed + 1),
    }
    offset = learn_offsets(stamps)["left"].offset_ms
    stamps["left"] = [stamp + round(offset * MS) for stamp in stamps["left"]]
    assert abs(learn_offsets(stamps)["left"].offset_ms) < 2e-6


@given(st.floats(30, 300), st.integers(0, 100), st.booleans())
def test_cameras_that_run_free_are_refused_by_their_drift(ppm, seed, slower):
    drift = -ppm if slower else ppm
    stamps = {
        "front": shots(900, 33.3, jitter_ms=0.1, seed=seed),
        "left": shots(900, 33.3, shift_ms=3, jitter_ms=0.1, drift_ppm=drift, seed=seed + 1),
    }
    with pytest.raises(DeviceError, match="not triggered together: they drift apart by") as caught:
        learn_offsets(stamps)
    assert f"{'-' if slower else '+'}" in str(caught.value)


def test_another_rate_is_refused():
    stamps = {"front": shots(300, 33.3), "left": shots(300, 35.0)}
    with pytest.raises(DeviceError, match="anywhere in each other's period"):
        learn_offsets(stamps)


def test_half_the_rate_is_no_obstacle():
    stamps = {"front": shots(300, 33.3), "left": shots(150, 66.6, shift_ms=-2)}
    assert learn_offsets(stamps)["left"].offset_ms == pytest.approx(2)


@pytest.mark.parametrize("share", [0.45, -0.45, 0.5])
def test_nearly_half_a_period_cannot_be_told_from_the_other_half(share):
    stamps = {"front": shots(300, 40, jitter_ms=1), "left": shots(300, 40, shift_ms=share * 40, jitter_ms=1)}
    assert abs(share) > CLOSEST
    with pytest.raises(DeviceError, match="nearly half a period"):
        learn_offsets(stamps)


def test_too_few_pictures():
    with pytest.raises(DeviceError, match="camera left gave 5 pictures, 30 are needed"):
        learn_offsets({"front": shots(300, 40), "left": shots(5, 40)})


def test_cameras_that_never_ran_at_the_same_time():
    late = [stamp + 10**12 for stamp in shots(100, 40)]
    with pytest.raises(DeviceError, match="only 0 of its 100 pictures"):
        learn_offsets({"front": shots(100, 40), "left": late})


def test_stamps_of_cameras_that_stream():
    cameras = [FakeCamera(f"/dev/fake{number}", rate=60.0) for number in range(2)]
    kernel = FakeKernel(cameras)
    kernel.run()
    try:
        devices = {"a": "/dev/fake0", "b": "/dev/fake1"}
        stamps = record_stamps(devices, dict.fromkeys(devices, Settings(format="UYVY")), 0.7, kernel)
    finally:
        kernel.stop()
    assert list(stamps) == ["a", "b"]
    for found in stamps.values():
        assert len(found) > 5
        assert found == sorted(set(found))
        assert found[-1] - found[0] < 5e9
    kernel.close(kernel.open("/dev/fake0"))  # all was given back


def test_a_camera_that_is_lost_meanwhile_is_named(monkeypatch):
    monkeypatch.setattr(tending, "FIRST_WAIT", 5.0)
    cameras = [FakeCamera(f"/dev/fake{number}", rate=60.0) for number in range(2)]
    kernel = FakeKernel(cameras)
    expose, count = cameras[1].expose, iter(range(10**9))

    def unplugged_later() -> None:
        cameras[1].unplug() if next(count) == 20 else expose()

    cameras[1].expose = unplugged_later
    kernel.run()
    try:
        devices = {"a": "/dev/fake0", "b": "/dev/fake1"}
        with pytest.raises(CameraError, match="camera b was lost while it was measured"):
            record_stamps(devices, dict.fromkeys(devices, Settings(format="UYVY")), 20.0, kernel)
    finally:
        kernel.stop()
