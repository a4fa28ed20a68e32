"""Constant offsets between cameras that one trigger exposes: what their stamps tell, and where they refuse.

Cameras that are triggered together show one instant, but their drivers stamp at different points of the way.
The usual difference of a camera's stamps to those of the first is what has to be added, with the other sign.
What no stamp shows cannot be learnt here: exposures that truly begin apart, or that last unequally long.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.capture.clock import StampClock
from fsmde_edge.capture.v4l2.camera import Settings, begin_cameras, prepare_cameras
from fsmde_edge.capture.v4l2.errors import CameraError
from fsmde_edge.capture.v4l2.inbox import Inbox
from fsmde_edge.capture.v4l2.kernel import Kernel
from fsmde_edge.capture.v4l2.loop import CaptureThread
from fsmde_edge.errors import DeviceError

Numbers = NDArray[np.float64]

WARM_UP = 1.0
"""Seconds after the start whose pictures do not count."""

FEWEST = 30
"""Pictures of a camera from which an offset may be learnt."""

TOGETHER = 0.8
"""Least concentration of the differences on the circle of one period (0: anywhere, 1: all alike)."""

CLOSEST = 0.4
"""Of a period: cameras that lie further apart might as well be one picture apart the other way."""

LEAST_DRIFT_NS, SIGMAS = 200_000, 4.0
"""A difference that changes over the measurement by this much, and by so many standard errors, drifts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """One camera against the first.

    Attributes:
        offset_ms: what is to be added to its stamps.
        spread_ms: half the width of the middle nine tenths of the differences.
        drift_ppm, drift_error_ppm: how its pace differs, and the `SIGMAS` standard errors of that.
        matched: pictures of it that were compared.
    """

    offset_ms: float
    spread_ms: float
    drift_ppm: float
    drift_error_ppm: float
    matched: int


def learn_offsets(stamps: Mapping[str, Sequence[int]]) -> dict[str, Offset]:
    """Offsets of all cameras against the first.

    A stamp is compared with the nearest of the first camera's. Differences are taken modulo the period,
    around their circular mean: a lost neighbour changes nothing, and half a period is on one side. Ours.

    Args:
        stamps: camera to its stamps, rising, in nanoseconds on one clock; the first is the reference.

    Raises:
        DeviceError: a camera gave too few pictures, or is not triggered together with the first.
    """
    names = list(stamps)
    for name in names:
        if len(stamps[name]) < FEWEST:
            raise DeviceError(
                f"camera {name} gave {len(stamps[name])} pictures, {FEWEST} are needed",
                hint="measure for longer (--seconds), or see why: fsmde-edge cameras",
            )
    begin = stamps[names[0]][0]
    relative = {name: np.asarray(stamps[name], np.int64) - begin for name in names}
    reference = relative[names[0]].astype(np.float64)
    period = float(np.percentile(np.diff(reference), 25))  # lost pictures only lengthen
    others = {name: _against(reference, relative[name], period, name, names[0]) for name in names[1:]}
    return {names[0]: _itself(len(reference)), **others}


def _itself(pictures: int) -> Offset:
    return Offset(offset_ms=0.0, spread_ms=0.0, drift_ppm=0.0, drift_error_ppm=0.0, matched=pictures)


def _against(reference: Numbers, stamps: NDArray[np.int64], period: float, name: str, first: str) -> Offset:
    times = stamps.astype(np.float64)
    differences = times - _nearest(reference, times)
    near = np.abs(differences) <= period  # one of the other's may have been lost
    times, differences = times[near], differences[near]
    if len(times) < FEWEST or 2 * len(times) < len(stamps):
        raise _apart(name, first, f"only {len(times)} of its {len(stamps)} pictures meet one of the other's")
    turn = np.exp(2j * np.pi * differences / period).mean()
    if abs(turn) < TOGETHER:
        raise _apart(name, first, "their stamps lie anywhere in each other's period")
    middle = np.angle(turn) / (2 * np.pi) * period
    differences = middle + (differences - middle + period / 2) % period - period / 2
    drift, error = _slope(times, differences)
    lasted = times[-1] - times[0]
    if abs(drift) > error and abs(drift) * lasted > LEAST_DRIFT_NS:
        moved = f"{drift * lasted / 1e6:+.2f} ms in {lasted / 1e9:.0f} s"
        raise _apart(name, first, f"they drift apart by {drift * 1e6:+.1f} ppm, {moved}")
    usual = float(np.median(differences))
    if abs(usual) > CLOSEST * period:
        raise _apart(name, first, f"their stamps lie {usual / 1e6:+.1f} ms apart, nearly half a period")
    low, high = np.percentile(differences, (5, 95))
    return Offset(
        offset_ms=-usual / 1e6,
        spread_ms=float(high - low) / 2e6,
        drift_ppm=drift * 1e6,
        drift_error_ppm=error * 1e6,
        matched=len(times),
    )


def _nearest(reference: Numbers, times: Numbers) -> Numbers:
    after = np.searchsorted(reference, times).clip(1, len(reference) - 1)
    earlier, later = reference[after - 1], reference[after]
    return np.asarray(np.where(times - earlier <= later - times, earlier, later))


def _slope(times: Numbers, values: Numbers) -> tuple[float, float]:
    """Least squares: values a time, and `SIGMAS` standard errors of it."""
    centred = times - times.mean()
    squares = float((centred**2).sum())
    slope = float((centred * values).sum()) / squares
    rest = values - values.mean() - slope * centred
    return slope, SIGMAS * float(np.sqrt((rest**2).sum() / max(1, len(times) - 2) / squares))


def _apart(name: str, first: str, why: str) -> DeviceError:
    return DeviceError(
        f"cameras {first} and {name} are not triggered together: {why}",
        hint="wire them to one trigger; cameras that run free need no offset_ms",
    )


def record_stamps(
    devices: Mapping[str, str], settings: Mapping[str, Settings], seconds: float, kernel: Kernel | None = None
) -> dict[str, list[int]]:
    """Stamps of all cameras, on CLOCK_MONOTONIC, over a while.

    Args:
        devices: camera to node.
        settings: of each.
        seconds: how long, after a second that does not count.
        kernel: a fake; the operating system if None.

    Raises:
        CameraError: a camera cannot be used, or is lost meanwhile.
    """
    cameras = prepare_cameras(devices, settings, kernel=kernel)
    begin_cameras(cameras)
    inbox = Inbox(devices, depth=2)
    thread = CaptureThread(cameras, inbox)
    clocks = {name: StampClock() for name in devices}
    stamps: dict[str, list[int]] = {name: [] for name in devices}
    thread.start()
    try:
        counts = time.monotonic() + WARM_UP
        while (now := time.monotonic()) < counts + seconds:
            for captured in inbox.take(0.1):
                instant = clocks[captured.camera].instant_ns(captured)
                captured.lease.release()
                if now >= counts:
                    stamps[captured.camera].append(instant)
            for camera, why in thread.away().items():
                if why is not None:
                    raise CameraError(f"camera {camera} was lost while it was measured: {why}")
    finally:
        thread.stop()
    return {name: sorted(set(found)) for name, found in stamps.items()}
