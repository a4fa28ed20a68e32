"""Pictures without a camera, for tests of what becomes of them."""

from __future__ import annotations

from fsmde_edge.capture.lease import Captured
from fsmde_edge.frames import Clock, ExposurePoint, Stamp

MS = 1_000_000


class CountedLease:
    """A lease that knows how often it was given back."""

    def __init__(self, camera: str, sequence: int, stamp_ns: int) -> None:
        self.camera, self.sequence, self.stamp_ns, self.released = camera, sequence, stamp_ns, 0

    def view(self) -> memoryview:
        return memoryview(b"")

    def release(self) -> None:
        self.released += 1


def picture(
    camera: str,
    stamp_ns: int,
    *,
    sequence: int = 0,
    arrival_ns: int | None = None,
    exposure: ExposurePoint = ExposurePoint.END,
) -> Captured:
    return Captured(
        camera=camera,
        lease=CountedLease(camera, sequence, stamp_ns),
        stamp=Stamp(stamp_ns, Clock.MONOTONIC, exposure),
        sequence=sequence,
        arrival_ns=stamp_ns if arrival_ns is None else arrival_ns,
    )
