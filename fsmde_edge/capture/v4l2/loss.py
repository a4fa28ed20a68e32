"""What was lost between two pictures of one camera: by their stamps, and by their numbers if those tell."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple

WRAP = 1 << 32
JUMP_NS = 1_000_000_000
"""A stamp that lies further back than this begins a new time line; a smaller step back is a late picture."""

STEADY = 9
"""Equal intervals in a row that make a rate."""

WIDE = 1.75
"""Periods between two stamps from which on a picture is missing: jitter stays below."""


class Cause(str, Enum):
    """Why a picture never became part of a set."""

    GAP = "gap"
    LATE = "late"
    ERROR = "error flag"
    SLOW = "slow consumer"
    UNMATCHED = "unmatched"
    """The other cameras showed nothing of the same instant."""


class Step(NamedTuple):
    """From the picture before to this one."""

    lost: int
    late: bool


class Losses:
    """Follows one camera's stamps and numbers.

    A driver may number only what it gives out, so a gap in time counts although the numbers go on; once its
    numbers have been seen to skip, they are believed, and jitter is not taken for loss.
    """

    def __init__(self, period_ns: int | None) -> None:
        """Start.

        Args:
            period_ns: between two pictures as the driver says, or None if it does not.
        """
        self._period = period_ns
        self._skips = False
        self._intervals: deque[int] = deque(maxlen=STEADY)
        self._last: tuple[int, int] | None = None

    @property
    def period_ns(self) -> int | None:
        """Time between two pictures: as the driver says, or as measured where that is steady."""
        return self._period

    def restart(self) -> None:
        """The stream began anew: the next picture follows nothing."""
        self._last = None
        self._intervals.clear()

    def step(self, sequence: int, stamp_ns: int) -> Step:
        """Take note of a picture.

        Args:
            sequence: the driver's number, modulo 2**32.
            stamp_ns: the driver's stamp.
        """
        last, period = self._last, self.period_ns
        if last is None:
            self._last = (sequence, stamp_ns)
            return Step(0, False)
        passed = stamp_ns - last[1]
        if -JUMP_NS < passed <= 0:
            return Step(0, True)
        self._last = (sequence, stamp_ns)
        if passed < 0:
            self._intervals.clear()
            return Step(0, False)
        by_number = self._by_number((sequence - last[0]) % WRAP, passed, period)
        by_time = 0 if period is None or passed < WIDE * period else round(passed / period) - 1
        self._skips |= by_number > 0
        lost = by_number if self._skips else by_time
        self._measure(passed // (by_number + 1))
        return Step(lost, False)

    def _measure(self, interval: int) -> None:
        """A camera that slows down in the dark does so evenly; loss is not even."""
        self._intervals.append(interval)
        least, most = min(self._intervals), max(self._intervals)
        if len(self._intervals) == STEADY and most < 1.3 * least:
            self._period = sum(self._intervals) // STEADY

    def _by_number(self, step: int, passed: int, period: int | None) -> int:
        if not 1 < step < WRAP // 2:
            return 0  # the next, the same again, or numbers that began anew
        most = step if period is None else 2 * passed // period + 2
        return step - 1 if step <= most else 0
