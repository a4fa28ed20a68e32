"""One camera's stamps on the clock that all cameras share."""

from __future__ import annotations

from collections import deque

from fsmde_edge.capture.lease import Captured
from fsmde_edge.frames import ExposurePoint

PLAUSIBLE_NS = 2_000_000_000
"""A stamp that lies further than this from the picture's arrival was read from another clock."""

MEASURED = 64
"""Newest pictures by which another clock is measured, and the usual delay."""


class StampClock:
    """Brings a camera's stamps to CLOCK_MONOTONIC, at the exposure's middle where that can be known.

    Some CSI drivers stamp with another clock though they say MONOTONIC. Its offset is measured then: the
    picture that came fastest counts as exposed when it came, so ages lack the way that every picture takes.
    """

    def __init__(self, *, offset_ns: int = 0, exposure_ns: int | None = None) -> None:
        """Start.

        Args:
            offset_ns: what is to be added to its stamps to agree with the other cameras.
            exposure_ns: how long it exposes, if that is fixed and known.
        """
        self._constant, self._exposure = offset_ns, exposure_ns
        self._delays: deque[int] = deque(maxlen=MEASURED)
        self.foreign_ns: int | None = None
        """What is added to stamps of another clock; None while they are CLOCK_MONOTONIC's own."""
        self.point = ExposurePoint.UNKNOWN
        """What instants mark."""

    @property
    def delay_ns(self) -> int | None:
        """Usual time from stamp to arrival; None before the first picture."""
        return sorted(self._delays)[len(self._delays) // 2] if self._delays else None

    def instant_ns(self, captured: Captured) -> int:
        """When a picture was exposed, on CLOCK_MONOTONIC."""
        stamp = captured.stamp
        delay = captured.arrival_ns - stamp.ns
        if self._delays and abs(delay - self._delays[-1]) > PLAUSIBLE_NS:
            self._delays.clear()  # its clock was set
        self._delays.append(delay)
        self.foreign_ns = None if abs(delay) <= PLAUSIBLE_NS else min(self._delays)
        shift = 0
        self.point = stamp.exposure
        if stamp.exposure is ExposurePoint.START and self._exposure is not None:
            shift, self.point = self._exposure // 2, ExposurePoint.MIDDLE
        return stamp.ns + (self.foreign_ns or 0) + self._constant + shift
